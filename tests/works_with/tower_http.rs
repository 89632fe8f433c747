//! tower-http's layers above and below.

use std::{
    any::Any,
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use axum::{Router, body::Body, response::IntoResponse, routing};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::task::JoinHandle;
use tower::{ServiceBuilder, ServiceExt};
use tower_http::{
    ServiceBuilderExt,
    catch_panic::CatchPanicLayer,
    compression::CompressionLayer,
    request_id::{MakeRequestId, RequestId},
    timeout::TimeoutLayer,
    trace::TraceLayer,
};
use tower_singleflight::{Role, SingleflightLayer};

use crate::support::{Origin, assert_idle, settle};

const PAGE: &str = "page page page page page page page page page page page page page page";

/// A router over an origin that answers with a text.
fn router(origin: &Origin) -> Router {
    let origin = origin.clone();
    Router::new().route(
        "/",
        routing::get(move |request: Request<Body>| async move {
            let Ok(response) = origin.oneshot(request).await;
            response.map(Body::new)
        }),
    )
}

fn text() -> Origin {
    Origin::new(|_| {
        let response = Response::builder().header("content-type", "text/plain");
        response.body(Bytes::from_static(PAGE.as_bytes())).unwrap()
    })
}

fn get(fields: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::get("/");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

struct Got {
    head: http::response::Parts,
    body: Bytes,
}

impl Got {
    fn role(&self) -> Role {
        *self.head.extensions.get().expect("a role")
    }
}

fn ask(app: &Router, fields: &[(&str, &str)]) -> JoinHandle<Got> {
    let call = app.clone().oneshot(get(fields));
    tokio::spawn(async move {
        let Ok(response) = call.await;
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Got { head, body }
    })
}

async fn all(asked: Vec<JoinHandle<Got>>) -> Vec<Got> {
    let mut got = Vec::new();
    for one in asked {
        got.push(one.await.unwrap());
    }
    got
}

fn roles(got: &[Got]) -> Vec<Role> {
    got.iter().map(Got::role).collect()
}

const SHARED: [Role; 3] = [Role::Leader, Role::Follower, Role::Follower];

#[tokio::test]
async fn trace_above_sees_each_caller_and_below_each_call() {
    let layer = SingleflightLayer::new();
    let origin = text();
    let app = router(&origin)
        .layer(TraceLayer::new_for_http())
        .layer(layer.clone())
        .layer(TraceLayer::new_for_http());
    let asked = (0..3).map(|_| ask(&app, &[])).collect();
    settle().await;
    origin.open();
    let got = all(asked).await;
    assert_eq!(roles(&got), SHARED);
    assert!(got.iter().all(|got| got.body == PAGE));
    assert_eq!(origin.calls(), 1);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn compression_above_compresses_each_copy_for_its_own_caller() {
    let layer = SingleflightLayer::new();
    let origin = text();
    let app = router(&origin)
        .layer(layer.clone())
        .layer(CompressionLayer::new());
    let gzip = [("accept-encoding", "gzip")];
    let asked = vec![ask(&app, &gzip), ask(&app, &gzip), ask(&app, &gzip)];
    settle().await;
    origin.open();
    let got = all(asked).await;
    assert_eq!(roles(&got), SHARED);
    for got in &got {
        assert_eq!(got.head.headers["content-encoding"], "gzip");
        assert_eq!(got.body[..2], [0x1f, 0x8b], "a member of gzip");
    }
    assert_eq!(origin.calls(), 1);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn compression_above_with_a_key_without_codings_makes_one_call_for_all_codings() {
    let layer = SingleflightLayer::with_key(tower_singleflight::method_and_uri);
    let origin = text();
    let app = router(&origin)
        .layer(layer.clone())
        .layer(CompressionLayer::new());
    let asked = vec![
        ask(&app, &[("accept-encoding", "gzip")]),
        ask(&app, &[("accept-encoding", "br")]),
        ask(&app, &[]),
    ];
    settle().await;
    origin.open();
    let got = all(asked).await;
    let codings: Vec<_> = got
        .iter()
        .map(|got| got.head.headers.get("content-encoding"))
        .collect();
    let coding = |name| Some(HeaderValue::from_static(name));
    assert_eq!(
        codings,
        [coding("gzip").as_ref(), coding("br").as_ref(), None]
    );
    assert_eq!((roles(&got), origin.calls()), (SHARED.to_vec(), 1));
    assert_eq!(got[2].body, PAGE);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn compression_below_compresses_once_for_all_who_take_the_same_coding() {
    let layer = SingleflightLayer::with_key(tower_singleflight::method_and_uri);
    let origin = text();
    let app = router(&origin)
        .layer(CompressionLayer::new())
        .layer(layer.clone());
    let gzip = [("accept-encoding", "gzip")];
    let br = [("accept-encoding", "br")];
    let asked = vec![
        ask(&app, &gzip),
        ask(&app, &br),
        ask(&app, &br),
        ask(&app, &gzip),
        ask(&app, &[]),
    ];
    settle().await;
    origin.open();
    let got = all(asked).await;
    let codings: Vec<_> = got
        .iter()
        .map(|got| {
            got.head
                .headers
                .get("content-encoding")
                .map(|value| value.to_str().unwrap())
        })
        .collect();
    assert_eq!(
        codings,
        [Some("gzip"), Some("br"), Some("br"), Some("gzip"), None]
    );
    assert_eq!(
        (got[0].body == got[3].body, got[1].body == got[2].body),
        (true, true)
    );
    assert_eq!(got[4].body, PAGE);
    // Compression says `Vary: accept-encoding`, so nobody gets a coding that it can't read.
    assert_eq!(origin.calls(), 3);
    assert_idle(&layer.handle());
}

#[tokio::test(start_paused = true)]
async fn a_timeout_above_answers_one_caller_and_leaves_the_flight_to_the_others() {
    let layer = SingleflightLayer::new();
    let origin = text();
    let plain = router(&origin).layer(layer.clone());
    let hasty = plain.clone().layer(TimeoutLayer::with_status_code(
        StatusCode::GATEWAY_TIMEOUT,
        Duration::from_secs(1),
    ));
    let leader = ask(&hasty, &[]);
    settle().await;
    let follower = ask(&plain, &[]);
    assert_eq!(
        leader.await.unwrap().head.status,
        StatusCode::GATEWAY_TIMEOUT
    );
    assert_eq!((layer.handle().in_flight(), origin.inside()), (1, 1));
    origin.open();
    let got = follower.await.unwrap();
    assert_eq!(
        (got.role(), &got.body[..]),
        (Role::Follower, PAGE.as_bytes())
    );
    assert_eq!(origin.calls(), 1);
    assert_idle(&layer.handle());
}

#[tokio::test(start_paused = true)]
async fn a_timeout_below_is_one_answer_for_all() {
    let layer = SingleflightLayer::new();
    let origin = text();
    let app = router(&origin)
        .layer(TimeoutLayer::with_status_code(
            StatusCode::GATEWAY_TIMEOUT,
            Duration::from_secs(1),
        ))
        .layer(layer.clone());
    let got = all((0..3).map(|_| ask(&app, &[])).collect()).await;
    assert!(
        got.iter()
            .all(|got| got.head.status == StatusCode::GATEWAY_TIMEOUT)
    );
    assert_eq!(
        (roles(&got), origin.calls(), origin.inside()),
        (SHARED.to_vec(), 1, 0)
    );
    assert_idle(&layer.handle());
}

fn exploding(calls: &'static AtomicUsize) -> Router {
    let page = routing::get(move || async move {
        settle().await;
        assert_ne!(calls.fetch_add(1, Ordering::SeqCst), 0, "bang");
        PAGE
    });
    Router::new().route("/", page)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "as `ResponseForPanic` wants it"
)]
fn say(payload: Box<dyn Any + Send>) -> Response<Body> {
    let text = payload
        .downcast_ref::<String>()
        .cloned()
        .unwrap_or_default();
    (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
}

#[tokio::test]
async fn catch_panic_above_answers_every_caller_of_a_flight_that_panicked() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let layer = SingleflightLayer::new();
    let app = exploding(&CALLS)
        .layer(layer.clone())
        .layer(CatchPanicLayer::custom(say));
    let got = all((0..3).map(|_| ask(&app, &[])).collect()).await;
    for got in &got {
        assert_eq!(got.head.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(String::from_utf8_lossy(&got.body).contains("bang"));
    }
    assert_eq!(CALLS.load(Ordering::SeqCst), 1);
    assert_idle(&layer.handle());
    assert_eq!(ask(&app, &[]).await.unwrap().body, PAGE);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn catch_panic_below_makes_a_panic_a_response_that_is_shared() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let layer = SingleflightLayer::new();
    let app = exploding(&CALLS)
        .layer(CatchPanicLayer::custom(say))
        .layer(layer.clone());
    let got = all((0..3).map(|_| ask(&app, &[])).collect()).await;
    assert!(
        got.iter()
            .all(|got| got.head.status == StatusCode::INTERNAL_SERVER_ERROR)
    );
    assert_eq!(
        (roles(&got), CALLS.load(Ordering::SeqCst)),
        (SHARED.to_vec(), 1)
    );
    assert_idle(&layer.handle());
}

/// Ids in their order.
#[derive(Clone, Default)]
struct Numbered(std::sync::Arc<AtomicUsize>);

impl MakeRequestId for Numbered {
    fn make_request_id<B>(&mut self, _: &Request<B>) -> Option<RequestId> {
        let number = self.0.fetch_add(1, Ordering::SeqCst);
        HeaderValue::from_str(&number.to_string())
            .ok()
            .map(RequestId::new)
    }
}

fn ids(got: &[Got]) -> Vec<&str> {
    got.iter()
        .map(|got| got.head.headers["x-request-id"].to_str().unwrap())
        .collect()
}

#[tokio::test]
async fn request_ids_set_above_keep_nobody_apart_and_propagated_above_are_each_callers_own() {
    let layer = SingleflightLayer::new();
    let origin = text();
    let app = router(&origin).layer(
        ServiceBuilder::new()
            .set_x_request_id(Numbered::default())
            .propagate_x_request_id()
            .layer(layer.clone()),
    );
    let asked = (0..3).map(|_| ask(&app, &[])).collect();
    settle().await;
    origin.open();
    let got = all(asked).await;
    assert_eq!((roles(&got), origin.calls()), (SHARED.to_vec(), 1));
    assert_eq!(ids(&got), ["0", "1", "2"]);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn request_ids_propagated_below_are_the_leaders_for_all() {
    let layer = SingleflightLayer::new();
    let origin = text();
    let app = router(&origin).layer(
        ServiceBuilder::new()
            .set_x_request_id(Numbered::default())
            .layer(layer.clone())
            .propagate_x_request_id(),
    );
    let asked = (0..3).map(|_| ask(&app, &[])).collect();
    settle().await;
    origin.open();
    let got = all(asked).await;
    assert_eq!(roles(&got), SHARED);
    assert_eq!(ids(&got), ["0", "0", "0"]);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_request_id_under_another_name_needs_an_ignore_header() {
    let name = HeaderName::from_static("x-my-id");
    let ignoring = tower_singleflight::RequestKeyExtractor::new().ignore_header(name.clone());
    for (layer, calls) in [
        (SingleflightLayer::new(), 3),
        (SingleflightLayer::with_extractor(ignoring), 1),
    ] {
        let origin = text();
        let app = router(&origin).layer(
            ServiceBuilder::new()
                .set_request_id(name.clone(), Numbered::default())
                .layer(layer.clone()),
        );
        let asked = (0..3).map(|_| ask(&app, &[])).collect();
        settle().await;
        origin.open();
        assert_eq!(all(asked).await.len(), 3);
        assert_eq!(origin.calls(), calls);
        assert_idle(&layer.handle());
    }
}

#[tokio::test]
async fn the_whole_stack_of_a_usual_server_works() {
    let layer = SingleflightLayer::new();
    let origin = text();
    let app = router(&origin).layer(
        ServiceBuilder::new()
            .set_x_request_id(Numbered::default())
            .layer(TraceLayer::new_for_http())
            .propagate_x_request_id()
            .layer(CatchPanicLayer::new())
            .layer(TimeoutLayer::with_status_code(
                StatusCode::GATEWAY_TIMEOUT,
                Duration::from_secs(60),
            ))
            .layer(CompressionLayer::new())
            .layer(layer.clone()),
    );
    fn infallible<S: tower::Service<Request<Body>, Error = Infallible>>(_: &S) {}
    infallible(&app);
    let asked = (0..3)
        .map(|_| ask(&app, &[("accept-encoding", "br")]))
        .collect();
    settle().await;
    origin.open();
    let got = all(asked).await;
    assert_eq!((roles(&got), origin.calls()), (SHARED.to_vec(), 1));
    assert_eq!(ids(&got), ["0", "1", "2"]);
    assert_idle(&layer.handle());
}

/// The cookbook's "A whole stack": the same lines.
#[tokio::test]
async fn the_cookbooks_whole_stack_makes_one_call_and_gives_each_caller_its_own_id() {
    use axum::{
        Router,
        body::Body,
        http::{Request, StatusCode},
        routing::get,
    };
    use std::time::Duration;
    use tower::{ServiceBuilder, ServiceExt, limit::GlobalConcurrencyLimitLayer};
    use tower_http::{
        ServiceBuilderExt, catch_panic::CatchPanicLayer, compression::CompressionLayer,
        request_id::MakeRequestUuid, timeout::TimeoutLayer, trace::TraceLayer,
    };
    use tower_singleflight::SingleflightLayer;

    async fn report() -> &'static str {
        tokio::task::yield_now().await;
        "report"
    }
    let layer = SingleflightLayer::new();
    let handle = layer.handle();
    let stack = ServiceBuilder::new()
        // For each caller.
        .set_x_request_id(MakeRequestUuid)
        .layer(TraceLayer::new_for_http())
        .propagate_x_request_id()
        .layer(CatchPanicLayer::new())
        .layer(CompressionLayer::new())
        .layer(layer)
        // Once for each flight: 504, since a 408 is not shared, and ten calls at a time.
        .layer(TimeoutLayer::with_status_code(
            StatusCode::GATEWAY_TIMEOUT,
            Duration::from_secs(30),
        ))
        .layer(GlobalConcurrencyLimitLayer::new(10));
    let app: Router = Router::new().route("/report", get(report)).layer(stack);

    let ask = || {
        app.clone()
            .oneshot(Request::get("/report").body(Body::empty()).unwrap())
    };
    let (first, second) = tokio::join!(ask(), ask());
    let id = |response: Result<axum::response::Response, _>| {
        response.unwrap().headers()["x-request-id"].clone()
    };
    assert_ne!(id(first), id(second)); // each caller its own
    assert_eq!((handle.stats().led, handle.stats().joined), (1, 1)); // one call
}
