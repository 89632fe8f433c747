//! Groups of several replicas in one process, over a store in memory, on a paused clock.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::join_all};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use super::{Group, replicated::ReplicatedFlights, run::Run};
use crate::replicas::{Command, KeyBytes, MemoryStore, ReplicaClient};

type Pages = Group<String, String>;

const CALL: Duration = Duration::from_millis(300);

/// Replicas of one service, and how often their work ran.
struct Fleet {
    store: MemoryStore,
    replicas: Vec<Pages>,
    calls: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl Fleet {
    /// Whose store is there.
    async fn new(replicas: usize) -> Self {
        let fleet = Self::unconnected(replicas);
        fleet.connected().await;
        fleet
    }

    fn unconnected(replicas: usize) -> Self {
        let store = MemoryStore::new(Duration::from_secs(2), Duration::from_secs(10));
        let replica = |_| Self::replica(&store);
        Self {
            replicas: (0..replicas).map(replica).collect(),
            store,
            calls: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
        }
    }

    fn replica(store: &MemoryStore) -> Pages {
        let encode = |value: &String| (!value.is_empty()).then(|| value.clone().into_bytes());
        let decode = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        Group::new().across(ReplicatedFlights::at(
            ReplicaClient::in_memory(store),
            (encode, decode),
        ))
    }

    async fn connected(&self) {
        while !self
            .replicas
            .iter()
            .all(|replica| replica.replica_stats().unwrap().is_up)
        {
            sleep(Duration::from_millis(1)).await;
        }
        self.store.take_commands();
    }

    /// A caller whose work takes [`CALL`] and gives the number of the call.
    fn ask(&self, replica: usize, key: &str) -> Run<String, String> {
        let calls = Arc::clone(&self.calls);
        self.replicas[replica].run(key.to_owned(), || async move {
            let call = calls.fetch_add(1, Ordering::SeqCst);
            sleep(CALL).await;
            format!("page {call}")
        })
    }

    /// A caller whose work ends when the gate is opened for it.
    fn ask_gated(&self, replica: usize, key: &str) -> Run<String, String> {
        let (calls, gate) = (Arc::clone(&self.calls), Arc::clone(&self.gate));
        self.replicas[replica].run(key.to_owned(), || async move {
            let call = calls.fetch_add(1, Ordering::SeqCst);
            gate.acquire().await.expect("never closed").forget();
            format!("page {call}")
        })
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Until the leader's process counts so many callers of the key, those at other replicas by one each.
    async fn waiters(&self, replica: usize, key: &str, count: usize) {
        while self.replicas[replica].waiters(key) != count {
            sleep(Duration::from_millis(1)).await;
        }
    }

    async fn settle() {
        sleep(Duration::from_millis(20)).await;
    }

    async fn nothing_is_left(&self) {
        Self::settle().await;
        assert_eq!(self.store.keys(), 0);
        for replica in &self.replicas {
            assert_eq!(replica.in_flight(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_burst_at_all_replicas_one_caller_does_the_work() {
    let fleet = Fleet::new(4).await;
    let burst = (0..40).map(|caller| fleet.ask(caller % 4, "a"));
    let outcomes = join_all(burst).await;
    assert!(
        outcomes
            .iter()
            .all(|outcome| outcome.value == "page 0" && outcome.shared)
    );
    assert_eq!(outcomes.iter().filter(|outcome| outcome.led).count(), 1);
    assert_eq!(fleet.calls(), 1);
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn callers_of_other_keys_share_nothing_across_replicas() {
    let fleet = Fleet::new(2).await;
    let asks = ["a", "b", ""].map(|key| [0, 1].map(|replica| fleet.ask(replica, key)));
    let outcomes = join_all(asks.into_iter().flatten()).await;
    let values: Vec<_> = outcomes.into_iter().map(|outcome| outcome.value).collect();
    let [a, b, c] = ["page 0", "page 1", "page 2"];
    assert_eq!(values, [a, a, b, b, c, c]);
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_key_of_ones_own_type_is_what_is_written_of_it() {
    let store = MemoryStore::new(Duration::from_secs(2), Duration::from_secs(10));
    let replicas = [(); 2].map(|()| {
        let key = |key: &(u8, u8), bytes: &mut KeyBytes| bytes.part(&[key.0]);
        let encode = |value: &u8| Some(vec![*value]);
        let decode = |bytes: &[u8]| bytes.first().copied();
        Group::new().across(ReplicatedFlights::at(
            ReplicaClient::in_memory(&store),
            (key, encode, decode),
        ))
    });
    sleep(Duration::from_millis(50)).await;
    let ask = |replica: usize, key, value| {
        replicas[replica].run(key, || async move {
            sleep(CALL).await;
            value
        })
    };
    // What is not written makes no difference between replicas.
    let asks = [ask(0, (1, 1), 10), ask(1, (1, 2), 11), ask(1, (2, 1), 12)];
    let values: Vec<_> = join_all(asks).await.iter().map(|it| it.value).collect();
    assert_eq!(values, [10, 10, 12]);
    Fleet::settle().await;
    assert_eq!(store.keys(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_solo_caller_costs_two_requests_and_its_value_is_not_sent() {
    let fleet = Fleet::new(2).await;
    let outcome = fleet.ask(0, "a").await;
    assert!(outcome.led && !outcome.shared);
    Fleet::settle().await;
    let commands = fleet.store.take_commands();
    let [Command::Contend { .. }, Command::Release { .. }] = commands[..] else {
        panic!("{commands:?}")
    };
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn local_followers_of_a_leader_cost_no_request() {
    let fleet = Fleet::new(2).await;
    let outcomes = join_all((0..250).map(|_| fleet.ask(0, "a"))).await;
    assert!(outcomes.iter().all(|outcome| outcome.value == "page 0"));
    Fleet::settle().await;
    assert_eq!(fleet.store.take_commands().len(), 2);
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_elsewhere_keeps_the_work_going_when_its_leader_leaves() {
    let fleet = Fleet::new(2).await;
    let leader = fleet.ask_gated(0, "a");
    tokio::spawn(async move {
        let _ = tokio::time::timeout(Duration::from_millis(100), leader).await;
    });
    fleet.waiters(0, "a", 1).await;
    Fleet::settle().await;
    let follower = tokio::spawn(fleet.ask_gated(1, "a"));
    fleet.waiters(0, "a", 2).await;
    sleep(Duration::from_millis(200)).await;
    assert_eq!(fleet.replicas[0].waiters("a"), 1);
    fleet.gate.add_permits(1);
    let outcome = follower.await.unwrap();
    assert_eq!(outcome.value, "page 0");
    assert!(outcome.shared && !outcome.led);
    assert_eq!(fleet.calls(), 1);
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn when_the_last_caller_anywhere_leaves_the_work_is_dropped() {
    let fleet = Fleet::new(2).await;
    let leader = tokio::spawn(fleet.ask_gated(0, "a"));
    Fleet::settle().await;
    let follower = tokio::spawn(fleet.ask_gated(1, "a"));
    fleet.waiters(0, "a", 2).await;
    leader.abort();
    Fleet::settle().await;
    assert_eq!(fleet.replicas[0].in_flight(), 1);
    follower.abort();
    sleep(Duration::from_millis(100)).await;
    fleet.nothing_is_left().await;
    // The work held its half of nothing: it was dropped where it waited.
    assert_eq!(Arc::strong_count(&fleet.gate), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_of_whom_the_leader_had_not_been_told_gets_no_value_older_than_its_question() {
    let fleet = Fleet::new(2).await;
    fleet.store.takes(Duration::from_millis(20));
    let leader = tokio::spawn(fleet.ask_gated(0, "a"));
    sleep(Duration::from_millis(30)).await;
    let early = tokio::spawn(fleet.ask_gated(1, "a"));
    fleet.waiters(0, "a", 2).await;
    sleep(Duration::from_millis(30)).await;
    fleet.gate.add_permits(1);
    // The work has ended, and its value is on its way.
    leader.await.unwrap();
    let late = tokio::spawn(fleet.ask_gated(1, "a"));
    assert_eq!(early.await.unwrap().value, "page 0");
    fleet.gate.add_permits(1);
    let late = late.await.unwrap();
    assert_eq!(late.value, "page 1");
    assert!(late.led);
    fleet.store.takes(Duration::ZERO);
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn who_has_another_replicas_value_has_left_its_flight_before_it_drops_its_run() {
    let fleet = Fleet::new(2).await;
    fleet.store.takes(Duration::from_millis(20));
    let leader = tokio::spawn(fleet.ask_gated(0, "a"));
    sleep(Duration::from_millis(30)).await;
    let mut early = fleet.ask_gated(1, "a");
    let early = tokio::spawn(async move { ((&mut early).await, early) });
    fleet.waiters(0, "a", 2).await;
    sleep(Duration::from_millis(30)).await;
    fleet.gate.add_permits(1);
    leader.await.unwrap();
    let late = tokio::spawn(fleet.ask_gated(1, "a"));
    let (outcome, early) = early.await.unwrap();
    assert_eq!(outcome.value, "page 0");
    assert_eq!(fleet.replicas[1].waiters("a"), 1);
    fleet.gate.add_permits(1);
    assert_eq!(late.await.unwrap().value, "page 1");
    drop(early);
    fleet.store.takes(Duration::ZERO);
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_leaves_with_another_replicas_value_leaves_no_lead_behind() {
    let fleet = Fleet::new(2).await;
    fleet.store.takes(Duration::from_millis(20));
    let elsewhere = tokio::spawn(fleet.ask_gated(0, "a"));
    sleep(Duration::from_millis(30)).await;
    let leader = fleet.ask_gated(1, "a");
    let early = tokio::spawn(fleet.ask_gated(1, "a"));
    fleet.waiters(0, "a", 2).await;
    sleep(Duration::from_millis(30)).await;
    drop(leader);
    fleet.gate.add_permits(1);
    elsewhere.await.unwrap();
    let late = tokio::spawn(fleet.ask_gated(1, "a"));
    assert_eq!(early.await.unwrap().value, "page 0");
    fleet.gate.add_permits(1);
    let late = late.await.unwrap();
    assert_eq!(late.value, "page 1");
    assert!(late.shared && !late.led);
    fleet.store.takes(Duration::ZERO);
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_late_caller_of_whom_the_leader_is_told_in_time_gets_its_value() {
    let fleet = Fleet::new(2).await;
    let leader = tokio::spawn(fleet.ask_gated(0, "a"));
    Fleet::settle().await;
    let early = tokio::spawn(fleet.ask_gated(1, "a"));
    fleet.waiters(0, "a", 2).await;
    let late = tokio::spawn(fleet.ask_gated(1, "a"));
    Fleet::settle().await;
    fleet.gate.add_permits(1);
    for caller in [leader, early, late] {
        assert_eq!(caller.await.unwrap().value, "page 0");
    }
    assert_eq!(fleet.calls(), 1);
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_store_every_replica_works_on_its_own_at_once() {
    let fleet = Fleet::unconnected(4);
    fleet.store.go_down();
    let began = Instant::now();
    let outcomes = join_all((0..40).map(|caller| fleet.ask(caller % 4, "a"))).await;
    assert_eq!(began.elapsed(), CALL);
    assert_eq!(outcomes.iter().filter(|outcome| outcome.led).count(), 4);
    assert_eq!(fleet.calls(), 4);
    assert_eq!(fleet.replicas[0].replica_stats().unwrap().alone_down, 1);
    fleet.store.come_up();
    fleet.connected().await;
    join_all((0..40).map(|caller| fleet.ask(caller % 4, "a"))).await;
    assert_eq!(fleet.calls(), 5);
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_falls_silent_is_waited_for_no_longer_than_patience() {
    let fleet = Fleet::new(2).await;
    fleet.store.fall_silent(true);
    let began = Instant::now();
    assert_eq!(fleet.ask(0, "a").await.value, "page 0");
    assert_eq!(began.elapsed(), CALL + Duration::from_millis(50));
    assert_eq!(fleet.replicas[0].replica_stats().unwrap().alone_slow, 1);
    // By now it is known to be down.
    sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    fleet.ask(0, "a").await;
    assert_eq!(began.elapsed(), CALL);
    fleet.store.fall_silent(false);
    fleet.connected().await;
    fleet.ask(0, "a").await;
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_another_replica_is_sent_on_when_the_store_goes() {
    let fleet = Fleet::new(2).await;
    let leader = tokio::spawn(fleet.ask_gated(0, "a"));
    Fleet::settle().await;
    let follower = tokio::spawn(fleet.ask_gated(1, "a"));
    fleet.waiters(0, "a", 2).await;
    let began = Instant::now();
    fleet.store.go_down();
    while fleet.calls() < 2 {
        sleep(Duration::from_millis(1)).await;
    }
    assert!(began.elapsed() <= Duration::from_millis(300 + 200));
    fleet.gate.add_permits(2);
    let mut values = [leader.await.unwrap().value, follower.await.unwrap().value];
    values.sort();
    assert_eq!(values, ["page 0", "page 1"]);
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_not_written_is_made_by_each_replica() {
    let fleet = Fleet::new(2).await;
    let calls = Arc::clone(&fleet.calls);
    let ask = |replica: usize| {
        let calls = Arc::clone(&calls);
        fleet.replicas[replica].run("a".to_owned(), || async move {
            calls.fetch_add(1, Ordering::SeqCst);
            sleep(CALL).await;
            String::new()
        })
    };
    let began = Instant::now();
    let outcomes = join_all([ask(0), ask(0), ask(1), ask(1)]).await;
    assert!(outcomes.iter().all(|outcome| outcome.value.is_empty()));
    assert_eq!(fleet.calls(), 2);
    assert!(began.elapsed() <= 2 * CALL + Duration::from_millis(20));
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_large_value_goes_by_the_store_and_is_gone_when_all_have_it() {
    let fleet = Fleet::new(3).await;
    let page = "x".repeat(100_000);
    let ask = |replica: usize| {
        let page = page.clone();
        fleet.replicas[replica].run("a".to_owned(), || async move {
            sleep(CALL).await;
            page
        })
    };
    let outcomes = join_all((0..9).map(|caller| ask(caller % 3))).await;
    assert!(outcomes.iter().all(|outcome| outcome.value == page));
    assert_eq!(outcomes.iter().filter(|outcome| outcome.led).count(), 1);
    Fleet::settle().await;
    let put = |command: &Command| matches!(command, Command::Put { .. });
    assert_eq!(
        fleet
            .store
            .take_commands()
            .iter()
            .filter(|command| put(command))
            .count(),
        1
    );
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_work_is_its_replicas_alone() {
    let fleet = Fleet::new(2).await;
    let leader = fleet.replicas[0].run("a".to_owned(), || async {
        sleep(CALL).await;
        panic!("out of paper")
    });
    let leader = tokio::spawn(AssertUnwindSafe(leader).catch_unwind());
    Fleet::settle().await;
    let follower = tokio::spawn(fleet.ask(1, "a"));
    assert!(leader.await.unwrap().is_err());
    assert_eq!(follower.await.unwrap().value, "page 0");
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_value_that_panics_when_it_is_written_makes_its_own() {
    let store = MemoryStore::new(Duration::from_secs(2), Duration::from_secs(10));
    let replicas = [(); 2].map(|()| {
        let encode = |value: &u8| -> Option<Vec<u8>> { panic!("{value} is not to be written") };
        let decode = |bytes: &[u8]| bytes.first().copied();
        Group::new().across(ReplicatedFlights::at(
            ReplicaClient::in_memory(&store),
            (encode, decode),
        ))
    });
    sleep(Duration::from_millis(50)).await;
    let began = Instant::now();
    let ask = |replica: usize| {
        let run = replicas[replica].run("a".to_owned(), || async {
            sleep(CALL).await;
            1
        });
        tokio::spawn(AssertUnwindSafe(run).catch_unwind())
    };
    let leader = ask(0);
    Fleet::settle().await;
    let follower = ask(1);
    assert!(leader.await.unwrap().is_err());
    assert_eq!(follower.await.unwrap().unwrap().value, 1);
    let took = began.elapsed();
    assert!(took <= 2 * CALL + Duration::from_millis(20), "{took:?}");
    Fleet::settle().await;
    assert_eq!(store.keys(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_at_one_replica_is_led_anew_at_all() {
    let fleet = Fleet::new(2).await;
    let before = tokio::spawn(fleet.ask_gated(0, "a"));
    Fleet::settle().await;
    // No flight of its own; the one that it means is at the other.
    assert!(!fleet.replicas[1].forget("a"));
    let here = tokio::spawn(fleet.ask_gated(1, "a"));
    Fleet::settle().await;
    let there = tokio::spawn(fleet.ask_gated(0, "a"));
    Fleet::settle().await;
    assert_eq!(fleet.calls(), 2);
    fleet.gate.add_permits(2);
    assert_eq!(before.await.unwrap().value, "page 0");
    assert_eq!(here.await.unwrap().value, "page 1");
    assert_eq!(there.await.unwrap().value, "page 1");
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_at_one_replica_is_that_key_alone_at_the_others() {
    let fleet = Fleet::new(2).await;
    let keys = ["a", "b"];
    let old = keys.map(|key| tokio::spawn(fleet.ask_gated(0, key)));
    let here = tokio::spawn(fleet.ask_gated(1, "a"));
    Fleet::settle().await;
    assert!(fleet.replicas[1].forget("a"));
    Fleet::settle().await;
    let new = keys.map(|key| tokio::spawn(fleet.ask_gated(0, key)));
    Fleet::settle().await;
    assert_eq!(fleet.calls(), 3);
    fleet.gate.add_permits(3);
    let outcomes = join_all(old.into_iter().chain([here]).chain(new)).await;
    let values = outcomes.into_iter().map(|outcome| outcome.unwrap().value);
    let values: Vec<_> = values.collect();
    let [a, b, c] = ["page 0", "page 1", "page 2"];
    assert_eq!(values, [a, b, a, c, b]);
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn spawned_work_goes_on_though_nobody_polls_for_it() {
    let fleet = Fleet::new(1).await;
    let done = Arc::new(AtomicUsize::new(0));
    let run = fleet.replicas[0].spawn("a".to_owned(), || {
        let done = Arc::clone(&done);
        async move {
            sleep(CALL).await;
            done.fetch_add(1, Ordering::SeqCst);
            "page".to_owned()
        }
    });
    sleep(2 * CALL).await;
    assert_eq!(done.load(Ordering::SeqCst), 1);
    assert_eq!(run.await.value, "page");
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn forgetting_all_reaches_the_flights_of_other_replicas() {
    let fleet = Fleet::new(2).await;
    let before = tokio::spawn(fleet.ask_gated(0, "a"));
    Fleet::settle().await;
    fleet.replicas[1].forget_all();
    Fleet::settle().await;
    let after = tokio::spawn(fleet.ask_gated(0, "a"));
    Fleet::settle().await;
    fleet.gate.add_permits(2);
    assert_eq!(before.await.unwrap().value, "page 0");
    assert_eq!(after.await.unwrap().value, "page 1");
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn who_forgets_all_leaves_the_flights_alone_that_it_begins_after_that() {
    let fleet = Fleet::new(2).await;
    fleet.replicas[0].forget_all();
    let leader = tokio::spawn(fleet.ask_gated(0, "a"));
    Fleet::settle().await;
    let follower = tokio::spawn(fleet.ask_gated(0, "a"));
    Fleet::settle().await;
    assert_eq!(fleet.calls(), 1);
    fleet.gate.add_permits(1);
    for caller in [leader, follower] {
        assert_eq!(caller.await.unwrap().value, "page 0");
    }
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn calls_shorter_than_a_few_round_trips_leave_the_store_alone_once_that_is_known() {
    let fleet = Fleet::new(1).await;
    fleet.store.takes(Duration::from_millis(20));
    sleep(Duration::from_secs(5)).await;
    let ask = || fleet.replicas[0].run("a".to_owned(), || async { "quick".to_owned() });
    ask().await;
    sleep(Duration::from_millis(30)).await;
    fleet.store.take_commands();
    let began = Instant::now();
    ask().await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(fleet.store.take_commands().is_empty());
    assert_eq!(fleet.replicas[0].replica_stats().unwrap().alone_short, 1);
    fleet.store.takes(Duration::ZERO);
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_goes_on_without_callers_is_followed_from_elsewhere() {
    let fleet = Fleet::new(2).await;
    let calls = Arc::clone(&fleet.calls);
    let gate = Arc::clone(&fleet.gate);
    drop(fleet.replicas[0].spawn("a".to_owned(), || async move {
        calls.fetch_add(1, Ordering::SeqCst);
        gate.acquire().await.expect("never closed").forget();
        "kept".to_owned()
    }));
    Fleet::settle().await;
    let follower = tokio::spawn(fleet.ask_gated(1, "a"));
    fleet.waiters(0, "a", 1).await;
    fleet.gate.add_permits(1);
    assert_eq!(follower.await.unwrap().value, "kept");
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn the_last_clone_of_a_group_to_go_ends_its_link() {
    let fleet = Fleet::new(1).await;
    let store = fleet.store.clone();
    assert_eq!(store.listeners(), 1);
    drop(fleet);
    Fleet::settle().await;
    assert_eq!(store.listeners(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_last_clone_of_a_group_gives_all_leases_back_before_its_link_ends() {
    let fleet = Fleet::new(1).await;
    let store = fleet.store.clone();
    let leaders = ["a", "b"].map(|key| tokio::spawn(fleet.ask_gated(0, key)));
    Fleet::settle().await;
    assert_eq!(store.keys(), 2);
    for (leader, ms) in leaders.into_iter().zip([20, 200]) {
        store.takes(Duration::from_millis(ms));
        leader.abort();
        sleep(Duration::from_millis(2)).await;
    }
    drop(fleet);
    sleep(Duration::from_millis(300)).await;
    assert_eq!((store.keys(), store.listeners()), (0, 0));
}

#[test]
fn the_next_runtime_that_is_used_takes_over_from_one_that_has_gone() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let first = runtime();
    let fleet = first.block_on(Fleet::new(2));
    drop(first);
    assert!(!fleet.replicas[0].replica_stats().unwrap().is_up);
    runtime().block_on(async {
        // Alone, and at once: nobody talks to the store yet.
        assert!(fleet.ask(0, "a").await.led);
        fleet.ask(1, "b").await;
        fleet.connected().await;
        let (one, other) = tokio::join!(fleet.ask(0, "a"), fleet.ask(1, "a"));
        assert_eq!(one.value, other.value);
        fleet.nothing_is_left().await;
    });
}

#[test]
fn who_waits_for_the_store_is_patient_no_longer_though_nobody_runs_what_talks_to_it() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let stands_still = runtime();
    let fleet = stands_still.block_on(Fleet::new(1));
    fleet.gate.add_permits(1);
    runtime().block_on(async {
        let asked = tokio::time::timeout(Duration::from_secs(20), fleet.ask_gated(0, "a"));
        assert!(asked.await.expect("it has patience for a moment").led);
    });
    assert_eq!(fleet.replicas[0].replica_stats().unwrap().alone_slow, 1);
    stands_still.block_on(fleet.nothing_is_left());
}

#[test]
fn a_caller_outside_tokio_contends_as_any_other() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build().unwrap();
    let fleet = runtime.block_on(Fleet::new(1));
    fleet.store.takes(Duration::from_millis(5));
    fleet.gate.add_permits(1);
    let outcome = pollster::block_on(fleet.ask_gated(0, "a"));
    assert_eq!(outcome.value, "page 0");
    let commands = fleet.store.take_commands();
    assert!(
        matches!(commands[..], [Command::Contend { .. }, ..]),
        "{commands:?}"
    );
    fleet.store.takes(Duration::ZERO);
    runtime.block_on(fleet.nothing_is_left());
}
