//! Which responses are given to followers, decided before the fan-out, through the layer.

use bytes::Bytes;
use http::Response;
use tower::Layer;
use tower_singleflight::{KeyExtractor, Role, SingleflightLayer, method_and_uri, rules};

use crate::support::{Fields, Origin, all, ask, assert_idle, get, request, roles};

/// A response, by its status and its fields.
type Row<'a> = (u16, Fields<'a>);

fn origin((status, fields): Row<'_>) -> Origin {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    let (head, ()) = response.body(()).expect("a response").into_parts();
    Origin::new(move |_| Response::from_parts(head.clone(), Bytes::new()))
}

/// Three ask the same at the same time; what became of them?
async fn three<X: KeyExtractor>(
    layer: SingleflightLayer<X>,
    row: Row<'_>,
    fields: Fields<'_>,
) -> (usize, Vec<Role>) {
    let origin = origin(row);
    let service = layer.layer(origin.clone());
    let asked = [(); 3].map(|()| ask(&service, request("GET", "/", fields)));
    assert_eq!(layer.handle().stats().waiters, 3);
    origin.open();
    let got = all(asked).await;
    assert!(got.iter().all(|got| got.head.status.as_u16() == row.0));
    assert_idle(&layer.handle());
    (origin.calls(), roles(&got))
}

fn shared() -> (usize, Vec<Role>) {
    (1, vec![Role::Leader, Role::Follower, Role::Follower])
}

fn alone() -> (usize, Vec<Role>) {
    (3, vec![Role::Leader, Role::Forwarded, Role::Forwarded])
}

const PERSONAL: [u16; 30] = [
    400, 401, 402, 406, 407, 408, 409, 411, 413, 415, 417, 419, 421, 422, 423, 424, 425, 426, 428,
    429, 431, 440, 494, 495, 496, 497, 498, 499, 505, 511,
];

#[tokio::test]
async fn every_status_is_shared_but_those_that_speak_of_one_client() {
    for status in 100..600 {
        let expected = match status {
            ..200 => alone(),
            _ if PERSONAL.contains(&status) => alone(),
            _ => shared(),
        };
        let layer = SingleflightLayer::new();
        assert_eq!(three(layer, (status, &[]), &[]).await, expected, "{status}");
    }
}

#[tokio::test]
async fn fields_that_speak_to_one_client_forbid_sharing() {
    let rows: &[Fields<'_>] = &[
        &[("set-cookie", b"id=1")],
        &[("set-cookie", b"")],
        &[("www-authenticate", b"Basic")],
        &[("proxy-authenticate", b"Basic")],
        &[("authentication-info", b"x=1")],
        &[("proxy-authentication-info", b"x=1")],
        &[("optional-www-authenticate", b"Basic")],
        &[("set-cookie2", b"id=1")],
        &[("clear-site-data", b"\"*\"")],
        &[("cdn-cache-control", b"no-store")],
        &[("cdn-cache-control", b"private, max-age=1")],
        &[("cdn-cache-control", b"no-cache")],
        &[("surrogate-control", b"no-store, content=\"ESI/1.0\"")],
        &[("surrogate-control", b"private")],
        &[("surrogate-control", b"no-cache")],
        &[("x-accel-expires", b"0")],
        &[("cache-control", b"no-store")],
        &[("cache-control", b"private")],
        &[("cache-control", b"no-cache")],
        &[
            ("cache-control", b"public"),
            ("cache-control", b"max-age=1, PRIVATE"),
        ],
        &[("cache-control", b"private=\"x-user\"")],
        &[("cache-control", b"no-cache=\"set-cookie\"")],
        &[("cache-control", b"max-age=1;private")],
        &[("cache-control", b"\xff")],
        &[("vary", b"*")],
        &[("vary", b"accept-encoding, *")],
        &[("vary", b"accept-encoding"), ("vary", b"*")],
        &[("vary", b"accept encoding")],
        &[("content-type", b"text/event-stream")],
        &[("content-type", b"Text/Event-Stream;charset=utf-8")],
        &[("content-type", b"multipart/x-mixed-replace; boundary=a")],
        &[("content-type", b"application/grpc")],
        &[("content-type", b"application/grpc+proto")],
        &[("content-type", b"application/grpc-web")],
    ];
    for fields in rows {
        let layer = SingleflightLayer::new();
        assert_eq!(
            three(layer, (200, fields), &[]).await,
            alone(),
            "{fields:?}"
        );
    }
}

#[tokio::test]
async fn ordinary_fields_do_not_forbid_sharing() {
    let rows: &[Fields<'_>] = &[
        &[("cache-control", b"max-age=0, must-revalidate, s-maxage=0")],
        &[("cache-control", b"x=\"no-store, private\"")],
        &[("pragma", b"no-cache"), ("expires", b"0")],
        &[("cdn-cache-control", b"max-age=0, x=\"private\"")],
        &[("surrogate-control", b"max-age=60;edge")],
        &[("x-accel-expires", b"10")],
        &[("vary", b"accept-encoding, cookie")],
        &[("vary", b"")],
        &[("content-type", b"text/html; x=text/event-stream")],
        &[("content-type", b"text/event-stream-not")],
        &[("etag", b"\"a\""), ("date", b"x"), ("x-request-id", b"1")],
    ];
    for fields in rows {
        let layer = SingleflightLayer::new();
        assert_eq!(
            three(layer, (200, fields), &[]).await,
            shared(),
            "{fields:?}"
        );
    }
}

