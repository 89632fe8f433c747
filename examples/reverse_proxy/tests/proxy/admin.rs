use super::support::*;

#[tokio::test]
async fn the_operator_can_forget_a_flight() {
    let world = World::new(&[]).await;
    let before = world.get("/gated?a=1");
    world.until_called(1).await;
    for (path, forgotten) in [
        ("/forget?uri=/gated", 0),
        ("/forget?uri=%2Fgated%3Fa%3D1", 1),
        ("/forget?uri=%2Fgated%3Fa%3D1", 0),
    ] {
        let (status, body) = world.operate(Method::POST, path).await;
        let expected = format!("{{\"forgotten\":{forgotten}}}");
        assert_eq!((status, body), (StatusCode::OK, expected), "{path}");
    }
    let after = world.get("/gated?a=1");
    world.until_called(2).await;
    world.gate.add_permits(2);
    assert_eq!(before.await.unwrap().0, StatusCode::OK);
    assert_eq!(after.await.unwrap().0, StatusCode::OK);
    let (status, _) = world.operate(Method::POST, "/forget").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = world.operate(Method::GET, "/forget?uri=/").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn the_operator_can_switch_coalescing_off_and_on() {
    let world = World::new(&[]).await;
    let (status, body) = world.operate(Method::POST, "/enabled?on=false").await;
    assert_eq!(
        (status, body.as_str()),
        (StatusCode::OK, "{\"enabled\":false}")
    );
    let clients = [world.get("/gated"), world.get("/gated")];
    world.until_called(2).await;
    assert_eq!(world.stats().await["enabled"], false);
    world.operate(Method::POST, "/enabled?on=true").await;
    let more = [world.get("/gated"), world.get("/gated")];
    world.until_stats("joined", 1).await;
    world.until_called(3).await;
    world.gate.add_permits(3);
    for client in clients.into_iter().chain(more) {
        assert_eq!(client.await.unwrap().0, StatusCode::OK);
    }
    assert_eq!(world.calls(), 3);
    let (status, _) = world.operate(Method::POST, "/enabled?on=maybe").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn metrics_events_and_the_page_are_served() {
    let world = World::new(&[]).await;
    world.get("/").await.unwrap();
    let (_, metrics) = world.operate(Method::GET, "/metrics").await;
    for line in [
        "# TYPE singleflight_requests_total counter",
        "singleflight_requests_total{layer=\"reverse_proxy\",role=\"leader\"} 1",
        "reverse_proxy_upstream_calls_total 1",
        "# TYPE singleflight_waiters gauge",
        "singleflight_waiters{layer=\"reverse_proxy\"} 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{metrics}");
    }
    let uri = format!("http://{}/events", world.admin);
    let mut events = client().get(uri.parse().unwrap()).await.unwrap();
    assert_eq!(events.headers()[header::CONTENT_TYPE], "text/event-stream");
    for _ in 0..2 {
        let event = events.frame().await.unwrap().unwrap().into_data().unwrap();
        let data = event.strip_prefix(b"data: ").unwrap();
        let data: serde_json::Value = serde_json::from_slice(data).unwrap();
        assert_eq!((&data["requests"], &data["led"]), (&1.into(), &1.into()));
    }
    let (status, page) = world.operate(Method::GET, "/").await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.starts_with("<!doctype html>") && !page.contains("//cdn"));
}

