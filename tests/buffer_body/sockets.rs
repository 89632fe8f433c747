//! Request bodies as real connections bring them.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::client::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::{Semaphore, mpsc},
};
use tower::BoxError;
use tower::{ServiceBuilder, service_fn};
use tower_singleflight::{
    BodyBytes, BufferBodyLayer, BufferedBody, Handle, RequestKey, RequestKeyExtractor,
    ResponseBody, Role, SingleflightLayer,
};

use crate::support::{assert_idle, settle};

/// The largest body that is read ahead.
const MAX: usize = 1000;

/// A server whose handler reads the body, waits at a gate and answers with what it has read.
#[derive(Clone)]
struct Server {
    layer: SingleflightLayer,
    buffer: BufferBodyLayer,
    gate: Arc<Semaphore>,
    /// What was read of each body, its trailers and how it ended.
    read: mpsc::UnboundedSender<Read>,
}

#[derive(Debug, PartialEq)]
struct Read {
    body: Bytes,
    trailers: Option<HeaderMap>,
    whole: bool,
    ahead: bool,
}

type Reads = mpsc::UnboundedReceiver<Read>;

fn server() -> (Server, Reads, Handle<RequestKey>) {
    let (read, reads) = mpsc::unbounded_channel();
    let layer =
        SingleflightLayer::with_extractor(RequestKeyExtractor::new().coalesce(Method::POST));
    let server = Server {
        layer: layer.clone(),
        buffer: BufferBodyLayer::new(MAX),
        gate: Arc::new(Semaphore::new(0)),
        read,
    };
    (server, reads, layer.handle())
}

impl Server {
    fn open(&self) {
        self.gate.add_permits(1000);
    }

    /// A new connection.
    fn connect(&self) -> DuplexStream {
        let (client, server) = tokio::io::duplex(4096);
        let (gate, read) = (Arc::clone(&self.gate), self.read.clone());
        let handler = service_fn(
            move |request: Request<BufferedBody<hyper::body::Incoming>>| {
                let (gate, read) = (Arc::clone(&gate), read.clone());
                async move {
                    let ahead = request.extensions().get::<BodyBytes>().is_some();
                    let mut body = request.into_body();
                    let (mut bytes, mut trailers, mut whole) = (Vec::new(), None, true);
                    while let Some(frame) = body.frame().await {
                        match frame.map(Frame::into_data) {
                            Ok(Ok(data)) => bytes.extend_from_slice(&data),
                            Ok(Err(frame)) => trailers = frame.into_trailers().ok(),
                            Err(_) => whole = false,
                        }
                    }
                    let body = Bytes::from(bytes);
                    let answer = Full::new(body.clone());
                    read.send(Read {
                        body,
                        trailers,
                        whole,
                        ahead,
                    })
                    .unwrap();
                    gate.acquire().await.unwrap().forget();
                    Ok::<_, Infallible>(Response::new(answer))
                }
            },
        );
        let service = ServiceBuilder::new()
            .map_response(|mut response: Response<ResponseBody<_>>| {
                let role: &Role = response.extensions().get().unwrap();
                let role = format!("{role:?}").parse().unwrap();
                response.headers_mut().insert("role", role);
                response
            })
            .layer(self.buffer.clone())
            .layer(self.layer.clone())
            .service(handler);
        let connection = async move {
            let builder = auto::Builder::new(TokioExecutor::new());
            let service = TowerToHyperService::new(service);
            // It fails where a client breaks off.
            let _ = builder
                .serve_connection(TokioIo::new(server), service)
                .await;
        };
        tokio::spawn(connection);
        client
    }
}

/// Sends, and lets the server go as far as it gets.
async fn send(connection: &mut DuplexStream, bytes: impl AsRef<[u8]>) {
    connection.write_all(bytes.as_ref()).await.unwrap();
    settle().await;
}

/// The role and body of the next response.
async fn receive(connection: &mut (impl AsyncRead + Unpin)) -> (String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    let field = |name| {
        head.lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap()
            .to_owned()
    };
    let mut body = vec![0; field("content-length: ").parse().unwrap()];
    connection.read_exact(&mut body).await.unwrap();
    (field("role: "), String::from_utf8(body).unwrap())
}

fn got(role: &str, body: &str) -> (String, String) {
    (role.to_owned(), body.to_owned())
}

const HEAD: &str = "POST /search HTTP/1.1\r\nHost: a\r\n";

