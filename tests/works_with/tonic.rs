//! A gRPC service of tonic's under the layer: its POSTs bypass, and nothing breaks.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{Buf, BufMut};
use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tonic::{
    Status,
    body::Body,
    client::Grpc as Client,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{Grpc as Server, NamedService, UnaryService},
    service::Routes,
    transport::Endpoint,
};
use tower::{Service, service_fn};
use tower_singleflight::SingleflightLayer;

use crate::support::assert_idle;

/// Messages are texts, as they are: no protobuf and so no `protoc`.
#[derive(Clone, Copy, Default)]
pub(crate) struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, text: String, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(text.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        String::from_utf8(bytes.into())
            .map(Some)
            .map_err(|_| Status::internal("no text"))
    }
}

/// What tonic's code generator would write.
#[derive(Clone, Default)]
struct Greeter {
    calls: Arc<AtomicUsize>,
}

impl NamedService for Greeter {
    const NAME: &'static str = "greet.Greeter";
}

struct SayHello(Arc<AtomicUsize>);

impl UnaryService<String> for SayHello {
    type Response = String;
    type Future = BoxFuture<'static, Result<tonic::Response<String>, Status>>;

    fn call(&mut self, request: tonic::Request<String>) -> Self::Future {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            match request.into_inner().as_str() {
                "" => Err(Status::invalid_argument("who?")),
                name => Ok(tonic::Response::new(format!("hello {name}"))),
            }
        })
    }
}

impl Service<http::Request<Body>> for Greeter {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = SayHello(Arc::clone(&self.calls));
        Box::pin(async move { Ok(Server::new(Text).unary(method, request).await) })
    }
}

async fn ask(client: &mut Client<tonic::transport::Channel>, name: &str) -> Result<String, Status> {
    client
        .ready()
        .await
        .map_err(|error| Status::unknown(error.to_string()))?;
    let path = http::uri::PathAndQuery::from_static("/greet.Greeter/SayHello");
    let request = tonic::Request::new(name.to_owned());
    client
        .unary(request, path, Text)
        .await
        .map(tonic::Response::into_inner)
}

/// Asks over a real socket.
async fn greets(address: std::net::SocketAddr, greeter: &Greeter, layer: &SingleflightLayer) {
    let channel = Endpoint::from_static("http://greeter.example")
        .connect_with_connector(service_fn(move |_| async move {
            TcpStream::connect(address).await.map(TokioIo::new)
        }))
        .await
        .unwrap();
    let mut asked = Vec::new();
    for _ in 0..10 {
        let mut client = Client::new(channel.clone());
        asked.push(tokio::spawn(async move { ask(&mut client, "world").await }));
    }
    for one in asked {
        assert_eq!(one.await.unwrap().unwrap(), "hello world");
    }
    // A failure is in the trailers, which pass as well.
    let failed = ask(&mut Client::new(channel), "").await.unwrap_err();
    assert_eq!(
        (failed.code(), failed.message()),
        (tonic::Code::InvalidArgument, "who?")
    );
    assert_eq!(greeter.calls.load(Ordering::SeqCst), 11);
    let stats = layer.handle().stats();
    assert_eq!((stats.bypassed, stats.led, stats.joined), (11, 0, 0));
    assert_idle(&layer.handle());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tonic_server_under_the_layer_answers_each_call() {
    let (greeter, layer) = (Greeter::default(), SingleflightLayer::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder()
        .layer(layer.clone())
        .add_service(greeter.clone());
    let incoming = futures_util::stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(socket, _)| socket);
        Some((accepted, listener))
    });
    let server = tokio::spawn(server.serve_with_incoming(incoming));
    greets(address, &greeter, &layer).await;
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tonic_routes_beside_an_axum_router_under_the_layer_answer_each_call() {
    let (greeter, layer) = (Greeter::default(), SingleflightLayer::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Routes::new(greeter.clone())
        .into_axum_router()
        .layer(layer.clone());
    let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    greets(address, &greeter, &layer).await;
    server.abort();
}
