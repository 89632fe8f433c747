//! The scenarios of the contract that a group can show: four replicas, each a process, over real servers. They run one after the
//! other, since they measure. `REPLICAS_ROUNDS` asks for more rounds of those that look for a race.

use std::{collections::BTreeSet, time::Duration};

use replicas_tests::{Cluster, Got, Kind, Proxy, Replica, Server, Settings};
use tokio::{
    sync::{Mutex, MutexGuard},
    time::{Instant, sleep},
};

const CALL: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(20);

/// What a machine that does other things as well may add to a bound.
const SLACK: Duration = Duration::from_millis(150);

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

async fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

struct Fleet {
    replicas: Vec<Replica>,
}

impl Fleet {
    /// Whose store is in use.
    async fn start(count: usize, settings: &Settings) -> Self {
        let fleet = Self::launch(count, settings);
        for replica in &fleet.replicas {
            replica.is_up_within(LONG).await;
        }
        fleet
    }

    fn launch(count: usize, settings: &Settings) -> Self {
        let path = env!("CARGO_BIN_EXE_replica");
        let replicas = (0..count).map(|_| Replica::start(path, settings));
        Self {
            replicas: replicas.collect(),
        }
    }

    /// Callers of one key, `each` at each replica.
    async fn burst(&self, key: &str, each: usize, call: Duration, len: usize) -> Vec<Got> {
        let mut asked = Vec::new();
        for replica in &self.replicas {
            asked.push(replica.ask(key, each, call, len).await);
        }
        let mut all = Vec::new();
        for (replica, asked) in self.replicas.iter().zip(asked) {
            all.extend(replica.got(asked, LONG).await);
        }
        all
    }

    fn calls(&self) -> usize {
        self.replicas.iter().map(Replica::calls).sum()
    }

    async fn stats(&self) -> Vec<[u64; 9]> {
        let mut all = Vec::new();
        for replica in &self.replicas {
            all.push(replica.stats().await);
        }
        all
    }

    /// How many calls those made whose answers these are.
    fn made(got: &[Got]) -> usize {
        got.iter()
            .map(|got| &got.call)
            .collect::<BTreeSet<_>>()
            .len()
    }

    async fn calls_reach(&self, calls: usize) {
        let deadline = Instant::now() + LONG;
        while self.calls() < calls {
            assert!(
                Instant::now() < deadline,
                "{} calls of {calls}",
                self.calls()
            );
            sleep(ms(1)).await;
        }
    }

    async fn all_up_within(&self, time: Duration) {
        let deadline = Instant::now() + time;
        for replica in &self.replicas {
            replica
                .is_up_within(deadline.saturating_duration_since(Instant::now()))
                .await;
        }
    }
}

/// One line of what was measured, shown with `--nocapture`.
fn show(what: &str, got: &[Got]) {
    let mut times: Vec<_> = got.iter().map(Got::took).collect();
    times.sort();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    eprintln!(
        "{what}: {} callers, {} calls, p50 {:?}, p99 {:?}, slowest {:?}",
        got.len(),
        Fleet::made(got),
        at(50),
        at(99),
        at(100)
    );
}

fn slowest(got: &[Got]) -> Duration {
    got.iter().map(Got::took).max().unwrap_or_default()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

// ===== 1: bursts =====

async fn bursts_cost_one_call_each(settings: &Settings) {
    let fleet = Fleet::start(4, settings).await;
    for round in 0..10 {
        let got = fleet.burst(&format!("round{round}"), 250, CALL, 100).await;
        assert_eq!(got.len(), 1000);
        assert_eq!(
            Fleet::made(&got),
            1,
            "round {round}: {:?}",
            fleet.stats().await
        );
        assert_eq!(got.iter().filter(|got| got.led).count(), 1);
        show("burst", &got);
        assert!(slowest(&got) < CALL + 2 * SLACK, "{:?}", slowest(&got));
    }
    assert_eq!(fleet.calls(), 10);
}

#[tokio::test]
async fn a_burst_of_a_thousand_costs_one_call_on_redis() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    bursts_cost_one_call_each(&Settings::new(&server.url())).await;
    server.is_empty_within(ms(1000)).await;
}

#[tokio::test]
async fn a_burst_of_a_thousand_costs_one_call_on_valkey() {
    let _turn = one_at_a_time().await;
    if !Kind::Valkey.is_installed() {
        eprintln!("skipped: no valkey-server here; VALKEY_SERVER names one");
        return;
    }
    let server = Server::start(Kind::Valkey).await;
    bursts_cost_one_call_each(&Settings::new(&server.url())).await;
    server.is_empty_within(ms(1000)).await;
}

