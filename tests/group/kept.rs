//! `Group::spawn`: a flight that outlives its callers.

use tokio::runtime::{Builder, Runtime};
use tower_singleflight::Group;

use crate::support::{
    Alive, Cloned, Count, Gate, block_on, panic_of, poll_once, settle, tasks, text,
};

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_spawned_flight_runs_though_its_only_caller_is_never_polled() {
    let group = Group::new();
    let (tx, rx) = tokio::sync::oneshot::channel();
    let _unpolled = group.spawn("key", || async { tx.send(1).unwrap() });
    rx.await.unwrap();
    while group.in_flight() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_spawned_flight_goes_on_without_callers() {
    let group = Group::new();
    let gate = Gate::new();
    drop(group.spawn("key", || gate.clone().then(5)));
    assert_eq!((group.in_flight(), group.waiters("key")), (1, 0));
    let late = group.run("key", || async { 0 });
    gate.open();
    let outcome = late.await;
    assert_eq!((outcome.value, outcome.shared), (5, true));
    assert_eq!(group.in_flight(), 0);
}

#[tokio::test]
async fn a_spawned_flight_that_nobody_waits_for_leaves_nothing_when_it_ends() {
    let group = Group::new();
    let alive = Count::new();
    let gate = Gate::new();
    let (inside, pass) = (Alive::new(&alive), gate.clone());
    drop(group.spawn("key", || {
        async move {
            pass.pass().await;
            inside
        }
        .then_arc()
    }));
    assert_eq!(alive.get(), 1);
    gate.open();
    while group.in_flight() > 0 {
        tokio::task::yield_now().await;
    }
    tokio::task::yield_now().await;
    assert_eq!(alive.get(), 0);
}

/// `Alive` is no `Clone`; an `Arc` of it is.
trait ThenArc: Future + Sized {
    fn then_arc(self) -> impl Future<Output = std::sync::Arc<Self::Output>> + Send
    where
        Self: Send,
    {
        async { std::sync::Arc::new(self.await) }
    }
}
impl<F: Future> ThenArc for F {}

#[tokio::test]
async fn a_flight_that_was_joined_by_spawn_is_kept() {
    let group = Group::new();
    let gate = Gate::new();
    let leader = group.run("key", || gate.clone().then(1));
    let joiner = group.spawn("key", || async { 2 });
    drop(joiner);
    drop(leader);
    assert_eq!((group.in_flight(), group.waiters("key")), (1, 0));
    gate.open();
    assert_eq!(group.run("key", || async { 3 }).await.value, 1);
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn spawn_outside_tokio_panics_before_it_takes_the_key() {
    let group: Group<&str, ()> = Group::new();
    let called = Count::new();
    let payload = panic_of(|| {
        group.spawn("key", || {
            called.up();
            async {}
        })
    });
    assert!(text(&*payload).contains("Tokio runtime"));
    assert_eq!((group.in_flight(), called.get()), (0, 0));
}

#[test]
fn a_spawned_flight_whose_runtime_has_shut_down_is_cancelled_with_its_last_caller() {
    let group = Group::new();
    let alive = Count::new();
    let runtime = runtime();
    let inside = Alive::new(&alive);
    let leader = {
        let _in = runtime.enter();
        group.spawn("key", || async move {
            let _inside = inside;
            std::future::pending::<()>().await
        })
    };
    drop(runtime);
    assert_eq!((group.in_flight(), alive.get()), (1, 1));
    drop(leader);
    assert_eq!((group.in_flight(), alive.get()), (0, 0));
}

#[test]
fn a_spawned_flight_without_callers_ends_with_its_runtime() {
    let group = Group::new();
    let alive = Count::new();
    let runtime = runtime();
    let inside = Alive::new(&alive);
    {
        let _in = runtime.enter();
        drop(group.spawn("key", || async move {
            let _inside = inside;
            std::future::pending::<()>().await
        }));
    }
    assert_eq!((group.in_flight(), alive.get()), (1, 1));
    drop(runtime);
    assert_eq!((group.in_flight(), alive.get()), (0, 0));
}

#[test]
fn spawn_on_a_runtime_that_has_shut_down_leaves_the_work_to_its_caller() {
    let group = Group::new();
    let runtime = runtime();
    let handle = runtime.handle().clone();
    drop(runtime);
    let _in = handle.enter();
    let outcome = block_on(group.spawn("key", || async { 3 }));
    assert_eq!((outcome.value, outcome.shared), (3, false));
    assert_eq!(group.in_flight(), 0);
}

/// The flight was driven on the first joiner's runtime; the one that asked for it to be kept is on another.
#[test]
fn a_kept_flight_moves_to_the_runtime_of_who_keeps_it_when_its_drivers_shuts_down() {
    let group = Group::new();
    let gate = Gate::new();
    let (short, long) = (runtime(), runtime());
    let leader = group.run("key", || gate.clone().then(1));
    let follower = {
        let _in = short.enter();
        group.run("key", || async { 2 })
    };
    let keeper = {
        let _in = long.enter();
        group.spawn("key", || async { 3 })
    };
    drop(short);
    drop((leader, follower, keeper));
    assert_eq!((group.in_flight(), group.waiters("key")), (1, 0));
    let late = group.run("key", || async { 4 });
    gate.open();
    assert_eq!(block_on(late).value, 1);
    assert_eq!(group.in_flight(), 0);
}

/// The task still holds the flight when its caller is polled.
#[test]
fn the_value_of_a_spawned_flight_that_nobody_shares_is_never_cloned() {
    let runtime = runtime();
    let clones = Count::new();
    for round in 0..2_000 {
        let group = Group::new();
        let value = Cloned(clones.clone());
        let mut caller = {
            let _in = runtime.enter();
            group.spawn(round, || async { value })
        };
        let outcome = loop {
            if let std::task::Poll::Ready(outcome) = poll_once(&mut caller) {
                break outcome;
            }
            std::hint::spin_loop();
        };
        assert!(!outcome.shared);
        assert_eq!(group.in_flight(), 0);
    }
    assert_eq!(clones.get(), 0);
}

#[tokio::test]
async fn one_task_drives_a_kept_flight_whoever_leaves_it() {
    let group = Group::new();
    let alone = group.spawn("key", std::future::pending::<()>);
    let joined = group.spawn("key", std::future::pending);
    assert_eq!(tasks(), 1);
    drop((alone, joined));
    assert_eq!((tasks(), group.in_flight()), (1, 1));
}

#[tokio::test]
async fn the_task_of_a_flight_that_is_cancelled_ends() {
    let group = Group::new();
    let leader = group.run("key", std::future::pending::<()>);
    let follower = group.run("key", std::future::pending);
    settle().await;
    assert_eq!(tasks(), 1);
    drop((leader, follower));
    assert_eq!(group.in_flight(), 0);
    settle().await;
    assert_eq!(tasks(), 0);
}
