//! A body that outgrows `max_body` goes on in a window, and whoever falls out of that calls again.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use http_body::Body;
use http_body_util::BodyExt;
use tower::Service;
use tower_singleflight::{Handle, ResponseBody, Role};

use crate::support::{
    Count, assert_idle,
    body::{
        Calls, Feed, Key, Layered, Mock, Polled, assert_pending, bad_data, data, frame, key, layer,
        leader_and_follower, now, stack,
    },
    get, role, settle,
};

fn windowed(max_body: usize) -> (Layered, Calls, Handle<Key>) {
    stack(&layer().max_body(max_body))
}

/// A leader and followers that have their heads, and the source of their body.
struct Flight<const FOLLOWERS: usize> {
    service: Layered,
    origin: Calls,
    handle: Handle<Key>,
    feed: Feed,
    leader: ResponseBody<Mock>,
    followers: [ResponseBody<Mock>; FOLLOWERS],
}

async fn flight<const FOLLOWERS: usize>(
    (mut service, mut origin, handle): (Layered, Calls, Handle<Key>),
) -> Flight<FOLLOWERS> {
    let mut leader = service.call(get("/page"));
    assert_pending(&mut leader);
    let mut followers = [(); FOLLOWERS].map(|()| service.call(get("/page")));
    let feed = origin.call().begin();
    settle().await;
    Flight {
        leader: now(&mut leader).into_body(),
        followers: followers.each_mut().map(|call| now(call).into_body()),
        service,
        origin,
        handle,
        feed,
    }
}

#[tokio::test]
async fn followers_begin_with_the_head_and_read_live() {
    let (mut service, mut origin, handle) = windowed(100);
    let [mut leader, mut follower] = leader_and_follower(&mut service);
    let feed = origin.call().begin();
    settle().await;
    let follower = now(&mut follower);
    assert_eq!(role(&follower), Role::Follower);
    let mut leader = now(&mut leader).into_body();
    let mut follower = follower.into_body();
    for part in ["pa", "ge"] {
        feed.send(part);
        settle().await;
        assert_eq!(frame(&mut follower), data(part));
        assert_eq!(frame(&mut leader), data(part));
    }
    // Who joins half-way starts at the first byte.
    let mut late = now(&mut service.call(get("/page"))).into_body();
    for want in ["pa", "ge"] {
        assert_eq!(frame(&mut late), data(want));
    }
    feed.end();
    settle().await;
    for body in [&mut leader, &mut follower, &mut late] {
        assert_eq!(frame(body), Polled::End);
    }
    assert_eq!(origin.count(), 1);
    assert_idle(&handle);
}

#[tokio::test]
async fn nobody_joins_a_body_that_has_outgrown_its_limit() {
    let Flight {
        mut service,
        origin,
        handle,
        feed,
        leader,
        followers: [follower],
    } = flight(windowed(4)).await;
    feed.send("once");
    settle().await;
    assert_eq!(handle.in_flight(), 1);
    feed.send(" upon");
    settle().await;
    assert_eq!((handle.in_flight(), handle.stats().forwarded), (0, 0));
    let mut next = service.call(get("/page"));
    assert_pending(&mut next);
    assert_eq!((origin.count(), handle.waiters(&key())), (2, 1));
    let mut bodies = [leader, follower];
    for body in &mut bodies {
        assert_eq!(frame(body), data("once"));
        assert_eq!(frame(body), data(" upon"));
    }
    drop((bodies, next));
    assert!(feed.is_dropped());
    assert_idle(&handle);
}

