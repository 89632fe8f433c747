//! Kept flights, and runtimes that shut down.

use std::{
    future::poll_fn,
    task::{Poll, Waker},
};

use loom::{future::block_on, thread};

use super::{
    stand_ins::{Location, Runtime, at},
    support::{Gate, KEY, OpenOnDrop, follow, followed, lead, led, poll_with},
};
use crate::group::{Group, Run};

/// Spawn joins against the first poll of a leader outside any runtime, and all leave: the flight goes on to its end.
///
/// Catches: `put_back` doesn't take the `handover`, or doesn't spawn there.
#[test]
fn loom_spawn_against_the_leaders_poll() {
    loom::model(|| {
        let (group, gate, done) = (Group::new(), Gate::new(), Gate::new());
        let (waits, opens) = (gate.clone(), done.clone());
        let mut leader = at(Location::Nowhere, || {
            group.run(KEY, || async move {
                waits.pass().await;
                opens.open();
                1
            })
        });
        let leaver = thread::spawn(move || {
            at(Location::Nowhere, || {
                let _ = poll_with(&mut leader, Waker::noop());
                leader
            })
        });
        drop(group.spawn(KEY, || -> std::future::Ready<u32> {
            unreachable!("the gate is shut")
        }));
        drop(leaver.join().unwrap());
        gate.open();
        block_on(done.pass());
    });
}

/// A joiner hands over to a runtime that shuts down, while the leader polls: the two go on without it.
///
/// Catches: `Task::drop` doesn't wake the callers, or leaves the driver as it is.
#[test]
fn loom_a_dying_runtime_against_the_leaders_poll() {
    loom::model(|| {
        let (group, gate) = (Group::new(), Gate::new());
        let leader = at(Location::Nowhere, || lead(&group, &gate));
        let leader = thread::spawn(move || block_on(leader));
        let follower = at(Location::Dying, || follow(&group));
        gate.open();
        assert_eq!(block_on(follower), followed(1));
        assert_eq!(leader.join().unwrap(), led(1, true));
        assert_eq!(group.in_flight(), 0);
    });
}

/// The runtime that drives the flight shuts down: its callers go on.
///
/// Catches: `Task::drop` doesn't wake the callers.
#[test]
fn loom_runtime_shutdown_against_the_callers() {
    loom::model(|| {
        let (group, gate) = (Group::new(), Gate::new());
        let leader = at(Location::Nowhere, || lead(&group, &gate));
        let follower = at(Location::Dying, || follow(&group));
        let leader = thread::spawn(move || block_on(leader));
        gate.open();
        assert_eq!(block_on(follower), followed(1));
        assert_eq!(leader.join().unwrap(), led(1, true));
        assert_eq!(group.in_flight(), 0);
    });
}

/// A kept flight's last caller leaves while its runtime shuts down: one of the two cancels it.
///
/// Catches: `Task::drop` doesn't ask whether the flight is deserted.
#[test]
fn loom_runtime_shutdown_against_the_last_caller_of_a_kept_flight() {
    loom::model(|| {
        let group: Group<u32, u32> = Group::new();
        let dropped = Gate::new();
        let last = OpenOnDrop(dropped.clone());
        let caller = at(Location::Dying, || {
            group.spawn(KEY, || async move {
                let _last = last;
                std::future::pending().await
            })
        });
        drop(caller);
        block_on(dropped.pass());
        assert_eq!(group.in_flight(), 0);
    });
}

/// Spawn joins a kept flight, and leaves, while the runtime that drives that shuts down: the one flight or the other goes on.
///
/// Catches: `cancel_if_deserted` doesn't ask whether the flight goes on.
#[test]
fn loom_runtime_shutdown_against_one_who_keeps_the_flight() {
    loom::model(|| {
        let (group, done) = (Group::new(), Gate::new());
        let work = || {
            let (done, mut polled) = (done.clone(), false);
            move || {
                poll_fn(move |cx| {
                    if std::mem::replace(&mut polled, true) {
                        done.open();
                        return Poll::Ready(1);
                    }
                    cx.waker().wake_by_ref();
                    Poll::Pending
                })
            }
        };
        drop(at(Location::Dying, || group.spawn(KEY, work())));
        drop(group.spawn(KEY, work()));
        block_on(done.pass());
    });
}

