//! Who drives: promotion, demotion, and wakers that come and go.

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Poll, Waker},
};

use loom::{future::block_on, thread};

use super::{
    stand_ins::{Location, at},
    support::{
        Flights, Gate, KEY, Woken, follow, followed, join, lead, lead_whole, led, poll_with,
    },
};
use crate::group::{
    Group, Run,
    caller::{Caller, CallerEnd},
    flight::Flight,
    matching::Admission,
    table::Table,
};

/// Promotion against the leader's inline poll: both get the value, whoever has polled when the gate opens.
///
/// Catches: `poll_caller` leaves the leader's waker after it has put the work back, in a lock of its own, without looking
/// whether the flight has ended (F2); `put_back` doesn't look at the driver (F3).
fn promotion_against_the_leaders_inline_poll(flights: fn() -> Flights) {
    loom::model(move || {
        let (flights, gate) = (flights(), Gate::new());
        let leader = {
            let gate = gate.clone();
            flights.run(|| async {
                gate.pass().await;
                1
            })
        };
        let leader = thread::spawn(move || block_on(leader));
        let follower = flights.run(|| -> std::future::Ready<u32> { unreachable!() });
        gate.open();
        assert_eq!(block_on(follower), followed(1));
        assert_eq!(leader.join().unwrap(), led(1, true));
        assert_eq!(flights.in_flight(), 0);
    });
}

#[test]
fn loom_promotion_against_the_leaders_inline_poll() {
    promotion_against_the_leaders_inline_poll(Flights::of_a_group);
}

#[test]
fn loom_promotion_against_the_leaders_inline_poll_on_a_floor_above() {
    promotion_against_the_leaders_inline_poll(Flights::of_a_floor_above);
}

/// As above, and the leader is parked for good after one poll.
///
/// Catches: `put_back` doesn't wake the task that has found the work taken (F3).
#[test]
fn loom_promotion_of_a_leader_that_is_parked() {
    loom::model(|| {
        let (group, gate) = (Group::new(), Gate::new());
        let mut leader = lead(&group, &gate);
        let follower = follow_while(&group, move || {
            let _ = poll_with(&mut leader, Waker::noop());
            leader
        });
        gate.open();
        assert_eq!(block_on(follower.0), followed(1));
        drop(follower.1.join().unwrap());
        assert_eq!(group.in_flight(), 0);
    });
}

/// Joins while another thread does `meanwhile`. The leader's poll can't end the flight: its gate is shut.
fn follow_while<T: 'static>(
    group: &Group<u32, u32>,
    meanwhile: impl FnOnce() -> T + 'static,
) -> (Run<u32, u32>, thread::JoinHandle<T>) {
    let thread = thread::spawn(meanwhile);
    (follow(group), thread)
}

/// Waker replacement against publication: the last waker that was left is woken, once.
///
/// Catches: `leave` keeps the old waker.
#[test]
fn loom_waker_replacement_against_publication() {
    loom::model(|| {
        let (group, gate) = (Group::new(), Gate::new());
        let leader = lead(&group, &gate);
        let mut follower = follow(&group);
        let opener = thread::spawn(move || gate.open());
        let first = Arc::new(Woken(AtomicUsize::new(0)));
        let ready = poll_with(&mut follower, &Waker::from(Arc::clone(&first)));
        match ready {
            Poll::Ready(value) => assert_eq!(value, followed(1)),
            Poll::Pending => assert_eq!(block_on(follower), followed(1)),
        }
        opener.join().unwrap();
        assert!(first.0.load(Ordering::Relaxed) <= 1);
        assert_eq!(block_on(leader), led(1, true));
        assert_eq!(group.in_flight(), 0);
    });
}

/// A thread outside any runtime.
fn spawn_outside<T: 'static>(there: impl FnOnce() -> T + 'static) -> thread::JoinHandle<T> {
    thread::spawn(|| at(Location::Nowhere, there))
}

/// Callers drive, and the work wakes itself while one of them polls it, who then parks: the other goes on.
///
/// Catches: `wake_by_ref` doesn't note that the work is being polled (`rewake`); `put_back` doesn't look at that, or doesn't wake both.
fn a_wake_up_while_a_caller_polls_is_repeated(leader_parks: bool) {
    loom::model(move || {
        at(Location::Nowhere, || {
            let group = Group::new();
            let mut woken = false;
            let leader = group.run(KEY, || {
                poll_fn(move |cx| {
                    if std::mem::replace(&mut woken, true) {
                        return Poll::Ready(1);
                    }
                    cx.waker().wake_by_ref();
                    Poll::Pending
                })
            });
            let follower = follow(&group);
            let (mut parks, goes_on, outcome) = match leader_parks {
                true => (leader, follower, followed(1)),
                false => (follower, leader, led(1, true)),
            };
            let parked = spawn_outside(move || {
                let _ = poll_with(&mut parks, Waker::noop());
                parks
            });
            assert_eq!(block_on(goes_on), outcome);
            drop(parked.join().unwrap());
            assert_eq!(group.in_flight(), 0);
        });
    });
}

