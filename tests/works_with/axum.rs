//! Nested axum routers: an inner layer sees the URI without its prefix.

use axum::{
    Router,
    body::Body,
    extract::{OriginalUri, Request},
    routing,
};
use bytes::Bytes;
use http::Uri;
use http_body_util::BodyExt;
use tokio::task::JoinHandle;
use tower::ServiceExt;
use tower_singleflight::{KeyExtractor, RequestKeyExtractor, SingleflightLayer};

use crate::support::{assert_idle, settle};

/// A router whose only page says which router it is of.
fn part(name: &'static str) -> Router {
    let page = routing::get(move || async move {
        settle().await;
        name
    });
    Router::new().route("/list", page)
}

fn ask(app: &Router, uri: &str) -> JoinHandle<Bytes> {
    let request = Request::get(uri).body(Body::empty()).unwrap();
    let call = app.clone().oneshot(request);
    tokio::spawn(async move {
        call.await
            .unwrap()
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
    })
}

/// What those get who ask both routers for `/list` at the same time.
async fn both(app: &Router) -> [Bytes; 2] {
    let (users, orders) = (ask(app, "/users/list"), ask(app, "/orders/list"));
    [users.await.unwrap(), orders.await.unwrap()]
}

#[tokio::test]
async fn one_layer_value_inside_two_nested_routers_mixes_them_up() {
    // The hazard that the documentation warns of: both routers see `/list`.
    let layer = SingleflightLayer::new();
    let app = Router::new()
        .nest("/users", part("users").layer(layer.clone()))
        .nest("/orders", part("orders").layer(layer.clone()));
    assert_eq!(both(&app).await, ["users", "users"]);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn one_layer_outside_the_nest_keeps_them_apart() {
    let layer = SingleflightLayer::new();
    let app = Router::new()
        .nest("/users", part("users"))
        .nest("/orders", part("orders"))
        .layer(layer.clone());
    assert_eq!(both(&app).await, ["users", "orders"]);
    assert_eq!(layer.handle().stats().led, 2);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn one_layer_for_each_router_keeps_them_apart() {
    let layers = [SingleflightLayer::new(), SingleflightLayer::new()];
    let app = Router::new()
        .nest("/users", part("users").layer(layers[0].clone()))
        .nest("/orders", part("orders").layer(layers[1].clone()));
    assert_eq!(both(&app).await, ["users", "orders"]);
    for layer in layers {
        assert_eq!(layer.handle().stats().led, 1);
        assert_idle(&layer.handle());
    }
}

#[tokio::test]
async fn a_key_with_the_original_uri_keeps_them_apart_under_one_layer_value() {
    let default = RequestKeyExtractor::new();
    let layer = SingleflightLayer::with_key(move |request| {
        let original: Option<Uri> = request.extensions.get().map(|OriginalUri(uri)| uri.clone());
        Some((default.extract(request)?, original))
    });
    let app = Router::new()
        .nest("/users", part("users").layer(layer.clone()))
        .nest("/orders", part("orders").layer(layer.clone()));
    assert_eq!(both(&app).await, ["users", "orders"]);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn head_is_answered_by_the_get_handler_and_shares_with_nobody() {
    let layer = SingleflightLayer::new();
    let app = part("page").layer(layer.clone());
    let head = Request::head("/list").body(Body::empty()).unwrap();
    let head = tokio::spawn(app.clone().oneshot(head));
    let get = ask(&app, "/list");
    let head = head.await.unwrap().unwrap();
    assert_eq!(head.headers()["content-length"], "4");
    assert!(
        head.into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .is_empty()
    );
    assert_eq!(get.await.unwrap(), "page");
    assert_eq!(layer.handle().stats().led, 2);
    assert_idle(&layer.handle());
}