#[tokio::test]
async fn a_burst_of_a_thousand_costs_one_call_on_a_cluster() {
    let _turn = one_at_a_time().await;
    let cluster = Cluster::start(Kind::Redis).await;
    let settings = Settings {
        is_cluster: true,
        ..Settings::new(&cluster.urls())
    };
    bursts_cost_one_call_each(&settings).await;
    cluster.is_empty_within(ms(1000)).await;
}

// ===== 2: many keys =====

#[tokio::test]
async fn a_hundred_keys_cost_a_hundred_calls_and_leave_nothing() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(4, &Settings::new(&server.url())).await;
    let mut asked = Vec::new();
    for key in 0..100 {
        for replica in &fleet.replicas {
            asked.push((
                replica,
                replica.ask(&format!("key{key}"), 2, CALL, 100).await,
            ));
        }
    }
    for (replica, asked) in asked {
        replica.got(asked, LONG).await;
    }
    assert_eq!(fleet.calls(), 100, "{:?}", fleet.stats().await);
    server.is_empty_within(ms(1000)).await;
}

// ===== 3, 4: what it costs =====

/// Commands that clients sent, beats left out as well as they can be told: a beat is a PUBLISH.
async fn counts(server: &Server) -> (u64, u64) {
    let counts = server.command_counts().await;
    let of = |name: &str| counts.get(name).copied().unwrap_or(0);
    (of("evalsha") + of("eval"), of("set") + of("get"))
}

#[tokio::test]
async fn a_solo_caller_costs_two_scripts_and_little_time() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(2, &Settings::new(&server.url())).await;
    let solo = &fleet.replicas[0];
    // The scripts are known from here on.
    let asked = solo.ask("warm", 1, ms(20), 50_000).await;
    solo.got(asked, LONG).await;
    let before = counts(&server).await;
    let mut added = Vec::new();
    for round in 0..200 {
        let asked = solo.ask(&format!("solo{round}"), 1, ms(5), 50_000).await;
        let got = solo.got(asked, LONG).await.remove(0);
        assert!(got.led && !got.shared);
        added.push(got.took());
    }
    let after = counts(&server).await;
    assert_eq!(after.0 - before.0, 400, "two scripts for each");
    // A lease is read and set by the first script and read by the second; no body is.
    assert_eq!(after.1 - before.1, 600);
    server.is_empty_within(ms(1000)).await;

    // The same without the store, and what a PING costs.
    let absent = Settings::new("redis://127.0.0.1:1");
    let alone = Replica::start(env!("CARGO_BIN_EXE_replica"), &absent);
    let mut bare = Vec::new();
    for round in 0..200 {
        let asked = alone.ask(&format!("solo{round}"), 1, ms(5), 50_000).await;
        bare.push(alone.got(asked, LONG).await[0].took());
    }
    let mut connection = server.connect().await;
    let mut pings = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        redis::cmd("PING")
            .exec_async(&mut connection)
            .await
            .unwrap();
        pings.push(began.elapsed());
    }
    let (with, without, ping) = (median(added), median(bare), median(pings));
    eprintln!("solo: with {with:?}, without {without:?}, PING {ping:?}");
    assert!(
        with.saturating_sub(without) <= 3 * ping + ms(2),
        "{with:?} {without:?} {ping:?}"
    );
}

#[tokio::test]
async fn local_followers_cost_no_command() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(2, &Settings::new(&server.url())).await;
    let before = counts(&server).await;
    let asked = fleet.replicas[0].ask("a", 250, CALL, 100).await;
    let got = fleet.replicas[0].got(asked, LONG).await;
    assert_eq!(Fleet::made(&got), 1);
    sleep(ms(20)).await;
    // EVALSHA is refused once for each script, which is then sent.
    assert!(counts(&server).await.0 - before.0 <= 4);
}

// ===== 5: staleness =====

