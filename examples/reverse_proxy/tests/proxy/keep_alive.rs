//! Connections to the origin that are used again, and break.

use super::support::*;

const PAGE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage";
/// The first connection breaks with the second request on it.
const BREAKS: &[&[&str]] = &[&[PAGE, ""], &[PAGE, PAGE]];

async fn warmed(script: &'static [&'static [&'static str]]) -> (Script, World) {
    let origin = Script::new(script).await;
    let world = World::before(origin.address, &[]).await;
    let (status, _) = world.get("/warm").await.unwrap();
    assert_eq!(status, StatusCode::OK);
    (origin, world)
}

#[tokio::test]
async fn a_connection_that_broke_while_it_lay_idle_costs_nobody_an_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::before(listener.local_addr().unwrap(), &[]).await;
    let (break_it, broken) = oneshot::channel();
    let origin = tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        read_head(&mut first).await;
        first.write_all(PAGE.as_bytes()).await.unwrap();
        read_head(&mut first).await;
        broken.await.unwrap();
        drop(first);
        let (mut second, _) = listener.accept().await.unwrap();
        let again = read_head(&mut second).await;
        second.write_all(PAGE.as_bytes()).await.unwrap();
        again
    });
    assert_eq!(world.get("/warm").await.unwrap().0, StatusCode::OK);
    let clients: Vec<_> = (0..50).map(|_| world.get("/hot?x=1")).collect();
    world.until_stats("waiters", 50).await;
    break_it.send(()).unwrap();
    for client in clients {
        let answer = client.await.unwrap();
        assert_eq!(answer, (StatusCode::OK, "page".to_owned()));
    }
    let again = origin.await.unwrap();
    assert!(again.starts_with("get /hot?x=1 "), "{again}");
    let stats = world.stats().await;
    for (name, value) in [
        ("upstream_calls", 3),
        ("upstream_retries", 1),
        ("upstream_failures", 0),
        ("in_flight", 0),
    ] {
        assert_eq!(stats[name], value, "{name}");
    }
}

#[tokio::test]
async fn the_second_try_does_not_meet_another_broken_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::before(listener.local_addr().unwrap(), &[]).await;
    tokio::spawn(async move {
        // Two connections are open at the same time, and both break with the next request on them.
        let (mut first, _) = listener.accept().await.unwrap();
        let (mut second, _) = listener.accept().await.unwrap();
        for stream in [&mut first, &mut second] {
            read_head(stream).await;
            stream.write_all(PAGE.as_bytes()).await.unwrap();
        }
        for mut stream in [first, second] {
            tokio::spawn(async move { read_head(&mut stream).await });
        }
        let (mut third, _) = listener.accept().await.unwrap();
        read_head(&mut third).await;
        third.write_all(PAGE.as_bytes()).await.unwrap();
    });
    for client in [world.get("/a"), world.get("/b")] {
        assert_eq!(client.await.unwrap().0, StatusCode::OK);
    }
    assert_eq!(world.get("/c").await.unwrap().0, StatusCode::OK);
}

#[tokio::test]
async fn an_answer_that_broke_off_is_not_asked_for_again() {
    let (origin, world) = warmed(&[&[PAGE, "HTTP/1.1 20"], &[PAGE]]).await;
    assert_eq!(world.get("/").await.unwrap().0, StatusCode::BAD_GATEWAY);
    assert_eq!(origin.connections(), [0, 0]);
}

#[tokio::test]
async fn a_new_connection_that_breaks_is_not_tried_again() {
    let origin = Script::new(&[&[""], &[PAGE]]).await;
    let world = World::before(origin.address, &[]).await;
    assert_eq!(world.get("/").await.unwrap().0, StatusCode::BAD_GATEWAY);
    assert_eq!(origin.connections(), [0]);
}

#[tokio::test]
async fn a_request_that_may_have_changed_something_is_not_sent_twice() {
    for (method, body) in [
        (Method::POST, ""),
        (Method::DELETE, ""),
        (Method::GET, "body"),
    ] {
        let (origin, world) = warmed(BREAKS).await;
        let request = Request::builder()
            .method(&method)
            .uri(format!("http://{}/", world.proxy))
            .body(Full::<Bytes>::from(body));
        let response = client().request(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY, "{method}");
        assert_eq!(origin.connections(), [0, 0], "{method}");
    }
}
