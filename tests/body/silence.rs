//! A body that gives nothing for `max_silence` is joined by nobody; those who read it stay.

use std::time::Duration;

use http::Response;
use http_body::SizeHint;
use tower::Service;

use crate::support::{
    assert_idle,
    body::{Polled, assert_pending, data, frame, layer, now, ready, stack},
    get, settle,
};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_body_that_has_fallen_silent_is_not_joined_and_goes_on_for_its_readers() {
    let (mut service, mut origin, handle) = stack(&layer());
    let mut leader = service.call(get("/page"));
    assert_pending(&mut leader);
    let feed = origin.call().begin();
    settle().await;
    let mut leader = now(&mut leader).into_body();
    feed.send("0.");
    assert_eq!(frame(&mut leader), data("0."));
    tokio::time::advance(SECOND - Duration::from_millis(1)).await;
    let mut follower = now(&mut service.call(get("/page"))).into_body();
    assert_eq!((origin.count(), handle.in_flight()), (1, 1));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(handle.in_flight(), 0);
    let mut newcomer = service.call(get("/page"));
    assert_pending(&mut newcomer);
    assert_eq!((origin.count(), handle.in_flight()), (2, 1));
    assert_eq!(handle.stats().in_flight, 1, "the silent one has made way");
    // What falls silent may still go on.
    feed.send("1.");
    feed.end();
    settle().await;
    for want in [data("0."), data("1."), Polled::End] {
        assert_eq!(frame(&mut follower), want);
    }
    for want in [data("1."), Polled::End] {
        assert_eq!(frame(&mut leader), want);
    }
    drop(newcomer);
    assert_idle(&handle);
}

#[tokio::test(start_paused = true)]
async fn a_frame_ends_a_silence() {
    let (mut service, mut origin, handle) = stack(&layer().max_silence(SECOND * 3));
    let mut leader = service.call(get("/page"));
    assert_pending(&mut leader);
    let feed = origin.call().begin();
    settle().await;
    let mut leader = now(&mut leader).into_body();
    for part in ["0.", "1.", "2."] {
        tokio::time::advance(SECOND * 2).await;
        feed.send(part);
        assert_eq!(frame(&mut leader), data(part));
    }
    tokio::time::advance(SECOND * 2).await;
    let mut follower = now(&mut service.call(get("/page"))).into_body();
    assert_eq!((frame(&mut follower), origin.count()), (data("0."), 1));
    drop((leader, follower, feed));
    assert_idle(&handle);
}

#[tokio::test(start_paused = true)]
async fn a_head_without_a_frame_is_silent_too() {
    for known in [true, false] {
        let (mut service, mut origin, handle) = stack(&layer());
        let mut leader = service.call(get("/page"));
        assert_pending(&mut leader);
        // The time until the head is no silence.
        tokio::time::advance(SECOND * 5).await;
        let feed = origin.call().begin_of(known.then_some(4));
        settle().await;
        let leader = now(&mut leader);
        assert_eq!(handle.in_flight(), 1, "{known}");
        tokio::time::advance(SECOND).await;
        assert_eq!(handle.in_flight(), 0, "{known}");
        let mut newcomer = service.call(get("/page"));
        assert_pending(&mut newcomer);
        assert_eq!(origin.count(), 2);
        drop((leader, newcomer, feed));
        assert_idle(&handle);
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_does_not_read_makes_nobody_wait_for_it() {
    // Its body would go on at once, if it were asked.
    let (mut service, mut origin, handle) = stack(&layer());
    let mut leader = service.call(get("/page"));
    assert_pending(&mut leader);
    let answer = Response::new(ready(&["0.", "1."], SizeHint::new()));
    origin.call().answer(answer);
    settle().await;
    let leader = now(&mut leader);
    tokio::time::advance(SECOND).await;
    let mut newcomer = service.call(get("/page"));
    assert_pending(&mut newcomer);
    assert_eq!(origin.count(), 2);
    drop((leader, newcomer));
    assert_idle(&handle);
}
