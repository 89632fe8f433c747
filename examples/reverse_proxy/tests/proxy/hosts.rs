use super::support::*;

async fn status(world: &World, request: &str) -> String {
    let response = world.raw(request).await;
    let line = response.lines().next().unwrap_or_default();
    line.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_request_whose_host_is_missing_or_in_doubt_is_a_400_and_no_call() {
    let world = World::new(&[]).await;
    for head in [
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n",
        "GET / HTTP/1.1\r\nHost: a.example, b.example\r\n",
        "GET / HTTP/1.1\r\nHost: a.example/path\r\n",
        "GET / HTTP/1.1\r\nHost: ann@a.example\r\n",
        "GET http://a.example/ HTTP/1.1\r\n",
        "GET / HTTP/1.0\r\nHost: a.example\r\nHost: b.example\r\n",
    ] {
        let found = status(&world, &format!("{head}Connection: close\r\n\r\n")).await;
        assert_eq!(found, "400", "{head}");
    }
    assert_eq!(world.calls(), 0);
}

#[tokio::test]
async fn an_old_client_needs_no_host() {
    let world = World::new(&[]).await;
    assert_eq!(status(&world, "GET / HTTP/1.0\r\n\r\n").await, "200");
}

#[tokio::test]
async fn a_target_with_user_information_is_a_400_and_no_call() {
    let world = World::new(&[]).await;
    let request =
        "GET http://ann:secret@a.example/ HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&world, request).await, "400");
    assert_eq!(world.calls(), 0);
}

#[tokio::test]
async fn the_authority_of_the_target_is_the_host() {
    let world = World::new(&[]).await;
    let response = world
        .raw("GET http://a.example:81/p HTTP/1.1\r\nHost: b.example\r\nConnection: close\r\n\r\n")
        .await;
    assert!(
        response.contains("x-forwarded-host: a.example:81\n"),
        "{response}"
    );
    assert!(response.contains("GET /p\n"), "{response}");
}

#[tokio::test]
async fn the_clients_host_reaches_the_origin_on_request() {
    let world = World::new(&["--preserve-host"]).await;
    let response = world
        .raw("GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")
        .await;
    assert!(response.contains("\nhost: a.example\n"), "{response}");
}
