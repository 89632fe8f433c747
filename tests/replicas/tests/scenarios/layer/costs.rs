//! What requests cost the store, and what the store costs them.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use replicas_tests::{Kind, Server, Settings};
use tokio::time::{Instant, sleep};
use tower_singleflight::Role;

use super::{Fleet, Node, Takes, at, get, key_of, short};
use crate::{costs::counts, ms, one_at_a_time};

fn large(_: usize, _: &Request<String>) -> Response<Bytes> {
    Response::new(vec![b'a'; 50_000].into())
}

/// As many requests, of different URIs, one after the other.
async fn solo(node: &Node, from: usize, requests: usize) -> Vec<Duration> {
    let mut took = Vec::new();
    for request in from..from + requests {
        let got = node.ask(at(&format!("/solo/{request}"))).await;
        let got = got.expect("no panic");
        assert_eq!(got.role, Role::Leader);
        took.push(got.took);
    }
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_alone_costs_two_commands_and_sends_no_body() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(
        &Settings::new(&server.url()),
        Takes::Time(Duration::ZERO),
        large,
    )
    .await;
    // The scripts are known from here on.
    solo(&fleet.nodes[0], 0, 1).await;
    server.is_empty_within(ms(1000)).await;
    let before = (counts(&server).await, server.received().await);
    solo(&fleet.nodes[0], 1, 200).await;
    server.is_empty_within(ms(1000)).await;
    let after = (counts(&server).await, server.received().await);
    assert_eq!(after.0.0 - before.0.0, 400, "two scripts for each");
    // A lease is read and set by the first script and read by the second; no body is.
    assert_eq!(after.0.1 - before.0.1, 600);
    let received = after.1 - before.1;
    assert!(received < 200 * 2_000, "{received} bytes");
    fleet.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_alone_takes_at_most_three_pings_longer() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let takes = || Takes::Time(Duration::ZERO);
    let fleet = Fleet::start(&Settings::new(&server.url()), takes(), short).await;
    let local = Fleet::local(takes(), short);
    let mut connection = server.connect().await;
    let (mut with, mut without, mut pings) = (Vec::new(), Vec::new(), Vec::new());
    // In turn, so that whatever else the machine does meets all of them.
    for round in 0..300 {
        with.extend(solo(&fleet.nodes[0], round, 1).await);
        without.extend(solo(&local.nodes[0], round, 1).await);
        let began = Instant::now();
        let ping = redis::cmd("PING");
        ping.exec_async(&mut connection).await.expect("a pong");
        pings.push(began.elapsed());
    }
    let [with, without, ping] = [with, without, pings].map(median);
    eprintln!("alone: {with:?} with replicas, {without:?} without, a PING {ping:?}");
    assert!(with.saturating_sub(without) <= 3 * ping);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_at_one_replica_cost_no_script() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(&Settings::new(&server.url()), Takes::gate(), short).await;
    let [first, second, ..] = &fleet.nodes[..] else {
        unreachable!()
    };
    // The scripts are known after the first burst.
    for scripts in [None, Some(3)] {
        let before = counts(&server).await;
        let calls = fleet.calls();
        let leading: Vec<_> = (0..250).map(|_| first.ask(get(0))).collect();
        fleet.origin.calls_reach(calls + 1).await;
        let following: Vec<_> = (0..250).map(|_| second.ask(get(0))).collect();
        fleet.waiters_reach(&key_of(get(0)), 501).await;
        // The last callers are announced within some milliseconds.
        sleep(ms(100)).await;
        fleet.origin.open();
        for asked in leading.into_iter().chain(following) {
            asked.await.expect("no panic");
        }
        fleet.origin.shut();
        server.is_empty_within(ms(1000)).await;
        assert_eq!(fleet.calls(), calls + 1);
        // One at the replica that follows, and two at the one that leads.
        if let Some(scripts) = scripts {
            assert_eq!(counts(&server).await.0 - before.0, scripts);
        }
    }
    fleet.nothing_is_left();
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
