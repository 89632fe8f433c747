//! Whoever joins, from wherever: work stays on a runtime that can run it as its leader's can.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle, Id, Runtime},
    sync::oneshot,
};
use tower_singleflight::{Group, Run};

use crate::support::{Gate, block_on, poll_once};

type Numbers = Group<&'static str, u32>;

fn with_timers() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

fn without_timers() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).build().unwrap()
}

/// Needs Tokio and its timers when it is polled after the gate is open, not before.
async fn needs_timers(gate: Gate) -> u32 {
    gate.pass().await;
    tokio::spawn(async {}).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    1
}

fn run_within(runtime: &Runtime, group: &Numbers, gate: &Gate) -> Run<&'static str, u32> {
    let _in = runtime.enter();
    group.run("key", || needs_timers(gate.clone()))
}

/// One who joins, and whose own work needs nothing.
fn join(group: &Numbers) -> Run<&'static str, u32> {
    group.run("key", || async { 2 })
}

fn wait_for_callers(group: &Numbers, callers: usize) {
    while group.waiters("key") < callers {
        thread::yield_now();
    }
}

/// How far its leader has come when somebody joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leader {
    /// It was made within the runtime, by nobody's task, and is polled after the join.
    Made,
    /// It was made so, and a task polls it.
    Polled,
    /// A task has made and polls it.
    InTask,
}

/// Whoever joins by `joined`, the leader and the joiner get the leader's value.
fn joined_from(joined: impl Fn(Numbers) -> thread::JoinHandle<u32>) {
    for how in [Leader::Made, Leader::Polled, Leader::InTask] {
        let (group, gate, runtime) = (Numbers::new(), Gate::new(), with_timers());
        let (made, polled) = oneshot::channel();
        let leader = match how {
            Leader::InTask => {
                let (group, gate) = (group.clone(), gate.clone());
                runtime.spawn(async move {
                    let mut run = group.run("key", || needs_timers(gate));
                    assert!(poll_once(&mut run).is_pending());
                    made.send(()).unwrap();
                    run.await
                })
            }
            how => {
                let mut run = run_within(&runtime, &group, &gate);
                if how == Leader::Polled {
                    let _in = runtime.enter();
                    assert!(poll_once(&mut run).is_pending());
                }
                made.send(()).unwrap();
                runtime.spawn(run)
            }
        };
        block_on(polled).unwrap();
        let joiner = joined(group.clone());
        wait_for_callers(&group, 2);
        gate.open();
        assert_eq!(block_on(leader).unwrap().value, 1, "{how:?}");
        assert_eq!(joiner.join().unwrap(), 1, "{how:?}");
        assert_eq!(group.in_flight(), 0);
    }
}

#[test]
fn a_joiner_outside_tokio_takes_no_work_out_of_it() {
    joined_from(|group| thread::spawn(move || block_on(join(&group)).value));
}

#[test]
fn a_joiner_on_a_runtime_without_timers_takes_no_work_there() {
    joined_from(|group| {
        thread::spawn(move || {
            let runtime = without_timers();
            let joiner = runtime.spawn(async move { join(&group).await });
            runtime.block_on(joiner).unwrap().value
        })
    });
}

#[test]
fn one_who_spawns_on_a_runtime_without_timers_takes_no_work_there() {
    joined_from(|group| {
        thread::spawn(move || {
            without_timers().block_on(async { group.spawn("key", || async { 2 }).await.value })
        })
    });
}