async fn no_answer_is_older_than_its_question(round_trip: Duration) {
    let server = Server::start(Kind::Redis).await;
    let proxy = Proxy::start(server.port()).await;
    let fleet = Fleet::start(4, &Settings::new(&proxy.url())).await;
    proxy.delay(round_trip);
    let rounds = std::env::var("REPLICAS_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(50);
    let mut asked = Vec::new();
    // 40 clients, at moments that have nothing to do with each other.
    for round in 0..rounds {
        for client in 0..40_u64 {
            let at = (client * 7919 + round * 104_729) % 4;
            let replica = &fleet.replicas[at as usize];
            asked.push((at, replica.ask("page", 1, ms(15), 100).await));
            if client % 3 == 0 {
                sleep(Duration::from_micros((client * 613 + round * 331) % 2500)).await;
            }
        }
    }
    let mut stale = 0;
    let mut elsewhere = 0;
    for (at, asked) in &asked {
        for got in fleet.replicas[*at as usize].got(*asked, LONG).await {
            // A flight of the caller's own process ends a moment after its work.
            let is_local = got
                .call
                .starts_with(&format!("{}.", fleet.replicas[*at as usize].process()));
            stale += usize::from(got.ended < got.asked && !is_local);
            elsewhere += usize::from(!got.led);
        }
    }
    let stats = fleet.replicas[0].stats().await;
    eprintln!(
        "{round_trip:?}: {} answers, {} calls, {elsewhere} shared, stats {stats:?}",
        asked.len(),
        fleet.calls()
    );
    assert_eq!(stale, 0, "of {}", asked.len());
}

#[tokio::test]
async fn no_answer_is_of_a_call_that_had_ended_before_the_question() {
    let _turn = one_at_a_time().await;
    for round_trip in [ms(0), ms(5), ms(20)] {
        no_answer_is_older_than_its_question(round_trip).await;
    }
}

// ===== 6, 7: the store fails =====

#[tokio::test]
async fn a_store_that_is_absent_at_start_is_not_waited_for() {
    let _turn = one_at_a_time().await;
    let fleet = Fleet::launch(4, &Settings::new("redis://127.0.0.1:1"));
    let got = fleet.burst("a", 250, CALL, 100).await;
    show("absent at start", &got);
    assert!(Fleet::made(&got) <= 4);
    assert!(slowest(&got) < CALL + SLACK);
}

#[tokio::test]
async fn a_store_that_has_stopped_costs_patience_once() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(4, &Settings::new(&server.url())).await;
    server.stop(true);
    let first = fleet.burst("a", 250, CALL, 100).await;
    show("stopped, first burst", &first);
    assert!(Fleet::made(&first) <= 4);
    assert!(slowest(&first) < CALL + ms(250) + SLACK);
    // By now it is known.
    sleep(ms(300)).await;
    let second = fleet.burst("b", 250, CALL, 100).await;
    show("stopped, second burst", &second);
    assert!(Fleet::made(&second) <= 4);
    assert!(slowest(&second) < CALL + SLACK, "{:?}", slowest(&second));
    server.stop(false);
    let mended = Instant::now();
    fleet.all_up_within(ms(1000) + SLACK).await;
    eprintln!("in use again {:?} after it went on", mended.elapsed());
    let third = fleet.burst("c", 250, CALL, 100).await;
    assert_eq!(Fleet::made(&third), 1);
}

/// A burst whose call takes a second; in its middle `fail` happens, and after `lasts` `mend`.
async fn a_failure_midway(
    server: &Server,
    proxy: &Proxy,
    fail: impl Fn(&Server, &Proxy),
    mend: impl Fn(&Server, &Proxy),
) {
    let fleet = Fleet::start(4, &Settings::new(&proxy.url())).await;
    let call = ms(1000);
    let burst = fleet.burst("a", 250, call, 100);
    let failing = async {
        fleet.calls_reach(1).await;
        sleep(ms(300)).await;
        fail(server, proxy);
        sleep(ms(1000)).await;
        mend(server, proxy);
    };
    let (got, ()) = tokio::join!(burst, failing);
    show("fails midway in a call of 1 s", &got);
    assert!(Fleet::made(&got) <= 4, "{} calls", Fleet::made(&got));
    // Sent on within down_after and a beat, they make calls of a second.
    assert!(slowest(&got) < ms(2000) + SLACK, "{:?}", slowest(&got));
    fleet.all_up_within(ms(2000)).await;
    let next = fleet.burst("b", 250, CALL, 100).await;
    assert_eq!(Fleet::made(&next), 1);
    // The other leaders' leases may have been left behind.
    server.is_empty_within(ms(2500)).await;
}

#[tokio::test]
async fn a_store_that_stops_midway_sends_everybody_on() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let proxy = Proxy::start(server.port()).await;
    a_failure_midway(
        &server,
        &proxy,
        |server, _| server.stop(true),
        |server, _| server.stop(false),
    )
    .await;
}

