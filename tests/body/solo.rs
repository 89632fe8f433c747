//! A leader alone pays for nothing; who joins half-way shares; nobody is woken or polled for nothing.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Context,
};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, StreamBody};
use tower::{Layer, Service, service_fn};
use tower_singleflight::Role;

use crate::support::{
    Count, Gate, assert_idle,
    body::{Feed, Polled, Req, assert_pending, data, frame, layer, lone_leader, now, ready, stack},
    get, role, settle, tasks,
};

#[tokio::test]
async fn a_leader_alone_costs_no_task() {
    let before = tasks();
    for known in [true, false] {
        let (mut service, mut origin, handle) = stack(&layer());
        let (feed, mut leader) = lone_leader(&mut service, &mut origin, known.then_some(4));
        feed.send("pa");
        assert_eq!(frame(&mut leader), data("pa"));
        feed.send("ge");
        assert_eq!(frame(&mut leader), data("ge"));
        feed.end();
        assert_eq!(frame(&mut leader), Polled::End);
        assert_eq!(tasks(), before);
        drop(leader);
        assert_idle(&handle);
    }
}

#[tokio::test]
async fn the_first_joiner_costs_one_task_and_the_others_none() {
    let before = tasks();
    let (mut service, mut origin, handle) = stack(&layer());
    let mut leader = service.call(get("/page"));
    assert_pending(&mut leader);
    let first = service.call(get("/page"));
    assert_eq!(tasks(), before + 1);
    let others = [service.call(get("/page")), service.call(get("/page"))];
    settle().await;
    assert_eq!(tasks(), before + 1);
    origin
        .call()
        .answer(Response::new(ready(&["page"], SizeHint::new())));
    settle().await;
    assert_eq!(tasks(), before);
    drop((leader, first, others));
    assert_idle(&handle);
}

#[tokio::test]
async fn who_joins_half_way_starts_at_the_first_byte() {
    let (mut service, mut origin, handle) = stack(&layer());
    let (feed, mut leader) = lone_leader(&mut service, &mut origin, Some(6));
    feed.send("pa");
    feed.send("ge");
    assert_eq!(frame(&mut leader), data("pa"));
    assert_eq!(frame(&mut leader), data("ge"));
    let response = now(&mut service.call(get("/page")));
    assert_eq!(role(&response), Role::Follower);
    let mut late = response.into_body();
    assert_eq!(late.size_hint().exact(), Some(6));
    assert_eq!(frame(&mut late), data("pa"));
    assert_eq!(frame(&mut late), data("ge"));
    assert_eq!(frame(&mut late), Polled::Pending);
    feed.send("d.");
    feed.end();
    settle().await;
    for body in [&mut leader, &mut late] {
        assert_eq!(frame(body), data("d."));
        assert_eq!(frame(body), Polled::End);
    }
    assert_eq!((origin.count(), handle.stats().joined), (1, 1));
    assert_idle(&handle);
}

#[tokio::test]
async fn who_joins_half_way_a_body_of_unknown_length_reads_it_live_from_its_first_byte() {
    let (mut service, mut origin, handle) = stack(&layer());
    let (feed, mut leader) = lone_leader(&mut service, &mut origin, None);
    feed.send("pa");
    assert_eq!(frame(&mut leader), data("pa"));
    let mut late = now(&mut service.call(get("/page"))).into_body();
    feed.send("ge");
    settle().await;
    for want in ["pa", "ge"] {
        assert_eq!(frame(&mut late), data(want));
    }
    assert_eq!(frame(&mut late), Polled::Pending);
    assert_eq!(frame(&mut leader), data("ge"));
    feed.end();
    settle().await;
    for body in [&mut leader, &mut late] {
        assert_eq!(frame(body), Polled::End);
    }
    assert_eq!(origin.count(), 1);
    assert_idle(&handle);
}

