//! Stacks that compile without adapters and without type annotations, and work.

use std::{convert::Infallible, fmt::Debug, time::Duration};

use axum::{Router, body::Body, routing};
use bytes::Bytes;
use http::{Request, Response, request};
use http_body_util::{BodyExt, Empty, Full};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt,
    buffer::BufferLayer,
    limit::ConcurrencyLimitLayer,
    load_shed::LoadShedLayer,
    retry::{Policy, RetryLayer},
    timeout::TimeoutLayer,
    util::BoxCloneSyncService,
};
use tower_singleflight::{
    KeyExtractor, RequestKeyExtractor, ResponseBody, ShareError, Singleflight, SingleflightLayer,
    method_and_uri,
};

use crate::support::{self, Origin, assert_idle, get};

#[derive(Clone)]
struct Never;

impl<Q: Clone, A, E> Policy<Q, A, E> for Never {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _: &mut Q, _: &mut Result<A, E>) -> Option<Self::Future> {
        None
    }

    fn clone_request(&mut self, request: &Q) -> Option<Q> {
        Some(request.clone())
    }
}

#[tokio::test]
async fn a_stack_of_tower_middleware_keeps_its_box_error() {
    let origin = Origin::page();
    origin.open();
    let layer = SingleflightLayer::new();
    let stack = ServiceBuilder::new()
        .layer(BufferLayer::new(8))
        .layer(RetryLayer::new(Never))
        .layer(LoadShedLayer::new())
        .layer(layer.clone())
        .layer(BufferLayer::new(8))
        .layer(RetryLayer::new(Never))
        .layer(LoadShedLayer::new())
        .layer(ConcurrencyLimitLayer::new(8))
        .layer(TimeoutLayer::new(Duration::from_secs(60)))
        .service(origin);
    let response = stack.oneshot(get("/")).await.unwrap();
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "page"
    );
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_stack_over_axum_stays_infallible() {
    let layer = SingleflightLayer::new();
    let app: Router = Router::new()
        .route("/", routing::get(|| async { "page" }))
        .layer(layer.clone())
        .route_layer(SingleflightLayer::with_key(method_and_uri))
        .layer(
            ServiceBuilder::new()
                .layer(SingleflightLayer::new())
                .concurrency_limit(8),
        );
    fn infallible<S: Service<Request<Body>, Error = Infallible>>(service: S) -> S {
        service
    }
    let response = infallible(app)
        .oneshot(Request::new(Body::empty()))
        .await
        .unwrap();
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "page"
    );
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn it_goes_around_one_route_and_one_service() {
    let app: Router = Router::new()
        .route(
            "/",
            routing::get(|| async { "page" }).layer(SingleflightLayer::new()),
        )
        .nest_service(
            "/nested",
            SingleflightLayer::new()
                .layer(Router::new().route("/", routing::get(|| async { "nested" }))),
        );
    for (uri, page) in [("/", "page"), ("/nested/", "nested")] {
        let request = Request::get(uri).body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(
            response.into_body().collect().await.unwrap().to_bytes(),
            page
        );
    }
}

type Shared = Response<ResponseBody<Full<Bytes>>>;
type Boxed = BoxCloneSyncService<Request<Empty<Bytes>>, Shared, Infallible>;

#[tokio::test]
async fn it_can_be_boxed_and_sent() {
    let origin = Origin::page();
    origin.open();
    let service: Boxed = BoxCloneSyncService::new(SingleflightLayer::new().layer(origin));
    let boxed = tokio::spawn(service.oneshot(get("/")))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        boxed.into_body().collect().await.unwrap().to_bytes(),
        "page"
    );
}

/// A layer never needs type annotations, whether or not it is ever used.
#[test]
fn a_layer_infers() {
    let _ = SingleflightLayer::new();
    let _ = SingleflightLayer::default();
    let _ = SingleflightLayer::with_key(method_and_uri);
    let _ = SingleflightLayer::with_key(|request| Some(request.uri.path().to_owned()));
    let _ = SingleflightLayer::with_key(|_| None::<()>);
    let _ = SingleflightLayer::with_key(|request| {
        Some((
            request.method.clone(),
            request.headers.get("x-tenant").cloned(),
        ))
    });
    let _ = SingleflightLayer::with_extractor(RequestKeyExtractor::new());
    let _ = SingleflightLayer::with_extractor(|request: &request::Parts| Some(request.uri.clone()));
    let _ = SingleflightLayer::with_extractor(method_and_uri).handle();
    let _ = SingleflightLayer::new()
        .share_when(|response| response.status.is_success())
        .max_body(1)
        .max_buffered(1)
        .max_waiters(1)
        .max_age(Duration::from_secs(1))
        .wait_timeout(Duration::from_secs(1))
        .finish_abandoned(true)
        .cache_status("edge")
        .handle();
    // A stack that is built and not driven in the same function.
    let _ = ServiceBuilder::new()
        .layer(SingleflightLayer::new())
        .timeout(Duration::from_secs(1))
        .service(Origin::page());
}

// ===== generic code of a user's =====

/// Sees the extractor as the only type parameter.
struct Server<X: KeyExtractor> {
    layer: SingleflightLayer<X>,
}

impl<X: KeyExtractor> Server<X> {
    fn new(layer: SingleflightLayer<X>) -> Self {
        Self {
            layer: layer.max_waiters(100),
        }
    }

    fn router(&self, router: Router) -> Router {
        router.layer(self.layer.clone())
    }

    fn forget(&self, key: &X::Key) -> bool {
        self.layer.handle().forget(key)
    }

    fn over<S>(&self, inner: S) -> Singleflight<S, X> {
        self.layer.layer(inner)
    }
}

/// Generic over the service as well, with bounds that a user would write.
async fn fetch<S, B, X>(layer: &SingleflightLayer<X>, inner: S) -> Result<Bytes, S::Error>
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: ShareError + Debug + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    X: KeyExtractor,
{
    let response = layer.layer(inner).oneshot(get("/")).await?;
    Ok(response
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes())
}

#[tokio::test]
async fn a_users_generic_code_sees_only_the_extractor() {
    let server = Server::new(SingleflightLayer::with_key(method_and_uri));
    let app = server.router(Router::new().route("/", routing::get(|| async { "page" })));
    let response = app.oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "page"
    );
    assert!(!server.forget(&method_and_uri(&get("/").into_parts().0).unwrap()));
    let origin = Origin::page();
    origin.open();
    let Ok(response) = server.over(origin.clone()).oneshot(get("/")).await;
    assert_eq!(support::read(response).await.body, "page");
    assert_eq!(
        fetch(&server.layer, origin).await,
        Ok(Bytes::from_static(b"page"))
    );
    assert_idle(&server.layer.handle());
}