#[tokio::test]
async fn a_black_hole_midway_sends_everybody_on() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let proxy = Proxy::start(server.port()).await;
    a_failure_midway(
        &server,
        &proxy,
        |_, proxy| proxy.black_hole(true),
        |_, proxy| proxy.black_hole(false),
    )
    .await;
}

#[tokio::test]
async fn a_cut_connection_midway_sends_everybody_on() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let proxy = Proxy::start(server.port()).await;
    a_failure_midway(&server, &proxy, |_, proxy| proxy.cut(), |_, _| ()).await;
}

#[tokio::test]
async fn a_store_that_is_killed_and_comes_back_empty_is_in_use_again_soon() {
    let _turn = one_at_a_time().await;
    let mut server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(4, &Settings::new(&server.url())).await;
    let burst = fleet.burst("a", 250, ms(1000), 100);
    let failing = async {
        fleet.calls_reach(1).await;
        sleep(ms(300)).await;
        server.restart().await;
        let mended = Instant::now();
        fleet.all_up_within(ms(1500)).await;
        eprintln!("in use again {:?} after the restart", mended.elapsed());
    };
    let (got, ()) = tokio::join!(burst, failing);
    show("killed midway in a call of 1 s", &got);
    assert!(Fleet::made(&got) <= 4);
    let next = fleet.burst("b", 250, CALL, 100).await;
    assert_eq!(Fleet::made(&next), 1);
}

#[tokio::test]
async fn a_lease_that_is_deleted_midway_costs_no_call() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(4, &Settings::new(&server.url())).await;
    let burst = fleet.burst("a", 250, ms(1000), 100);
    let failing = async {
        fleet.calls_reach(1).await;
        sleep(ms(300)).await;
        server.command(&["FLUSHALL"]).await;
    };
    let (got, ()) = tokio::join!(burst, failing);
    show("flushed midway in a call of 1 s", &got);
    assert_eq!(Fleet::made(&got), 1);
}

// ===== 8, 15: a store far away =====

#[tokio::test]
async fn a_store_farther_than_patience_is_left_alone() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let proxy = Proxy::start(server.port()).await;
    let settings = Settings {
        patience: ms(20),
        ..Settings::new(&proxy.url())
    };
    let fleet = Fleet::start(4, &settings).await;
    proxy.delay(ms(50));
    let first = fleet.burst("a", 250, CALL, 100).await;
    assert!(Fleet::made(&first) <= 4);
    sleep(ms(500)).await;
    let second = fleet.burst("b", 250, CALL, 100).await;
    show("farther than patience, first burst", &first);
    show("farther than patience, second burst", &second);
    assert!(Fleet::made(&second) <= 4);
    assert!(slowest(&second) < CALL + SLACK);
    assert!(!fleet.replicas[0].is_up().await);
}

#[tokio::test]
async fn a_store_within_patience_is_used() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let proxy = Proxy::start(server.port()).await;
    let fleet = Fleet::start(4, &Settings::new(&proxy.url())).await;
    proxy.delay(ms(50));
    sleep(ms(500)).await;
    let got = fleet.burst("a", 250, CALL, 100).await;
    show("50 ms away", &got);
    assert_eq!(Fleet::made(&got), 1);
}

#[tokio::test]
async fn calls_too_short_for_a_store_far_away_are_local_once_that_is_known() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let proxy = Proxy::start(server.port()).await;
    let fleet = Fleet::start(2, &Settings::new(&proxy.url())).await;
    proxy.delay(ms(20));
    sleep(ms(2000)).await;
    let one = &fleet.replicas[0];
    let mut times = Vec::new();
    for round in 0..100 {
        let asked = one.ask("a", 1, ms(5), 100).await;
        let got = one.got(asked, LONG).await.remove(0);
        if round > 2 {
            times.push(got.took());
        }
        sleep(ms(25)).await;
    }
    times.sort();
    eprintln!(
        "5 ms at 20 ms: p50 {:?}, p99 {:?}",
        times[times.len() / 2],
        times[times.len() - 2]
    );
    assert!(times[times.len() / 2] < ms(5 + 10));
    assert!(one.stats().await[6] > 90);
}

// ===== 9: the leader fails =====

