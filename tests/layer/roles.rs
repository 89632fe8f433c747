//! Who leads, who follows, and what is left.

use http::{Response, request::Parts};
use tower::Layer;
use tower_singleflight::{Role, SingleflightLayer, method_and_uri};

use crate::support::{Origin, all, ask, assert_idle, count, get, request, settle};

#[tokio::test]
async fn identical_requests_make_one_call() {
    let (origin, layer) = (Origin::page(), SingleflightLayer::new());
    let handle = layer.handle();
    let service = layer.layer(origin.clone());
    let asked: Vec<_> = (0..10).map(|_| ask(&service, get("/page"))).collect();
    assert_eq!((handle.in_flight(), handle.stats().waiters), (1, 10));
    origin.open();
    let got = all(asked).await;
    assert!(got.iter().all(|got| got.body == "page"));
    assert_eq!(count(&got, Role::Leader), 1);
    assert_eq!(count(&got, Role::Follower), 9);
    assert_eq!(origin.calls(), 1);
    assert_eq!((handle.stats().led, handle.stats().joined), (1, 9));
    assert_idle(&handle);
}

#[tokio::test]
async fn a_lone_request_leaves_nothing() {
    let (origin, layer) = (Origin::page(), SingleflightLayer::new());
    origin.open();
    let service = layer.layer(origin.clone());
    let got = ask(&service, get("/")).await.unwrap();
    assert_eq!((got.role, &got.body[..]), (Role::Leader, &b"page"[..]));
    assert_eq!(origin.calls(), 1);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn one_gzip_and_ten_br_make_two_calls_though_the_upstream_answers_at_once() {
    let origin = Origin::new(|request: &Parts| {
        let coding = request.headers["accept-encoding"].clone();
        let body = coding.as_bytes().to_vec().into();
        let response = Response::builder()
            .header("vary", "accept-encoding")
            .header("content-encoding", coding);
        response.body(body).unwrap()
    });
    let layer = SingleflightLayer::with_key(method_and_uri);
    let service = layer.layer(origin.clone());
    let coded = |coding: &str| {
        ask(
            &service,
            request("GET", "/page", &[("accept-encoding", coding.as_bytes())]),
        )
    };
    let mut asked = vec![coded("gzip")];
    asked.extend((0..10).map(|_| coded("br")));
    settle().await;
    // The calls after the first one answer at once.
    origin.open();
    let got = all(asked).await;
    assert_eq!(got[0].body, "gzip");
    assert!(got[1..].iter().all(|got| got.body == "br"));
    assert_eq!(origin.calls(), 2);
    assert_eq!(count(&got, Role::Leader), 1);
    assert_eq!(count(&got, Role::Forwarded), 1);
    assert_eq!(count(&got, Role::Follower), 9);
    assert_idle(&layer.handle());
}
