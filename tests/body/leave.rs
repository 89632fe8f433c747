//! Who leaves, who is parked, who is slow: no caller's fate hangs on another's connection.

use http::Response;
use http_body::SizeHint;
use http_body_util::BodyExt;
use tower::Service;
use tower_singleflight::Role;

use crate::support::{
    assert_idle,
    body::{
        Polled, assert_pending, body, data, frame, key, layer, leader_and_follower, lone_leader,
        now, ready, stack,
    },
    get, role, settle,
};

#[tokio::test]
async fn a_leader_that_disconnects_before_the_head_costs_nothing() {
    let (mut service, mut origin, handle) = stack(&layer());
    let mut leader = service.call(get("/page"));
    assert_pending(&mut leader);
    let follower = tokio::spawn(service.call(get("/page")));
    settle().await;
    drop(leader);
    assert_eq!(handle.waiters(&key()), 1);
    let feed = origin.call().begin_known(4);
    feed.send("pa");
    feed.send("ge");
    feed.end();
    let response = follower.await.unwrap().unwrap();
    assert_eq!(role(&response), Role::Follower);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "page");
    assert_eq!(origin.count(), 1);
    assert_idle(&handle);
}

#[tokio::test]
async fn a_leader_that_was_never_polled_and_goes_costs_nothing() {
    let (mut service, mut origin, handle) = stack(&layer());
    let leader = service.call(get("/page"));
    let follower = tokio::spawn(service.call(get("/page")));
    drop(leader);
    settle().await;
    let feed = origin.call().begin();
    feed.send("page");
    feed.end();
    let response = follower.await.unwrap().unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!((body.as_ref(), origin.count()), (&b"page"[..], 1));
    assert_idle(&handle);
}

#[tokio::test]
async fn a_leader_that_disconnects_in_the_middle_of_the_body_costs_nothing() {
    for known in [true, false] {
        let (mut service, mut origin, handle) = stack(&layer());
        let (feed, mut leader) = lone_leader(&mut service, &mut origin, known.then_some(4));
        feed.send("pa");
        assert_eq!(frame(&mut leader), data("pa"));
        let follower = tokio::spawn(service.call(get("/page")));
        settle().await;
        drop(leader);
        settle().await;
        feed.send("ge");
        feed.end();
        let response = follower.await.unwrap().unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "page", "known: {known}");
        assert_eq!(origin.count(), 1);
        assert_idle(&handle);
    }
}

#[tokio::test]
async fn a_parked_leader_delays_no_follower() {
    for known in [true, false] {
        let (mut service, mut origin, handle) = stack(&layer());
        // Never polled again.
        let mut parked = service.call(get("/page"));
        assert_pending(&mut parked);
        let follower = tokio::spawn(async move {
            let response = { service.call(get("/page")) }.await.unwrap();
            response.into_body().collect().await.unwrap().to_bytes()
        });
        settle().await;
        let feed = origin.call().begin_of(known.then_some(4));
        feed.send("pa");
        settle().await;
        feed.send("ge");
        feed.end();
        assert_eq!(follower.await.unwrap(), "page");
        // What the leader is owed waits for it.
        assert_eq!(handle.stats().waiters, 1);
        let leader = parked.await.unwrap();
        assert_eq!(role(&leader), Role::Leader);
        let body = leader.into_body().collect().await.unwrap().to_bytes();
        assert_eq!((body.as_ref(), origin.count()), (&b"page"[..], 1));
        assert_idle(&handle);
    }
}

