//! Without a Tokio runtime the callers drive the flight themselves.

use std::thread;

use http_body_util::BodyExt;
use tower::Service;
use tower_singleflight::ResponseBody;

use crate::support::{
    assert_idle, block_on,
    body::{
        Copied, Mock, Polled, assert_pending, data, frame, layer, leader_and_follower, lone_leader,
        now, stack,
    },
    get,
};

fn text(response: Copied) -> String {
    let collected = block_on(response.into_body().collect()).unwrap();
    String::from_utf8(collected.to_bytes().into()).unwrap()
}

#[test]
fn a_leader_and_followers_on_threads_of_their_own_get_the_whole_body() {
    for known in [true, false] {
        let (mut service, mut origin, handle) = stack(&layer());
        let calls: Vec<_> = (0..4).map(|_| service.call(get("/page"))).collect();
        let threads: Vec<_> = calls
            .into_iter()
            .map(|call| thread::spawn(|| text(block_on(call).unwrap())))
            .collect();
        let call = loop {
            if origin.count() == 1 {
                break origin.call();
            }
            thread::yield_now();
        };
        let feed = if known {
            call.begin_known(300)
        } else {
            call.begin()
        };
        for _ in 0..100 {
            feed.send("abc");
            thread::yield_now();
        }
        feed.end();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), "abc".repeat(100));
        }
        assert_eq!(origin.count(), 1);
        assert_idle(&handle);
    }
}

#[test]
fn a_follower_drives_where_the_leader_is_parked_or_gone() {
    for gone in [true, false] {
        let (mut service, mut origin, handle) = stack(&layer());
        let mut leader = Some(service.call(get("/page")));
        assert_pending(leader.as_mut().unwrap());
        let mut follower = service.call(get("/page"));
        assert_pending(&mut follower);
        if gone {
            leader = None;
        }
        let feed = origin.call().begin_known(4);
        let mut body = now(&mut follower).into_body();
        feed.send("page");
        assert_eq!(frame(&mut body), data("page"));
        feed.end();
        assert_eq!(frame(&mut body), Polled::End);
        if let Some(leader) = leader {
            assert_eq!(text(block_on(leader).unwrap()), "page");
        }
        assert_eq!(origin.count(), 1);
        assert_idle(&handle);
    }
}

#[test]
fn the_last_one_out_drops_everything_at_once() {
    let (mut service, mut origin, handle) = stack(&layer());
    let (feed, leader) = lone_leader(&mut service, &mut origin, Some(4));
    feed.send("pa");
    let mut follower: ResponseBody<Mock> = now(&mut service.call(get("/page"))).into_body();
    assert_eq!(frame(&mut follower), data("pa"));
    // The source now keeps a waker that keeps the flight.
    assert_eq!(frame(&mut follower), Polled::Pending);
    drop(leader);
    assert!(!feed.is_dropped());
    drop(follower);
    assert!(feed.is_dropped());
    assert_idle(&handle);
}

#[test]
fn an_outgrown_body_goes_on_for_all_who_have_joined() {
    let (mut service, mut origin, handle) = stack(&layer().max_body(3));
    let [mut leader, mut follower] = leader_and_follower(&mut service);
    assert_pending(&mut follower);
    let feed = origin.call().begin();
    let mut leader = now(&mut leader).into_body();
    let mut follower = now(&mut follower).into_body();
    feed.send("page");
    feed.send("s");
    feed.end();
    for want in [data("page"), data("s"), Polled::End] {
        assert_eq!(frame(&mut leader), want);
        assert_eq!(frame(&mut follower), want);
    }
    assert_eq!(origin.count(), 1);
    assert_idle(&handle);
}

#[test]
fn a_joiner_from_within_a_runtime_has_a_task_drive_for_callers_outside() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let (mut service, mut origin, handle) = stack(&layer());
    let mut leader = service.call(get("/page"));
    assert_pending(&mut leader);
    let follower = {
        let _inside = runtime.enter();
        service.call(get("/page"))
    };
    let feed = origin.call().begin();
    feed.send("page");
    feed.end();
    assert_eq!(text(block_on(leader).unwrap()), "page");
    assert_eq!(text(block_on(follower).unwrap()), "page");
    assert_idle(&handle);
}
