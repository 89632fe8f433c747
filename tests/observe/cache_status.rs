//! `Cache-Status` (RFC 9211), through the layer.

use bytes::Bytes;
use http::Response;
use tower::Layer;
use tower_singleflight::{SingleflightLayer, method_and_uri};

use crate::support::{Fields, Got, Origin, all, ask, assert_idle, get, lines, request};

fn members(got: &[Got]) -> Vec<String> {
    got.iter()
        .map(|got| lines(&got.head, "cache-status").join(", "))
        .collect()
}

/// Such requests at the same time over an origin that answers with these fields.
async fn of<X: tower_singleflight::KeyExtractor>(
    layer: SingleflightLayer<X>,
    answer: Fields<'static>,
    asks: &[(&str, Fields<'_>)],
) -> Vec<String> {
    let origin = Origin::new(move |_| {
        let mut response = Response::builder();
        for (name, value) in answer {
            response = response.header(*name, *value);
        }
        response.body(Bytes::new()).expect("a response")
    });
    let service = layer.layer(origin.clone());
    let asked: Vec<_> = asks
        .iter()
        .map(|(method, fields)| ask(&service, request(method, "/", fields)))
        .collect();
    origin.open();
    let got = all(asked).await;
    assert_idle(&layer.handle());
    members(&got)
}

fn edge() -> SingleflightLayer {
    SingleflightLayer::new().cache_status("edge")
}

const GET: (&str, Fields<'_>) = ("GET", &[]);

#[tokio::test]
async fn there_is_none_by_default() {
    assert_eq!(
        of(SingleflightLayer::new(), &[], &[GET, GET, ("POST", &[])]).await,
        ["", "", ""]
    );
}

#[tokio::test]
async fn a_leader_missed_and_a_follower_was_collapsed() {
    assert_eq!(
        of(edge(), &[], &[GET, GET, GET]).await,
        [
            "edge; fwd=miss",
            "edge; fwd=miss; collapsed",
            "edge; fwd=miss; collapsed"
        ]
    );
}

#[tokio::test]
async fn who_had_joined_and_was_forwarded_was_not_collapsed() {
    assert_eq!(
        of(edge(), &[("set-cookie", b"a")], &[GET, GET]).await,
        ["edge; fwd=miss", "edge; fwd=miss; collapsed=?0"]
    );
}

#[tokio::test]
async fn the_first_of_a_variant_was_not_collapsed_and_the_others_were() {
    let layer = SingleflightLayer::with_key(method_and_uri).cache_status("edge");
    let br = ("GET", &[("accept-encoding", &b"br"[..])][..]);
    assert_eq!(
        of(layer, &[("vary", b"accept-encoding")], &[GET, br, br]).await,
        [
            "edge; fwd=miss",
            "edge; fwd=miss; collapsed=?0",
            "edge; fwd=miss; collapsed"
        ]
    );
}

#[tokio::test]
async fn who_could_not_join_missed() {
    assert_eq!(
        of(edge().max_waiters(1), &[], &[GET, GET]).await,
        ["edge; fwd=miss", "edge; fwd=miss"]
    );
    let layer = edge();
    let private: Fields<'_> = &[("cache-control", b"private")];
    assert_eq!(of(layer.clone(), private, &[GET]).await, ["edge; fwd=miss"]);
    assert_eq!(
        of(layer, private, &[GET]).await,
        ["edge; fwd=miss"],
        "a key that is remembered"
    );
}

#[tokio::test]
async fn a_method_or_another_rule_has_bypassed() {
    let rows: &[(&str, Fields<'_>, &str)] = &[
        ("POST", &[], "edge; fwd=method"),
        ("DELETE", &[], "edge; fwd=method"),
        ("OPTIONS", &[], "edge; fwd=method"),
        ("CONNECT", &[], "edge; fwd=method"),
        ("GET", &[("cache-control", b"no-store")], "edge; fwd=bypass"),
        ("GET", &[("upgrade", b"websocket")], "edge; fwd=bypass"),
        ("GET", &[("expect", b"100-continue")], "edge; fwd=bypass"),
        ("GET", &[("content-length", b"4")], "edge; fwd=bypass"),
    ];
    for (method, fields, expected) in rows {
        assert_eq!(
            of(edge(), &[], &[(method, fields)]).await,
            [*expected],
            "{method} {fields:?}"
        );
    }
    let keyless = SingleflightLayer::with_key(|_| None::<()>).cache_status("edge");
    assert_eq!(
        of(keyless, &[], &[GET, ("POST", &[])]).await,
        ["edge; fwd=bypass", "edge; fwd=method"]
    );
    let off = edge();
    off.handle().set_enabled(false);
    assert_eq!(of(off, &[], &[GET]).await, ["edge; fwd=bypass"]);
}

#[tokio::test]
async fn the_member_comes_after_those_of_caches_nearer_to_the_origin() {
    let inner: Fields<'_> = &[
        ("cache-status", b"origin; hit"),
        ("cache-status", b"mid; fwd=stale"),
    ];
    assert_eq!(
        of(edge(), inner, &[GET, GET, ("POST", &[])]).await,
        [
            "origin; hit, mid; fwd=stale, edge; fwd=miss",
            "origin; hit, mid; fwd=stale, edge; fwd=miss; collapsed",
            "origin; hit, mid; fwd=stale, edge; fwd=method",
        ]
    );
}

#[tokio::test]
async fn a_follower_of_an_inner_layers_follower_says_both() {
    let origin = Origin::page();
    let inner = SingleflightLayer::new().cache_status("inner");
    let outer = SingleflightLayer::new().cache_status("outer");
    let stack = outer.layer(inner.layer(origin.clone()));
    let asked = [ask(&stack, get("/")), ask(&stack, get("/"))];
    origin.open();
    assert_eq!(
        members(&all(asked).await),
        [
            "inner; fwd=miss, outer; fwd=miss",
            "inner; fwd=miss, outer; fwd=miss; collapsed"
        ]
    );
    assert_idle(&inner.handle());
    assert_idle(&outer.handle());
}

#[tokio::test]
async fn a_name_that_is_no_token_is_a_string() {
    let layer = SingleflightLayer::new().cache_status("my \"edge\"");
    assert_eq!(
        of(layer, &[], &[GET]).await,
        ["\"my \\\"edge\\\"\"; fwd=miss"]
    );
}

#[test]
fn a_name_that_can_be_neither_is_a_clear_panic() {
    for name in ["", "a\nb", "é", "a\u{7f}"] {
        let built = std::panic::catch_unwind(|| SingleflightLayer::new().cache_status(name));
        let payload = built.expect_err("a panic");
        let message = payload.downcast_ref::<String>().expect("a message");
        assert!(
            message.contains("cache_status") && message.contains("printable ASCII"),
            "{message}"
        );
    }
}