#[tokio::test]
async fn a_leader_that_stops_reading_in_the_body_delays_no_follower() {
    let (mut service, mut origin, handle) = stack(&layer());
    let mut leader = service.call(get("/page"));
    assert_pending(&mut leader);
    let feed = origin.call().begin_known(6);
    let mut slow = now(&mut leader).into_body();
    feed.send("pa");
    assert_eq!(frame(&mut slow), data("pa"));
    let mut follower = now(&mut service.call(get("/page"))).into_body();
    assert_eq!(frame(&mut follower), data("pa"));
    feed.send("ge");
    settle().await;
    assert_eq!(frame(&mut follower), data("ge"));
    feed.send("d.");
    feed.end();
    settle().await;
    assert_eq!(frame(&mut follower), data("d."));
    assert_eq!(frame(&mut follower), Polled::End);
    for want in [data("ge"), data("d."), Polled::End] {
        assert_eq!(frame(&mut slow), want);
    }
    assert_idle(&handle);
}

#[tokio::test]
async fn a_slow_follower_delays_nobody() {
    let (mut service, mut origin, handle) = stack(&layer());
    let (feed, mut leader) = lone_leader(&mut service, &mut origin, Some(4));
    let mut slow = now(&mut service.call(get("/page"))).into_body();
    let mut unpolled = service.call(get("/page"));
    let mut other = now(&mut service.call(get("/page"))).into_body();
    for part in ["pa", "ge"] {
        feed.send(part);
        settle().await;
        assert_eq!(frame(&mut leader), data(part));
        assert_eq!(frame(&mut other), data(part));
    }
    feed.end();
    settle().await;
    assert_eq!(frame(&mut leader), Polled::End);
    assert_eq!(frame(&mut other), Polled::End);
    assert!(feed.is_dropped());
    assert_eq!((handle.in_flight(), handle.stats().waiters), (0, 2));
    let mut unpolled = now(&mut unpolled).into_body();
    for body in [&mut slow, &mut unpolled] {
        for want in [data("pa"), data("ge"), Polled::End] {
            assert_eq!(frame(body), want);
        }
    }
    assert_idle(&handle);
}

#[tokio::test]
async fn a_leader_that_is_alone_in_a_body_that_nobody_joins_any_more_has_no_task() {
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let (mut service, mut origin, handle) = stack(&layer().max_body(4));
    let [mut leader, follower] = [(); 2].map(|()| service.call(get("/page")));
    let feed = origin.call().begin();
    settle().await;
    assert_eq!(tasks(), 1);
    let mut leader = now(&mut leader).into_body();
    drop(follower);
    for part in ["0.", "1.", "2.", "3."] {
        feed.send(part);
        settle().await;
        assert_eq!(frame(&mut leader), data(part));
    }
    assert_eq!(tasks(), 0);
    feed.end();
    assert_eq!(frame(&mut leader), Polled::End);
    assert_idle(&handle);
}

#[tokio::test]
async fn the_last_one_out_drops_the_inner_future_at_once() {
    let (mut service, mut origin, handle) = stack(&layer());
    let mut leader = service.call(get("/page"));
    assert_pending(&mut leader);
    let call = origin.call();
    drop(leader);
    assert!(call.is_cancelled());
    assert_idle(&handle);

    let [leader, mut follower] = leader_and_follower(&mut service);
    assert_pending(&mut follower);
    let call = origin.call();
    // The task has not even begun.
    drop(leader);
    drop(follower);
    assert!(call.is_cancelled());
    assert_idle(&handle);

    let [leader, mut follower] = leader_and_follower(&mut service);
    let call = origin.call();
    settle().await;
    assert_pending(&mut follower);
    drop(leader);
    assert!(!call.is_cancelled());
    drop(follower);
    assert!(call.is_cancelled());
    assert_idle(&handle);
}

#[tokio::test]
async fn the_last_one_out_drops_the_inner_body_at_once() {
    for known in [true, false] {
        for joined in [false, true] {
            let (mut service, mut origin, handle) = stack(&layer());
            let (feed, mut leader) = lone_leader(&mut service, &mut origin, known.then_some(100));
            feed.send("pa");
            assert_eq!(frame(&mut leader), data("pa"));
            if joined {
                let mut follower = service.call(get("/page"));
                settle().await;
                let mut follower = now(&mut follower).into_body();
                assert_eq!(frame(&mut follower), data("pa"));
            }
            assert!(!feed.is_dropped());
            drop(leader);
            assert!(feed.is_dropped(), "known: {known}, joined: {joined}");
            assert_idle(&handle);
        }
    }
}

