//! What replicas cost, beside a PING of the same run. `cargo test --release -p replicas-tests --test scenarios -- --ignored --nocapture
//! measured` prints it.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use replicas_tests::{Kind, Server, Settings};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tower_singleflight::Role;

use crate::{
    layer::{Fleet, Takes, at, get, key_of, short},
    ms, one_at_a_time,
};

const AT_ONCE: Takes = Takes::Time(Duration::ZERO);

/// Prints the median and the 99th percentile.
fn print(what: &str, mut times: Vec<Duration>) -> Duration {
    times.sort();
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("{what:<44} p50 {p50:>9.1?}  p99 {p99:>9.1?}");
    p50
}

async fn ping(connection: &mut redis::aio::MultiplexedConnection) -> Duration {
    let began = Instant::now();
    let ping = redis::cmd("PING");
    ping.exec_async(connection).await.expect("a pong");
    began.elapsed()
}

/// The commands that clients have sent, scripts' own left out: an idle fleet's are its beats.
async fn commands(server: &Server) -> BTreeMap<String, u64> {
    let mut counts = server.command_counts().await;
    // Each script gets a lease, or looks at it, once.
    counts.retain(|name, _| ["evalsha", "eval", "publish", "del"].contains(&name.as_str()));
    counts
}

async fn alone(server: &Server, settings: &Settings) {
    let fleet = Fleet::start(settings, AT_ONCE, short).await;
    let local = Fleet::local(AT_ONCE, short);
    let mut connection = server.connect().await;
    let (mut with, mut without, mut pings) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..10_000 {
        let request = || at(&format!("/{round}"));
        let got = fleet.nodes[0].ask(request()).await.expect("no panic");
        assert_eq!(got.role, Role::Leader);
        with.push(got.took);
        let got = local.nodes[0].ask(request()).await.expect("no panic");
        without.push(got.took);
        pings.push(ping(&mut connection).await);
    }
    print("PING", pings);
    print("a request alone, without replicas", without);
    print("a request alone, with replicas", with);

    let before = commands(server).await;
    for round in 0..1_000 {
        fleet.nodes[0]
            .ask(at(&format!("/count/{round}")))
            .await
            .expect("no panic");
    }
    server.is_empty_within(ms(1000)).await;
    let after = commands(server).await;
    println!(
        "its scripts: {}",
        (after["evalsha"] - before["evalsha"]) as f64 / 1_000.0
    );
}

fn kib<const N: usize>(_: usize, _: &Request<String>) -> Response<Bytes> {
    static LARGEST: [u8; 1 << 20] = [b'a'; 1 << 20];
    Response::new(Bytes::from_static(&LARGEST[..N << 10]))
}

/// How long after the call's end a request at the leader's replica has its response, and one at another.
async fn followers(server: &Server, settings: &Settings, what: &str, says: crate::layer::Says) {
    let settings = Settings {
        // The head is part of what is shared.
        max_body: (1 << 20) + 4096,
        ..settings.clone()
    };
    let fleet = Fleet::start(&settings, Takes::gate(), says).await;
    let [first, second, ..] = &fleet.nodes[..] else {
        unreachable!()
    };
    let (mut here, mut elsewhere) = (Vec::new(), Vec::new());
    for round in 1..=500 {
        // Short calls of one URI are not worth the store.
        let request = || at(&format!("/{round}"));
        let leader = first.ask(request());
        fleet.origin.calls_reach(round).await;
        let follower = first.ask(request());
        let remote = second.ask(request());
        // The follower elsewhere is one more where it follows.
        fleet.waiters_reach(&key_of(request()), 4).await;
        sleep(ms(3)).await;
        let opened = Instant::now();
        fleet.origin.open();
        leader.await.expect("no panic");
        let since =
            |got: crate::layer::Got| (got.asked + got.took).saturating_duration_since(opened);
        here.push(since(follower.await.expect("no panic")));
        let remote = remote.await.expect("no panic");
        assert_eq!(remote.role, Role::Replica);
        elsewhere.push(since(remote));
        fleet.origin.shut();
        // Until all have it a large one is in the store.
        server.is_empty_within(ms(1000)).await;
    }
    print(&format!("{what}: a follower at the leader's replica"), here);
    print(&format!("{what}: a follower at another"), elsewhere);
}

async fn a_burst(server: &Server, settings: &Settings) {
    let fleet = Fleet::start(settings, Takes::gate(), short).await;
    let before = commands(server).await;
    let began = Instant::now();
    let bursts = 20;
    for _ in 0..bursts {
        fleet.gated(250, get).await;
    }
    server.is_empty_within(ms(1000)).await;
    let after = commands(server).await;
    let elapsed = began.elapsed();
    let idle = commands(server).await;
    sleep(elapsed).await;
    let beats = commands(server).await["publish"] - idle["publish"];
    let of = |name: &str| after[name] - before[name];
    let all = of("evalsha") + of("publish").saturating_sub(beats);
    println!(
        "a burst of 1000 at 4 replicas: {:.1} scripts and {:.1} messages, {:.3} a request",
        of("evalsha") as f64 / bursts as f64,
        of("publish").saturating_sub(beats) as f64 / bursts as f64,
        all as f64 / bursts as f64 / 1000.0
    );
}

async fn memory(server: &Server, settings: &Settings) {
    let fleet = Fleet::start(settings, Takes::gate(), short).await;
    sleep(ms(500)).await;
    let before = server.used_memory().await;
    let mut clients = JoinSet::new();
    for request in 0..10_000 {
        let node = fleet.nodes[request % 4].clone();
        clients.spawn(async move { node.ask(at(&format!("/held/{request}"))).await });
    }
    fleet.origin.calls_reach(10_000).await;
    let during = server.used_memory().await;
    println!(
        "a call in flight: {} bytes in the store",
        during.saturating_sub(before) / 10_000
    );
    fleet.origin.open();
    clients.join_all().await;
    let mut clients = JoinSet::new();
    for client in 0..100_usize {
        let node = fleet.nodes[client % 4].clone();
        clients.spawn(async move {
            for round in 0..1_000 {
                let request = at(&format!("/after/{client}/{round}"));
                node.ask(request).await.expect("no panic");
            }
        });
    }
    clients.join_all().await;
    server.is_empty_within(ms(1000)).await;
    let after = server.used_memory().await;
    println!(
        "after 100000 flights: {} keys, {} KiB of memory, {} KiB before",
        server.keys().await,
        after >> 10,
        before >> 10
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it measures, for minutes"]
async fn what_replicas_cost() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let settings = Settings::new(&server.url()).patient();
    alone(&server, &settings).await;
    followers(&server, &settings, "1 KiB", kib::<1>).await;
    followers(&server, &settings, "64 KiB", kib::<64>).await;
    followers(&server, &settings, "1 MiB", kib::<1024>).await;
    a_burst(&server, &settings).await;
    memory(&server, &settings).await;
}
