//! Requests that are never coalesced, and those that look like it and are, through the layer.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower::Layer;
use tower_singleflight::{KeyExtractor, Role, SingleflightLayer};

use crate::support::{Fields, Origin, all, ask, assert_idle, get, request, roles};

type Ask<'a> = (&'a str, Fields<'a>, &'a str);

fn with_body((method, fields, body): Ask<'_>) -> Request<Full<Bytes>> {
    request(method, "/", fields).map(|_| Full::new(Bytes::copy_from_slice(body.as_bytes())))
}

/// Two such requests at the same time: how many calls, and who was what.
async fn two_over<X: KeyExtractor>(
    layer: SingleflightLayer<X>,
    asks: [Ask<'_>; 2],
) -> (usize, Vec<Role>) {
    let origin = Origin::page();
    let service = layer.layer(origin.clone());
    let asked = asks.map(|one| ask(&service, with_body(one)));
    origin.open();
    let got = all(asked).await;
    assert!(got.iter().all(|got| got.body == "page"));
    assert_idle(&layer.handle());
    let stats = layer.handle().stats();
    assert_eq!(stats.led + stats.joined + stats.bypassed, 2);
    (origin.calls(), roles(&got))
}

async fn two(asks: [Ask<'_>; 2]) -> (usize, Vec<Role>) {
    two_over(SingleflightLayer::new(), asks).await
}

/// A key function that names one key for everything.
fn one_key() -> SingleflightLayer<impl KeyExtractor<Key = u8>> {
    SingleflightLayer::with_key(|_: &http::request::Parts| Some(7_u8))
}

const GARBLED: &[u8] = b"no store; \xff";

/// What no key function can opt in.
const ALWAYS: &[Ask<'_>] = &[
    ("CONNECT", &[], ""),
    ("GET", &[], "body"),
    ("HEAD", &[], "body"),
    ("GET", &[("content-length", b"4")], ""),
    ("GET", &[("content-length", b"4, 4")], ""),
    ("GET", &[("transfer-encoding", b"chunked")], ""),
    ("GET", &[("upgrade", b"websocket")], ""),
    ("GET", &[("connection", b"upgrade")], ""),
    ("GET", &[("connection", b"keep-alive, UPGRADE")], ""),
    (
        "GET",
        &[("connection", b"close"), ("connection", b"Upgrade")],
        "",
    ),
    ("POST", &[("upgrade", b"websocket, h2c")], ""),
    ("GET", &[("accept", b"text/event-stream")], ""),
    ("GET", &[("accept", b"*/*, Text/Event-Stream;q=0")], ""),
    ("GET", &[("expect", b"100-continue")], ""),
    ("GET", &[("expect", b"")], ""),
    ("GET", &[("cache-control", b"no-store")], ""),
    ("GET", &[("cache-control", b"max-age=0, No-Store")], ""),
    (
        "GET",
        &[
            ("cache-control", b"max-age=0"),
            ("cache-control", b"no-store"),
        ],
        "",
    ),
    ("GET", &[("cache-control", b"only-if-cached")], ""),
    ("HEAD", &[("cache-control", b"only-if-cached")], ""),
    ("GET", &[("cache-control", GARBLED)], ""),
];

#[tokio::test]
async fn what_must_never_be_coalesced_makes_its_own_call() {
    for row in ALWAYS {
        let expected = (2, vec![Role::Bypassed; 2]);
        assert_eq!(two([*row, *row]).await, expected, "{row:?}");
    }
}

#[tokio::test]
async fn a_key_function_cannot_opt_in_what_must_never_be_coalesced() {
    for row in ALWAYS {
        let expected = (2, vec![Role::Bypassed; 2]);
        assert_eq!(two_over(one_key(), [*row, *row]).await, expected, "{row:?}");
    }
}

#[tokio::test]
async fn methods_other_than_get_and_head_make_their_own_calls() {
    for method in [
        "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY", "PROPFIND", "get",
    ] {
        for body in ["", "body"] {
            let row = (method, &[][..], body);
            let expected = (2, vec![Role::Bypassed; 2]);
            assert_eq!(two([row, row]).await, expected, "{method} {body}");
        }
    }
}

#[tokio::test]
async fn a_key_function_opts_other_methods_in() {
    for method in ["POST", "PUT", "OPTIONS", "QUERY"] {
        for body in ["", "body"] {
            let row = (method, &[][..], body);
            let expected = (1, vec![Role::Leader, Role::Follower]);
            assert_eq!(
                two_over(one_key(), [row, row]).await,
                expected,
                "{method} {body}"
            );
        }
    }
}

#[tokio::test]
async fn a_request_without_a_key_makes_its_own_call() {
    let layer = || SingleflightLayer::with_key(|_| None::<()>);
    for method in ["GET", "HEAD", "POST"] {
        let row = (method, &[][..], "");
        let expected = (2, vec![Role::Bypassed; 2]);
        assert_eq!(two_over(layer(), [row, row]).await, expected, "{method}");
    }
}

#[tokio::test]
async fn identical_reads_share_a_call_reloads_among_them() {
    let rows: &[Ask<'_>] = &[
        ("GET", &[], ""),
        ("HEAD", &[], ""),
        ("GET", &[("content-length", b"0")], ""),
        ("GET", &[("connection", b"keep-alive, x-hop")], ""),
        ("GET", &[("cache-control", b"no-cache")], ""),
        ("GET", &[("cache-control", b"max-age=0")], ""),
        ("GET", &[("cache-control", b"max-age=\"no-store\"")], ""),
        ("GET", &[("pragma", b"no-cache")], ""),
        (
            "GET",
            &[("authorization", b"Bearer a"), ("cookie", b"a=b")],
            "",
        ),
        ("GET", &[("range", b"bytes=0-1")], ""),
        ("GET", &[("if-none-match", b"\"a\"")], ""),
        ("GET", &[("upgrade", b"h2c")], ""),
        (
            "GET",
            &[
                ("connection", b"Upgrade, HTTP2-Settings"),
                ("upgrade", b"h2c"),
                ("http2-settings", b"AAEAAEAAAAIAAAAB"),
            ],
            "",
        ),
        (
            "GET",
            &[("connection", b"upgrade"), ("upgrade", b"TLS/1.2")],
            "",
        ),
        ("GET", &[("accept", b"text/event-streams, text/*")], ""),
    ];
    for row in rows {
        let expected = (1, vec![Role::Leader, Role::Follower]);
        assert_eq!(two([*row, *row]).await, expected, "{row:?}");
    }
}

#[tokio::test]
async fn requests_that_differ_in_a_field_that_counts_make_two_calls() {
    let none: Ask<'_> = ("GET", &[], "");
    let rows: &[Ask<'_>] = &[
        ("HEAD", &[], ""),
        ("GET", &[("cache-control", b"no-cache")], ""),
        ("GET", &[("pragma", b"no-cache")], ""),
        ("GET", &[("authorization", b"Bearer a")], ""),
        ("GET", &[("proxy-authorization", b"Bearer a")], ""),
        ("GET", &[("cookie", b"a=b")], ""),
        ("GET", &[("x-user-id", b"1")], ""),
        (
            "GET",
            &[("connection", b"x-user-id"), ("x-user-id", b"1")],
            "",
        ),
        ("GET", &[("accept-encoding", b"br")], ""),
        ("GET", &[("range", b"bytes=0-1")], ""),
        ("GET", &[("upgrade", b"h2c")], ""),
        ("GET", &[("forwarded", b"for=192.0.2.1;proto=https")], ""),
        ("GET", &[("tracestate", b"a=b")], ""),
        ("GET", &[("baggage", b"a=b")], ""),
        ("GET", &[("dnt", b"1")], ""),
        ("GET", &[("sec-gpc", b"1")], ""),
        ("GET", &[("host", b"example.org")], ""),
        ("GET", &[("x-forwarded-host", b"example.org")], ""),
    ];
    for row in rows {
        let expected = (2, vec![Role::Leader; 2]);
        assert_eq!(two([none, *row]).await, expected, "{row:?}");
    }
}

#[tokio::test]
async fn requests_that_differ_in_ignored_fields_alone_make_one_call() {
    let names = [
        "user-agent",
        "x-request-id",
        "traceparent",
        "x-b3-traceid",
        "via",
        "x-forwarded-for",
        "x-real-ip",
        "sec-ch-ua",
        "sec-fetch-mode",
        "referer",
        "priority",
        "keep-alive",
        "te",
    ];
    for name in names {
        let one: Ask<'_> = ("GET", &[(name, b"1")], "");
        let two_: Ask<'_> = ("GET", &[(name, b"2")], "");
        let expected = (1, vec![Role::Leader, Role::Follower]);
        assert_eq!(two([one, two_]).await, expected, "{name}");
    }
    let from: Ask<'_> = ("GET", &[("forwarded", b"for=192.0.2.1")], "");
    let by: Ask<'_> = ("GET", &[("forwarded", b"By=10.0.0.1;;for=1.2.3.4:80")], "");
    let expected = (1, vec![Role::Leader, Role::Follower]);
    assert_eq!(two([from, by]).await, expected);
}

#[tokio::test]
async fn head_and_get_never_share_even_where_a_users_key_makes_them_one() {
    let head = ("HEAD", &[][..], "");
    let get = ("GET", &[][..], "");
    for asks in [[head, get], [get, head]] {
        let expected = (2, vec![Role::Leader; 2]);
        assert_eq!(two_over(one_key(), asks).await, expected);
    }
}

#[tokio::test]
async fn a_bypassed_request_reaches_the_inner_service_untouched() {
    let layer = SingleflightLayer::new();
    let service = layer.layer(tower::service_fn(
        |request: Request<Full<Bytes>>| async move {
            assert_eq!(request.headers()["expect"], "100-continue");
            assert_eq!(request.extensions().get(), Some(&7_u8));
            let (_, body) = request.into_parts();
            Ok::<_, std::convert::Infallible>(http::Response::new(body))
        },
    ));
    let mut request = with_body(("POST", &[("expect", b"100-continue")], "sent"));
    request.extensions_mut().insert(7_u8);
    let got = ask(&service, request).await.unwrap();
    assert_eq!((got.role, &got.body[..]), (Role::Bypassed, &b"sent"[..]));
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_bypassed_request_does_not_touch_the_flight_of_its_uri() {
    let origin = Origin::page();
    let layer = SingleflightLayer::new();
    let service = layer.layer(origin.clone());
    let leader = ask(&service, get("/"));
    let bypassed = ask(
        &service,
        request("GET", "/", &[("cache-control", b"no-store")]),
    );
    let follower = ask(&service, get("/"));
    assert_eq!(layer.handle().stats().waiters, 2);
    origin.open();
    let got = all([leader, bypassed, follower]).await;
    assert_eq!(roles(&got), [Role::Leader, Role::Bypassed, Role::Follower]);
    assert_eq!(origin.calls(), 2);
    assert_idle(&layer.handle());
}