/// Its connection would be kept for as long as a follower is not polled.
#[tokio::test]
async fn a_response_that_a_leader_leaves_behind_is_dropped_with_the_leader() {
    for polled_before in [false, true] {
        for polled_after in [false, true] {
            let (mut service, mut origin, handle) = stack(&layer());
            let mut leader = service.call(get("/page"));
            if polled_before {
                assert_pending(&mut leader);
            }
            let follower = service.call(get("/page"));
            if polled_after {
                assert_pending(&mut leader);
            }
            // The response is only for the leader, which is not polled when it comes.
            let response = Response::builder().header("set-cookie", "a=b");
            let feed = origin.call().begin_with(response, SizeHint::new());
            settle().await;
            assert!(!feed.is_dropped());
            drop(leader);
            assert!(feed.is_dropped(), "{polled_before} {polled_after}");
            drop(follower);
            assert_idle(&handle);
        }
    }
}

/// It is in nobody's response, so its panic is nobody's either.
#[derive(Clone)]
struct Bad;

impl Drop for Bad {
    fn drop(&mut self) {
        panic!("a bad extension")
    }
}

#[tokio::test]
async fn a_response_that_nobody_wants_and_that_panics_when_it_is_dropped_harms_no_follower() {
    let (mut service, mut origin, handle) = stack(&layer());
    let leader = service.call(get("/page"));
    let mut follower = service.call(get("/page"));
    drop(leader);
    let head = Response::builder().header("set-cookie", "a=b");
    let feed = (origin.call()).begin_with(head.extension(Bad), SizeHint::new());
    settle().await;
    assert!(feed.is_dropped());
    assert_pending(&mut follower);
    let page = ready(&["page"], SizeHint::new());
    origin.call().answer(Response::new(page));
    let response = now(&mut follower);
    assert_eq!(role(&response), Role::Forwarded);
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "page");
    assert_idle(&handle);
}

#[tokio::test]
async fn a_response_that_comes_after_its_leader_has_left_is_dropped_at_once() {
    for polled_before in [false, true] {
        let (mut service, mut origin, handle) = stack(&layer());
        let mut leader = service.call(get("/page"));
        if polled_before {
            assert_pending(&mut leader);
        }
        let follower = service.call(get("/page"));
        drop(leader);
        let response = Response::builder().header("set-cookie", "a=b");
        let feed = origin.call().begin_with(response, SizeHint::new());
        settle().await;
        assert!(feed.is_dropped());
        drop(follower);
        assert_idle(&handle);
    }
}

#[tokio::test]
async fn followers_who_leave_cost_nothing() {
    let (mut service, mut origin, handle) = stack(&layer());
    let mut leader = service.call(get("/page"));
    assert_pending(&mut leader);
    let mut waiting = service.call(get("/page"));
    assert_pending(&mut waiting);
    let unpolled = service.call(get("/page"));
    settle().await;
    assert_eq!(handle.waiters(&key()), 3);
    drop(waiting);
    drop(unpolled);
    assert_eq!(handle.waiters(&key()), 1);
    let feed = origin.call().begin_known(4);
    settle().await;
    let mut leader = now(&mut leader).into_body();
    let half = now(&mut service.call(get("/page"))).into_body();
    drop(half);
    feed.send("page");
    feed.end();
    settle().await;
    assert_eq!(frame(&mut leader), data("page"));
    assert_eq!(frame(&mut leader), Polled::End);
    assert_eq!(handle.stats().joined, 3);
    assert_idle(&handle);
}