#[tokio::test]
async fn equal_bodies_share_however_they_are_framed_and_the_connections_go_on() {
    let (server, mut reads, handle) = server();
    let framings = [
        "Content-Length: 5\r\n\r\nquery",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nquery\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n2;x=y\r\nqu\r\n3\r\nery\r\n0\r\n\r\n",
        "Content-Length: 5\r\n\r\nother",
    ];
    let mut connections = Vec::new();
    for framing in framings {
        let mut connection = server.connect();
        send(&mut connection, format!("{HEAD}{framing}")).await;
        connections.push(connection);
    }
    server.open();
    let roles = ["Leader", "Follower", "Follower", "Leader"];
    for ((connection, role), body) in connections
        .iter_mut()
        .zip(roles)
        .zip(["query", "query", "query", "other"])
    {
        assert_eq!(receive(connection).await, got(role, body));
        // The body of a follower was read too, so nothing of it is taken for the next request.
        send(connection, format!("{HEAD}Content-Length: 4\r\n\r\nnext")).await;
        assert_eq!(receive(connection).await, got("Leader", "next"));
    }
    assert!(reads.recv().await.unwrap().ahead);
    assert_idle(&handle);
}

#[tokio::test]
async fn a_body_over_the_limit_arrives_whole_and_in_order() {
    let (server, mut reads, handle) = server();
    server.open();
    let body: String = (0..50_000)
        .map(|at| char::from(b'a' + (at % 23) as u8))
        .collect();
    for framing in [
        format!("Content-Length: {}\r\n\r\n{body}", body.len()),
        format!(
            "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        ),
    ] {
        let mut connection = server.connect();
        let (mut reading, mut writing) = tokio::io::split(&mut connection);
        let head = format!("{HEAD}{framing}");
        let sending = writing.write_all(head.as_bytes());
        let (sent, answer) = tokio::join!(sending, receive(&mut reading));
        sent.unwrap();
        assert_eq!(answer, got("Bypassed", &body));
        let read = reads.recv().await.unwrap();
        assert!(read.whole && !read.ahead && read.body == body.as_bytes());
    }
    assert_idle(&handle);
}

#[tokio::test]
async fn trailers_arrive() {
    let (server, mut reads, handle) = server();
    server.open();
    let mut connection = server.connect();
    let chunked = "Trailer: checksum\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nquery\r\n0\r\nchecksum: 1\r\n\r\n";
    send(&mut connection, format!("{HEAD}{chunked}")).await;
    assert_eq!(receive(&mut connection).await, got("Leader", "query"));
    let read = reads.recv().await.unwrap();
    assert!(read.ahead && read.whole);
    assert_eq!(read.trailers.unwrap()["checksum"], "1");
    assert_idle(&handle);
}

#[tokio::test]
async fn a_client_that_breaks_off_makes_no_whole_request_and_harms_nobody() {
    let (server, mut reads, handle) = server();
    let mut whole = server.connect();
    send(&mut whole, format!("{HEAD}Content-Length: 2\r\n\r\nqu")).await;
    assert!(reads.recv().await.unwrap().whole);
    for framing in [
        // Two bytes of five, and what is the same so far as the one in flight.
        "Content-Length: 5\r\n\r\nqu",
        "Transfer-Encoding: chunked\r\n\r\n2\r\nqu\r\n",
        "Transfer-Encoding: chunked\r\n\r\n2\r\nqu\r\n0\r\nchecksum",
    ] {
        let mut connection = server.connect();
        send(&mut connection, format!("{HEAD}{framing}")).await;
        assert_eq!(handle.stats().waiters, 1);
        drop(connection);
        settle().await;
        if let Ok(read) = reads.try_recv() {
            assert!(!read.whole && !read.ahead, "{read:?}");
        }
    }
    // And one that breaks off while it waits for the answer.
    let mut connection = server.connect();
    send(
        &mut connection,
        format!("{HEAD}Content-Length: 2\r\n\r\nqu"),
    )
    .await;
    assert_eq!(handle.stats().waiters, 2);
    drop(connection);
    settle().await;
    assert_eq!(handle.stats().waiters, 1);
    server.open();
    assert_eq!(receive(&mut whole).await, got("Leader", "qu"));
    assert_idle(&handle);
}

#[tokio::test]
async fn a_client_that_expects_100_is_told_to_continue_by_who_reads_its_body() {
    let (server, mut reads, handle) = server();
    server.open();
    let mut connection = server.connect();
    let head = format!("{HEAD}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    send(&mut connection, head).await;
    let mut line = [0; 25];
    connection.read_exact(&mut line).await.unwrap();
    assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
    send(&mut connection, "query").await;
    assert_eq!(receive(&mut connection).await, got("Bypassed", "query"));
    let read = reads.recv().await.unwrap();
    assert!(read.whole && !read.ahead);
    assert_idle(&handle);
}

// ===== HTTP/2 =====

type Frames = mpsc::UnboundedSender<Frame<Bytes>>;
type Streamed = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

async fn http2_client(server: &Server) -> http2::SendRequest<Streamed> {
    let io = TokioIo::new(server.connect());
    let (client, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    client
}

fn channel() -> (Frames, Streamed) {
    let (frames, receiver) = mpsc::unbounded_channel();
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|frame| (Ok(frame), receiver))
    });
    (frames, StreamBody::new(stream).boxed_unsync())
}

