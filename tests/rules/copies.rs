//! A follower's copy of the head: everything but what speaks of the leader's connection.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::{Response, Version, request};
use tower::Layer;
use tower_singleflight::{Role, SingleflightLayer};

use crate::support::{Fields, Got, Origin, all, ask, assert_idle, get, lines};

fn answer(fields: Fields<'_>) -> Response<Bytes> {
    let mut response = Response::builder().status(203);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response
        .body(Bytes::from_static(b"page"))
        .expect("a response")
}

/// What a leader and a follower get of one response.
async fn two(
    answers: impl Fn(&request::Parts) -> Response<Bytes> + Send + Sync + 'static,
) -> [Got; 2] {
    let origin = Origin::new(answers);
    let layer = SingleflightLayer::new();
    let service = layer.layer(origin.clone());
    let asked = [ask(&service, get("/")), ask(&service, get("/"))];
    origin.open();
    let got = all(asked).await;
    assert_eq!(origin.calls(), 1);
    assert_idle(&layer.handle());
    let got: [Got; 2] = got.try_into().expect("two");
    assert_eq!((got[0].role, got[1].role), (Role::Leader, Role::Follower));
    assert_eq!(got[0].body, got[1].body);
    got
}

#[tokio::test]
async fn a_copy_has_the_status_the_version_and_every_end_to_end_field() {
    let [leader, follower] = two(|_| {
        let mut response = answer(&[
            ("content-type", b"text/plain"),
            ("content-length", b"4"),
            ("x-a", b"1"),
            ("x-b", b"2"),
            ("x-a", b"3"),
            ("x-raw", b"\xff\xfe"),
            ("trailer", b"x-sum"),
            ("date", b"now"),
        ]);
        *response.version_mut() = Version::HTTP_10;
        response
    })
    .await;
    assert_eq!(follower.head.status, leader.head.status);
    assert_eq!(follower.head.version, Version::HTTP_10);
    assert_eq!(follower.head.headers, leader.head.headers);
    assert_eq!(lines(&follower.head, "x-a"), ["1", "3"]);
    assert_eq!(follower.head.headers.len(), 8);
}

#[tokio::test]
async fn a_value_that_is_sensitive_is_so_in_a_copy_too() {
    let [leader, follower] = two(|_| {
        let mut response = answer(&[("x-open", b"1")]);
        let mut secret = http::HeaderValue::from_static("secret");
        secret.set_sensitive(true);
        response.headers_mut().insert("x-secret", secret);
        response
    })
    .await;
    for got in [leader, follower] {
        let fields = &got.head.headers;
        assert!(fields["x-secret"].is_sensitive() && !fields["x-open"].is_sensitive());
    }
}

#[tokio::test]
async fn a_copy_lacks_hop_by_hop_fields_and_those_that_connection_names() {
    let fields: Fields<'_> = &[
        ("connection", b"keep-alive, X-Hop"),
        ("connection", b"x-other"),
        ("keep-alive", b"timeout=5"),
        ("proxy-connection", b"keep-alive"),
        ("te", b"trailers"),
        ("upgrade", b"h2c"),
        ("x-hop", b"1"),
        ("x-hop", b"2"),
        ("x-other", b"3"),
        ("x-end", b"4"),
    ];
    let [leader, follower] = two(|_| answer(fields)).await;
    assert_eq!(
        leader.head.headers.len(),
        fields.len(),
        "the leader's stays as it came"
    );
    let names: Vec<_> = follower
        .head
        .headers
        .keys()
        .map(|name| name.as_str())
        .collect();
    assert_eq!(names, ["x-end"]);
}

#[tokio::test]
async fn a_copy_lacks_the_coding_of_the_transfer() {
    let [leader, follower] = two(|_| answer(&[("transfer-encoding", b"chunked")])).await;
    assert!(leader.head.headers.contains_key("transfer-encoding"));
    assert!(follower.head.headers.is_empty());
}

#[tokio::test]
async fn connection_cannot_take_security_from_a_copy() {
    let fields: Fields<'_> = &[
        ("connection", b"content-security-policy, vary, content-type"),
        ("content-security-policy", b"default-src 'none'"),
        ("content-type", b"text/plain"),
        ("vary", b"accept"),
    ];
    let [_, follower] = two(|_| answer(fields)).await;
    assert_eq!(follower.head.headers.len(), 3);
}

/// Counts its clones, as an extension that is shared should be seen to be cloned.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.0.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(&self.0))
    }
}

#[tokio::test]
async fn a_copy_has_a_clone_of_the_extensions_with_its_own_role_put_in_last() {
    let clones = Arc::new(AtomicUsize::new(0));
    let counted = Counted(Arc::clone(&clones));
    let [leader, follower] = two(move |_| {
        let mut response = answer(&[]);
        response
            .extensions_mut()
            .insert(Counted(Arc::clone(&counted.0)));
        // As an inner layer of the same kind would leave it.
        response.extensions_mut().insert(Role::Bypassed);
        response
    })
    .await;
    assert!(leader.head.extensions.get::<Counted>().is_some());
    assert!(follower.head.extensions.get::<Counted>().is_some());
    assert!(clones.load(Ordering::SeqCst) >= 1);
    // `two` has looked at the roles.
}

#[tokio::test]
async fn what_is_not_shared_comes_to_its_caller_as_it_is() {
    let fields: Fields<'_> = &[
        ("set-cookie", b"id=1"),
        ("connection", b"x-hop"),
        ("x-hop", b"1"),
        ("transfer-encoding", b"chunked"),
    ];
    let origin = Origin::new(|_| answer(fields));
    let layer = SingleflightLayer::new();
    let service = layer.layer(origin.clone());
    let asked = [ask(&service, get("/")), ask(&service, get("/"))];
    origin.open();
    for got in all(asked).await {
        assert_eq!(got.head.headers.len(), fields.len(), "{:?}", got.role);
    }
    assert_idle(&layer.handle());
}