#[test]
fn loom_a_wake_up_while_a_leader_polls_is_repeated() {
    a_wake_up_while_a_caller_polls_is_repeated(true);
}

#[test]
fn loom_a_wake_up_while_a_follower_polls_is_repeated() {
    a_wake_up_while_a_caller_polls_is_repeated(false);
}

/// Callers drive, one leaves, and the work is woken from elsewhere: the other hears of it.
///
/// Catches: `poll_caller` polls for all before it leaves its waker, or without waking all; `wake_by_ref` without its
/// `rewake`.
#[test]
fn loom_callers_drive_while_one_leaves() {
    loom::model(|| {
        at(Location::Nowhere, || {
            let (group, gate) = (Group::new(), Gate::new());
            let mut leader = lead(&group, &gate);
            let follower = follow(&group);
            let leaver = spawn_outside(move || {
                let _ = poll_with(&mut leader, Waker::noop());
            });
            let opener = thread::spawn(move || gate.open());
            assert_eq!(block_on(follower), followed(1));
            leaver.join().unwrap();
            opener.join().unwrap();
            assert_eq!(group.in_flight(), 0);
        });
    });
}

/// A task gives the flight back to its leader (`demote`) while that is looking who drives.
///
/// Catches: `put_back` doesn't wake the leader.
#[test]
fn loom_demotion_against_the_leaders_poll() {
    type Demoted = Flight<u32, u32, ()>;
    loom::model(|| {
        let table: Table<u32, u32, ()> = Table::new();
        let enter = || table.enter(&[table.hash(&KEY)], KEY, (), join);
        let flight: Arc<Mutex<Option<Arc<Demoted>>>> = Arc::default();
        let mut leader = lead_whole(&table);
        leader.start(|| {
            let flight = Arc::clone(&flight);
            poll_fn(move |_| {
                let flight = flight.lock().unwrap().take();
                match flight {
                    Some(flight) => {
                        flight.demote();
                        Poll::Pending
                    }
                    None => Poll::Ready(1),
                }
            })
        });
        let Admission::Follows(follower, ()) = enter() else {
            unreachable!("the leader leads")
        };
        leader.flight().detach();
        *flight.lock().unwrap() = Some(Arc::clone(leader.flight()));
        leave_after_boarding(follower);
        let ended = block_on(poll_fn(|cx| leader.poll(cx)));
        assert!(matches!(ended, CallerEnd::Shared(_)));
        assert_eq!(table.len(), 0);
    });
}

/// A task would give the flight back to its leader, who is just leaving: it goes on for the follower.
///
/// Catches: `demote` doesn't ask whether the leader has left.
#[test]
fn loom_demotion_against_the_leaders_leaving() {
    type Demoted = Flight<u32, u32, ()>;
    loom::model(|| {
        let table: Table<u32, u32, ()> = Table::new();
        let enter = || table.enter(&[table.hash(&KEY)], KEY, (), join);
        let flight: Arc<Mutex<Option<Arc<Demoted>>>> = Arc::default();
        let mut leader = lead_whole(&table);
        leader.start(|| {
            let flight = Arc::clone(&flight);
            poll_fn(move |cx| {
                let flight = flight.lock().unwrap().take();
                match flight {
                    Some(flight) => {
                        flight.demote();
                        cx.waker().wake_by_ref();
                        Poll::Pending
                    }
                    None => Poll::Ready(1),
                }
            })
        });
        let Admission::Follows(mut follower, ()) = enter() else {
            unreachable!("the leader leads")
        };
        leader.flight().detach();
        *flight.lock().unwrap() = Some(Arc::clone(leader.flight()));
        follower.promote();
        let leaver = thread::spawn(move || drop(leader));
        let ended = block_on(poll_fn(|cx| follower.poll(cx)));
        assert!(matches!(ended, CallerEnd::Shared(_)));
        leaver.join().unwrap();
        assert_eq!(table.len(), 0);
    });
}

/// The task may poll the work before or after it has left; only after is the flight given back.
fn leave_after_boarding(follower: Caller<u32, u32, ()>) {
    let flight = Arc::clone(follower.flight());
    drop(follower);
    flight.promote();
}
