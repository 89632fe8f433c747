//! Real servers and real sockets: identical requests make one call whatever they came through.

use std::net::SocketAddr;

use axum::{Router, body::Body, routing::get as on_get};
use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tower::{Layer, ServiceExt};
use tower_singleflight::{Handle, RequestKey, Role, SingleflightLayer};

use crate::support::{self, Origin, assert_idle};

/// A router whose page is the origin's.
fn app(origin: &Origin, layer: &SingleflightLayer) -> Router {
    let origin = origin.clone();
    let page = on_get(move |request: Request<Body>| async move {
        let Ok(response) = origin.oneshot(request).await;
        response.map(Body::new)
    });
    Router::new().route("/", page).layer(layer.clone())
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn serve(origin: &Origin, layer: &SingleflightLayer) -> (SocketAddr, JoinHandle<()>) {
    let (listener, address) = listen().await;
    let app = app(origin, layer);
    let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (address, server)
}

/// Waits until so many callers are counted. The requests are on their way through sockets, so there is nothing else to
/// wait for than the count itself.
async fn until_waiters(handle: &Handle<RequestKey>, n: usize) {
    while handle.stats().waiters != n {
        tokio::task::yield_now().await;
    }
}

/// A client has its last byte a moment before its server drops the body.
async fn assert_soon_idle(handle: &Handle<RequestKey>) {
    until_waiters(handle, 0).await;
    assert_idle(handle);
}

const ASK: &[u8] = b"GET / HTTP/1.1\r\nhost: example.org\r\nconnection: close\r\n\r\n";

/// A connection of its own, with a request sent on it.
async fn connect(address: SocketAddr) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(ASK).await.unwrap();
    socket
}

