use super::support::*;

#[tokio::test]
async fn an_upstream_that_is_not_there_is_a_502_for_all() {
    let (_held, origin) = nobody();
    let world = World::before(origin, &[]).await;
    let (status, body) = world.get("/").await.unwrap();
    assert_eq!(
        (status, body.as_str()),
        (StatusCode::BAD_GATEWAY, "The upstream can't be reached.\n")
    );
    assert_eq!(world.stats().await["upstream_failures"], 1);
}

#[tokio::test]
async fn an_upstream_that_breaks_off_is_a_502() {
    let (origin, _) = one_answer("HTTP/1.1 200 OK\r\nContent-").await;
    let world = World::before(origin, &[]).await;
    let (status, body) = world.get("/").await.unwrap();
    assert_eq!(
        (status, body.as_str()),
        (
            StatusCode::BAD_GATEWAY,
            "The upstream broke off before its response was there.\n"
        )
    );
}

#[tokio::test]
async fn an_upstream_that_is_too_slow_is_a_504_for_all_who_share_the_call() {
    // It accepts, and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::before(listener.local_addr().unwrap(), &["--timeout", "300ms"]).await;
    let clients: Vec<_> = (0..10).map(|_| world.get("/")).collect();
    for client in clients {
        assert_eq!(client.await.unwrap().0, StatusCode::GATEWAY_TIMEOUT);
    }
    let stats = world.stats().await;
    assert_eq!(
        (stats["upstream_calls"].as_u64(), &stats["in_flight"]),
        (stats["upstream_failures"].as_u64(), &0.into())
    );
}

#[tokio::test]
async fn a_body_that_breaks_off_breaks_off_for_the_client() {
    let (origin, _) = one_answer("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart").await;
    let world = World::before(origin, &[]).await;
    let uri = format!("http://{}/", world.proxy);
    let response = client().get(uri.parse().unwrap()).await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_LENGTH], "100");
    assert!(response.into_body().collect().await.is_err());
    world.until_stats("in_flight", 0).await;
}

#[tokio::test]
async fn a_body_that_falls_silent_breaks_off_on_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = ["--body-timeout", "100ms"];
    let world = World::before(listener.local_addr().unwrap(), &options).await;
    let origin = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        let begin = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart";
        stream.write_all(begin.as_bytes()).await.unwrap();
        stream
    });
    let uri = format!("http://{}/", world.proxy);
    let mut response = client().get(uri.parse().unwrap()).await.unwrap();
    let frame = response.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "part");
    assert!(response.frame().await.unwrap().is_err());
    let stats = world.stats().await;
    assert_eq!(
        (&stats["broken_bodies"], &stats["in_flight"]),
        (&1.into(), &0.into())
    );
    drop(origin.await.unwrap());
}

#[tokio::test]
async fn a_dead_origin_is_no_secret_to_the_operator() {
    let (_held, origin) = nobody();
    let world = World::before(origin, &[]).await;
    for failed in 1..=3 {
        world.get("/").await.unwrap();
        let stats = world.stats().await;
        assert_eq!(stats["upstreams"][0]["failed_in_a_row"], failed);
        assert_eq!(stats["errors"], failed);
        let cause = stats["upstreams"][0]["cause"].as_str().unwrap();
        assert!(cause.contains("refused"), "{cause}");
    }
    let (_, metrics) = world.operate(Method::GET, "/metrics").await;
    assert!(
        metrics.contains("reverse_proxy_responses_total{class=\"5xx\"} 3\n"),
        "{metrics}"
    );
    assert!(
        metrics.contains("reverse_proxy_response_seconds_count 3\n"),
        "{metrics}"
    );
}