fn post(body: Streamed) -> Request<Streamed> {
    Request::post("http://a/search").body(body).unwrap()
}

fn data(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

async fn answer(response: Response<hyper::body::Incoming>) -> (String, String) {
    assert_eq!(response.status(), StatusCode::OK);
    let role = response.headers()["role"].to_str().unwrap().to_owned();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (role, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn over_http_2_equal_bodies_share_when_their_last_byte_is_there() {
    let (server, _reads, handle) = server();
    let mut client = http2_client(&server).await;
    let (slow, body) = channel();
    let slow_answer = tokio::spawn(client.send_request(post(body)));
    slow.send(data("que")).unwrap();
    settle().await;
    assert_eq!(handle.in_flight(), 0);

    let whole = Full::new(Bytes::from_static(b"query")).map_err(|never| match never {});
    let fast = tokio::spawn(client.send_request(post(whole.boxed_unsync())));
    settle().await;
    assert_eq!(handle.stats().waiters, 1);
    slow.send(data("ry")).unwrap();
    drop(slow);
    settle().await;
    assert_eq!(handle.stats().waiters, 2);
    server.open();
    assert_eq!(
        answer(fast.await.unwrap().unwrap()).await,
        got("Leader", "query")
    );
    assert_eq!(
        answer(slow_answer.await.unwrap().unwrap()).await,
        got("Follower", "query")
    );
    assert_idle(&handle);
}

#[tokio::test]
async fn over_http_2_a_stream_that_is_reset_makes_no_whole_request() {
    let (server, mut reads, handle) = server();
    let mut client = http2_client(&server).await;
    let (frames, body) = channel();
    let call = tokio::spawn(client.send_request(post(body)));
    frames.send(data("query")).unwrap();
    settle().await;
    call.abort();
    settle().await;
    if let Ok(read) = reads.try_recv() {
        assert!(!read.whole && !read.ahead, "{read:?}");
    }
    assert_eq!(handle.stats().led, 0);
    assert_idle(&handle);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_for_bytes_back_before_it_goes_on_is_answered() {
    let layer =
        SingleflightLayer::with_extractor(RequestKeyExtractor::new().coalesce(Method::POST));
    let handle = layer.handle();
    // Sends back what comes, as it comes.
    let echo = service_fn(
        |request: Request<BufferedBody<hyper::body::Incoming>>| async {
            Ok::<_, Infallible>(Response::new(request.into_body()))
        },
    );
    let service = ServiceBuilder::new()
        .layer(BufferBodyLayer::new(MAX))
        .layer(layer)
        .service(echo);
    let (client, server) = tokio::io::duplex(4096);
    tokio::spawn(async move {
        let builder = auto::Builder::new(TokioExecutor::new());
        let service = TowerToHyperService::new(service);
        builder
            .serve_connection(TokioIo::new(server), service)
            .await
    });
    let io = TokioIo::new(client);
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);

    let (frames, body) = channel();
    frames.send(data("ping")).unwrap();
    let began = tokio::time::Instant::now();
    let response = client.send_request(post(body)).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(1100));
    let mut back = response.into_body();
    let mut next = async || back.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(next().await, "ping");
    frames.send(data("pong")).unwrap();
    assert_eq!(next().await, "pong");
    // Only the first wait was one.
    assert!(began.elapsed() < Duration::from_millis(1100));
    drop(frames);
    assert!(back.collect().await.unwrap().to_bytes().is_empty());
    assert_idle(&handle);
}