#[tokio::test]
async fn a_leader_alone_pulls_one_frame_for_each_that_it_reads() {
    let (mut service, mut origin, handle) = stack(&layer());
    let mut leader = service.call(get("/page"));
    assert_pending(&mut leader);
    let feed = origin.call().begin();
    for _ in 0..8 {
        feed.send("x");
    }
    let mut leader = now(&mut leader).into_body();
    assert_eq!(feed.pulled(), 0);
    for read in 1..8 {
        assert_eq!(frame(&mut leader), data("x"));
        assert_eq!(feed.pulled(), read);
    }
    drop(leader);
    assert_idle(&handle);
}

#[tokio::test]
async fn a_follower_that_waits_is_woken_once_for_the_head() {
    let (mut service, mut origin, handle) = stack(&layer());
    let mut leader = service.call(get("/page"));
    assert_pending(&mut leader);
    let count = Count::new();
    let waker = count.waker();
    let mut cx = Context::from_waker(&waker);
    let mut follower = service.call(get("/page"));
    assert!(Pin::new(&mut follower).poll(&mut cx).is_pending());
    settle().await;
    assert_eq!(count.take(), 0);
    let feed = origin.call().begin();
    for _ in 0..10 {
        feed.send("x");
        settle().await;
    }
    assert_eq!(count.take(), 1);
    drop((leader, follower));
    assert_idle(&handle);
}

#[tokio::test]
async fn a_reader_is_woken_once_for_what_came_and_the_source_polled_once() {
    let (mut service, mut origin, handle) = stack(&layer());
    let (feed, mut leader) = lone_leader(&mut service, &mut origin, Some(100));
    let mut follower = now(&mut service.call(get("/page"))).into_body();
    settle().await;
    let counts = [Count::new(), Count::new()];
    let wakers = counts.each_ref().map(Count::waker);
    for round in 0..10 {
        for (body, waker) in [&mut leader, &mut follower].into_iter().zip(&wakers) {
            let mut cx = Context::from_waker(waker);
            assert!(Pin::new(&mut *body).poll_frame(&mut cx).is_pending());
        }
        settle().await;
        let polls = feed.polls();
        feed.send("x");
        settle().await;
        assert_eq!(counts.each_ref().map(|count| count.take()), [1, 1]);
        // The frame, and that there is no other.
        assert_eq!(feed.polls() - polls, 2, "round {round}");
        assert_eq!(frame(&mut leader), data("x"));
        assert_eq!(frame(&mut follower), data("x"));
    }
    drop((leader, follower));
    assert_idle(&handle);
}

#[tokio::test]
async fn readers_who_wait_do_not_have_the_source_polled() {
    let (mut service, mut origin, handle) = stack(&layer());
    let (feed, mut leader) = lone_leader(&mut service, &mut origin, Some(100));
    let mut follower = now(&mut service.call(get("/page"))).into_body();
    settle().await;
    let polls = feed.polls();
    for _ in 0..10 {
        assert_eq!(frame(&mut leader), Polled::Pending);
        assert_eq!(frame(&mut follower), Polled::Pending);
        settle().await;
    }
    assert_eq!(feed.polls(), polls);
    drop((leader, follower));
    assert_idle(&handle);
}

/// A source that always has more must not keep its readers from what is there.
#[tokio::test]
async fn a_source_that_is_always_ready_holds_neither_head_nor_frames_back() {
    let pulled = Arc::new(AtomicUsize::new(0));
    let layer = layer();
    let handle = layer.handle();
    let mut service = {
        let pulled = pulled.clone();
        layer.layer(service_fn(move |_: Req| {
            let pulled = pulled.clone();
            let frames = std::iter::repeat_with(move || {
                pulled.fetch_add(1, Ordering::SeqCst);
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"frame")))
            });
            let body = StreamBody::new(futures_util::stream::iter(frames.take(10_000)));
            async move {
                tokio::task::yield_now().await;
                Ok::<_, Infallible>(Response::new(body))
            }
        }))
    };
    let leader = service.call(get("/page"));
    let follower = service.call(get("/page"));
    // In a task, since the future of `block_on` waits for its turn.
    let leader = tokio::spawn(async move {
        let mut leader = leader.await.unwrap().into_body();
        let at_head = pulled.load(Ordering::SeqCst);
        assert!(at_head <= 64, "{at_head} frames before the head");
        let first = leader.frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "frame");
        let at_first = pulled.load(Ordering::SeqCst);
        assert!(at_first <= 64, "{at_first} frames before the first");
        leader.collect().await.unwrap().to_bytes()
    });
    assert_eq!(leader.await.unwrap().len(), 9_999 * 5);
    let copy = follower.await.unwrap().into_body();
    assert_eq!(copy.collect().await.unwrap().to_bytes().len(), 50_000);
    assert_idle(&handle);
}

