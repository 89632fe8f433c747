//! What goes over the wire: hyper's server above the layer, its bytes read by the letter of RFC 9112.
//!
//! `Cargo.toml` builds hyper without its debug assertions: only then its server takes a `Content-Length` on trust.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tower::{BoxError, Layer, Service, service_fn};
use tower_singleflight::{Handle, RequestKey, Role, SharedError, SingleflightLayer};

use crate::support::{
    is_idle,
    wire::{Broken, Connection, Message, serve},
};

type Page = Response<UnsyncBoxBody<Bytes, BoxError>>;

const BODY: &str = "helloHTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nfrom nowhere";

/// A response of which each part is a row of a table.
#[derive(Clone, Debug)]
struct Row {
    status: u16,
    fields: Vec<(&'static str, &'static str)>,
    body: Sent,
    trailers: Vec<(&'static str, &'static str)>,
}

/// A body, and what it says of its length.
#[derive(Clone, Copy, Debug)]
enum Sent {
    Exact(&'static str),
    Unknown(&'static str),
    /// As much as the first number says is announced, at its end from the start or not.
    Hinted(&'static str, u64),
}

/// hyper's server, the layer, and an origin that answers `/row` when the gate lets it.
struct World {
    address: SocketAddr,
    handle: Handle<RequestKey>,
    gate: Arc<Semaphore>,
    calls: Arc<AtomicUsize>,
}

/// A body whose hint is given.
struct Hinted {
    text: Option<&'static str>,
    left: u64,
}

// ===== impl Hinted =====

impl Body for Hinted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.left = 0;
        let frame = self.text.take().filter(|text| !text.is_empty());
        std::task::Poll::Ready(
            frame.map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes())))),
        )
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

// ===== impl Row =====

impl Row {
    fn new(fields: &[(&'static str, &'static str)], body: Sent) -> Self {
        Self {
            status: 200,
            fields: fields.to_vec(),
            body,
            trailers: Vec::new(),
        }
    }

    fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    fn trailers(mut self, trailers: &[(&'static str, &'static str)]) -> Self {
        self.trailers = trailers.to_vec();
        self
    }

    fn text(&self) -> &'static str {
        match self.body {
            Sent::Exact(text) | Sent::Unknown(text) | Sent::Hinted(text, _) => text,
        }
    }

    fn response(&self) -> Page {
        let mut response = Response::builder().status(self.status);
        for (name, value) in &self.fields {
            response = response.header(*name, *value);
        }
        let body = match self.body {
            Sent::Exact(text) => Full::from(text).map_err(BoxError::from).boxed_unsync(),
            Sent::Hinted(text, left) => Hinted {
                text: Some(text),
                left,
            }
            .boxed_unsync(),
            Sent::Unknown(text) => {
                let mut frames = vec![Ok(Frame::data(Bytes::from_static(text.as_bytes())))];
                if !self.trailers.is_empty() {
                    frames.push(Ok(Frame::trailers(fields(&self.trailers))));
                }
                StreamBody::new(stream::iter(frames)).boxed_unsync()
            }
        };
        response.body(body).unwrap()
    }
}

// ===== impl World =====

impl World {
    /// Two callers may share a flight: of three that ask at once the last is forwarded.
    async fn new(row: &Row) -> Self {
        let row = row.clone();
        Self::over(move |_| {
            let response = row.response();
            async move { response }
        })
        .await
    }