#[tokio::test]
async fn a_follower_that_falls_out_of_the_window_calls_again_and_goes_on_where_it_was() {
    let Flight {
        mut origin,
        handle,
        feed,
        mut leader,
        followers: [mut slow, mut other],
        ..
    } = flight(windowed(4)).await;
    feed.send("0.");
    settle().await;
    for body in [&mut leader, &mut other, &mut slow] {
        assert_eq!(frame(body), data("0."));
    }
    for part in ["1.", "2.", "3.", "4.", "5."] {
        for body in [&mut leader, &mut other] {
            assert_eq!(frame(body), Polled::Pending);
        }
        feed.send(part);
        settle().await;
        for body in [&mut leader, &mut other] {
            assert_eq!(frame(body), data(part));
        }
        assert!(handle.stats().buffered_bytes <= 4);
    }
    assert_eq!(frame(&mut slow), Polled::Pending);
    assert_eq!((origin.count(), handle.stats().forwarded), (2, 1));
    // It leads now, and shares with those who come.
    assert_eq!(handle.waiters(&key()), 1);
    let own = origin.call().begin();
    own.send("0");
    own.send(".1.");
    assert_eq!(frame(&mut slow), data("1."));
    own.send("2.");
    own.end();
    assert_eq!(frame(&mut slow), data("2."));
    assert_eq!(frame(&mut slow), Polled::End);
    feed.end();
    for body in [&mut leader, &mut other] {
        while frame(body) == Polled::Pending {
            settle().await;
        }
    }
    assert_idle(&handle);
}

#[tokio::test]
async fn a_follower_that_has_read_nothing_before_it_falls_out_gets_its_own_call_whole() {
    let Flight {
        mut origin,
        handle,
        feed,
        mut leader,
        followers: [mut slow, mut other],
        ..
    } = flight(windowed(4)).await;
    for part in ["0.", "1.", "2.", "3."] {
        for body in [&mut leader, &mut other] {
            assert_eq!(frame(body), Polled::Pending);
        }
        feed.send(part);
        settle().await;
        for body in [&mut leader, &mut other] {
            assert_eq!(frame(body), data(part));
        }
    }
    assert_eq!(frame(&mut slow), Polled::Pending);
    assert_eq!(origin.count(), 2);
    let own = origin.call().begin();
    for part in ["0.", "1.", "2.", "3."] {
        own.send(part);
        assert_eq!(frame(&mut slow), data(part));
    }
    own.end();
    assert_eq!(frame(&mut slow), Polled::End);
    drop((leader, slow, other));
    assert_idle(&handle);
}

#[tokio::test]
async fn a_follower_that_takes_its_head_after_the_end_of_what_it_has_missed_calls_again() {
    let (mut service, mut origin, handle) = windowed(4);
    let [mut leader, mut late] = leader_and_follower(&mut service);
    let mut other = service.call(get("/page"));
    let feed = origin.call().begin();
    settle().await;
    let mut bodies = [&mut leader, &mut other].map(|call| now(call).into_body());
    for part in ["0.", "1.", "2.", "3."] {
        for body in &mut bodies {
            assert_eq!(frame(body), Polled::Pending);
        }
        feed.send(part);
        settle().await;
        for body in &mut bodies {
            assert_eq!(frame(body), data(part));
        }
    }
    feed.end();
    assert_eq!(frame(&mut bodies[0]), Polled::Pending);
    settle().await;
    assert_eq!(bodies.each_mut().map(frame), [Polled::End, Polled::End]);
    let mut late = now(&mut late).into_body();
    assert_eq!(frame(&mut late), Polled::Pending);
    assert_eq!(origin.count(), 2);
    let own = origin.call().begin();
    for part in ["0.", "1.", "2.", "3."] {
        own.send(part);
        assert_eq!(frame(&mut late), data(part));
    }
    own.end();
    assert_eq!(frame(&mut late), Polled::End);
    assert_idle(&handle);
}

#[tokio::test]
async fn a_follower_within_the_window_loses_nothing() {
    let Flight {
        handle,
        feed,
        mut leader,
        followers: [mut behind],
        ..
    } = flight(windowed(4)).await;
    let parts = ["0.", "1.", "2.", "3.", "4.", "5."];
    for (index, part) in parts.into_iter().enumerate() {
        assert_eq!(frame(&mut leader), Polled::Pending);
        feed.send(part);
        settle().await;
        assert_eq!(frame(&mut leader), data(part));
        if index > 0 {
            assert_eq!(frame(&mut behind), data(parts[index - 1]));
        }
    }
    feed.end();
    assert_eq!(frame(&mut leader), Polled::Pending);
    settle().await;
    assert_eq!(frame(&mut leader), Polled::End);
    assert_eq!(frame(&mut behind), data("5."));
    assert_eq!(frame(&mut behind), Polled::End);
    assert_idle(&handle);
}

