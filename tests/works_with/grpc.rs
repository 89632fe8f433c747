//! Unary gRPC calls that share, in tonic's server and in its client; and its streaming calls, which don't.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::Router;
use futures_util::{Stream, StreamExt, future::BoxFuture, stream};
use http::{HeaderName, Method, header::CONTENT_TYPE, request, response, uri::PathAndQuery};
use hyper_util::rt::TokioIo;
use tokio::{io::DuplexStream, sync::mpsc, task::JoinHandle};
use tonic::{
    Code, Request, Response, Status, Streaming,
    body::Body,
    client::{Grpc as Client, GrpcService},
    server::{Grpc as Server, NamedService},
    service::Routes,
    transport::{self, Channel, Endpoint},
};
use tower::{Service, ServiceBuilder, service_fn};
use tower_singleflight::{
    BufferBodyLayer, Handle, KeyExtractor, RequestKeyExtractor, SingleflightLayer, rules,
};

use crate::{
    gate::Gate,
    support::{assert_idle, settle, sockets::until},
    tonic::Text,
};

// ===== the service =====

/// What tonic's code generator would write. The unary method waits at a gate.
#[derive(Clone)]
struct Greeter(Gate);

impl NamedService for Greeter {
    const NAME: &'static str = "greet.Greeter";
}

type Answers = stream::BoxStream<'static, Result<String, Status>>;

impl<B> Service<http::Request<B>> for Greeter
where
    B: http_body::Body<Data = bytes::Bytes, Error: Into<tower::BoxError>> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let Self(gate) = self.clone();
        Box::pin(async move {
            let request = request.map(Body::new);
            let mut server = Server::new(Text);
            let path = request.uri().path().to_owned();
            Ok(match &path[..] {
                SAY => {
                    let say = service_fn(move |request: Request<String>| {
                        let gate = gate.clone();
                        async move {
                            gate.run().await;
                            let name = request.into_inner();
                            match name.strip_prefix("fail ") {
                                Some(code) => {
                                    Err(Status::new(code.parse::<i32>().unwrap().into(), name))
                                }
                                None => Ok(Response::new(format!("hello {name}"))),
                            }
                        }
                    });
                    server.unary(say, request).await
                }
                COUNT => {
                    let count = service_fn(async |request: Request<String>| {
                        let up_to: u32 = request.into_inner().parse().unwrap();
                        let numbers = stream::iter(0..up_to).map(|number| Ok(number.to_string()));
                        Ok::<_, Status>(Response::new(numbers.boxed()))
                    });
                    server.server_streaming(count, request).await
                }
                JOIN => {
                    let join = service_fn(async |request: Request<Streaming<String>>| {
                        let mut parts = request.into_inner();
                        let mut joined = String::new();
                        while let Some(part) = parts.message().await? {
                            joined += &part;
                        }
                        Ok::<_, Status>(Response::new(joined))
                    });
                    server.client_streaming(join, request).await
                }
                ECHO => {
                    let echo = service_fn(async |request: Request<Streaming<String>>| {
                        let answers: Answers = request.into_inner().boxed();
                        Ok::<_, Status>(Response::new(answers))
                    });
                    server.streaming(echo, request).await
                }
                _ => Status::unimplemented("").into_http(),
            })
        })
    }
}

const SAY: &str = "/greet.Greeter/SayHello";
const COUNT: &str = "/greet.Greeter/Count";
const JOIN: &str = "/greet.Greeter/Join";
const ECHO: &str = "/greet.Greeter/Echo";

// ===== the layer =====

/// The default policy shares no gRPC, since it can't know a unary call from a stream. The key does.
fn unary(response: &response::Parts) -> bool {
    // A call that fails before its first message says so in the head.
    let code = response.headers.get("grpc-status");
    let code = code.map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()));
    let mut response = response.clone();
    response.headers.remove(CONTENT_TYPE);
    let of_one_caller = matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::Unauthenticated
    );
    !of_one_caller && rules::shareable(&response)
}

/// Of the methods only those that are unary and change nothing.
fn reads(request: &request::Parts) -> Option<()> {
    (request.uri.path() == SAY).then_some(())
}

fn key() -> RequestKeyExtractor {
    RequestKeyExtractor::new().coalesce(Method::POST)
}

/// For a server: there each caller's own deadline stands above the layer.
fn server_key() -> RequestKeyExtractor {
    key().ignore_header(HeaderName::from_static("grpc-timeout"))
}

fn layer<X: KeyExtractor>(key: X) -> SingleflightLayer<X> {
    SingleflightLayer::with_extractor(key).share_when(unary)
}

// ===== peers =====

type Incoming = stream::BoxStream<'static, std::io::Result<DuplexStream>>;

/// A channel, and what its server is served with. In memory, so that the clock may be paused.
fn connect() -> (Channel, Incoming) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let incoming = stream::unfold(receiver, |mut receiver| async move {
        receiver
            .recv()
            .await
            .map(|accepted| (Ok(accepted), receiver))
    });
    let channel = Endpoint::from_static("http://greeter.example").connect_with_connector_lazy(
        service_fn(move |_| {
            let (client, server) = tokio::io::duplex(64 << 10);
            let sent = sender.send(server);
            async move { sent.map(|()| TokioIo::new(client)) }
        }),
    );
    (channel, incoming.boxed())
}

