//! Who polls the work, on which runtime or none, and who is woken how often.

use std::{
    sync::{Arc, Mutex, mpsc},
    task::{Poll, Waker},
    thread,
};

use tokio::runtime::{Builder, Runtime};
use tower_singleflight::{Group, Outcome, Run};

use crate::support::{Count, Gate, block_on, poll_once, poll_with};

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap()
}

/// Work that can be woken from outside, counts its polls, and gives 1 once `done`.
#[derive(Clone, Default)]
struct Work {
    polls: Count,
    waker: Arc<Mutex<Option<Waker>>>,
    done: Arc<Mutex<bool>>,
}

impl Work {
    async fn run(self) -> u32 {
        std::future::poll_fn(|cx| {
            self.polls.up();
            if *self.done.lock().unwrap() {
                return Poll::Ready(1);
            }
            *self.waker.lock().unwrap() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn wake(&self) {
        let waker = self.waker.lock().unwrap().take();
        waker.expect("the work waits").wake();
    }

    fn finish(&self) {
        *self.done.lock().unwrap() = true;
        self.wake();
    }
}

fn one(shared: bool, led: bool) -> Poll<Outcome<u32>> {
    Poll::Ready(Outcome {
        value: 1,
        shared,
        led,
    })
}

#[tokio::test]
async fn a_lone_leader_polls_inline_with_its_own_waker() {
    let group = Group::new();
    let (work, woken) = (Work::default(), Count::new());
    let mut leader = group.run("key", || work.clone().run());
    let waker = woken.waker();
    assert!(poll_with(&mut leader, &waker).is_pending());
    assert!(
        work.waker
            .lock()
            .unwrap()
            .as_ref()
            .unwrap()
            .will_wake(&waker)
    );
    tokio::task::yield_now().await;
    assert_eq!(work.polls.get(), 1);
    work.finish();
    assert_eq!(woken.get(), 1);
    assert_eq!(poll_with(&mut leader, &waker), one(false, true));
    assert_eq!((work.polls.get(), group.in_flight()), (2, 0));
}

#[tokio::test]
async fn wake_ups_of_the_work_wake_one_task_and_the_end_wakes_every_waiter_once() {
    let group = Group::new();
    let work = Work::default();
    let counts: Vec<_> = (0..10).map(|_| Count::new()).collect();
    let mut callers: Vec<_> = (0..10)
        .map(|_| group.run("key", || work.clone().run()))
        .collect();
    for (caller, count) in callers.iter_mut().zip(&counts) {
        assert!(poll_with(caller, &count.waker()).is_pending());
    }
    tokio::task::yield_now().await;
    assert_eq!(work.polls.get(), 1);
    for polls in 2..=101 {
        work.wake();
        tokio::task::yield_now().await;
        assert_eq!(work.polls.get(), polls);
    }
    assert!(counts.iter().all(|count| count.get() == 0));
    work.finish();
    while group.in_flight() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(counts.iter().all(|count| count.get() == 1));
    for (number, caller) in callers.iter_mut().enumerate() {
        assert_eq!(poll_once(caller), one(true, number == 0));
    }
}

#[tokio::test]
async fn the_waker_of_the_last_poll_is_the_one_that_is_woken() {
    let group = Group::new();
    let work = Work::default();
    let (first, last) = (Count::new(), Count::new());
    let mut leader = group.run("key", || work.clone().run());
    let mut follower = group.run("key", || async { 2 });
    for caller in [&mut leader, &mut follower] {
        for count in [&first, &last] {
            assert!(poll_with(caller, &count.waker()).is_pending());
        }
    }
    tokio::task::yield_now().await;
    work.finish();
    while group.in_flight() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((first.get(), last.get()), (0, 2));
}

#[tokio::test]
async fn a_caller_that_has_left_is_not_woken() {
    let group = Group::new();
    let work = Work::default();
    let (gone, stayed) = (Count::new(), Count::new());
    let leader = group.run("key", || work.clone().run());
    let mut leaver = group.run("key", || async { 2 });
    let mut stayer = group.run("key", || async { 2 });
    assert!(poll_with(&mut leaver, &gone.waker()).is_pending());
    assert!(poll_with(&mut stayer, &stayed.waker()).is_pending());
    tokio::task::yield_now().await;
    drop((leader, leaver));
    work.finish();
    while group.in_flight() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((gone.get(), stayed.get()), (0, 1));
    assert_eq!(poll_once(&mut stayer), one(true, false));
}

/// A waiter that spun would keep the clock from advancing.
#[tokio::test(start_paused = true)]
async fn waiters_leave_the_thread_idle() {
    let group = Group::new();
    let polls = Count::new();
    let started = tokio::time::Instant::now();
    let work = || async {
        tokio::time::sleep(std::time::Duration::from_secs(3_600)).await;
        1
    };
    let waiter = |run: Run<_, u32>| {
        let polls = polls.clone();
        let mut run = run;
        async move {
            std::future::poll_fn(|cx| {
                polls.up();
                std::pin::Pin::new(&mut run).poll(cx)
            })
            .await
        }
    };
    let callers: Vec<_> = (0..3)
        .map(|_| tokio::spawn(waiter(group.run("key", work))))
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().value, 1);
    }
    assert_eq!(started.elapsed().as_secs(), 3_600);
    assert_eq!((polls.get(), group.in_flight()), (6, 0));
}

#[test]
fn outside_tokio_the_callers_drive_and_are_all_woken() {
    let group = Group::new();
    let work = Work::default();
    let counts = [Count::new(), Count::new()];
    let mut callers = [
        group.run("key", || work.clone().run()),
        group.run("key", || async { 2 }),
    ];
    for (caller, count) in callers.iter_mut().zip(&counts) {
        assert!(poll_with(caller, &count.waker()).is_pending());
    }
    work.finish();
    assert_eq!([counts[0].get(), counts[1].get()], [1, 1]);
    assert_eq!(poll_once(&mut callers[1]), one(true, false));
    assert_eq!(group.in_flight(), 0);
    assert_eq!(poll_once(&mut callers[0]), one(true, true));
}

/// The leader's own waker lies in the work; whoever joins must not depend on the leader's being polled.
#[test]
fn outside_tokio_work_polled_by_its_leader_is_polled_again_for_all() {
    let group = Group::new();
    let work = Work::default();
    let (leaders, followers) = (Count::new(), Count::new());
    let mut leader = group.run("key", || work.clone().run());
    assert!(poll_with(&mut leader, &leaders.waker()).is_pending());
    let mut follower = group.run("key", || async { 2 });
    assert!(poll_with(&mut follower, &followers.waker()).is_pending());
    work.finish();
    assert_eq!(followers.get(), 1);
    assert_eq!(poll_once(&mut follower), one(true, false));
    drop(leader);
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn threads_without_a_runtime_share_a_flight() {
    for _ in 0..50 {
        let (group, gate, calls) = (Group::new(), Gate::new(), Count::new());
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (group, gate, calls) = (group.clone(), gate.clone(), calls.clone());
                thread::spawn(move || {
                    block_on(group.run("key", || {
                        calls.up();
                        gate.then(1)
                    }))
                })
            })
            .collect();
        while group.waiters("key") < 4 {
            thread::yield_now();
        }
        gate.open();
        for thread in threads {
            let outcome = thread.join().unwrap();
            assert_eq!((outcome.value, outcome.shared), (1, true));
        }
        assert_eq!((calls.get(), group.in_flight()), (1, 0));
    }
}