#[tokio::test]
async fn an_outgrown_source_is_pulled_as_the_fastest_reader_asks() {
    let (mut service, mut origin, handle) = windowed(4);
    let [mut leader, mut follower] = leader_and_follower(&mut service);
    let feed = origin.call().begin();
    for part in ["0.", "1.", "2.", "3.", "4.", "5."] {
        feed.send(part);
    }
    settle().await;
    // Two that fit, one that did not.
    assert_eq!(feed.pulled(), 3);
    let mut fast = now(&mut follower).into_body();
    let mut leader = now(&mut leader).into_body();
    for want in ["0.", "1.", "2."] {
        assert_eq!(frame(&mut fast), data(want));
    }
    for want in ["0.", "1."] {
        assert_eq!(frame(&mut leader), data(want));
    }
    settle().await;
    assert_eq!(feed.pulled(), 3);
    assert_eq!(frame(&mut fast), Polled::Pending);
    settle().await;
    assert_eq!(feed.pulled(), 4);
    assert_eq!(frame(&mut fast), data("3."));
    drop((leader, fast));
    assert!(feed.is_dropped());
    assert_idle(&handle);
}

#[tokio::test]
async fn a_leader_that_leaves_the_window_harms_nobody() {
    let Flight {
        handle,
        feed,
        leader,
        followers: [mut follower],
        ..
    } = flight(windowed(2)).await;
    drop(leader);
    for part in ["0.", "1.", "2.", "3."] {
        feed.send(part);
    }
    feed.end();
    let mut got = Vec::new();
    loop {
        match frame(&mut follower) {
            Polled::Data(data) => got.push(data),
            Polled::Pending => settle().await,
            end => {
                assert_eq!(end, Polled::End);
                break;
            }
        }
    }
    assert_eq!(got, ["0.", "1.", "2.", "3."]);
    assert_idle(&handle);
}

#[tokio::test]
async fn a_window_keeps_within_max_buffered() {
    let layer = layer().max_body(8).max_buffered(3);
    let Flight {
        handle,
        feed,
        leader,
        followers: [follower],
        ..
    } = flight(stack(&layer)).await;
    let mut bodies = [leader, follower];
    for part in ["0.", "1.", "2.", "3."] {
        for body in &mut bodies {
            assert_eq!(frame(body), Polled::Pending);
        }
        feed.send(part);
        settle().await;
        assert!(handle.stats().buffered_bytes <= 3);
        for body in &mut bodies {
            assert_eq!(frame(body), data(part));
        }
    }
    drop(bodies);
    assert_idle(&handle);
}

#[tokio::test]
async fn a_leader_alone_never_falls_out_of_the_window() {
    let (mut service, mut origin, handle) = windowed(4);
    let leader = service.call(get("/page"));
    let reading = tokio::spawn(async move {
        let response = leader.await.unwrap();
        response.into_body().collect().await.unwrap().to_bytes()
    });
    settle().await;
    let feed = origin.call().begin();
    for _ in 0..100 {
        feed.send("0123456789");
    }
    feed.end();
    assert_eq!(reading.await.unwrap().len(), 1_000);
    assert_idle(&handle);
}

#[tokio::test]
async fn a_follower_that_waits_is_woken_when_the_reader_that_sets_the_pace_leaves() {
    let Flight {
        handle,
        feed,
        mut leader,
        followers: [mut follower],
        ..
    } = flight(windowed(4)).await;
    for part in ["0.", "1.", "2.", "3."] {
        for body in [&mut leader, &mut follower] {
            assert_eq!(frame(body), Polled::Pending);
        }
        feed.send(part);
        settle().await;
        for body in [&mut leader, &mut follower] {
            assert_eq!(frame(body), data(part));
        }
    }
    let woken = Count::new();
    let waker = woken.waker();
    let mut cx = Context::from_waker(&waker);
    assert!(Pin::new(&mut follower).poll_frame(&mut cx).is_pending());
    settle().await;
    assert_eq!(woken.take(), 0);
    drop(leader);
    assert_eq!(woken.get(), 1, "it sets the pace now");
    assert_eq!(frame(&mut follower), Polled::Pending);
    feed.send("4.");
    settle().await;
    assert_eq!(frame(&mut follower), data("4."));
    drop(follower);
    assert_idle(&handle);
}

