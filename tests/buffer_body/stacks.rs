//! Stacks that read bodies and share by them, as they are written: no adapter, and no type named.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, routing};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
use tower_singleflight::{
    BufferBodyLayer, BufferedBody, RequestKeyExtractor, Role, SingleflightLayer,
};

use crate::support::{self, assert_idle};

fn layer() -> SingleflightLayer {
    SingleflightLayer::with_extractor(RequestKeyExtractor::new().coalesce(Method::POST))
}

/// Sends back what it gets, once another caller had a chance to come.
async fn echo(body: Bytes) -> Bytes {
    support::settle().await;
    body
}

fn post(body: &'static str) -> Request<Full<Bytes>> {
    Request::post("http://a/")
        .body(Full::new(Bytes::from_static(body.as_bytes())))
        .unwrap()
}

/// Three requests at once, two of them equal: what they get, and how.
macro_rules! ask {
    ($service:expr) => {{
        let service = $service;
        let ask = |body| {
            let call = service.clone().oneshot(post(body));
            async move {
                let response = call.await.expect("a response");
                let role: Role = *response
                    .extensions()
                    .get()
                    .expect("every response has a role");
                let body = response.into_body().collect().await.expect("a whole body");
                (role, body.to_bytes())
            }
        };
        let (one, two, other) = tokio::join!(ask("query"), ask("query"), ask("other"));
        assert_eq!(one, (Role::Leader, Bytes::from("query")));
        assert_eq!(two, (Role::Follower, Bytes::from("query")));
        assert_eq!(other, (Role::Leader, Bytes::from("other")));
    }};
}

/// Its body was read, so it can be sent again.
#[tokio::test]
async fn a_follower_that_reads_too_slowly_asks_again_with_its_body() {
    let layer = layer().max_body(8);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let service = ServiceBuilder::new()
        .layer(BufferBodyLayer::new(100))
        .layer(layer.clone())
        .service(service_fn(move |request: Request<BufferedBody<_>>| {
            counted.fetch_add(1, Ordering::SeqCst);
            async {
                let frame = echo(request.into_body().collect().await?.to_bytes()).await;
                let frames = (0..8).map(move |_| Ok::<_, BoxError>(Frame::data(frame.clone())));
                let body = StreamBody::new(futures_util::stream::iter(frames));
                Ok::<_, BoxError>(Response::new(body))
            }
        }));
    let ask = || service.clone().oneshot(post("query"));
    let (leader, follower) = tokio::join!(ask(), ask());
    for response in [leader.unwrap(), follower.unwrap()] {
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "query".repeat(8));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn over_an_axum_router() {
    let layer = layer();
    let app: Router = Router::new()
        .route("/", routing::post(echo))
        .layer(layer.clone())
        .layer(BufferBodyLayer::new(100));
    ask!(app.into_service());
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn over_an_axum_router_as_one_stack() {
    let layer = layer();
    let stack = ServiceBuilder::new()
        .layer(BufferBodyLayer::new(100))
        .layer(layer.clone());
    let app: Router = Router::new().route("/", routing::post(echo)).layer(stack);
    ask!(app.into_service());
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn over_the_routes_of_an_axum_router() {
    let layer = layer();
    let app: Router = Router::new()
        .route("/", routing::post(echo))
        .route_layer(layer.clone())
        .route_layer(BufferBodyLayer::new(100));
    ask!(app.into_service());
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn over_a_method_of_an_axum_router() {
    let layer = layer();
    // Two calls of its `layer` don't compile, whatever the layers: axum does not know the error in between.
    let handler = routing::post(echo).layer((BufferBodyLayer::new(100), layer.clone()));
    let app: Router = Router::new().route("/", handler);
    ask!(app.into_service());
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn over_tower_middleware_with_box_errors() {
    let layer = layer();
    let origin = service_fn(async |request: Request<_>| {
        let body = BodyExt::collect(request.into_body()).await?.to_bytes();
        Ok::<_, BoxError>(Response::new(Full::new(echo(body).await)))
    });
    let service = ServiceBuilder::new()
        .timeout(Duration::from_secs(10))
        .layer(BufferBodyLayer::new(100))
        .layer(layer.clone())
        .load_shed()
        .concurrency_limit(2)
        .timeout(Duration::from_secs(10))
        .buffer(10)
        .service(origin);
    ask!(service);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn over_a_hyper_server_and_a_hyper_client() {
    let (server, client) = (layer(), layer());
    let origin = service_fn(async |request: Request<_>| {
        let body = BodyExt::collect(request.into_body())
            .await
            .expect("a whole body");
        Ok::<_, Infallible>(Response::new(Full::new(echo(body.to_bytes()).await)))
    });
    let service = ServiceBuilder::new()
        .layer(BufferBodyLayer::new(100))
        .layer(server.clone())
        .service(origin);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let builder = auto::Builder::new(TokioExecutor::new());
                builder
                    .serve_connection(TokioIo::new(socket), service)
                    .await
            });
        }
    });
    let service = ServiceBuilder::new()
        .map_request(move |mut request: Request<_>| {
            *request.uri_mut() = format!("http://{address}/").parse().unwrap();
            request
        })
        .layer(BufferBodyLayer::new(100))
        .layer(client.clone())
        .map_err(Arc::new)
        .service(Client::builder(TokioExecutor::new()).build_http());
    ask!(service);
    let stats = server.handle().stats();
    assert_eq!((stats.led, stats.joined), (2, 0));
    assert_idle(&client.handle());
}

/// A stack that is built where nothing calls it, and is called where nothing is known of it.
#[tokio::test]
async fn in_generic_code() {
    fn build<S>(
        inner: S,
    ) -> tower_singleflight::BufferBody<tower_singleflight::Singleflight<S, RequestKeyExtractor>>
    {
        ServiceBuilder::new()
            .layer(BufferBodyLayer::new(100))
            .layer(layer())
            .service(inner)
    }
    fn is_send<T: Send + 'static>(task: T) -> T {
        task
    }
    let origin = service_fn(async |request: Request<_>| {
        let body = BodyExt::collect(request.into_body())
            .await
            .expect("a whole body")
            .to_bytes();
        Ok::<_, Infallible>(Response::new(Full::new(echo(body).await)))
    });
    let service = build(origin);
    let call = is_send(service.clone().oneshot(post("query")));
    assert_eq!(tokio::spawn(call).await.unwrap().unwrap().status(), 200);
    ask!(service);
}
