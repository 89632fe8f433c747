//! Limits: what is over one is not shared, at once and concurrently, and its leader does not notice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Response, header};
use http_body::SizeHint;
use http_body_util::BodyExt;
use tower::Service;
use tower_singleflight::{ResponseBody, Role};

use crate::support::{
    assert_idle,
    body::{
        Calls, Feed, Layered, Mock, Polled, assert_pending, bad_data, data, frame, key, layer,
        leader_and_follower, lone_leader, next, now, ready, stack,
    },
    get, role, settle,
};

#[tokio::test]
async fn a_length_over_max_body_is_shared_by_those_who_have_joined() {
    for by_header in [true, false] {
        let (mut service, mut origin, handle) = stack(&layer().max_body(3));
        let [mut leader, mut follower] = leader_and_follower(&mut service);
        let head = Response::builder();
        let call = origin.call();
        let feed = if by_header {
            call.begin_with(head.header(header::CONTENT_LENGTH, 6), SizeHint::new())
        } else {
            call.begin_with(head, SizeHint::with_exact(6))
        };
        settle().await;
        let follower = now(&mut follower);
        assert_eq!(role(&follower), Role::Follower);
        let mut bodies = [now(&mut leader).into_body(), follower.into_body()];
        feed.send("on");
        settle().await;
        assert_eq!(handle.in_flight(), 1);
        feed.send("ce");
        settle().await;
        assert_eq!(handle.in_flight(), 0);
        feed.send("!!");
        feed.end();
        for want in ["on", "ce", "!!"] {
            for body in &mut bodies {
                settle().await;
                assert_eq!(next(body).await, data(want));
            }
        }
        for body in &mut bodies {
            while frame(body) == Polled::Pending {
                settle().await;
            }
            assert_eq!(frame(body), Polled::End);
        }
        assert_eq!((origin.count(), handle.stats().forwarded), (1, 0));
        assert_idle(&handle);
    }
}

#[tokio::test]
async fn a_length_that_outgrows_its_limit_and_breaks_its_word_fails_all() {
    let (mut service, mut origin, handle) = stack(&layer().max_body(3));
    let [mut leader, mut follower] = leader_and_follower(&mut service);
    let feed = origin.call().begin_known(9);
    settle().await;
    let mut bodies = [&mut leader, &mut follower].map(|call| now(call).into_body());
    feed.send("once");
    feed.end();
    settle().await;
    for body in &mut bodies {
        assert_eq!(frame(body), data("once"));
    }
    for body in &mut bodies {
        if frame(body) == Polled::Pending {
            settle().await;
            assert!(matches!(frame(body), Polled::Error(_)));
        }
    }
    assert_eq!(origin.count(), 1);
    assert_idle(&handle);
}

#[tokio::test]
async fn a_length_that_outgrows_its_limit_and_is_longer_than_promised_fails_for_followers_alone() {
    let (mut service, mut origin, handle) = stack(&layer().max_body(3));
    let [mut leader, mut follower] = leader_and_follower(&mut service);
    let feed = origin.call().begin_known(9);
    settle().await;
    let mut leader = now(&mut leader).into_body();
    let mut follower = now(&mut follower).into_body();
    feed.send("once");
    settle().await;
    for body in [&mut leader, &mut follower] {
        assert_eq!(frame(body), data("once"));
        assert_eq!(frame(body), Polled::Pending);
    }
    feed.send(" upon a time");
    feed.end();
    settle().await;
    let error = "the response announced a body of 9 bytes, its source gave 16";
    assert_eq!(frame(&mut follower), Polled::Error(error.to_owned()));
    assert_eq!(frame(&mut leader), data(" upon a time"));
    assert_eq!(frame(&mut leader), Polled::Pending);
    settle().await;
    assert_eq!(frame(&mut leader), Polled::End);
    assert_eq!(origin.count(), 1);
    drop(follower);
    assert_idle(&handle);
}