async fn answer(mut socket: TcpStream) -> String {
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

fn is_page(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\npage")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_connections_to_axum_serve_make_one_call() {
    let (origin, layer) = (Origin::page(), SingleflightLayer::new());
    let (address, server) = serve(&origin, &layer).await;
    let mut sockets = Vec::new();
    for _ in 0..50 {
        sockets.push(connect(address).await);
    }
    let handle = layer.handle();
    until_waiters(&handle, 50).await;
    assert_eq!((handle.in_flight(), origin.calls()), (1, 1));
    origin.open();
    for socket in sockets {
        let answer = answer(socket).await;
        assert!(is_page(&answer), "{answer}");
    }
    assert_eq!(origin.calls(), 1);
    let stats = handle.stats();
    assert_eq!(
        (stats.led, stats.joined, stats.forwarded, stats.bypassed),
        (1, 49, 0, 0)
    );
    assert_soon_idle(&handle).await;
    server.abort();
}

#[tokio::test]
async fn concurrent_oneshots_of_a_router_make_one_call() {
    let (origin, layer) = (Origin::page(), SingleflightLayer::new());
    let app = app(&origin, &layer);
    let asked: Vec<_> = (0..10)
        .map(|_| {
            tokio::spawn(
                app.clone()
                    .oneshot(Request::get("/").body(Body::empty()).unwrap()),
            )
        })
        .collect();
    until_waiters(&layer.handle(), 10).await;
    origin.open();
    let mut leaders = 0;
    for response in asked {
        let response = response.await.unwrap().unwrap();
        leaders += usize::from(response.extensions().get() == Some(&Role::Leader));
        assert_eq!(
            response.into_body().collect().await.unwrap().to_bytes(),
            "page"
        );
    }
    assert_eq!((leaders, origin.calls()), (1, 1));
    assert_idle(&layer.handle());
}

/// A hyper-util server for HTTP/1.1 and HTTP/2, which builds a service per connection from a clone of the layer.
async fn auto_server(origin: &Origin, layer: &SingleflightLayer) -> (SocketAddr, JoinHandle<()>) {
    let (listener, address) = listen().await;
    let (origin, layer) = (origin.clone(), layer.clone());
    let server = tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let service = layer.clone().layer(origin.clone());
            tokio::spawn(async move {
                let service = TowerToHyperService::new(service);
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    (address, server)
}

fn ask(version: Version) -> Request<Empty<Bytes>> {
    // HTTP/2 has no origin form: the same target in both, so that the default key is one.
    Request::get("http://example.org/")
        .version(version)
        .body(Empty::new())
        .unwrap()
}

async fn http1(address: SocketAddr) -> conn::http1::SendRequest<Empty<Bytes>> {
    let socket = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (sender, connection) = conn::http1::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn http2(address: SocketAddr) -> conn::http2::SendRequest<Empty<Bytes>> {
    let socket = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (sender, connection) = conn::http2::handshake(TokioExecutor::new(), socket)
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

async fn page(response: Response<Incoming>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http1_and_http2_connections_make_one_call() {
    let (origin, layer) = (Origin::page(), SingleflightLayer::new());
    let (address, server) = auto_server(&origin, &layer).await;
    let mut asked = Vec::new();
    for _ in 0..5 {
        let mut sender = http1(address).await;
        asked.push(tokio::spawn(async move {
            page(sender.send_request(ask(Version::HTTP_11)).await.unwrap()).await
        }));
    }
    // Ten streams on one connection, and one on another.
    let sender = http2(address).await;
    let other = http2(address).await;
    for n in 0..11 {
        let mut sender = if n == 10 {
            other.clone()
        } else {
            sender.clone()
        };
        asked.push(tokio::spawn(async move {
            page(sender.send_request(ask(Version::HTTP_2)).await.unwrap()).await
        }));
    }
    let handle = layer.handle();
    until_waiters(&handle, 16).await;
    assert_eq!(origin.calls(), 1);
    origin.open();
    for body in asked {
        assert_eq!(body.await.unwrap(), "page");
    }
    assert_eq!(origin.calls(), 1);
    assert_soon_idle(&handle).await;
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_disconnects_leaves_its_call_to_the_followers() {
    let (origin, layer) = (Origin::page(), SingleflightLayer::new());
    let handle = layer.handle();
    let (address, server) = serve(&origin, &layer).await;
    let leader = connect(address).await;
    until_waiters(&handle, 1).await;
    let followers = [connect(address).await, connect(address).await];
    until_waiters(&handle, 3).await;
    drop(leader);
    until_waiters(&handle, 2).await;
    assert_eq!((handle.in_flight(), origin.inside()), (1, 1));
    origin.open();
    for follower in followers {
        let answer = answer(follower).await;
        assert!(is_page(&answer), "{answer}");
    }
    assert_eq!(origin.calls(), 1, "it is the same call");
    assert_soon_idle(&handle).await;
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_call_is_cancelled_when_the_last_client_disconnects() {
    let (origin, layer) = (Origin::page(), SingleflightLayer::new());
    let handle = layer.handle();
    let (address, server) = serve(&origin, &layer).await;
    let leader = connect(address).await;
    until_waiters(&handle, 1).await;
    let follower = connect(address).await;
    until_waiters(&handle, 2).await;
    drop((leader, follower));
    until_waiters(&handle, 0).await;
    origin.until_inside(0).await;
    assert_idle(&handle);
    let next = connect(address).await;
    origin.open();
    let answer = answer(next).await;
    assert!(is_page(&answer), "{answer}");
    assert_eq!(origin.calls(), 2);
    assert_soon_idle(&handle).await;
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_stream_that_is_reset_leaves_its_call_to_the_other_streams() {
    let (origin, layer) = (Origin::page(), SingleflightLayer::new());
    let handle = layer.handle();
    let (address, server) = auto_server(&origin, &layer).await;
    let mut sender = http2(address).await;
    let leader = tokio::spawn(sender.send_request(ask(Version::HTTP_2)));
    until_waiters(&handle, 1).await;
    let follower = tokio::spawn(sender.send_request(ask(Version::HTTP_2)));
    until_waiters(&handle, 2).await;
    leader.abort();
    until_waiters(&handle, 1).await;
    origin.open();
    let response = follower.await.unwrap().unwrap();
    assert_eq!(page(response).await, "page");
    assert_eq!(origin.calls(), 1);
    assert_soon_idle(&handle).await;
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_on_another_runtime_gets_the_leaders_response() {
    let (origin, layer) = (Origin::page(), SingleflightLayer::new());
    let service = layer.layer(origin.clone());
    let leader = support::ask(&service, support::get("/"));
    let (send, got) = tokio::sync::oneshot::channel();
    let other = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let got =
            runtime.block_on(async { support::ask(&service, support::get("/")).await.unwrap() });
        send.send(got).unwrap();
    });
    until_two(&layer).await;
    origin.open();
    assert_eq!(leader.await.unwrap().body, "page");
    let got = got.await.unwrap();
    assert_eq!((got.role, &got.body[..]), (Role::Follower, &b"page"[..]));
    other.join().unwrap();
    assert_eq!(origin.calls(), 1);
    assert_idle(&layer.handle());
}

async fn until_two(layer: &SingleflightLayer) {
    until_waiters(&layer.handle(), 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_over_http1_keeps_its_length_and_its_connection() {
    // A response that says `Connection: close` and is chunked for its leader: followers keep their own connections.
    let origin = Origin::new(|_| {
        Response::builder()
            .header("content-length", "4")
            .header("x-hop", "1")
            .body(Bytes::from_static(b"page"))
            .unwrap()
    });
    let layer = SingleflightLayer::new();
    let (address, server) = auto_server(&origin, &layer).await;
    let (mut one, mut two) = (http1(address).await, http1(address).await);
    let first = tokio::spawn(async move {
        let response = one.send_request(ask(Version::HTTP_11)).await.unwrap();
        (one, response)
    });
    until_waiters(&layer.handle(), 1).await;
    let second = tokio::spawn(async move {
        let response = two.send_request(ask(Version::HTTP_11)).await.unwrap();
        (two, response)
    });
    until_two(&layer).await;
    origin.open();
    for asked in [first, second] {
        let (mut sender, response) = asked.await.unwrap();
        assert_eq!(response.headers()["content-length"], "4");
        assert_eq!(page(response).await, "page");
        // The connection is still good.
        let again = sender.send_request(ask(Version::HTTP_11)).await.unwrap();
        assert_eq!(page(again).await, "page");
    }
    assert_soon_idle(&layer.handle()).await;
    server.abort();
}

#[tokio::test]
async fn a_layer_value_cloned_into_a_service_per_connection_is_one_table() {
    let (origin, layer) = (Origin::page(), SingleflightLayer::new());
    let asked: Vec<_> = (0..5)
        .map(|_| {
            let service = layer.clone().layer(origin.clone());
            support::ask(&service, support::get("/"))
        })
        .collect();
    origin.open();
    let got = support::all(asked).await;
    assert_eq!(support::count(&got, Role::Follower), 4);
    assert_eq!(origin.calls(), 1);
    assert_idle(&layer.handle());
}
