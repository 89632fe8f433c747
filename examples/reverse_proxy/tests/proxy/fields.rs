use super::support::*;

#[tokio::test]
async fn what_belongs_to_one_hop_does_not_reach_the_origin() {
    let world = World::new(&[]).await;
    let response = world
        .raw(
            "GET /?q=1 HTTP/1.1\r\nHost: example.org\r\nConnection: close, X-Hop\r\nConnection: x-other\r\n\
             X-Hop: 1\r\nX-Other: 1\r\nX-End: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
             Proxy-Authorization: Basic Zm9v\r\nTE: trailers, deflate\r\nUpgrade: h2c\r\nVia: 1.0 fred\r\n\
             X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\nX-Forwarded-Proto: https\r\n\
             X-Forwarded-Host: claimed.example\r\n\r\n",
        )
        .await;
    let (_, body) = response.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<_> = body.lines().collect();
    lines.sort_unstable();
    let host = lines.remove(3);
    assert!(host.starts_with("host: 127.0.0.1:"), "{body}");
    assert_eq!(
        lines,
        [
            "GET /?q=1",
            "connection: te",
            "forwarded: for=127.0.0.1;host=\"example.org\";proto=http",
            "te: trailers",
            "via: 1.0 fred",
            "via: 1.1 singleflight",
            "x-end: 1",
            "x-forwarded-for: 192.0.2.1, 192.0.2.2, 127.0.0.1",
            "x-forwarded-host: example.org",
            "x-forwarded-proto: http",
            "x-real-ip: 127.0.0.1",
        ]
    );
}

#[tokio::test]
async fn what_belongs_to_one_hop_does_not_reach_the_client() {
    let (origin, _) = one_answer(
        "HTTP/1.0 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: close\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\nX-End: 1\r\nVia: 1.1 other\r\n\r\npage",
    )
    .await;
    let world = World::before(origin, &["--cache-status", "proxy"]).await;
    let uri = format!("http://{}/", world.proxy);
    let response = client().get(uri.parse().unwrap()).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_11);
    let mut fields: Vec<_> = response
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .filter(|field| !field.starts_with("date: ") && field != "transfer-encoding: chunked")
        .collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "cache-status: proxy; fwd=miss",
            "via: 1.0 singleflight",
            "via: 1.1 other",
            "x-end: 1",
        ]
    );
    assert_eq!(text(response).await.1, "page");
}

#[tokio::test]
async fn an_h2c_request_reaches_the_origin_in_the_form_of_http_1() {
    let world = World::new(&[]).await;
    let request = Request::get(format!("http://{}/path", world.proxy))
        .header(header::COOKIE, "a=1")
        .header(header::COOKIE, "b=2")
        .body(Full::default())
        .unwrap();
    let (status, said) = text(h2c().request(request).await.unwrap()).await;
    assert_eq!(status, StatusCode::OK);
    let expected = [
        "GET /path\n".to_owned(),
        "cookie: a=1; b=2\n".to_owned(),
        "via: 2 singleflight\n".to_owned(),
        format!("x-forwarded-host: {}\n", world.proxy),
    ];
    for expected in expected {
        assert!(said.contains(&expected), "{expected}{said}");
    }
}

#[tokio::test]
async fn a_prefix_of_the_upstream_is_put_before_the_path() {
    let origin = World::new(&[]).await;
    // A proxy before the proxy: two of them in `Via`.
    let upstream = format!("http://{}/base/", origin.proxy);
    let world = World::before_url(&upstream, origin.proxy, &[]).await;
    let (_, said) = world.get("/path?q").await.unwrap();
    assert!(said.starts_with("GET /base/path?q\n"), "{said}");
    assert_eq!(said.matches("via: 1.1 singleflight\n").count(), 2, "{said}");
    assert!(
        said.contains("x-forwarded-for: 127.0.0.1, 127.0.0.1\n"),
        "{said}"
    );
}