#[tokio::test]
async fn a_follower_that_waits_is_woken_though_the_reader_that_sets_the_pace_panics_as_it_leaves() {
    let Flight {
        handle,
        feed,
        mut leader,
        followers: [mut follower],
        ..
    } = flight(windowed(15_000)).await;
    let armed = Arc::new(AtomicBool::new(false));
    for _ in 0..3 {
        for body in [&mut leader, &mut follower] {
            assert_eq!(frame(body), Polled::Pending);
        }
        feed.bytes(bad_data(10_000, &armed));
        settle().await;
        for body in [&mut leader, &mut follower] {
            assert!(matches!(frame(body), Polled::Data(_)));
        }
    }
    let woken = Count::new();
    let waker = woken.waker();
    let mut cx = Context::from_waker(&waker);
    assert!(Pin::new(&mut follower).poll_frame(&mut cx).is_pending());
    settle().await;
    woken.take();
    armed.store(true, Ordering::SeqCst);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(leader))).is_err());
    assert_eq!(woken.get(), 1, "it sets the pace now");
    drop(follower);
    assert_idle(&handle);
}

#[tokio::test]
async fn a_follower_that_has_not_taken_its_head_holds_up_no_reader() {
    let (mut service, mut origin, handle) = stack(&layer().max_buffered(4_000));
    let [leader, mut reads] = leader_and_follower(&mut service);
    let waits = service.call(get("/page"));
    drop(leader);
    // It is paid for, but not the places of so many frames: a window that has room for more.
    let feed = origin.call().begin_known(4_000);
    settle().await;
    let mut body = now(&mut reads).into_body();
    while handle.in_flight() > 0 {
        feed.send(".");
        settle().await;
    }
    for _ in 0..feed.pulled() {
        assert_eq!(frame(&mut body), data("."));
    }
    assert_eq!(frame(&mut body), Polled::Pending);
    feed.send(".");
    settle().await;
    assert_eq!(frame(&mut body), data("."));
    drop((body, waits));
    assert_idle(&handle);
}

#[tokio::test]
async fn a_follower_that_waits_for_its_leader_yields_each_time() {
    let Flight {
        origin,
        handle,
        feed,
        mut leader,
        followers: [mut follower],
        ..
    } = flight(windowed(4)).await;
    let (leads, follows) = (Count::new(), Count::new());
    let poll = |body: &mut ResponseBody<Mock>, count: &Count| {
        let waker = count.waker();
        let polled = Pin::new(body).poll_frame(&mut Context::from_waker(&waker));
        polled.map(|frame| frame.unwrap().unwrap().into_data().unwrap())
    };
    for part in ["0.", "1.", "2."] {
        assert!(poll(&mut follower, &follows).is_pending());
        feed.send(part);
        settle().await;
        assert_eq!(poll(&mut follower, &follows), Poll::Ready(part.into()));
    }
    for (had, part) in [(&["0.", "1."][..], "3."), (&["2."], "4.")] {
        follows.take();
        assert!(poll(&mut follower, &follows).is_pending());
        assert_eq!(follows.take(), 1, "it yields");
        // The leader reads, so there is room for one more.
        for had in had {
            assert_eq!(poll(&mut leader, &leads), Poll::Ready((*had).into()));
        }
        assert!(poll(&mut follower, &follows).is_pending());
        assert_eq!(origin.count(), 1, "it does not move on");
        feed.send(part);
        settle().await;
        assert_eq!(poll(&mut follower, &follows), Poll::Ready(part.into()));
    }
    drop((leader, follower));
    assert_idle(&handle);
}