#[tokio::test]
async fn a_leader_that_is_killed_costs_one_call_more() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(4, &Settings::new(&server.url())).await;
    let leader = &fleet.replicas[0];
    let began = Instant::now();
    leader.ask("a", 250, ms(1000), 100).await;
    fleet.calls_reach(1).await;
    let mut asked = Vec::new();
    for replica in &fleet.replicas[1..] {
        asked.push((replica, replica.ask("a", 250, ms(1000), 100).await));
    }
    sleep(ms(300)).await;
    leader.signal("KILL");
    let mut got = Vec::new();
    for (replica, asked) in asked {
        got.extend(replica.got(asked, LONG).await);
    }
    assert_eq!(got.len(), 750);
    assert_eq!(Fleet::made(&got), 1);
    assert_eq!(fleet.calls(), 2);
    eprintln!(
        "a killed leader's followers had their answer after {:?}",
        began.elapsed()
    );
    // A probe, and the call.
    assert!(began.elapsed() < ms(300 + 500 + 1000) + 2 * SLACK);
    server.is_empty_within(ms(1000)).await;
}

#[tokio::test]
async fn a_leader_that_stalls_costs_one_call_more_and_its_late_answer_reaches_nobody() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(4, &Settings::new(&server.url())).await;
    let leader = &fleet.replicas[0];
    let stalled = leader.ask("a", 10, ms(1000), 100).await;
    fleet.calls_reach(1).await;
    let mut asked = Vec::new();
    for replica in &fleet.replicas[1..] {
        asked.push((replica, replica.ask("a", 250, ms(1000), 100).await));
    }
    sleep(ms(300)).await;
    let began = Instant::now();
    leader.signal("STOP");
    let mut got = Vec::new();
    for (replica, asked) in &asked {
        got.extend(replica.got(*asked, LONG).await);
    }
    eprintln!(
        "a stalled leader's followers had their answer after {:?}",
        began.elapsed()
    );
    assert_eq!(Fleet::made(&got), 1);
    // The lease, a probe, and the call.
    assert!(
        began.elapsed() < ms(2000 + 500 + 1000) + 2 * SLACK,
        "{:?}",
        began.elapsed()
    );
    sleep(ms(6000).saturating_sub(began.elapsed())).await;
    leader.signal("CONT");
    let late = leader.got(stalled, LONG).await;
    assert_eq!(Fleet::made(&late), 1);
    assert_ne!(late[0].call, got[0].call);
    assert_eq!(fleet.calls(), 2);
    server.is_empty_within(ms(2500)).await;
}

// ===== 10, 11: what is refused =====

#[tokio::test]
async fn a_full_store_costs_calls_and_no_error() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(4, &Settings::new(&server.url())).await;
    server
        .command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"])
        .await;
    server.command(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
    let got = fleet.burst("a", 250, CALL, 100).await;
    show("full", &got);
    assert!(Fleet::made(&got) <= 4);
    assert!(slowest(&got) < CALL + SLACK);
}

#[tokio::test]
async fn a_large_value_goes_by_the_store_and_leaves_nothing() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(4, &Settings::new(&server.url())).await;
    for (key, len) in [("a", 70_000), ("b", 1 << 20)] {
        let got = fleet.burst(key, 20, CALL, len).await;
        assert_eq!(Fleet::made(&got), 1);
        assert!(got.iter().all(|got| got.len >= len));
        show(&format!("{len} bytes"), &got);
        server.is_empty_within(ms(1000)).await;
    }
}

#[tokio::test]
async fn a_value_over_the_cap_or_not_written_takes_two_calls_time() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(4, &Settings::new(&server.url())).await;
    for (key, len) in [("a", (1 << 20) + 1), ("b", 0)] {
        let before = fleet.calls();
        let got = fleet.burst(key, 20, CALL, len).await;
        assert!(fleet.calls() - before <= 4);
        show("not shared", &got);
        assert!(slowest(&got) < 2 * CALL + 2 * SLACK, "{:?}", slowest(&got));
    }
}

// ===== 12: leaving =====

#[tokio::test]
async fn a_call_goes_on_for_followers_elsewhere_and_ends_with_the_last() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(2, &Settings::new(&server.url())).await;
    let [leader, follower] = &fleet.replicas[..] else {
        unreachable!()
    };
    for all_leave in [false, true] {
        let key = format!("leave{all_leave}");
        let before = fleet.calls();
        let leading = leader.ask(&key, 3, ms(1000), 100).await;
        fleet.calls_reach(before + 1).await;
        let following = follower.ask(&key, 3, ms(1000), 100).await;
        sleep(ms(150)).await;
        leader.leave(leading).await;
        sleep(ms(100)).await;
        if all_leave {
            follower.leave(following).await;
            sleep(ms(100)).await;
            assert_eq!(leader.lines(&format!("cancelled {key}")).len(), 1);
            assert_eq!(leader.stats().await[8], 0);
        } else {
            let got = follower.got(following, LONG).await;
            assert_eq!(Fleet::made(&got), 1);
            assert!(!got[0].led);
        }
        assert_eq!(fleet.calls(), before + 1);
        server.is_empty_within(ms(500)).await;
    }
}