/// The leader is between making the work and polling it, in a task: which runtime that is nobody else knows.
#[test]
fn a_joiner_outside_tokio_waits_for_the_first_poll_of_a_leader_in_a_task() {
    let (group, gate, runtime) = (Numbers::new(), Gate::new(), with_timers());
    let (leads, led) = oneshot::channel();
    let (go_on, goes_on) = oneshot::channel::<()>();
    let leader = runtime.spawn({
        let (group, gate) = (group.clone(), gate.clone());
        async move {
            let run = group.run("key", || needs_timers(gate));
            leads.send(()).unwrap();
            goes_on.await.unwrap();
            run.await
        }
    });
    block_on(led).unwrap();
    let mut joiner = join(&group);
    gate.open();
    assert!(poll_once(&mut joiner).is_pending());
    go_on.send(()).unwrap();
    assert_eq!(block_on(leader).unwrap().value, 1);
    assert_eq!(block_on(joiner).value, 1);
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn a_joiner_outside_tokio_gets_the_work_of_a_leader_in_a_task_that_leaves_unpolled() {
    let (group, runtime) = (Numbers::new(), with_timers());
    let (leads, led) = oneshot::channel();
    let (leave, leaves) = oneshot::channel::<()>();
    let leader = runtime.spawn({
        let group = group.clone();
        async move {
            let run = group.run("key", || async { 1 });
            leads.send(()).unwrap();
            leaves.await.unwrap();
            drop(run);
        }
    });
    block_on(led).unwrap();
    let joiner = join(&group);
    let joiner = thread::spawn(move || block_on(joiner).value);
    leave.send(()).unwrap();
    assert_eq!(joiner.join().unwrap(), 1);
    block_on(leader).unwrap();
    assert_eq!(group.in_flight(), 0);
}

/// A parked leader stops nobody, though the one who joins could not run its work.
#[test]
fn a_parked_leaders_runtime_drives_for_a_joiner_outside_tokio() {
    let (group, gate, runtime) = (Numbers::new(), Gate::new(), with_timers());
    let leader = run_within(&runtime, &group, &gate);
    let joiner = join(&group);
    gate.open();
    assert_eq!(block_on(joiner).value, 1);
    drop(leader);
    assert_eq!(group.in_flight(), 0);
}

/// A leader that is made outside Tokio may be polled within.
#[test]
fn work_that_was_polled_within_tokio_stays_there() {
    let (group, gate, runtime) = (Numbers::new(), Gate::new(), with_timers());
    let mut leader = group.run("key", || needs_timers(gate.clone()));
    {
        let _in = runtime.enter();
        assert!(poll_once(&mut leader).is_pending());
    }
    let joiner = join(&group);
    gate.open();
    assert_eq!(block_on(joiner).value, 1);
    drop(leader);
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn work_that_is_polled_within_tokio_after_somebody_has_joined_outside_stays_there() {
    let (group, gate, runtime) = (Numbers::new(), Gate::new(), with_timers());
    let mut leader = group.run("key", || needs_timers(gate.clone()));
    let joiner = join(&group);
    {
        let _in = runtime.enter();
        assert!(poll_once(&mut leader).is_pending());
    }
    gate.open();
    assert_eq!(block_on(joiner).value, 1);
    drop(leader);
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn when_the_leaders_runtime_has_shut_down_the_callers_drive() {
    let (group, gate, runtime) = (Numbers::new(), Gate::new(), with_timers());
    let leader = {
        let _in = runtime.enter();
        group.run("key", || gate.clone().then(1))
    };
    drop(runtime);
    let other = with_timers();
    let joiner = other.spawn({
        let group = group.clone();
        async move { join(&group).await.value }
    });
    wait_for_callers(&group, 2);
    gate.open();
    assert_eq!(block_on(joiner).unwrap(), 1);
    assert_eq!(group.in_flight(), 0);
    assert_eq!(block_on(leader).value, 1);
}

#[expect(
    clippy::disallowed_methods,
    reason = "a caller that blocks is what this is about"
)]
#[test]
fn blocking_threads_of_a_runtime_share_with_its_tasks() {
    for runtime in [
        with_timers(),
        Builder::new_current_thread().enable_all().build().unwrap(),
    ] {
        runtime.block_on(async {
            let group: Group<u32, u32> = Group::new();
            let work = || async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                7
            };
            let callers: Vec<_> = (0..20)
                .map(|number| {
                    let group = group.clone();
                    match number % 2 {
                        0 => tokio::task::spawn_blocking(move || {
                            Handle::current()
                                .block_on(group.run(number % 3, work))
                                .value
                        }),
                        _ => tokio::spawn(async move { group.run(number % 3, work).await.value }),
                    }
                })
                .collect();
            for caller in callers {
                assert_eq!(caller.await.unwrap(), 7);
            }
            assert_eq!(group.in_flight(), 0);
        });
    }
}