    async fn over<F, Fut>(page: F) -> Self
    where
        F: Fn(Request<Incoming>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Page> + Send + 'static,
    {
        let gate = Arc::new(Semaphore::new(0));
        let calls = Arc::new(AtomicUsize::new(0));
        let inner = {
            let (gate, calls) = (gate.clone(), calls.clone());
            service_fn(move |request: Request<Incoming>| {
                let (gate, calls, page) = (gate.clone(), calls.clone(), page.clone());
                async move {
                    if request.uri().path() == "/after" {
                        let body = Full::from("after").map_err(BoxError::from).boxed_unsync();
                        return Ok::<_, Infallible>(Response::new(body));
                    }
                    calls.fetch_add(1, Ordering::SeqCst);
                    gate.acquire().await.unwrap().forget();
                    Ok(page(request).await)
                }
            })
        };
        let layer = SingleflightLayer::new().max_waiters(2);
        let handle = layer.handle();
        Self {
            address: serve(layer.layer(inner)).await,
            handle,
            gate,
            calls,
        }
    }

    /// Has a leader, a follower, somebody forwarded and somebody bypassed ask at the same time, and gives what each was sent.
    /// The connection of each must be in step afterwards.
    async fn ask_in_every_role(&self, method: &str, more: &str) -> [Result<Message, Broken>; 4] {
        let ask = |method: &str| format!("{method} /row HTTP/1.1\r\nhost: a\r\n{more}\r\n");
        let mut connections = Vec::new();
        for (role, method) in [method, method, method, "DELETE"].iter().enumerate() {
            let mut connection = Connection::open(self.address).await;
            connection.send(ask(method).as_bytes()).await;
            connections.push(connection);
            // Each in its place before the next comes.
            until(|| {
                let stats = self.handle.stats();
                stats.waiters.min(2) as u64 + stats.forwarded + stats.bypassed == role as u64 + 1
            })
            .await;
        }
        self.gate.add_permits(3);
        let mut messages = Vec::new();
        for (role, connection) in connections.iter_mut().enumerate() {
            let is_head = method == "HEAD" && role < 3;
            let message = connection.receive(is_head).await;
            if message.as_ref().is_ok_and(|message| !message.closes()) {
                self.assert_in_step(connection).await;
            }
            messages.push(message);
        }
        drop(connections);
        assert_eq!(self.calls.load(Ordering::SeqCst), 3);
        until(|| is_idle(&self.handle)).await;
        assert_eq!(self.handle.in_flight(), 0);
        messages.try_into().expect("four of them")
    }

    async fn assert_in_step(&self, connection: &mut Connection) {
        connection
            .send(b"GET /after HTTP/1.1\r\nhost: a\r\n\r\n")
            .await;
        let after = connection.receive(false).await.expect("the next response");
        assert_eq!(after.body, b"after", "{after:?}");
    }
}

fn fields(rows: &[(&'static str, &'static str)]) -> HeaderMap {
    rows.iter()
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        })
        .collect()
}

/// What is waited for comes through sockets, so there is nothing else to wait for than itself.
async fn until(mut came: impl FnMut() -> bool) {
    while !came() {
        tokio::task::yield_now().await;
    }
}

/// Everything but what differs from one second to the next.
fn timeless(mut message: Message) -> Message {
    message.fields.retain(|(name, _)| name != "date");
    message
}

#[tokio::test]
async fn a_content_length_that_is_not_the_messages_reaches_nobody() {
    let (exact, unknown) = (Sent::Exact(BODY), Sent::Unknown(BODY));
    for (fields, body) in [
        (
            &[("content-length", "5"), ("transfer-encoding", "chunked")][..],
            unknown,
        ),
        (
            &[("transfer-encoding", "chunked"), ("content-length", "5")],
            unknown,
        ),
        (
            &[("content-length", "5"), ("transfer-encoding", "identity")],
            exact,
        ),
        (&[("content-length", "5"), ("content-length", "6")], unknown),
        (&[("content-length", "5"), ("content-length", "6")], exact),
        (&[("content-length", "5, 6")], unknown),
        (&[("content-length", "5, 6")], exact),
        (&[("content-length", "5")], exact),
        (&[("content-length", "0")], exact),
        (&[("content-length", "+5")], exact),
        (&[("content-length", "")], unknown),
        (&[("content-length", "five")], unknown),
        (&[("content-length", "18446744073709551621")], exact),
        (&[("content-length", "5")], Sent::Hinted("", 0)),
        (&[("content-length", "5")], Sent::Exact("")),
    ] {
        let row = Row::new(fields, body);
        let world = World::new(&row).await;
        for message in world.ask_in_every_role("GET", "").await {
            let message = message.unwrap_or_else(|broken| panic!("{row:?}: {broken:?}"));
            assert_eq!(message.body, row.text().as_bytes(), "{row:?} {message:?}");
            assert!(message.is_whole);
            let length = message.length();
            assert!(length.is_none_or(|length| length == row.text().len() as u64));
        }
    }
}