#[tokio::test]
async fn nobody_joins_a_body_that_has_outgrown_max_body_and_who_has_joined_reads_on() {
    let (mut service, mut origin, handle) = stack(&layer().max_body(5));
    let [mut leader, mut follower] = leader_and_follower(&mut service);
    let feed = origin.call().begin();
    settle().await;
    let mut bodies = [&mut leader, &mut follower].map(|call| now(call).into_body());
    feed.send("on");
    feed.send("ce");
    feed.send(" upon");
    settle().await;
    assert_eq!(handle.in_flight(), 0);
    let mut newcomer = service.call(get("/page"));
    assert_pending(&mut newcomer);
    assert_eq!((origin.count(), handle.waiters(&key())), (2, 1));
    for body in &mut bodies {
        for want in ["on", "ce", " upon"] {
            assert_eq!(frame(body), data(want));
        }
    }
    // From now on frame by frame, as they ask.
    feed.send(" a");
    feed.send(" time");
    feed.end();
    assert_eq!(feed.pulled(), 3);
    for want in [data(" a"), data(" time"), Polled::End] {
        for body in &mut bodies {
            assert_eq!(next(body).await, want);
        }
    }
    drop(newcomer);
    assert_idle(&handle);
}

#[tokio::test]
async fn the_copy_of_an_outgrown_body_is_dropped() {
    for joined in [false, true] {
        let (mut service, mut origin, handle) = stack(&layer().max_body(8));
        let (feed, mut leader) = lone_leader(&mut service, &mut origin, None);
        feed.send("once");
        assert_eq!(frame(&mut leader), data("once"));
        // One that has left.
        drop(joined.then(|| service.call(get("/page"))));
        feed.send(" upo");
        settle().await;
        assert_eq!(frame(&mut leader), data(" upo"));
        assert_eq!(handle.stats().buffered_bytes, 8);
        feed.send("n a time");
        settle().await;
        assert_eq!(frame(&mut leader), data("n a time"));
        assert_eq!(handle.stats().buffered_bytes, 0, "joined: {joined}");
        feed.send(", there was");
        settle().await;
        assert_eq!(frame(&mut leader), data(", there was"));
        assert_eq!(handle.stats().buffered_bytes, 0);
        drop(leader);
        assert_idle(&handle);
    }
}

#[tokio::test]
async fn what_a_slow_leader_has_not_read_of_an_outgrown_body_is_kept_for_it() {
    let (mut service, mut origin, handle) = stack(&layer().max_body(8));
    let [mut leader, mut follower] = leader_and_follower(&mut service);
    let feed = origin.call().begin();
    feed.send("once");
    feed.send(" upo");
    feed.send("n a time");
    feed.send(" there was");
    settle().await;
    // One frame beyond the limit, and no more until the leader asks.
    assert_eq!(feed.pulled(), 3);
    let follower = now(&mut follower);
    assert_eq!((origin.count(), handle.in_flight()), (1, 0));
    assert!(handle.stats().buffered_bytes <= 8 + "n a time".len());
    let mut leader = now(&mut leader).into_body();
    feed.end();
    for want in [
        data("once"),
        data(" upo"),
        data("n a time"),
        data(" there was"),
        Polled::End,
    ] {
        assert_eq!(next(&mut leader).await, want);
    }
    drop(follower);
    assert_idle(&handle);
}

#[tokio::test]
async fn max_body_itself_is_no_more_than_max_body() {
    for known in [true, false] {
        let (mut service, mut origin, handle) = stack(&layer().max_body(4));
        let [mut leader, mut follower] = leader_and_follower(&mut service);
        let feed = origin.call().begin_of(known.then_some(4));
        feed.send("page");
        feed.end();
        settle().await;
        for call in [&mut leader, &mut follower] {
            let body = now(call).into_body();
            assert_eq!(body.collect().await.unwrap().to_bytes(), "page");
        }
        assert_eq!(origin.count(), 1);
        assert_idle(&handle);
    }
}