#[tokio::test]
async fn a_policy_replaces_the_default_one_in_both_directions() {
    let only_cookies = || {
        SingleflightLayer::new().share_when(|response| response.headers.contains_key("set-cookie"))
    };
    assert_eq!(
        three(only_cookies(), (200, &[("set-cookie", b"a")]), &[]).await,
        shared()
    );
    assert_eq!(three(only_cookies(), (200, &[]), &[]).await, alone());
    let no_errors = SingleflightLayer::new()
        .share_when(|response| rules::shareable(response) && !response.status.is_server_error());
    assert_eq!(three(no_errors.clone(), (200, &[]), &[]).await, shared());
    assert_eq!(three(no_errors, (503, &[]), &[]).await, alone());
}

#[tokio::test]
async fn some_responses_are_never_shared_whatever_the_policy_says() {
    let rows: &[Row<'_>] = &[(100, &[]), (101, &[]), (103, &[]), (200, &[("vary", b"*")])];
    for row in rows {
        let layer = SingleflightLayer::new().share_when(|_| true);
        assert_eq!(three(layer, *row, &[]).await, alone(), "{row:?}");
    }
}

#[tokio::test]
async fn a_403_to_a_request_with_credentials_is_its_leaders_alone() {
    for name in ["authorization", "cookie", "proxy-authorization"] {
        let fields: Fields<'_> = &[(name, b"a")];
        for layer in [
            SingleflightLayer::new(),
            SingleflightLayer::new().share_when(|_| true),
        ] {
            assert_eq!(three(layer, (403, &[]), fields).await, alone(), "{name}");
        }
        let users = SingleflightLayer::with_key(method_and_uri);
        assert_eq!(three(users, (403, &[]), fields).await, alone(), "{name}");
    }
    assert_eq!(
        three(SingleflightLayer::new(), (403, &[]), &[]).await,
        shared()
    );
    assert_eq!(
        three(SingleflightLayer::new(), (404, &[]), &[("cookie", b"a")]).await,
        shared()
    );
}

#[tokio::test]
async fn nobody_sees_another_users_refusal_under_a_key_without_users() {
    let origin = Origin::new(|request| {
        let user = request
            .headers
            .get("cookie")
            .map(|user| user.as_bytes().to_vec());
        Response::builder()
            .status(403)
            .body(Bytes::from(user.unwrap_or_default()))
            .unwrap()
    });
    let layer = SingleflightLayer::with_key(method_and_uri);
    let service = layer.layer(origin.clone());
    let users: [&[u8]; 3] = [b"a", b"b", b"c"];
    let asked = users.map(|user| ask(&service, request("GET", "/", &[("cookie", user)])));
    origin.open();
    for (user, got) in users.iter().zip(all(asked).await) {
        assert_eq!(&got.body, user);
    }
    assert_eq!(origin.calls(), 3);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_403_to_an_anonymous_leader_is_not_for_those_who_say_who_they_are() {
    for name in ["authorization", "cookie", "proxy-authorization"] {
        let origin = Origin::new(move |request| {
            let known = request.headers.contains_key(name);
            Response::builder()
                .status(if known { 200 } else { 403 })
                .body(Bytes::new())
                .expect("a response")
        });
        let layer = SingleflightLayer::with_key(method_and_uri);
        let service = layer.layer(origin.clone());
        let known: Fields<'_> = &[(name, b"a")];
        let asked = [&[][..], &[], known, known].map(|fields| {
            let request = request("GET", "/", fields);
            ask(&service, request)
        });
        origin.open();
        let got = all(asked).await;
        let statuses: Vec<_> = got.iter().map(|got| got.head.status.as_u16()).collect();
        assert_eq!(statuses, [403, 403, 200, 200], "{name}");
        use Role::{Follower, Forwarded, Leader};
        assert_eq!(roles(&got), [Leader, Follower, Forwarded, Follower]);
        assert_eq!(origin.calls(), 2);
        assert_idle(&layer.handle());
    }
}

#[tokio::test]
async fn a_403_to_a_follower_that_was_moved_to_its_own_variant_is_its_alone() {
    let origin = Origin::new(|request| {
        let is_known = request.headers.contains_key("cookie");
        Response::builder()
            .status(if is_known { 403 } else { 200 })
            .header("vary", "accept-language")
            .body(Bytes::new())
            .expect("a response")
    });
    let layer = SingleflightLayer::with_key(method_and_uri);
    let service = layer.layer(origin.clone());
    let other: Fields<'_> = &[("accept-language", b"de"), ("cookie", b"a")];
    let asked = [&[][..], other, other, other].map(|fields| {
        let request = request("GET", "/", fields);
        ask(&service, request)
    });
    origin.open();
    let got = all(asked).await;
    use Role::{Forwarded, Leader};
    assert_eq!(roles(&got), [Leader, Forwarded, Forwarded, Forwarded]);
    assert_eq!(origin.calls(), 4);
    assert_idle(&layer.handle());
}

/// A key, all of whose values have one hash.
#[derive(Clone, PartialEq, Eq)]
struct Crowded(String);

impl std::hash::Hash for Crowded {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u8(0);
    }
}

#[tokio::test]
async fn keys_of_one_hash_share_nothing() {
    let origin = Origin::new(|request| Response::new(Bytes::from(request.uri.path().to_owned())));
    let layer = SingleflightLayer::with_key(|request: &http::request::Parts| {
        Some(Crowded(request.uri.path().to_owned()))
    });
    let service = layer.layer(origin.clone());
    let paths = ["/a", "/b", "/a", "/b"];
    let asked = paths.map(|path| ask(&service, get(path)));
    let handle = layer.handle();
    assert_eq!(
        (handle.in_flight(), handle.waiters(&Crowded("/a".into()))),
        (2, 2)
    );
    origin.open();
    let got = all(asked).await;
    assert!(got.iter().zip(paths).all(|(got, path)| got.body == path));
    let (leader, follower) = (Role::Leader, Role::Follower);
    assert_eq!(roles(&got), [leader, leader, follower, follower]);
    assert_idle(&handle);
}
