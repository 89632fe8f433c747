use super::support::*;

#[tokio::test]
async fn a_hundred_clients_make_one_call() {
    let world = World::new(&["--cache-status", "proxy"]).await;
    let clients: Vec<_> = (0..100).map(|_| world.get("/gated")).collect();
    world.until_stats("waiters", 100).await;
    world.gate.add_permits(1);
    let mut bodies = Vec::new();
    for client in clients {
        let (status, body) = client.await.unwrap();
        assert_eq!(status, StatusCode::OK);
        bodies.push(body);
    }
    bodies.dedup();
    assert_eq!((world.calls(), bodies.len()), (1, 1));
    let stats = world.stats().await;
    for (name, value) in [
        ("requests", 100),
        ("upstream_calls", 1),
        ("led", 1),
        ("joined", 99),
        ("followed", 99),
        ("in_flight", 0),
        ("waiters", 0),
        ("buffered_bytes", 0),
    ] {
        assert_eq!(stats[name], value, "{name}");
    }
}

#[tokio::test]
async fn clients_of_both_versions_share_a_call() {
    let world = World::new(&[]).await;
    let uri = format!("http://{}/gated", world.proxy);
    let first = tokio::spawn(h2c().get(uri.parse().unwrap()));
    let second = world.get("/gated");
    world.until_stats("waiters", 2).await;
    world.gate.add_permits(1);
    let first = first.await.unwrap().unwrap();
    assert_eq!(first.version(), Version::HTTP_2);
    assert_eq!(text(first).await, second.await.unwrap());
    assert_eq!(world.calls(), 1);
}

#[tokio::test]
async fn without_the_layer_each_client_makes_a_call() {
    let world = World::new(&["--no-coalesce"]).await;
    let clients: Vec<_> = (0..10).map(|_| world.get("/gated")).collect();
    world.until_called(10).await;
    world.gate.add_permits(10);
    for client in clients {
        assert_eq!(client.await.unwrap().0, StatusCode::OK);
    }
    let (status, _) = world.operate(Method::POST, "/enabled?on=true").await;
    assert_eq!(status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_response_without_a_length_is_not_held_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::before(listener.local_addr().unwrap(), &[]).await;
    let (release, released) = oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        let begin = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
        stream.write_all(begin.as_bytes()).await.unwrap();
        released.await.unwrap();
        stream.write_all(b"4\r\nlast\r\n0\r\n\r\n").await.unwrap();
    });
    let uri = format!("http://{}/", world.proxy);
    let mut response = client().get(uri.parse().unwrap()).await.unwrap();
    let frame = response.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "first");
    release.send(()).unwrap();
    assert_eq!(text(response).await.1, "last");
    world.until_stats("in_flight", 0).await;
}
