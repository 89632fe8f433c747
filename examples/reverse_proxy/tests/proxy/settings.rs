//! Options of the layer.

use super::support::*;

const REQUEST: &str =
    "GET /gated HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Nonce: VALUE\r\n\r\n";

#[tokio::test]
async fn a_field_can_be_left_out_of_the_key() {
    for (options, calls) in [(&["--ignore-header", "x-nonce"][..], 1), (&[], 2)] {
        let world = World::new(options).await;
        let clients: Vec<_> = ["1", "2"]
            .map(|nonce| {
                let (to, request) = (world.proxy, REQUEST.replace("VALUE", nonce));
                tokio::spawn(async move { send_from("127.0.0.1", to, &request).await })
            })
            .into();
        world.until_stats("waiters", 2).await;
        world.until_called(calls).await;
        world.gate.add_permits(calls);
        for client in clients {
            assert!(client.await.unwrap().starts_with("HTTP/1.1 200 "));
        }
        assert_eq!(world.calls(), calls);
    }
}

#[tokio::test]
async fn the_number_of_waiters_can_be_limited() {
    let world = World::new(&["--max-waiters", "2"]).await;
    let clients: Vec<_> = (0..4).map(|_| world.get("/gated")).collect();
    world.until_called(3).await;
    world.gate.add_permits(3);
    for client in clients {
        assert_eq!(client.await.unwrap().0, StatusCode::OK);
    }
    assert_eq!(world.calls(), 3);
    world.until_stats("in_flight", 0).await;
}

#[tokio::test]
async fn without_memory_for_copies_followers_make_their_own_calls() {
    let world = World::new(&["--max-buffered", "0"]).await;
    let clients: Vec<_> = (0..3).map(|_| world.get("/gated")).collect();
    world.until_stats("waiters", 3).await;
    world.gate.add_permits(3);
    for client in clients {
        assert_eq!(client.await.unwrap().0, StatusCode::OK);
    }
    assert_eq!(world.calls(), 3);
    world.until_stats("in_flight", 0).await;
}

#[tokio::test]
async fn a_call_whose_body_is_silent_for_too_long_is_not_joined() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = ["--max-silence", "50ms"];
    let world = World::before(listener.local_addr().unwrap(), &options).await;
    let first = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        let begin = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart";
        stream.write_all(begin.as_bytes()).await.unwrap();
        (listener, stream)
    });
    let uri: http::Uri = format!("http://{}/", world.proxy).parse().unwrap();
    let mut leader = client().get(uri.clone()).await.unwrap();
    leader.frame().await.unwrap().unwrap();
    let (listener, _silent) = first.await.unwrap();
    // Whoever comes too early joins the silent call.
    let mut early = Vec::new();
    let (mut stream, _) = loop {
        early.push(tokio::spawn(client().get(uri.clone())));
        let next = std::time::Duration::from_millis(20);
        if let Ok(accepted) = tokio::time::timeout(next, listener.accept()).await {
            break accepted.unwrap();
        }
    };
    read_head(&mut stream).await;
    let page = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage";
    stream.write_all(page.as_bytes()).await.unwrap();
    let answer = early.pop().unwrap().await.unwrap().unwrap();
    assert_eq!(text(answer).await, (StatusCode::OK, "page".to_owned()));
}