#[tokio::test]
async fn a_max_body_of_nothing_shares_empty_bodies_alone() {
    let (mut service, mut origin, handle) = stack(&layer().max_body(0));
    let [leader, mut follower] = leader_and_follower(&mut service);
    origin
        .call()
        .answer(Response::new(ready(&[], SizeHint::with_exact(0))));
    settle().await;
    assert_eq!(role(&now(&mut follower)), Role::Follower);
    drop((leader, follower));
    assert_idle(&handle);
}

#[tokio::test]
async fn max_buffered_is_a_hard_bound_for_all_copies_together() {
    let (mut service, mut origin, handle) = stack(&layer().max_buffered(6));
    let other = || {
        let mut request = get("/page");
        *request.uri_mut() = "/other".parse().unwrap();
        request
    };
    let mut first = service.call(get("/page"));
    assert_pending(&mut first);
    let mut follower = service.call(get("/page"));
    let feed = origin.call().begin_known(6);
    settle().await;
    // Reserved with the head.
    assert_eq!(handle.stats().buffered_bytes, 6);
    let mut follower = now(&mut follower).into_body();

    let mut second = service.call(other());
    assert_pending(&mut second);
    let mut released = service.call(other());
    let second_feed = origin.call().begin_known(3);
    settle().await;
    assert_eq!(handle.stats().buffered_bytes, 6);
    assert_eq!(handle.in_flight(), 1);
    assert_pending(&mut released);
    assert_eq!(origin.count(), 3);
    second_feed.send("two");
    second_feed.end();
    let body = second.await.unwrap().into_body();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "two");

    feed.send("a page");
    feed.end();
    settle().await;
    assert_eq!(frame(&mut follower), data("a page"));
    assert_eq!(frame(&mut follower), Polled::End);
    drop((first, follower, released));
    assert_idle(&handle);
}

#[tokio::test]
async fn a_complete_copy_is_paid_for_until_the_last_follower_has_had_it() {
    let (mut service, mut origin, handle) = stack(&layer().max_buffered(4));
    for order in [[0, 1], [1, 0]] {
        let [mut leader, mut follower] = leader_and_follower(&mut service);
        let mut other = service.call(get("/page"));
        let feed = origin.call().begin();
        feed.send("page");
        feed.end();
        settle().await;
        assert_eq!((handle.in_flight(), handle.stats().waiters), (0, 3));
        let mut bodies = [&mut follower, &mut other].map(|call| now(call).into_body());
        // The leader has had everything, and is gone.
        let mut own = now(&mut leader).into_body();
        assert_eq!(frame(&mut own), data("page"));
        drop((own, leader));
        for (at, waiters) in order.into_iter().zip([2, 1]) {
            let held = handle.stats();
            assert_eq!((held.waiters, held.buffered_bytes), (waiters, 4));
            assert_eq!(frame(&mut bodies[at]), data("page"));
            assert_eq!(handle.stats().waiters, waiters);
            assert_eq!(frame(&mut bodies[at]), Polled::End);
        }
        assert_idle(&handle);
    }
    // One that is dropped unread.
    let [leader, mut follower] = leader_and_follower(&mut service);
    let feed = origin.call().begin();
    feed.send("page");
    feed.end();
    settle().await;
    let body = now(&mut follower).into_body();
    drop((leader, follower));
    assert_eq!(handle.stats().buffered_bytes, 4);
    drop(body);
    assert_idle(&handle);
}

#[tokio::test]
async fn a_complete_copy_is_freed_with_its_last_reader_though_one_who_was_moved_holds_the_flight() {
    let (mut service, mut origin, handle) = stack(&layer());
    let [leader, mut follower] = leader_and_follower(&mut service);
    let mut other = get("/page");
    let coding = "br".parse().unwrap();
    other.headers_mut().insert("accept-encoding", coding);
    // It waits in the flight of its variant from then on, and learns that when it is polled.
    let moved = service.call(other);
    let head = Response::builder().header("vary", "accept-encoding");
    let feed = origin.call().begin_with(head, SizeHint::new());
    feed.send("page");
    feed.end();
    settle().await;
    drop(leader);
    let mut follower = now(&mut follower).into_body();
    assert_eq!(handle.stats().buffered_bytes, 4);
    assert_eq!(frame(&mut follower), data("page"));
    assert_eq!(frame(&mut follower), Polled::End);
    let held = handle.stats();
    assert_eq!((held.buffered_bytes, held.waiters), (0, 1));
    drop(moved);
    assert_idle(&handle);
}

