//! The reverse proxy against real origins on loopback.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use clap::Parser;
use http::{Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use reverse_proxy::{Cli, Proxy};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore, mpsc, oneshot},
    task::JoinHandle,
};

type Chunks = mpsc::UnboundedReceiver<Result<Frame<Bytes>, Infallible>>;
type OriginBody = Either<Full<Bytes>, StreamBody<Stream>>;

/// A channel as a stream.
struct Stream(Chunks);

/// An origin whose answers wait for permits, and the proxy before it.
struct World {
    proxy: SocketAddr,
    admin: SocketAddr,
    /// Calls that have reached the origin.
    calls: Arc<AtomicUsize>,
    called: Arc<Notify>,
    /// One permit lets one call of `/gated...` be answered.
    gate: Arc<Semaphore>,
    stop: Option<oneshot::Sender<()>>,
    done: JoinHandle<std::io::Result<()>>,
}

// ===== impl Stream =====

impl futures_util::Stream for Stream {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

// ===== impl World =====

impl World {
    /// `/gated...` waits for a permit, `/echo` gives the request body back frame by frame, all else says what was asked.
    async fn new(options: &[&str]) -> Self {
        let calls = Arc::new(AtomicUsize::new(0));
        let (called, gate) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = listener.local_addr().unwrap();
        let service = {
            let (calls, called, gate) = (calls.clone(), called.clone(), gate.clone());
            hyper::service::service_fn(move |request: Request<Incoming>| {
                let (calls, called, gate) = (calls.clone(), called.clone(), gate.clone());
                async move {
                    calls.fetch_add(1, Ordering::SeqCst);
                    called.notify_waiters();
                    if request.uri().path().starts_with("/gated") {
                        gate.acquire().await.unwrap().forget();
                    }
                    Ok::<_, Infallible>(answer(request))
                }
            })
        };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let server = hyper::server::conn::http1::Builder::new();
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service.clone()));
            }
        });
        let mut world = Self::before(origin, options).await;
        (world.calls, world.called, world.gate) = (calls, called, gate);
        world
    }

    /// Before any origin.
    async fn before(origin: SocketAddr, options: &[&str]) -> Self {
        let upstream = format!("http://{origin}");
        let fixed = ["proxy", "--upstream", &upstream];
        let ports = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        let cli = Cli::parse_from(fixed.iter().chain(&ports).chain(options));
        let proxy = Proxy::bind(cli).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        Self {
            proxy: proxy.address().unwrap(),
            admin: proxy.admin_address().unwrap().unwrap(),
            calls: Arc::default(),
            called: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
            stop: Some(stop),
            done: tokio::spawn(proxy.serve(async {
                let _ = stopped.await;
            })),
        }
    }

    async fn until_called(&self, calls: usize) {
        loop {
            let called = self.called.notified();
            if self.calls.load(Ordering::SeqCst) >= calls {
                return;
            }
            called.await;
        }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    async fn stats(&self) -> serde_json::Value {
        serde_json::from_str(&self.operate(Method::GET, "/stats").await.1).unwrap()
    }

    async fn until_stats(&self, name: &str, value: u64) {
        while self.stats().await[name] != value {
            tokio::task::yield_now().await;
        }
    }

    async fn operate(&self, method: Method, path: &str) -> (StatusCode, String) {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.admin))
            .body(Full::<Bytes>::default());
        text(client().request(request.unwrap()).await.unwrap()).await
    }

    fn get(&self, path: &str) -> JoinHandle<(StatusCode, String)> {
        let request = Request::get(format!("http://{}{path}", self.proxy));
        let call = client().request(request.body(Full::default()).unwrap());
        tokio::spawn(async { text(call.await.unwrap()).await })
    }

    /// Sends `request` as it stands, with `Connection: close` in it, and gives all that comes.
    async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.proxy).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).await.unwrap();
        all
    }
}

fn client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