#[tokio::test]
async fn a_length_that_is_said_twice_reaches_everybody_once() {
    for fields in [
        &[("content-length", "5"), ("content-length", "5")][..],
        &[("content-length", "5, 5")],
        &[("content-length", "5,")],
        &[("content-length", " 5 ")],
    ] {
        for body in [Sent::Exact("hello"), Sent::Unknown("hello")] {
            let row = Row::new(fields, body);
            let world = World::new(&row).await;
            for message in world.ask_in_every_role("GET", "").await {
                let message = message.unwrap_or_else(|broken| panic!("{row:?}: {broken:?}"));
                assert_eq!(message.all("content-length"), [b"5"], "{row:?}");
                assert_eq!(message.body, b"hello");
            }
        }
    }
}

#[tokio::test]
async fn a_copy_has_no_transfer_encoding_of_its_source() {
    // On the way to a client of HTTP/1.0 nothing adds one.
    let row = Row::new(&[("transfer-encoding", "chunked")], Sent::Unknown(BODY));
    let layer = SingleflightLayer::new();
    let gate = Arc::new(Semaphore::new(0));
    let inner = {
        let gate = gate.clone();
        service_fn(move |_: Request<Empty<Bytes>>| {
            let (row, gate) = (row.clone(), gate.clone());
            async move {
                gate.acquire().await.unwrap().forget();
                Ok::<_, Infallible>(row.response())
            }
        })
    };
    let mut service = layer.layer(inner);
    let ask = || Request::get("http://a/").body(Empty::new()).unwrap();
    let (leader, follower) = (service.call(ask()), service.call(ask()));
    gate.add_permits(1);
    let (leader, follower) = tokio::join!(leader, follower);
    let follower = follower.unwrap();
    assert_eq!(follower.extensions().get(), Some(&Role::Follower));
    assert!(follower.headers().is_empty());
    drop((leader, follower));
    assert_eq!(layer.handle().in_flight(), 0);
}

#[tokio::test]
async fn a_body_that_is_coded_for_one_connection_is_its_callers_alone() {
    let row = Row::new(
        &[("transfer-encoding", "gzip, chunked")],
        Sent::Unknown("gzipped"),
    );
    let world = World::new(&row).await;
    let mut connections = Vec::new();
    for waiters in 1..=2 {
        let mut connection = Connection::open(world.address).await;
        connection
            .send(b"GET /row HTTP/1.1\r\nhost: a\r\n\r\n")
            .await;
        connections.push(connection);
        until(|| world.handle.stats().waiters == waiters).await;
    }
    world.gate.add_permits(2);
    for connection in &mut connections {
        let message = connection.receive(false).await.unwrap();
        assert_eq!(message.all("transfer-encoding"), [b"gzip, chunked"]);
        assert_eq!(message.body, b"gzipped");
        world.assert_in_step(connection).await;
    }
    assert_eq!(world.handle.stats().forwarded, 1);
    assert_eq!(world.handle.in_flight(), 0);
}