#[tokio::test]
async fn another_sites_page_can_not_press_the_buttons() {
    let world = World::new(&[]).await;
    let request = Request::post(format!("http://{}/enabled?on=false", world.admin))
        .header("sec-fetch-site", "cross-site")
        .body(Full::default());
    let response = client().request(request.unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(world.stats().await["enabled"], true);
}

async fn status(world: &World, method: Method, path: &str, fields: &[(&str, &str)]) -> StatusCode {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    // A client of HTTP/1.1 by hand: others would mend the Host.
    let stream = TcpStream::connect(world.admin).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let request = request.body(Full::<Bytes>::default()).unwrap();
    sender.send_request(request).await.unwrap().status()
}

#[tokio::test]
async fn a_name_that_a_stranger_chose_is_not_the_admin_ports() {
    let world = World::new(&["--admin-host", "proxy.internal"]).await;
    let own = world.admin.to_string();
    for (host, expected) in [
        (&*own, 200),
        ("127.0.0.1", 200),
        ("localhost:8081", 200),
        ("[::1]:8081", 200),
        ("proxy.internal:81", 200),
        ("Proxy.Internal", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("evil.example@127.0.0.1", 400),
        ("127.0.0.1@evil.example", 400),
        ("", 400),
        ("a b", 400),
    ] {
        for path in ["/", "/stats", "/metrics", "/main.js"] {
            let found = status(&world, Method::GET, path, &[("host", host)]).await;
            assert_eq!(found, expected, "{host} {path}");
        }
        let found = status(&world, Method::POST, "/forget?all=true", &[("host", host)]).await;
        assert_eq!(found, expected, "{host}");
    }
    let two = [("host", &*own), ("host", "evil.example")];
    let found = status(&world, Method::GET, "/stats", &two).await;
    assert_eq!(found, 400);
    assert_eq!(status(&world, Method::GET, "/stats", &[]).await, 400);
}

#[tokio::test]
async fn a_page_without_tls_can_not_press_the_buttons_either() {
    let world = World::new(&[]).await;
    let (host, own) = (world.admin.to_string(), format!("http://{}", world.admin));
    for (origin, expected) in [
        (&*own, 200),
        ("http://evil.example", 403),
        ("http://127.0.0.1", 403),
        ("null", 403),
        ("", 403),
    ] {
        let fields = [("host", &*host), ("origin", origin)];
        for path in ["/forget?all=true", "/enabled?on=true"] {
            let found = status(&world, Method::POST, path, &fields).await;
            assert_eq!(found, expected, "{origin} {path}");
        }
    }
}

#[tokio::test]
async fn everybody_may_ask_whether_the_proxy_is_well() {
    let mut world = World::new(&[]).await;
    let ask = [("host", "balancer.example")];
    assert_eq!(status(&world, Method::GET, "/healthz", &ask).await, 200);
    let client = world.get("/gated");
    world.until_called(1).await;
    world.stop.take().unwrap().send(()).unwrap();
    while status(&world, Method::GET, "/healthz", &ask).await == 200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(status(&world, Method::GET, "/healthz", &ask).await, 503);
    assert_eq!(world.stats().await["draining"], true);
    world.gate.add_permits(1);
    assert_eq!(client.await.unwrap().0, StatusCode::OK);
    world.done.await.unwrap();
}

#[tokio::test]
async fn sixteen_pages_may_be_open() {
    let world = World::new(&[]).await;
    let uri: http::Uri = format!("http://{}/events", world.admin).parse().unwrap();
    let mut pages = Vec::new();
    for _ in 0..16 {
        let page = client().get(uri.clone()).await.unwrap();
        assert_eq!(page.status(), StatusCode::OK);
        pages.push(page);
    }
    let one_more = client().get(uri.clone()).await.unwrap();
    assert_eq!(one_more.status(), StatusCode::SERVICE_UNAVAILABLE);
    pages.pop();
    while client().get(uri.clone()).await.unwrap().status() != StatusCode::OK {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_operator_can_forget_all_flights() {
    let world = World::new(&[]).await;
    let clients = [world.get("/gated/a"), world.get("/gated/b")];
    world.until_called(2).await;
    let (status, body) = world.operate(Method::POST, "/forget?all=true").await;
    assert_eq!((status, &*body), (StatusCode::OK, "{\"forgotten\":2}"));
    world.gate.add_permits(2);
    for client in clients {
        assert_eq!(client.await.unwrap().0, StatusCode::OK);
    }
    let (status, _) = world.operate(Method::POST, "/forget?all=maybe").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_hottest_paths_are_named_without_their_queries() {
    let world = World::new(&[]).await;
    for _ in 0..3 {
        world.get("/other").await.unwrap();
    }
    let clients: Vec<_> = (0..10).map(|_| world.get("/gated?token=secret")).collect();
    world.until_stats("waiters", 10).await;
    world.gate.add_permits(1);
    for client in clients {
        client.await.unwrap();
    }
    let stats = world.stats().await;
    let expected = serde_json::json!([
        { "path": "/gated", "requests": 10, "saved": 9 },
        { "path": "/other", "requests": 3, "saved": 0 },
    ]);
    assert_eq!(stats["hot"], expected);
    assert!(
        stats["latency_ms"]["p99"]
            .as_f64()
            .is_some_and(|ms| ms > 0.0)
    );
}
