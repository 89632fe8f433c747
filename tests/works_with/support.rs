//! What the tests have in common.

use axum::body::Body;
use http::Response;
use http_body_util::BodyExt;
use tower_singleflight::{Handle, Role};

/// The role and the body of a response.
pub(crate) async fn read(response: Response<Body>) -> (Role, String) {
    let role = *response
        .extensions()
        .get()
        .expect("every response has a role");
    let body = response.into_body().collect().await.expect("a whole body");
    (
        role,
        String::from_utf8(body.to_bytes().into()).expect("a text"),
    )
}

pub(crate) fn assert_idle<K>(handle: &Handle<K>) {
    let stats = handle.stats();
    assert_eq!(
        (stats.in_flight, stats.waiters, stats.buffered_bytes),
        (0, 0, 0),
        "{stats:?}"
    );
}