async fn text(response: Response<Incoming>) -> (StatusCode, String) {
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn answer(request: Request<Incoming>) -> Response<OriginBody> {
    if request.uri().path() == "/echo" {
        let (send, chunks) = mpsc::unbounded_channel();
        let mut body = request.into_body();
        tokio::spawn(async move {
            while let Some(Ok(frame)) = body.frame().await {
                if send.send(Ok(frame)).is_err() {
                    return;
                }
            }
        });
        let mut response = Response::new(Either::Right(StreamBody::new(Stream(chunks))));
        let trailer = header::HeaderValue::from_static("x-sum");
        response.headers_mut().insert(header::TRAILER, trailer);
        return response;
    }
    let mut said = format!("{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        said.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
    }
    Response::new(Either::Left(Full::from(said)))
}

/// An origin that accepts one connection, reads one head and sends `response`, then closes. Gives the head.
async fn one_answer(response: &'static str) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let head = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_head(&mut stream).await;
        stream.write_all(response.as_bytes()).await.unwrap();
        head
    });
    (address, head)
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

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
    let h2c = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http::<Full<Bytes>>();
    let first = tokio::spawn(h2c.get(uri.parse().unwrap()));
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
    let host = lines.remove(2);
    assert!(host.starts_with("host: 127.0.0.1:"), "{body}");
    assert_eq!(
        lines,
        [
            "GET /?q=1",
            "connection: te",
            "te: trailers",
            "via: 1.0 fred",
            "via: 1.1 singleflight",
            "x-end: 1",
            "x-forwarded-for: 192.0.2.1, 192.0.2.2, 127.0.0.1",
            "x-forwarded-host: example.org",
            "x-forwarded-proto: http",
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
    let h2c = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http::<Full<Bytes>>();
    let request = Request::get(format!("http://{}/path", world.proxy))
        .header(header::COOKIE, "a=1")
        .header(header::COOKIE, "b=2")
        .body(Full::default())
        .unwrap();
    let (status, said) = text(h2c.request(request).await.unwrap()).await;
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
async fn an_upstream_that_is_not_there_is_a_502_for_all() {
    // Nobody listens where a listener has just been.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = listener.local_addr().unwrap();
    drop(listener);
    let world = World::before(origin, &[]).await;
    let (status, body) = world.get("/").await.unwrap();
    assert_eq!(
        (status, body.as_str()),
        (StatusCode::BAD_GATEWAY, "upstream unreachable\n")
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
        (StatusCode::BAD_GATEWAY, "upstream broke off\n")
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

#[tokio::test]
async fn frames_and_trailers_pass_both_ways_as_they_come() {
    let world = World::new(&[]).await;
    let (send, chunks) = mpsc::unbounded_channel();
    let streaming = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::post(format!("http://{}/echo", world.proxy))
        .header(header::TE, "trailers")
        .header(header::TRAILER, "x-sum")
        .body(StreamBody::new(Stream(chunks)))
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
    world.done.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_prefix_of_the_upstream_is_put_before_the_path() {
    let origin = World::new(&[]).await;
    // A proxy before the proxy: two of them in `Via`.
    let upstream = format!("http://{}/base/", origin.proxy);
    let listen = ["proxy", "--listen", "127.0.0.1:0", "--upstream", &upstream];
    let proxy = Proxy::bind(Cli::parse_from(listen)).await.unwrap();
    let address = proxy.address().unwrap();
    tokio::spawn(proxy.serve(std::future::pending()));
    let uri = format!("http://{address}/path?q");
    let (_, said) = text(client().get(uri.parse().unwrap()).await.unwrap()).await;
    assert!(said.starts_with("GET /base/path?q\n"), "{said}");
    assert_eq!(said.matches("via: 1.1 singleflight\n").count(), 2, "{said}");
    assert!(
        said.contains("x-forwarded-for: 127.0.0.1, 127.0.0.1\n"),
        "{said}"
    );
}

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
        "# TYPE singleflight_led_total counter",
        "singleflight_led_total 1",
        "reverse_proxy_upstream_calls_total 1",
        "# TYPE singleflight_waiters gauge",
        "singleflight_waiters 0",
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