/// Tasks whose work needs Tokio, threads, and tasks of another runtime all call at once, many times.
#[test]
fn callers_from_everywhere_break_no_work_that_needs_tokio() {
    let (group, calls) = (Numbers::new(), Arc::new(AtomicUsize::new(0)));
    let (timers, bare) = (with_timers(), without_timers());
    let start = Arc::new(Barrier::new(3));
    let work = |calls: &Arc<AtomicUsize>| {
        let calls = Arc::clone(calls);
        || async move {
            calls.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            tokio::spawn(async {}).await.unwrap();
            1
        }
    };
    let outside = thread::spawn({
        let (group, start) = (group.clone(), Arc::clone(&start));
        move || {
            start.wait();
            for _ in 0..2_000 {
                block_on(join(&group));
            }
        }
    });
    let on_bare = bare.spawn({
        let (group, start) = (group.clone(), Arc::clone(&start));
        async move {
            start.wait();
            for _ in 0..2_000 {
                join(&group).await;
            }
        }
    });
    start.wait();
    let within = timers.spawn({
        let (group, calls) = (group.clone(), Arc::clone(&calls));
        async move {
            for _ in 0..2_000 {
                group.run("key", work(&calls)).await;
            }
        }
    });
    outside.join().unwrap();
    block_on(on_bare).unwrap();
    block_on(within).unwrap();
    assert!(calls.load(Ordering::Relaxed) > 0);
    assert_eq!(group.in_flight(), 0);
}

/// Work that tells where each poll of it is.
fn told(
    gate: Gate,
) -> (
    impl Future<Output = u32> + Send + Unpin,
    mpsc::Receiver<Option<Id>>,
) {
    let (tell, polls) = mpsc::channel();
    let mut passes = Box::pin(gate.then(1));
    let work = poll_fn(move |cx| {
        let here = Handle::try_current().ok().map(|here| here.id());
        tell.send(here).unwrap();
        passes.as_mut().poll(cx)
    });
    (work, polls)
}

#[test]
fn one_who_joins_from_another_runtime_during_the_first_poll_takes_no_work_there() {
    let (group, leaders, others) = (Numbers::new(), with_timers(), without_timers());
    let gate = Gate::new();
    let (mut work, polls) = told(gate.clone());
    let mut joins = true;
    let joined = Arc::new(Mutex::new(None));
    let (inside, place, there) = (group.clone(), Arc::clone(&joined), others.handle().clone());
    let mut leader = group.run("key", || {
        poll_fn(move |cx| {
            let polled = Pin::new(&mut work).poll(cx);
            if std::mem::take(&mut joins) {
                let _there = there.enter();
                *place.lock().unwrap() = Some(join(&inside));
            }
            polled
        })
    });
    {
        let _here = leaders.enter();
        assert!(poll_once(&mut leader).is_pending());
    }
    let joiner = joined.lock().unwrap().take().unwrap();
    gate.open();
    assert_eq!(block_on(joiner).value, 1);
    assert_eq!(block_on(leader).value, 1);
    let id = leaders.handle().id();
    assert!(polls.iter().all(|polled| polled == Some(id)));
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn one_who_joins_when_the_leaders_runtime_has_gone_has_the_work_driven_on_its_own() {
    let (group, gate, gone) = (Numbers::new(), Gate::new(), with_timers());
    let (ended, end) = mpsc::channel();
    let pass = gate.clone();
    let mut leader = {
        let _in = gone.enter();
        group.run("key", || async move {
            pass.pass().await;
            ended.send(()).unwrap();
            1
        })
    };
    {
        let _in = gone.enter();
        assert!(poll_once(&mut leader).is_pending());
        drop(join(&group));
    }
    gone.shutdown_timeout(Duration::from_secs(20));
    let own = with_timers();
    let joiner = {
        let _in = own.enter();
        join(&group)
    };
    gate.open();
    // Though nobody polls the callers.
    let ended = end.recv_timeout(Duration::from_secs(20));
    assert!(ended.is_ok(), "it is driven by nobody");
    assert_eq!(block_on(joiner).value, 1);
    assert_eq!(block_on(leader).value, 1);
    assert_eq!(group.in_flight(), 0);
}