#[tokio::test]
async fn a_body_that_finds_max_buffered_full_midway_goes_on_in_what_there_is() {
    for expected in [None, Some(11)] {
        let (mut service, mut origin, handle) = stack(&layer().max_buffered(6));
        let [mut leader, mut follower] = leader_and_follower(&mut service);
        let feed = origin.call().begin_of(expected);
        settle().await;
        let mut bodies = [&mut leader, &mut follower].map(|call| now(call).into_body());
        feed.send("once");
        settle().await;
        assert_eq!(handle.stats().buffered_bytes, 4);
        feed.send(" upon");
        feed.send(" a");
        feed.end();
        for want in [data("once"), data(" upon"), data(" a"), Polled::End] {
            for body in &mut bodies {
                settle().await;
                assert_eq!(next(body).await, want, "{expected:?}");
                assert!(handle.stats().buffered_bytes <= 6);
            }
        }
        assert_eq!((origin.count(), handle.in_flight()), (1, 0));
        assert_idle(&handle);
    }
}

#[tokio::test]
async fn a_body_in_millions_of_tiny_frames_costs_no_multiple_of_its_price() {
    let (mut service, mut origin, handle) = stack(&layer());
    let (feed, mut leader) = lone_leader(&mut service, &mut origin, None);
    for _ in 0..200_000 {
        feed.send("x");
        assert_eq!(frame(&mut leader), data("x"));
    }
    // Of 2 MiB no more than some ten thousand frames were kept.
    assert_eq!((handle.in_flight(), handle.stats().buffered_bytes), (0, 0));
    drop(leader);
    assert_idle(&handle);
}

/// What was promised with the head is kept though nothing is left for the frames' places.
#[tokio::test]
async fn a_known_length_that_was_paid_for_is_kept_whole_in_however_many_frames() {
    const FRAMES: usize = 4_096;
    const TEXT: &str = "all in frames of forty bytes, or so.....";
    let len = FRAMES * TEXT.len();
    let (mut service, mut origin, handle) = stack(&layer().max_buffered(len));
    let [mut leader, mut follower] = leader_and_follower(&mut service);
    let feed = origin.call().begin_known(len as u64);
    settle().await;
    let mut leader = now(&mut leader).into_body();
    for _ in 0..FRAMES {
        feed.send(TEXT);
        settle().await;
        assert_eq!(frame(&mut leader), data(TEXT));
        assert_eq!(handle.stats().buffered_bytes, len);
    }
    feed.end();
    settle().await;
    let body = now(&mut follower).into_body();
    assert_eq!(body.collect().await.unwrap().to_bytes().len(), len);
    drop(leader);
    assert_idle(&handle);
}

#[tokio::test]
async fn one_more_than_max_waiters_makes_its_own_call() {
    let (mut service, mut origin, handle) = stack(&layer().max_waiters(2));
    let [mut leader, mut follower] = leader_and_follower(&mut service);
    let mut third = service.call(get("/page"));
    assert_pending(&mut third);
    assert_eq!((origin.count(), handle.waiters(&key())), (2, 2));
    let (first, own) = (origin.call(), origin.call());
    own.answer(Response::new(ready(&["own"], SizeHint::new())));
    let response = now(&mut third);
    assert_eq!(role(&response), Role::Forwarded);
    drop(response);
    // Also midway through a body; and who leaves makes room.
    let feed = first.begin_known(4);
    settle().await;
    let mut begun = now(&mut follower).into_body();
    drop(now(&mut leader));
    let mut late = now(&mut service.call(get("/page"))).into_body();
    let mut crowd = service.call(get("/page"));
    assert_pending(&mut crowd);
    assert_eq!(origin.count(), 3);
    feed.send("page");
    feed.end();
    settle().await;
    for body in [&mut begun, &mut late] {
        assert_eq!(frame(body), data("page"));
        assert_eq!(frame(body), Polled::End);
    }
    let stats = handle.stats();
    assert_eq!((stats.led, stats.joined, stats.forwarded), (1, 2, 2));
    drop(crowd);
    assert_idle(&handle);
}

