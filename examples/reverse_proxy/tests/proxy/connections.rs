use super::support::*;

#[tokio::test]
async fn frames_and_trailers_pass_both_ways_as_they_come() {
    let world = World::new(&[]).await;
    let (send, chunks) = mpsc::unbounded_channel();
    let streaming = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::post(format!("http://{}/echo", world.proxy))
        .header(header::TE, "trailers")
        .header(header::TRAILER, "x-sum")
        .body(StreamBody::new(Chunks(chunks)))
        .unwrap();
    // The head of the response is there before the request has a body.
    let mut response = streaming.request(request).await.unwrap();
    for chunk in ["one", "two", "three"] {
        send.send(Ok(Frame::data(Bytes::from(chunk)))).unwrap();
        let frame = response.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), chunk);
    }
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", "3".parse().unwrap());
    send.send(Ok(Frame::trailers(trailers.clone()))).unwrap();
    drop(send);
    let frame = response.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_trailers().unwrap(), trailers);
    assert_eq!(world.stats().await["bypassed"], 1);
}

#[tokio::test]
async fn an_upgrade_is_tunnelled() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::before(listener.local_addr().unwrap(), &[]).await;
    let origin = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_head(&mut stream).await;
        let answer =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: shout\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut word = [0; 5];
        stream.read_exact(&mut word).await.unwrap();
        stream.write_all(&word.to_ascii_uppercase()).await.unwrap();
        head
    });
    let mut stream = TcpStream::connect(world.proxy).await.unwrap();
    let request = "GET / HTTP/1.1\r\nHost: here\r\nConnection: upgrade\r\nUpgrade: shout\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("upgrade: shout\r\n"), "{head}");
    stream.write_all(b"hello").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "HELLO");
    let asked = origin.await.unwrap();
    assert!(asked.contains("connection: upgrade\r\n"), "{asked}");
    assert!(asked.contains("upgrade: shout\r\n"), "{asked}");
}

#[tokio::test]
async fn stopping_lets_what_is_in_the_air_land() {
    let mut world = World::new(&[]).await;
    let clients: Vec<_> = (0..10).map(|_| world.get("/gated")).collect();
    world.until_stats("waiters", 10).await;
    world.stop.take().unwrap().send(()).unwrap();
    // Nobody new is let in.
    while TcpStream::connect(world.proxy).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!world.done.is_finished());
    assert_eq!(world.stats().await["waiters"], 10);
    world.gate.add_permits(1);
    for client in clients {
        assert_eq!(client.await.unwrap().0, StatusCode::OK);
    }
    world.done.await.unwrap();
}

#[tokio::test]
async fn stopping_has_a_limit() {
    let mut world = World::new(&["--drain-timeout", "100ms"]).await;
    let client = world.get("/gated");
    world.until_called(1).await;
    world.stop.take().unwrap().send(()).unwrap();
    world.done.await.unwrap();
    // The client is not left hanging.
    assert!(client.await.is_err());
}
