//! Replicas that are processes of their own, and are asked over sockets.

use std::{collections::BTreeSet, time::Duration};

use replicas_tests::{HttpGot, HttpReplica, Kind, Origin, Server, Settings};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::{LONG, SLACK, ms, one_at_a_time};

const PATH: &str = "/page";

struct Fleet {
    replicas: Vec<HttpReplica>,
    origin: Origin,
}

type Asked = JoinHandle<Result<HttpGot, hyper::Error>>;

impl Fleet {
    async fn start(settings: &Settings, takes: Duration) -> Self {
        let origin = Origin::start(takes).await;
        let path = env!("CARGO_BIN_EXE_http_replica");
        let mut replicas = Vec::new();
        for _ in 0..4 {
            replicas.push(HttpReplica::start(path, settings, &origin).await);
        }
        Self { replicas, origin }
    }

    /// Requests at the first replica, and then as many at each of the others, which follow it.
    async fn ask(&self, each: usize) -> (Vec<Asked>, Vec<Asked>) {
        let [first, others @ ..] = &self.replicas[..] else {
            unreachable!()
        };
        let calls = self.origin.calls();
        let led: Vec<_> = (0..each).map(|_| first.ask(PATH)).collect();
        self.origin.calls_reach(calls + 1).await;
        let followers = others.iter();
        let following = followers.flat_map(|other| (0..each).map(|_| other.ask(PATH)));
        let following = following.collect();
        self.waiters_reach(4 * (each + 1) - 1).await;
        // The last callers of each replica are announced within some milliseconds.
        sleep(ms(100)).await;
        (led, following)
    }

    async fn waiters_reach(&self, all: usize) {
        let deadline = Instant::now() + LONG;
        loop {
            let mut waiters = 0;
            for replica in &self.replicas {
                waiters += replica.look(PATH).await.0;
            }
            if waiters == all {
                return;
            }
            assert!(Instant::now() < deadline, "{waiters} of {all} wait");
            sleep(ms(5)).await;
        }
    }
}

async fn got(asked: Vec<Asked>) -> Vec<HttpGot> {
    let mut all = Vec::new();
    for asked in asked {
        let got = tokio::time::timeout(LONG, asked).await;
        let got = got.expect("nobody hangs").expect("no panic");
        all.push(got.expect("a response"));
    }
    all
}

fn made(all: &[HttpGot]) -> Vec<usize> {
    let calls: BTreeSet<_> = all.iter().map(|got| got.call).collect();
    calls.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_a_thousand_requests_costs_one_call() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let settings = Settings::new(&server.url()).patient();
    let fleet = Fleet::start(&settings, ms(1000)).await;
    for round in 0..3 {
        let (mut all, following) = fleet.ask(250).await;
        all.extend(following);
        let all = got(all).await;
        assert_eq!((all.len(), made(&all)), (1000, vec![round]));
        assert!(all.iter().all(|got| got.body == all[0].body));
        let replicas = all.iter().filter(|got| got.role == "Replica");
        assert_eq!(replicas.count(), 750);
        assert_eq!(fleet.origin.calls(), round + 1);
    }
    server.is_empty_within(ms(1000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_costs_one_call_more() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(&Settings::new(&server.url()), ms(1500)).await;
    let (led, following) = fleet.ask(250).await;
    let began = Instant::now();
    fleet.replicas[0].signal("KILL");
    let all = got(following).await;
    let took = began.elapsed();
    eprintln!("a killed leader's followers had their response after {took:?}");
    assert_eq!((all.len(), made(&all)), (750, vec![1]));
    assert_eq!(fleet.origin.calls(), 2);
    // A probe, and the call.
    assert!(took < ms(500 + 1500) + 2 * SLACK, "{took:?}");
    for led in led {
        assert!(led.await.expect("no panic").is_err());
    }
    server.is_empty_within(ms(1000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stalls_costs_one_call_more_and_its_late_response_reaches_nobody() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(&Settings::new(&server.url()), ms(1500)).await;
    let (led, following) = fleet.ask(250).await;
    let began = Instant::now();
    fleet.replicas[0].signal("STOP");
    let all = got(following).await;
    let took = began.elapsed();
    eprintln!("a stalled leader's followers had their response after {took:?}");
    assert_eq!((all.len(), made(&all)), (750, vec![1]));
    // The lease, a probe, and the call.
    assert!(took < ms(2000 + 500 + 1500) + 2 * SLACK, "{took:?}");
    sleep(ms(6000).saturating_sub(began.elapsed())).await;
    fleet.replicas[0].signal("CONT");
    let late = got(led).await;
    assert_eq!((late.len(), made(&late)), (250, vec![0]));
    assert_eq!(fleet.origin.calls(), 2);
    server.is_empty_within(ms(2500)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_goes_on_when_its_client_disconnects_and_is_dropped_within_100_ms_of_the_last() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(&Settings::new(&server.url()), ms(1500)).await;
    for all_leave in [false, true] {
        let before = fleet.origin.calls();
        let (led, following) = fleet.ask(1).await;
        led.iter().for_each(Asked::abort);
        // The others, and their seats at the leader.
        fleet.waiters_reach(6).await;
        assert_eq!(fleet.origin.running(), 1);
        if all_leave {
            following.iter().for_each(Asked::abort);
            sleep(ms(100)).await;
            assert_eq!(fleet.origin.running(), 0);
        } else {
            assert_eq!(made(&got(following).await), [before]);
        }
        assert_eq!(fleet.origin.calls(), before + 1);
        server.is_empty_within(ms(500)).await;
    }
}