/// A caller outside joins a kept flight while its runtime shuts down, on which another task was to keep it: it goes on with
/// the flight, or leads.
///
/// Catches: `cancel_if_deserted` asks before it takes the lock.
#[test]
fn loom_runtime_shutdown_against_a_join() {
    loom::model(|| {
        let (group, mut polls) = (Group::new(), 0);
        let work = poll_fn(move |cx| {
            polls += 1;
            if polls > 2 {
                return Poll::Ready(1);
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        });
        drop(at(Location::Dying, || group.spawn(KEY, || work)));
        let joined = at(Location::Nowhere, || group.run(KEY, || async { 1 }));
        assert_eq!(block_on(joined).value, 1);
        assert_eq!(group.in_flight(), 0);
    });
}

/// A flight is kept on a living runtime while the one that drives it shuts down: it goes on though everybody leaves.
///
/// Catches: `Task::drop` doesn't move the flight to the keeper's runtime; two joiners both spawn a task.
#[test]
fn loom_runtime_shutdown_against_spawn() {
    loom::model(|| {
        let (group, gate) = (Group::new(), Gate::new());
        let done = Gate::new();
        let leader = {
            let (gate, done) = (gate.clone(), done.clone());
            let work = || async move {
                gate.pass().await;
                done.open();
                1
            };
            at(Location::Nowhere, || group.run(KEY, work))
        };
        let follower = at(Location::Dying, || follow(&group));
        let keeper = group.spawn(KEY, || -> std::future::Ready<u32> { unreachable!() });
        drop((leader, follower, keeper));
        gate.open();
        block_on(done.pass());
    });
}

/// One joins outside any runtime while another does within one and waits: the task that drives for that one goes on.
///
/// Catches: `promote` lets the callers drive though a task does.
#[test]
fn loom_a_join_outside_against_one_within() {
    loom::model(|| {
        let (group, gate) = (Group::new(), Gate::new());
        let leader = at(Location::Nowhere, || lead(&group, &gate));
        let outside = {
            let group = group.clone();
            thread::spawn(move || at(Location::Nowhere, || group.run(KEY, || async { 2 })))
        };
        let within = follow(&group);
        gate.open();
        assert_eq!(block_on(within), followed(1));
        drop((leader, outside.join().unwrap()));
        assert_eq!(group.in_flight(), 0);
    });
}

/// Work that is polled by `leader`'s task is polled nowhere else.
fn lead_in_a_task(group: &Group<u32, u32>, gate: &Gate) -> Run<u32, u32> {
    let gate = gate.clone();
    at(Location::Task, || {
        group.run(KEY, || {
            poll_fn(move |cx| {
                assert!(Runtime::current().is_some(), "polled outside its runtime");
                gate.poll(cx).map(|()| 1)
            })
        })
    })
}

/// One joins from outside any runtime while a leader within one polls its work for the first time: the work stays there.
///
/// Catches: `take_work` gives a follower work that is its leader's; `put_back` leaves the driving to the callers.
#[test]
fn loom_a_join_outside_against_the_first_poll_within() {
    loom::model(|| {
        let (group, gate) = (Group::new(), Gate::new());
        let mut leader = lead_in_a_task(&group, &gate);
        let leader = thread::spawn(move || {
            at(Location::Task, || {
                let polled = poll_with(&mut leader, Waker::noop());
                (leader, polled)
            })
        });
        at(Location::Nowhere, || {
            let follower = follow(&group);
            gate.open();
            assert_eq!(block_on(follower), followed(1));
        });
        drop(leader.join().unwrap());
        assert_eq!(group.in_flight(), 0);
    });
}

/// As above, and the leader leaves without a poll: it leaves the work to those who wait for it.
///
/// Catches: `free` doesn't wake them.
#[test]
fn loom_a_join_outside_against_the_leaders_leaving() {
    loom::model(|| {
        let group: Group<u32, u32> = Group::new();
        let leader = at(Location::Task, || group.run(KEY, || async { 1 }));
        let follower = at(Location::Nowhere, || group.run(KEY, || async { 2 }));
        let leaver = thread::spawn(move || drop(leader));
        let outcome = at(Location::Nowhere, || block_on(follower));
        assert_eq!(outcome, followed(1));
        leaver.join().unwrap();
        assert_eq!(group.in_flight(), 0);
    });
}

/// The value of a spawned flight that nobody shares is the leader's, whenever it looks; and nobody's if it leaves.
///
/// Catches: `end` publishes the unshared value as one to be cloned.
#[test]
fn loom_an_unshared_value_is_handed_over() {
    struct Unclonable(#[expect(dead_code, reason = "reports its drop")] OpenOnDrop);
    impl Clone for Unclonable {
        fn clone(&self) -> Self {
            unreachable!("nobody shares it")
        }
    }
    loom::model(|| {
        let (group, dropped) = (Group::new(), Gate::new());
        let value = Unclonable(OpenOnDrop(dropped.clone()));
        let mut caller = group.spawn(KEY, || async { value });
        match poll_with(&mut caller, Waker::noop()) {
            Poll::Ready(outcome) => assert!(!outcome.shared),
            Poll::Pending => drop(caller),
        }
        block_on(dropped.pass());
    });
}