#[test]
fn a_leader_without_a_runtime_is_joined_from_within_one() {
    let (group, gate) = (Group::new(), Gate::new());
    let leader = {
        let mut leader = group.run("key", || gate.clone().then(1));
        assert!(poll_once(&mut leader).is_pending());
        leader
    };
    let follower = runtime().block_on(async {
        let follower = group.run("key", || async { 2 });
        gate.open();
        follower.await
    });
    assert_eq!((follower.value, follower.shared), (1, true));
    assert_eq!(group.in_flight(), 0);
    assert_eq!(block_on(leader).value, 1);
}

#[test]
fn a_leader_within_a_runtime_is_joined_from_without() {
    let (group, gate, runtime) = (Group::new(), Gate::new(), runtime());
    let leader = runtime.spawn({
        let (group, gate) = (group.clone(), gate.clone());
        async move { group.run("key", || gate.then(1)).await }
    });
    while group.in_flight() == 0 {
        thread::yield_now();
    }
    let follower = group.run("key", || async { 2 });
    gate.open();
    assert_eq!(block_on(follower).value, 1);
    assert_eq!(runtime.block_on(leader).unwrap().value, 1);
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn callers_that_drive_hand_over_to_a_task_when_one_joins_from_a_runtime() {
    let group = Group::new();
    let work = Work::default();
    let woken = Count::new();
    let mut leader = group.run("key", || work.clone().run());
    let mut second = group.run("key", || async { 2 });
    assert!(poll_once(&mut leader).is_pending());
    assert!(poll_with(&mut second, &woken.waker()).is_pending());
    let runtime = Builder::new_current_thread().build().unwrap();
    let third = {
        let _in = runtime.enter();
        group.run("key", || async { 3 })
    };
    runtime.block_on(tokio::task::yield_now());
    let before = woken.get();
    work.wake();
    runtime.block_on(tokio::task::yield_now());
    // A task's wake-up, no longer everybody's.
    assert_eq!(woken.get(), before);
    work.finish();
    assert_eq!(runtime.block_on(third).value, 1);
    assert_eq!(woken.get(), before + 1);
    assert_eq!(group.in_flight(), 0);
    drop((leader, second));
}

#[test]
fn callers_of_two_runtimes_share_a_flight() {
    let (group, gate) = (Group::new(), Gate::new());
    let (one, two) = (runtime(), runtime());
    let callers: Vec<_> = [&one, &two, &one, &two]
        .into_iter()
        .map(|runtime| {
            let (group, gate) = (group.clone(), gate.clone());
            runtime.spawn(async move { group.run("key", || gate.then(1)).await })
        })
        .collect();
    while group.waiters("key") < 4 {
        thread::yield_now();
    }
    gate.open();
    for caller in callers {
        assert_eq!(block_on(caller).unwrap().value, 1);
    }
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn a_runtime_that_shuts_down_gives_the_flight_back_to_its_callers() {
    for polled in [false, true] {
        let (group, gate, runtime) = (Group::new(), Gate::new(), runtime());
        let mut leader = group.run("key", || gate.clone().then(1));
        let mut follower = {
            let _in = runtime.enter();
            group.run("key", || async { 2 })
        };
        let woken = [Count::new(), Count::new()];
        if polled {
            assert!(poll_with(&mut leader, &woken[0].waker()).is_pending());
            assert!(poll_with(&mut follower, &woken[1].waker()).is_pending());
        }
        drop(runtime);
        let times = usize::from(polled);
        assert_eq!([woken[0].get(), woken[1].get()], [times, times]);
        assert_eq!((group.in_flight(), group.waiters("key")), (1, 2));
        gate.open();
        assert_eq!(block_on(follower).value, 1);
        assert_eq!(group.in_flight(), 0);
        assert_eq!(block_on(leader).value, 1);
    }
}

#[test]
fn a_join_on_a_runtime_that_has_shut_down_leaves_the_callers_to_drive() {
    let (group, gate, runtime) = (Group::new(), Gate::new(), runtime());
    let leader = group.run("key", || gate.clone().then(1));
    let handle = runtime.handle().clone();
    drop(runtime);
    let follower = {
        let _in = handle.enter();
        group.run("key", || async { 2 })
    };
    gate.open();
    assert_eq!(block_on(follower).value, 1);
    assert_eq!(group.in_flight(), 0);
    assert_eq!(block_on(leader).value, 1);
}

#[test]
fn a_flight_that_was_given_back_is_cancelled_with_its_last_caller() {
    let (group, alive, runtime) = (Group::new(), Count::new(), runtime());
    let inside = crate::support::Alive::new(&alive);
    let leader = group.run("key", || async move {
        let _inside = inside;
        std::future::pending::<()>().await
    });
    let follower = {
        let _in = runtime.enter();
        group.run("key", || async {})
    };
    drop(runtime);
    drop(leader);
    assert_eq!((group.in_flight(), alive.get()), (1, 1));
    drop(follower);
    assert_eq!((group.in_flight(), alive.get()), (0, 0));
}

/// The last caller leaves while the task polls: the key is free at once, the work is dropped when that poll returns.
#[test]
fn work_that_is_being_polled_is_dropped_as_soon_as_the_poll_returns() {
    let (group, alive, runtime) = (Group::new(), Count::new(), runtime());
    let inside = crate::support::Alive::new(&alive);
    let ((polling, polled), (go, wait)) = (mpsc::channel(), mpsc::channel());
    let leader = group.run("key", || {
        std::future::poll_fn(move |_| {
            let _inside = &inside;
            polling.send(()).unwrap();
            wait.recv().unwrap();
            Poll::<()>::Pending
        })
    });
    let follower = {
        let _in = runtime.enter();
        group.run("key", || async {})
    };
    polled.recv().unwrap();
    drop((leader, follower));
    assert_eq!((group.in_flight(), alive.get()), (0, 1));
    go.send(()).unwrap();
    while alive.get() > 0 {
        thread::yield_now();
    }
    assert_eq!(group.in_flight(), 0);
}

/// While the leader is in a poll its follower can't have the work; when that poll returns a task gets it.
#[test]
fn a_follower_that_joins_while_the_leader_polls_gets_the_work_driven() {
    let (group, runtime) = (Group::new(), runtime());
    let ((polling, polled), (go, wait)) = (mpsc::channel(), mpsc::channel());
    let mut polls = 0;
    let mut leader = group.run("key", || {
        std::future::poll_fn(move |_| {
            polls += 1;
            if polls > 1 {
                return Poll::Ready(1);
            }
            polling.send(()).unwrap();
            wait.recv().unwrap();
            Poll::Pending
        })
    });
    let parked = thread::spawn(move || {
        let first = poll_once(&mut leader);
        (leader, first)
    });
    polled.recv().unwrap();
    let follower = {
        let _in = runtime.enter();
        group.run("key", || async { 2 })
    };
    assert_eq!(group.waiters("key"), 2);
    go.send(()).unwrap();
    assert_eq!(block_on(follower).value, 1);
    assert_eq!(group.in_flight(), 0);
    // The task may have been quick enough for the leader to see the end in the same poll.
    let (leader, first) = parked.join().unwrap();
    match first {
        Poll::Ready(outcome) => assert_eq!(outcome.value, 1),
        Poll::Pending => assert_eq!(block_on(leader).value, 1),
    }
}

#[test]
fn outside_tokio_callers_are_quiet_after_the_work_has_woken_itself() {
    let group = Group::new();
    let woken = Count::new();
    let mut wakes_itself = true;
    let mut leader = group.run("key", || {
        std::future::poll_fn(move |cx| {
            if std::mem::take(&mut wakes_itself) {
                cx.waker().wake_by_ref();
            }
            Poll::<u32>::Pending
        })
    });
    let mut follower = group.run("key", || async { 2 });
    assert!(poll_with(&mut leader, &woken.waker()).is_pending());
    assert!(poll_with(&mut follower, &woken.waker()).is_pending());
    for _ in 0..4 {
        if woken.take() > 0 {
            assert!(poll_with(&mut leader, &woken.waker()).is_pending());
            assert!(poll_with(&mut follower, &woken.waker()).is_pending());
        }
    }
    assert_eq!(woken.get(), 0);
    drop((leader, follower));
    assert_eq!(group.in_flight(), 0);
}