#[tokio::test]
async fn two_leaders_of_different_keys_do_not_meet() {
    let (mut service, mut origin, handle) = stack(&layer());
    let mut other = get("/page");
    *other.uri_mut() = "/other".parse().unwrap();
    let (mut first, mut second) = (service.call(get("/page")), service.call(other));
    assert_pending(&mut first);
    assert_pending(&mut second);
    let feeds = [origin.call().begin_known(4), origin.call().begin_known(4)];
    let mut bodies = [&mut first, &mut second].map(|call| now(call).into_body());
    feeds[1].send("two.");
    assert_eq!(frame(&mut bodies[0]), Polled::Pending);
    assert_eq!(frame(&mut bodies[1]), data("two."));
    drop(bodies);
    assert!(feeds.iter().all(Feed::is_dropped));
    assert_idle(&handle);
}

#[tokio::test]
async fn a_leader_alone_is_not_woken_for_what_its_own_poll_has_found() {
    let (mut service, mut origin, handle) = stack(&layer());
    let mut leader = service.call(get("/page"));
    assert_pending(&mut leader);
    let feed = origin.call().begin();
    let mut body = now(&mut leader).into_body();
    let woken = Count::new();
    for text in ["once", "upon"] {
        feed.send(text);
        let waker = woken.waker();
        let polled = Pin::new(&mut body).poll_frame(&mut Context::from_waker(&waker));
        assert!(polled.is_ready());
        assert_eq!(woken.get(), 0);
    }
    drop((body, feed));
    assert_idle(&handle);
}

/// In the poll in which the call ends, or in one before that.
#[tokio::test]
async fn who_joins_while_a_lone_leader_polls_its_call_shares_the_response() {
    for is_ready in [true, false] {
        let layer = layer();
        let (handle, gate) = (layer.handle(), Gate::new());
        let joiner = Arc::new(std::sync::Mutex::new(None::<Joiner>));
        let (asks, passes) = (Arc::clone(&joiner), gate.clone());
        let mut service = layer.layer(service_fn(move |_: Req| {
            let (asks, gate) = (Arc::clone(&asks), passes.clone());
            async move {
                if let Some(ask) = asks.lock().unwrap().take() {
                    ask();
                }
                if !is_ready {
                    gate.pass().await;
                }
                Ok::<_, Infallible>(Response::new(http_body_util::Full::new(Bytes::from(
                    "page",
                ))))
            }
        }));
        let mut leader = Box::pin(service.call(get("/page")));
        let (sent, joined) = std::sync::mpsc::channel();
        let mut other = service.clone();
        let ask = move || sent.send(Box::pin(other.call(get("/page")))).unwrap();
        *joiner.lock().unwrap() = Some(Box::new(ask));
        if !is_ready {
            assert_pending(&mut leader);
            assert_eq!(handle.stats().waiters, 2);
            gate.open();
        }
        let leader = leader.await.unwrap();
        let follower = joined.recv().unwrap().await.unwrap();
        assert_eq!(
            [role(&leader), role(&follower)],
            [Role::Leader, Role::Follower]
        );
        for response in [leader, follower] {
            assert_eq!(
                response.into_body().collect().await.unwrap().to_bytes(),
                "page"
            );
        }
        assert_idle(&handle);
    }
}

type Joiner = Box<dyn FnOnce() + Send>;
