//! `Stats::followed`: the callers that got the head of a copy.

use http::Response;
use tower::{Layer, Service};
use tower_singleflight::SingleflightLayer;

use crate::support::{
    Origin, all, ask, assert_idle,
    body::{assert_pending, data, frame, layer, now, ready, stack},
    get, settle,
};

#[tokio::test]
async fn a_follower_counts_when_it_gets_the_head_before_or_midway_through_the_body() {
    let (mut service, mut origin, handle) = stack(&layer());
    let mut leader = service.call(get("/page"));
    assert_pending(&mut leader);
    let [mut first, mut second, left] = [(); 3].map(|()| service.call(get("/page")));
    let feed = origin.call().begin();
    settle().await;
    // The head is there, and nobody has got it.
    assert_eq!((handle.stats().joined, handle.stats().followed), (3, 0));
    let _leader = now(&mut leader).into_body();
    assert_eq!(handle.stats().followed, 0);
    let _first = now(&mut first).into_body();
    assert_eq!(handle.stats().followed, 1);
    let _second = now(&mut second).into_body();
    assert_eq!(handle.stats().followed, 2);
    drop(left);
    assert_eq!(handle.stats().followed, 2);

    feed.send("pa");
    settle().await;
    let mut late = service.call(get("/page"));
    assert_eq!((handle.stats().joined, handle.stats().followed), (4, 2));
    let mut late = now(&mut late).into_body();
    assert_eq!(handle.stats().followed, 3);
    assert_eq!(frame(&mut late), data("pa"));
    feed.end();
    settle().await;
    drop((_leader, _first, _second, late));
    let stats = handle.stats();
    assert_eq!((stats.led, stats.joined, stats.followed), (1, 4, 3));
    assert_idle(&handle);
}

#[tokio::test]
async fn a_follower_that_is_sent_on_or_gets_the_failure_does_not_count() {
    let (mut service, mut origin, handle) = stack(&layer());
    let [mut leader, follower] = [(); 2].map(|()| service.call(get("/page")));
    assert_pending(&mut leader);
    origin.call().fail("broken");
    settle().await;
    assert!(leader.await.is_err() && follower.await.is_err());
    let [mut leader, mut follower] = [(); 2].map(|()| service.call(get("/page")));
    assert_pending(&mut leader);
    let private = Response::builder().header("cache-control", "private");
    let body = ready(&["page"], http_body::SizeHint::with_exact(4));
    origin.call().answer(private.body(body).unwrap());
    settle().await;
    let _ = now(&mut leader);
    assert_pending(&mut follower);
    let stats = handle.stats();
    assert_eq!((stats.joined, stats.forwarded, stats.followed), (2, 1, 0));
    drop((leader, follower));
    assert_idle(&handle);
}

#[tokio::test]
async fn of_a_hundred_callers_ninety_nine_follow() {
    let origin = Origin::page();
    let layer = SingleflightLayer::new();
    let service = layer.layer(origin.clone());
    let callers: Vec<_> = (0..100).map(|_| ask(&service, get("/"))).collect();
    origin.open();
    all(callers).await;
    let stats = layer.handle().stats();
    assert_eq!((stats.led, stats.joined, stats.followed), (1, 99, 99));
    assert_idle(&layer.handle());
}