/// The unary method alone is under the layer.
fn by_route(gate: &Gate) -> (Channel, Handle<impl Eq + std::hash::Hash + use<>>) {
    let (channel, incoming) = connect();
    let layer = layer(server_key());
    let handle = layer.handle();
    let say = ServiceBuilder::new()
        .layer(BufferBodyLayer::new(64 << 10))
        .layer(layer)
        .service(Greeter(gate.clone()));
    let router = Router::new()
        .route_service(SAY, say)
        .route_service("/greet.Greeter/{method}", Greeter(gate.clone()));
    let server = transport::Server::builder().add_routes(Routes::from(router));
    tokio::spawn(server.serve_with_incoming(incoming));
    (channel, handle)
}

/// All methods are under the layer.
fn as_a_whole(gate: &Gate) -> (Channel, Handle<impl Eq + std::hash::Hash + use<>>) {
    let (channel, incoming) = connect();
    let layer = layer(server_key().and(reads));
    let handle = layer.handle();
    let server = transport::Server::builder()
        .layer(BufferBodyLayer::new(64 << 10))
        .layer(layer)
        .add_service(Greeter(gate.clone()));
    tokio::spawn(server.serve_with_incoming(incoming));
    (channel, handle)
}

async fn say<S>(
    mut client: Client<S>,
    name: &str,
    timeout: Option<Duration>,
) -> Result<Response<String>, Status>
where
    S: GrpcService<
            Body,
            ResponseBody: http_body::Body<Error: Into<tower::BoxError>> + Send + 'static,
        >,
{
    let ready = client.ready().await;
    ready.map_err(|error| Status::unknown(error.into().to_string()))?;
    let mut request = Request::new(name.to_owned());
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    client
        .unary(request, PathAndQuery::from_static(SAY), Text)
        .await
}

type Asked = JoinHandle<Result<Response<String>, Status>>;

/// Sends a call, and lets it go as far as it gets.
async fn ask<S>(channel: &S, name: &'static str, timeout: Option<Duration>) -> Asked
where
    S: GrpcService<
            Body,
            ResponseBody: http_body::Body<Error: Into<tower::BoxError>> + Send + 'static,
            Future: Send,
        > + Clone
        + Send
        + 'static,
{
    let client = Client::new(channel.clone());
    let asked = tokio::spawn(async move { say(client, name, timeout).await });
    settle().await;
    asked
}

async fn hello(asked: Asked) -> String {
    asked.await.unwrap().unwrap().into_inner()
}

// ===== in the server =====

#[tokio::test]
async fn in_a_server_equal_unary_calls_are_one() {
    async fn check<K: Eq + std::hash::Hash>(gate: Gate, (channel, handle): (Channel, Handle<K>)) {
        let asked = [
            ask(&channel, "a", None).await,
            ask(&channel, "b", None).await,
            ask(&channel, "a", Some(Duration::from_secs(60))).await,
        ];
        until(|| handle.stats().waiters == 3).await;
        gate.open();
        let [one, other, two] = asked;
        assert_eq!(hello(one).await, "hello a");
        assert_eq!(hello(other).await, "hello b");
        assert_eq!(hello(two).await, "hello a");
        assert_eq!(gate.runs(), 2);
        assert_eq!(handle.stats().joined, 1);
        until(|| handle.in_flight() == 0).await;
        assert_idle(&handle);
    }
    let gate = Gate::closed();
    check(gate.clone(), by_route(&gate)).await;
    let gate = Gate::closed();
    check(gate.clone(), as_a_whole(&gate)).await;
}

#[tokio::test]
async fn the_code_and_message_of_a_failed_call_reach_all_its_callers() {
    // 5: not found.
    let gate = Gate::closed();
    let (channel, handle) = by_route(&gate);
    let asked = [
        ask(&channel, "fail 5", None).await,
        ask(&channel, "fail 5", None).await,
    ];
    gate.open();
    for asked in asked {
        let status = asked.await.unwrap().unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::NotFound, "fail 5")
        );
    }
    assert_eq!((gate.runs(), handle.stats().joined), (1, 1));
    until(|| handle.in_flight() == 0).await;
    assert_idle(&handle);
}

#[tokio::test]
async fn a_failure_that_is_one_callers_own_is_not_shared() {
    // 8: resource exhausted.
    let gate = Gate::closed();
    let (channel, handle) = by_route(&gate);
    let asked = [
        ask(&channel, "fail 8", None).await,
        ask(&channel, "fail 8", None).await,
    ];
    gate.open();
    for asked in asked {
        let status = asked.await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
    }
    assert_eq!((gate.runs(), handle.stats().forwarded), (2, 1));
    until(|| handle.in_flight() == 0).await;
    assert_idle(&handle);
}