#[tokio::test]
async fn a_newcomer_after_the_last_one_out_leads_anew() {
    let (mut service, mut origin, handle) = stack(&layer());
    let [leader, mut follower] = leader_and_follower(&mut service);
    assert_pending(&mut follower);
    drop((leader, follower));
    let mut next = service.call(get("/page"));
    assert_pending(&mut next);
    let (first, second) = (origin.call(), origin.call());
    assert!(first.is_cancelled() && !second.is_cancelled());
    second.answer(http::Response::new(ready(&["page"], Default::default())));
    let next = next.await.unwrap();
    assert_eq!(role(&next), Role::Leader);
    drop(next);
    assert_idle(&handle);
}

#[tokio::test]
async fn an_abandoned_call_is_finished_where_that_was_asked_for() {
    let (mut service, mut origin, handle) = stack(&layer().finish_abandoned(true));
    let mut leader = service.call(get("/page"));
    assert_pending(&mut leader);
    let call = origin.call();
    drop(leader);
    assert!(!call.is_cancelled());
    assert_eq!((handle.in_flight(), handle.waiters(&key())), (1, 0));
    let feed = call.begin();
    feed.send("pa");
    settle().await;
    assert_eq!(feed.pulled(), 1);
    // Who comes meanwhile gets it from the first byte.
    let mut follower = service.call(get("/page"));
    feed.send("ge");
    feed.end();
    settle().await;
    assert!(feed.is_dropped());
    let follower = now(&mut follower);
    assert_eq!(role(&follower), Role::Follower);
    let body = follower.into_body().collect().await.unwrap().to_bytes();
    assert_eq!((body.as_ref(), origin.count()), (&b"page"[..], 1));
    assert_idle(&handle);
}

#[tokio::test]
async fn a_body_that_its_leader_abandons_is_read_to_its_end_where_that_was_asked_for() {
    for known in [true, false] {
        let (mut service, mut origin, handle) = stack(&layer().finish_abandoned(true));
        let (feed, mut leader) = lone_leader(&mut service, &mut origin, known.then_some(4));
        feed.send("pa");
        assert_eq!(frame(&mut leader), data("pa"));
        drop(leader);
        assert!(!feed.is_dropped());
        feed.send("ge");
        feed.end();
        settle().await;
        assert!(feed.is_dropped());
        assert_eq!(feed.pulled(), 2);
        assert_idle(&handle);
    }
}

#[tokio::test]
async fn an_abandoned_body_that_outgrows_its_limit_is_given_up() {
    let (mut service, mut origin, handle) = stack(&layer().finish_abandoned(true).max_body(3));
    let mut leader = service.call(get("/page"));
    assert_pending(&mut leader);
    let feed = origin.call().begin();
    drop(now(&mut leader));
    feed.send("pa");
    settle().await;
    assert_eq!(handle.in_flight(), 1);
    feed.send("ge");
    settle().await;
    assert!(feed.is_dropped());
    assert_idle(&handle);
}

#[tokio::test]
async fn an_abandoned_body_for_which_there_is_no_room_is_given_up() {
    let layer = layer().finish_abandoned(true).max_buffered(0);
    let (mut service, mut origin, handle) = stack(&layer);
    let (feed, leader) = lone_leader(&mut service, &mut origin, Some(4));
    drop(leader);
    settle().await;
    assert!(feed.is_dropped());
    assert_idle(&handle);
}

/// Its leader is alone, so nobody has to join any more for it to end.
#[tokio::test]
async fn whoever_asks_while_the_body_of_a_complete_response_is_dropped_makes_a_new_call() {
    for looked_at in [false, true] {
        let (mut service, mut origin, handle) = stack(&layer());
        let mut leader = service.call(get("/page"));
        assert_pending(&mut leader);
        if looked_at {
            assert_eq!(handle.waiters(&key()), 1);
        }
        let (feed, mut empty) = body(SizeHint::with_exact(0));
        empty.finish();
        let mut other = service.clone();
        feed.on_drop(move || drop(other.call(get("/page"))));
        origin.call().answer(Response::new(empty));
        drop(now(&mut leader));
        let stats = handle.stats();
        assert_eq!((stats.led, stats.joined), (2, 0), "{looked_at}");
        assert_idle(&handle);
    }
}