#[tokio::test]
async fn after_head_204_and_304_a_length_speaks_of_what_is_not_sent() {
    let length = [("content-length", "5")];
    for (method, status) in [("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 304)] {
        for body in [Sent::Exact(""), Sent::Hinted("", 0), Sent::Unknown("")] {
            let row = Row::new(&length, body).status(status);
            let world = World::new(&row).await;
            for message in world
                .ask_in_every_role(method, "")
                .await
                .into_iter()
                .take(3)
            {
                let message = message.unwrap_or_else(|broken| panic!("{row:?}: {broken:?}"));
                assert_eq!(message.body, b"", "{row:?}");
                if method == "HEAD" && status == 200 {
                    assert_eq!(message.length(), Some(5), "{row:?} {message:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_garbled_length_reaches_nobody_who_asked_with_head() {
    for fields in [
        &[("content-length", "5"), ("content-length", "6")][..],
        &[("content-length", "5"), ("transfer-encoding", "chunked")],
        &[("content-length", "x")],
    ] {
        let row = Row::new(fields, Sent::Exact(""));
        let world = World::new(&row).await;
        for message in world
            .ask_in_every_role("HEAD", "")
            .await
            .into_iter()
            .take(3)
        {
            let message = message.unwrap_or_else(|broken| panic!("{row:?}: {broken:?}"));
            assert_eq!(message.length(), None);
        }
    }
}

/// An origin of which hyper's client is told two lengths, and passes both on.
#[tokio::test]
async fn an_origin_with_both_framings_puts_no_connection_out_of_step() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(answer_in_two_ways(socket_head(&mut socket).await, socket));
        }
    });
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let world = World::over(move |request| {
        let uri = format!("http://{origin}{}", request.uri());
        let call = client.request(Request::get(uri).body(Empty::new()).unwrap());
        async move {
            call.await
                .unwrap()
                .map(|body| body.map_err(BoxError::from).boxed_unsync())
        }
    })
    .await;
    for message in world.ask_in_every_role("GET", "").await {
        let message = message.expect("a message");
        assert_eq!(message.body, BODY.as_bytes());
    }
}

async fn socket_head(socket: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    head
}

async fn answer_in_two_ways(_asked: Vec<u8>, mut socket: TcpStream) {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\ncontent-length: 6\r\n\r\n";
    let chunk = format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", BODY.len());
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(chunk.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn over_http_2_a_wrong_length_fails_no_stream() {
    let row = Row::new(
        &[("content-length", "5"), ("transfer-encoding", "chunked")],
        Sent::Unknown(BODY),
    );
    let world = World::new(&row).await;
    let socket = TcpStream::connect(world.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
            .await
            .unwrap();
    tokio::spawn(connection);
    let mut calls = Vec::new();
    for waiters in 1..=2 {
        let request = Request::get(format!("http://{}/row", world.address));
        let call = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap());
        calls.push(tokio::spawn(call));
        until(|| world.handle.stats().waiters == waiters).await;
    }
    world.gate.add_permits(1);
    for call in calls {
        let response = call.await.unwrap().unwrap();
        assert_eq!(response.version(), Version::HTTP_2);
        assert_eq!(
            response.into_body().collect().await.unwrap().to_bytes(),
            BODY
        );
    }
    until(|| is_idle(&world.handle)).await;
    assert_eq!(world.handle.in_flight(), 0);
}

#[tokio::test]
async fn everybody_gets_the_trailers_that_hypers_server_alone_would_send() {
    let announced = [("trailer", "x-sum, x-other")];
    let trailers = [("x-sum", "42"), ("x-other", "a"), ("x-unannounced", "b")];
    let length = [("trailer", "x-sum"), ("content-length", "5")];
    for row in [
        Row::new(&announced, Sent::Unknown("hello")).trailers(&trailers),
        Row::new(&[], Sent::Unknown("hello")).trailers(&trailers),
        Row::new(&announced, Sent::Unknown("hello")),
        Row::new(&announced, Sent::Unknown("")).trailers(&trailers),
        Row::new(&length, Sent::Unknown("hello")).trailers(&trailers),
    ] {
        for more in ["", "te: trailers\r\nconnection: te\r\n", "te: trailers\r\n"] {
            let alone = {
                let row = row.clone();
                let service = service_fn(move |_: Request<Incoming>| {
                    let response = row.response();
                    async move { Ok::<_, Infallible>(response) }
                });
                let mut connection = Connection::open(serve(service).await).await;
                let ask = format!("GET /row HTTP/1.1\r\nhost: a\r\n{more}\r\n");
                connection.send(ask.as_bytes()).await;
                timeless(connection.receive(false).await.unwrap())
            };
            let world = World::new(&row).await;
            for (role, message) in world
                .ask_in_every_role("GET", more)
                .await
                .into_iter()
                .enumerate()
            {
                let message = timeless(message.unwrap());
                assert_eq!(message.body, alone.body, "{row:?} {more:?}");
                assert_eq!(message.trailers, alone.trailers, "{role} {row:?} {more:?}");
            }
        }
    }
}

#[tokio::test]
async fn trailers_with_a_cookie_are_the_leaders_alone() {
    for name in ["set-cookie", "authentication-info"] {
        let gate = Arc::new(Semaphore::new(0));
        let layer = SingleflightLayer::new();
        let row = Row::new(&[], Sent::Unknown("hello")).trailers(&[("x-sum", "42"), (name, "a=b")]);
        let inner = {
            let gate = gate.clone();
            service_fn(move |_: Request<Empty<Bytes>>| {
                let (row, gate) = (row.clone(), gate.clone());
                async move {
                    gate.acquire().await.unwrap().forget();
                    Ok::<_, Infallible>(row.response())
                }
            })
        };
        let mut service = layer.layer(inner);
        let ask = || Request::get("http://a/").body(Empty::new()).unwrap();
        let (leader, follower) = (service.call(ask()), service.call(ask()));
        gate.add_permits(1);
        let (leader, follower) = tokio::join!(leader, follower);

        let leader = leader.unwrap().into_body().collect().await.unwrap();
        assert_eq!(leader.trailers().unwrap()[name], "a=b");
        assert_eq!(leader.to_bytes(), "hello");

        let follower = follower.unwrap();
        assert_eq!(follower.extensions().get(), Some(&Role::Follower));
        let mut follower = follower.into_body();
        let frame = follower.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "hello");
        assert!(!follower.is_end_stream());
        let error = follower.frame().await.unwrap().unwrap_err();
        assert!(error.is::<SharedError>(), "{error:?}");
        assert!(follower.frame().await.is_none());
        drop(follower);
        assert_eq!(layer.handle().in_flight(), 0);
    }
}

#[tokio::test]
async fn where_a_cookie_is_announced_in_trailers_everybody_makes_a_call() {
    let calls = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(Semaphore::new(0));
    let layer = SingleflightLayer::new().share_when(|_: &http::response::Parts| true);
    let row = Row::new(&[("trailer", "x-sum, Set-Cookie")], Sent::Unknown("hello"))
        .trailers(&[("set-cookie", "a=b")]);
    let inner = {
        let (calls, gate) = (calls.clone(), gate.clone());
        service_fn(move |_: Request<Empty<Bytes>>| {
            calls.fetch_add(1, Ordering::SeqCst);
            let (row, gate) = (row.clone(), gate.clone());
            async move {
                gate.acquire().await.unwrap().forget();
                Ok::<_, Infallible>(row.response())
            }
        })
    };
    let mut service = layer.layer(inner);
    let ask = || Request::get("http://a/").body(Empty::new()).unwrap();
    let both = (service.call(ask()), service.call(ask()));
    gate.add_permits(2);
    let (leader, forwarded) = tokio::join!(both.0, both.1);
    for response in [leader, forwarded] {
        let body = response.unwrap().into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["set-cookie"], "a=b");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    assert_eq!(layer.handle().in_flight(), 0);
}