// ===== 13: forgetting =====

#[tokio::test]
async fn what_one_replica_forgets_is_led_anew_at_the_others() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(3, &Settings::new(&server.url())).await;
    let old = fleet.replicas[0].ask("a", 1, ms(1500), 100).await;
    fleet.calls_reach(1).await;
    sleep(ms(100)).await;
    fleet.replicas[1].forget("a").await;
    sleep(ms(100)).await;
    let new = fleet.replicas[2].ask("a", 1, CALL, 100).await;
    let new = fleet.replicas[2].got(new, LONG).await.remove(0);
    assert!(new.led);
    let old = fleet.replicas[0].got(old, LONG).await.remove(0);
    assert_ne!(old.call, new.call);
    assert_eq!(fleet.calls(), 2);
}

// ===== 14: secrecy =====

#[tokio::test]
async fn nothing_that_the_store_shows_says_what_is_asked_or_answered() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let client = redis::Client::open(server.url()).unwrap();
    let monitor = client.get_async_monitor().await.unwrap();
    let shown = std::sync::Arc::new(std::sync::Mutex::new(Vec::<String>::new()));
    let watching = tokio::spawn(watch(monitor, std::sync::Arc::clone(&shown)));
    let fleet = Fleet::start(4, &Settings::new(&server.url())).await;
    fleet.burst("secret-path", 20, CALL, 100).await;
    // With what a page of 70 kB begins with.
    let got = fleet.burst("secret-path", 20, CALL, 70_000).await;
    sleep(ms(100)).await;
    watching.abort();
    let shown = shown.lock().unwrap();
    assert!(
        shown
            .iter()
            .any(|line| line.to_lowercase().contains("publish")),
        "{} lines",
        shown.len()
    );
    for line in shown.iter() {
        assert!(!line.contains("secret-path"), "{line}");
        assert!(!line.contains(&got[0].call), "{line}");
    }
}

async fn watch(monitor: redis::aio::Monitor, shown: std::sync::Arc<std::sync::Mutex<Vec<String>>>) {
    let mut lines = monitor.into_on_message::<String>();
    while let Some(line) = next(&mut lines).await {
        shown.lock().unwrap().push(line);
    }
}

/// The next item of a stream.
async fn next<S: futures_core::Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    std::future::poll_fn(|cx| std::pin::Pin::new(&mut *stream).poll_next(cx)).await
}

#[tokio::test]
async fn two_namespaces_or_two_secrets_never_meet() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let base = Settings::new(&server.url());
    let other_namespace = Settings {
        namespace: "replicas-tests/2".to_owned(),
        ..base.clone()
    };
    let other_secret = Settings {
        secret: "another secret, of thirty-two bytes and more".to_owned(),
        ..base.clone()
    };
    let mut fleet = Fleet {
        replicas: Vec::new(),
    };
    for settings in [&base, &other_namespace, &other_secret] {
        let one = Fleet::start(1, settings).await;
        fleet.replicas.extend(one.replicas);
    }
    let got = fleet.burst("a", 50, CALL, 100).await;
    assert_eq!(Fleet::made(&got), 3);
}

// ===== the rights that it needs =====

#[tokio::test]
async fn the_rights_that_the_guide_names_are_enough() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let rights = "on >password resetkeys resetchannels -@all +eval +evalsha +get +set +del +pexpire +publish +subscribe \
                  ~replicas-tests/1:* &replicas-tests/1:*";
    let mut words = vec!["ACL", "SETUSER", "flights"];
    words.extend(rights.split_whitespace());
    server.command(&words).await;
    let url = server
        .url()
        .replace("redis://", "redis://flights:password@");
    let fleet = Fleet::start(4, &Settings::new(&url)).await;
    for len in [100, 100_000] {
        let got = fleet.burst(&format!("len{len}"), 20, CALL, len).await;
        assert_eq!(Fleet::made(&got), 1);
    }
    server.is_empty_within(ms(1000)).await;
}