#[tokio::test(start_paused = true)]
async fn in_a_server_the_deadline_of_a_caller_is_its_own() {
    let gate = Gate::closed();
    let (channel, handle) = by_route(&gate);
    let short = ask(&channel, "a", Some(Duration::from_millis(50))).await;
    let long = ask(&channel, "a", Some(Duration::from_secs(60))).await;
    assert_eq!(handle.stats().waiters, 2);
    // Its own timer or the server's, which is of the same length.
    let status = short.await.unwrap().unwrap_err();
    assert!(
        matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded),
        "{status:?}"
    );
    gate.open();
    assert_eq!(hello(long).await, "hello a");
    assert_eq!(gate.runs(), 1);
    until(|| handle.in_flight() == 0).await;
    assert_idle(&handle);
}

async fn all<S>(answers: S) -> Vec<String>
where
    S: Stream<Item = Result<String, Status>>,
{
    answers.map(Result::unwrap).collect().await
}

/// Calls of each kind that streams. `patience`: how long the one is held whose client waits before it goes on.
async fn streams<S>(channel: &S, patience: Duration)
where
    S: GrpcService<
            Body,
            ResponseBody: http_body::Body<Error: Into<tower::BoxError>> + Send + 'static,
        > + Clone,
{
    let client = || Client::new(channel.clone());
    let path = PathAndQuery::from_static;
    for _ in 0..2 {
        let mut counting = client();
        assert!(counting.ready().await.is_ok());
        let request = Request::new("3".to_owned());
        let numbers = counting
            .server_streaming(request, path(COUNT), Text)
            .await
            .unwrap();
        assert_eq!(all(numbers.into_inner()).await, ["0", "1", "2"]);

        let mut joining = client();
        assert!(joining.ready().await.is_ok());
        let request = Request::new(stream::iter(["a", "b"].map(str::to_owned)));
        let joined = joining
            .client_streaming(request, path(JOIN), Text)
            .await
            .unwrap();
        assert_eq!(joined.into_inner(), "ab");

        let mut echoing = client();
        assert!(echoing.ready().await.is_ok());
        let (sender, receiver) = mpsc::unbounded_channel::<String>();
        let messages = stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|message| (message, receiver))
        });
        sender.send("ping".to_owned()).unwrap();
        let began = tokio::time::Instant::now();
        let request = Request::new(messages);
        let echoes = echoing.streaming(request, path(ECHO), Text).await.unwrap();
        let mut echoes = echoes.into_inner();
        assert_eq!(echoes.message().await.unwrap().unwrap(), "ping");
        sender.send("pong".to_owned()).unwrap();
        assert_eq!(echoes.message().await.unwrap().unwrap(), "pong");
        assert!(began.elapsed() <= patience, "{:?}", began.elapsed());
        drop(sender);
        assert!(echoes.message().await.unwrap().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_stream_are_untouched_beside_a_unary_method_under_the_layer() {
    let (channel, handle) = by_route(&Gate::closed());
    streams(&channel, Duration::ZERO).await;
    let stats = handle.stats();
    assert_eq!((stats.led, stats.bypassed), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn calls_that_stream_work_under_the_layer_too() {
    let (channel, handle) = as_a_whole(&Gate::closed());
    streams(&channel, Duration::from_millis(1100)).await;
    let stats = handle.stats();
    assert_eq!((stats.led, stats.bypassed), (0, 6));
    until(|| handle.in_flight() == 0).await;
    assert_idle(&handle);
}

// ===== in a client =====

#[tokio::test(start_paused = true)]
async fn in_a_client_equal_unary_calls_are_one_and_the_deadline_is_in_the_key() {
    let gate = Gate::closed();
    let (channel, incoming) = connect();
    let server = transport::Server::builder().add_service(Greeter(gate.clone()));
    tokio::spawn(server.serve_with_incoming(incoming));
    let layer = layer(key().and(reads));
    let handle = layer.handle();
    let channel = ServiceBuilder::new()
        .layer(BufferBodyLayer::new(64 << 10))
        .layer(layer)
        // A channel takes no body but tonic's, and its error can't be given to several callers.
        .map_request(|request: http::Request<_>| request.map(Body::new))
        .map_err(Arc::new)
        .service(channel);

    let (short, long) = (Duration::from_millis(50), Duration::from_secs(60));
    let mut asked = Vec::new();
    for timeout in [Some(short), Some(long), Some(short), Some(long), None] {
        asked.push(ask(&channel, "a", timeout).await);
    }
    until(|| handle.stats().waiters == 5).await;
    until(|| gate.runs() == 3).await;
    let mut asked = asked.into_iter();
    let mut next = || asked.next().unwrap();
    let (short, long) = ([next()], [next()]);
    let (with_short, with_long, without) = (next(), next(), next());
    for asked in short.into_iter().chain([with_short]) {
        let status = asked.await.unwrap().unwrap_err();
        assert!(
            matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded),
            "{status:?}"
        );
    }
    gate.open();
    for asked in long.into_iter().chain([with_long, without]) {
        assert_eq!(hello(asked).await, "hello a");
    }
    assert_eq!(gate.runs(), 3);
    assert_eq!(handle.stats().joined, 2);
    streams(&channel, Duration::from_millis(1100)).await;
    until(|| handle.in_flight() == 0).await;
    assert_idle(&handle);
}