#[tokio::test(start_paused = true)]
async fn an_older_flight_than_max_age_is_not_joined() {
    let age = Duration::from_secs(5);
    let (mut service, mut origin, handle) = stack(&layer().max_age(age));
    let mut leader = service.call(get("/page"));
    assert_pending(&mut leader);
    tokio::time::advance(age).await;
    let mut follower = service.call(get("/page"));
    assert_eq!(handle.waiters(&key()), 2);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!((handle.waiters(&key()), handle.in_flight()), (0, 0));
    let mut next = service.call(get("/page"));
    assert_pending(&mut next);
    assert_eq!((origin.count(), handle.waiters(&key())), (2, 1));
    assert_eq!(handle.stats().in_flight, 1, "the old one has made way");
    // Who has joined goes on.
    let (old, new) = (origin.call(), origin.call());
    old.answer(Response::new(ready(&["old"], SizeHint::new())));
    new.answer(Response::new(ready(&["new"], SizeHint::new())));
    for (call, want) in [(leader, "old"), (next, "new")] {
        let body = call.await.unwrap().into_body();
        assert_eq!(body.collect().await.unwrap().to_bytes(), want);
    }
    settle().await;
    let body = now(&mut follower).into_body();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "old");
    assert_idle(&handle);
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_has_waited_long_enough_makes_its_own_call() {
    let wait = Duration::from_secs(5);
    let (mut service, mut origin, handle) = stack(&layer().wait_timeout(wait));
    let [leader, mut follower] = leader_and_follower(&mut service);
    assert_pending(&mut follower);
    tokio::time::advance(wait - Duration::from_millis(1)).await;
    assert_pending(&mut follower);
    assert_eq!(origin.count(), 1);
    tokio::time::advance(Duration::from_millis(2)).await;
    assert_pending(&mut follower);
    assert_eq!((origin.count(), handle.waiters(&key())), (2, 1));
    let (_, own) = (origin.call(), origin.call());
    own.answer(Response::new(ready(&["own"], SizeHint::new())));
    let response = now(&mut follower);
    assert_eq!(role(&response), Role::Forwarded);
    let stats = handle.stats();
    assert_eq!((stats.joined, stats.forwarded), (1, 1));
    drop((leader, response));
    assert_idle(&handle);
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_has_its_head_waits_for_the_body_without_a_limit() {
    let wait = Duration::from_secs(5);
    let (mut service, mut origin, handle) = stack(&layer().wait_timeout(wait));
    let [leader, mut follower] = leader_and_follower(&mut service);
    assert_pending(&mut follower);
    let feed = origin.call().begin_known(4);
    settle().await;
    // Decided before the time was over, though it is looked at later.
    tokio::time::advance(2 * wait).await;
    let mut follower = now(&mut follower).into_body();
    tokio::time::advance(2 * wait).await;
    assert_eq!(frame(&mut follower), Polled::Pending);
    feed.send("page");
    feed.end();
    settle().await;
    assert_eq!(frame(&mut follower), data("page"));
    assert_eq!(frame(&mut follower), Polled::End);
    assert_eq!(origin.count(), 1);
    drop(leader);
    assert_idle(&handle);
}

/// A leader that is alone in a flight, has read this much, and keeps it for those who may come.
async fn lone(
    service: &mut Layered,
    origin: &mut Calls,
    uri: &str,
    text: &'static str,
) -> (Feed, ResponseBody<Mock>) {
    let mut leader = service.call(get(uri));
    assert_pending(&mut leader);
    let feed = origin.call().begin();
    let mut body = now(&mut leader).into_body();
    feed.send(text);
    assert_eq!(frame(&mut body), data(text));
    (feed, body)
}

#[tokio::test]
async fn what_a_lone_leader_keeps_gives_way_to_a_flight_that_somebody_shares() {
    let (mut service, mut origin, handle) = stack(&layer().max_body(8).max_buffered(8));
    let unanswered = service.call(get("/unanswered"));
    let _call = origin.call();
    let (feed, mut alone) = lone(&mut service, &mut origin, "/alone", "alone.").await;
    assert_eq!((handle.in_flight(), handle.stats().buffered_bytes), (2, 6));
    let calls = [(); 2].map(|()| service.call(get("/page")));
    let page = origin.call().begin_known(6);
    settle().await;
    // Nobody can join what has given way; who has no head yet keeps nothing.
    assert_eq!((handle.in_flight(), handle.stats().buffered_bytes), (2, 6));
    let [mut leader, mut follower] = calls.map(|mut call| now(&mut call).into_body());
    page.send("pa");
    page.send("ge..");
    page.end();
    settle().await;
    for body in [&mut leader, &mut follower] {
        assert_eq!(frame(body), data("pa"));
        assert_eq!(frame(body), data("ge.."));
        assert_eq!(frame(body), Polled::End);
    }
    feed.send("goes on");
    assert_eq!(frame(&mut alone), data("goes on"));
    assert_eq!(origin.count(), 3);
    drop((unanswered, alone, leader, follower));
    assert_idle(&handle);
}

#[tokio::test]
async fn what_a_lone_leader_keeps_gives_way_to_the_next_frame_of_another() {
    let (mut service, mut origin, handle) = stack(&layer().max_body(8).max_buffered(8));
    let (_feed, alone) = lone(&mut service, &mut origin, "/alone", "alone.").await;
    let (feed, mut leader) = lone(&mut service, &mut origin, "/page", "pa").await;
    assert_eq!(handle.stats().buffered_bytes, 8);
    feed.send("ge");
    assert_eq!(frame(&mut leader), data("ge"));
    // The other's copy has gone, and this one is whole.
    assert_eq!((handle.in_flight(), handle.stats().buffered_bytes), (1, 4));
    let mut follower = now(&mut service.call(get("/page"))).into_body();
    for part in ["pa", "ge"] {
        assert_eq!(frame(&mut follower), data(part));
    }
    assert_eq!(origin.count(), 2);
    drop((alone, leader, follower));
    assert_idle(&handle);
}

#[tokio::test]
async fn a_frame_passes_though_what_gives_way_to_it_panics_when_it_is_dropped() {
    let (mut service, mut origin, handle) = stack(&layer().max_buffered(20_000));
    let (other, mut alone) = lone(&mut service, &mut origin, "/alone", "a").await;
    let armed = Arc::new(AtomicBool::new(false));
    other.bytes(bad_data(15_000, &armed));
    assert!(matches!(frame(&mut alone), Polled::Data(_)));
    let (feed, mut leader) = lone(&mut service, &mut origin, "/page", "pa").await;
    armed.store(true, Ordering::SeqCst);
    feed.bytes(vec![0; 15_000].into());
    assert!(matches!(frame(&mut leader), Polled::Data(_)));
    assert!(!armed.load(Ordering::SeqCst), "it is dropped");
    assert_eq!(handle.in_flight(), 1);
    drop((alone, leader));
    assert_idle(&handle);
}

#[tokio::test]
async fn a_frame_for_which_others_give_way_in_vain_passes_all_the_same() {
    let (mut service, mut origin, handle) = stack(&layer().max_body(16).max_buffered(8));
    let (_feed, alone) = lone(&mut service, &mut origin, "/alone", "ab").await;
    let (feed, mut leader) = lone(&mut service, &mut origin, "/page", "once").await;
    for part in ["upon.", "a", "time"] {
        feed.send(part);
        assert_eq!(frame(&mut leader), data(part));
    }
    assert_eq!(handle.in_flight(), 0);
    drop((alone, leader));
    assert_idle(&handle);
}

#[tokio::test]
async fn what_somebody_has_joined_gives_way_to_nobody_though_its_leader_is_alone_again() {
    let (mut service, mut origin, handle) = stack(&layer().max_body(8).max_buffered(8));
    let (_feed, joined) = lone(&mut service, &mut origin, "/joined", "ab").await;
    drop(now(&mut service.call(get("/joined"))));
    let (_feed, alone) = lone(&mut service, &mut origin, "/alone", "once").await;
    let calls = [(); 2].map(|()| service.call(get("/page")));
    let _page = origin.call().begin_known(6);
    settle().await;
    // That which was never joined gave way.
    assert_eq!((handle.in_flight(), handle.stats().buffered_bytes), (2, 8));
    let mut follower = now(&mut service.call(get("/joined"))).into_body();
    assert_eq!(frame(&mut follower), data("ab"));
    assert_eq!(origin.count(), 3);
    drop((joined, alone, follower, calls));
    assert_idle(&handle);
}

#[tokio::test]
async fn what_is_kept_of_a_call_that_is_to_be_finished_without_callers_gives_way_to_nobody() {
    let layer = layer().finish_abandoned(true);
    let (mut service, mut origin, handle) = stack(&layer.max_body(8).max_buffered(8));
    let (feed, abandoned) = lone(&mut service, &mut origin, "/abandoned", "ab").await;
    drop(abandoned);
    let calls = [(); 2].map(|()| service.call(get("/page")));
    let page = origin.call().begin_known(8);
    settle().await;
    assert_eq!((handle.in_flight(), handle.stats().buffered_bytes), (2, 2));
    feed.send("andoned");
    feed.end();
    settle().await;
    assert_eq!((feed.pulled(), feed.is_dropped()), (2, true));
    page.end();
    settle().await;
    drop(calls);
    assert_idle(&handle);
}

#[tokio::test]
async fn what_a_lone_leader_keeps_gives_way_to_no_body_that_outgrows_max_body() {
    let (mut service, mut origin, handle) = stack(&layer().max_body(8).max_buffered(100));
    let (_feed, alone) = lone(&mut service, &mut origin, "/alone", "alone.").await;
    for promised in [None, Some(12)] {
        let mut large = service.call(get("/large"));
        assert_pending(&mut large);
        let feed = origin.call().begin_of(promised);
        let mut large = now(&mut large).into_body();
        for part in ["once", "upon", "time"] {
            feed.send(part);
            assert_eq!(frame(&mut large), data(part));
        }
        assert_eq!(handle.in_flight(), 1);
    }
    drop(now(&mut service.call(get("/alone"))));
    assert_eq!(origin.count(), 3);
    drop(alone);
    assert_idle(&handle);
}

#[tokio::test]
async fn a_lone_leader_that_keeps_nothing_yet_is_joined_though_memory_is_short() {
    let (mut service, mut origin, handle) = stack(&layer().max_body(8).max_buffered(8));
    let mut silent = service.call(get("/silent"));
    assert_pending(&mut silent);
    let _silent = origin.call().begin();
    let silent = now(&mut silent).into_body();
    let (feed, mut leader) = lone(&mut service, &mut origin, "/page", "page").await;
    let (_feed, alone) = lone(&mut service, &mut origin, "/alone", "one").await;
    feed.send("page");
    assert_eq!(frame(&mut leader), data("page"));
    // That which held three bytes gave way.
    assert_eq!((handle.in_flight(), handle.stats().buffered_bytes), (2, 8));
    drop(now(&mut service.call(get("/silent"))));
    assert_eq!(origin.count(), 3);
    drop((silent, leader, alone));
    assert_idle(&handle);
}
