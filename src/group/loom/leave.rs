//! Who leaves last.

use std::{future::poll_fn, sync::Arc, task::Poll};

use loom::{future::block_on, thread};

use super::{
    stand_ins::{Location, Runtime, at},
    support::{Flights, Gate, KEY, OpenOnDrop, follow, followed, join, lead_whole, led},
};
use crate::group::{Group, caller::CallerEnd, matching::Admission, table::Table};

/// Join against the last one leaving: the joiner has joined a living flight, or leads.
///
/// Catches: `count_out` counts the last one out before it takes the shard's lock (T2): the joiner waits for cancelled work.
fn join_against_the_last_one_leaving(flights: fn() -> Flights) {
    loom::model(move || {
        let flights = flights();
        let leader = flights.run(|| async { 1 });
        let leaver = thread::spawn(move || drop(leader));
        let joiner = block_on(flights.run(|| async { 2 }));
        let joined = joiner.value == 1;
        assert_eq!(joiner, if joined { followed(1) } else { led(2, false) });
        leaver.join().unwrap();
        assert_eq!(flights.in_flight(), 0);
    });
}

#[test]
fn loom_join_against_the_last_one_leaving() {
    join_against_the_last_one_leaving(Flights::of_a_group);
}

#[test]
fn loom_join_against_the_last_one_leaving_on_a_floor_above() {
    join_against_the_last_one_leaving(Flights::of_a_floor_above);
}

/// The last two leave at once: exactly one of them cancels, and the task ends.
///
/// Catches: `count_out` decides by the count that it loaded, not by the one that it changed (nobody is the last one).
#[test]
fn loom_the_last_two_leave_at_once() {
    loom::model(|| {
        let group: Group<u32, u32> = Group::new();
        let dropped = Gate::new();
        let last = OpenOnDrop(dropped.clone());
        let leader = group.run(KEY, || async move {
            let _last = last;
            std::future::pending().await
        });
        let follower = follow(&group);
        let leaver = thread::spawn(move || drop(leader));
        drop(follower);
        leaver.join().unwrap();
        assert_eq!(group.in_flight(), 0);
        block_on(dropped.pass());
    });
}

/// The last one leaves while the task may be polling: the work is dropped, by whoever has it, and the task ends.
///
/// Catches: `put_back` puts cancelled work back (it stays for ever); `cancel` doesn't wake the task (it never ends).
#[test]
fn loom_the_last_one_leaves_while_the_task_polls() {
    loom::model(|| {
        let group: Group<u32, u32> = Group::new();
        let dropped = Gate::new();
        let last = OpenOnDrop(dropped.clone());
        let leader = group.run(KEY, || async move {
            let _last = last;
            std::future::pending().await
        });
        let follower = follow(&group);
        drop((leader, follower));
        assert_eq!(group.in_flight(), 0);
        block_on(dropped.pass());
    });
}

/// Spawn joins while the last other caller leaves: the flight is kept, or a new one is.
///
/// Catches: `count_out` reads `kept` before it takes the shard's lock.
#[test]
fn loom_spawn_against_the_last_one_leaving() {
    loom::model(|| {
        let (group, done) = (Group::new(), Gate::new());
        let work = || {
            let done = done.clone();
            move || async move {
                done.open();
                1
            }
        };
        let leader = group.run(KEY, work());
        let leaver = thread::spawn(move || drop(leader));
        drop(group.spawn(KEY, work()));
        leaver.join().unwrap();
        block_on(done.pass());
    });
}

/// A kept flight is released while its last caller leaves: one of the two drops the work.
///
/// Catches: `release` doesn't ask whether the flight is deserted.
#[test]
fn loom_release_against_the_last_caller_of_a_kept_flight() {
    loom::model(|| {
        let table: Table<u32, (), ()> = Table::new();
        let dropped = Gate::new();
        let last = OpenOnDrop(dropped.clone());
        let mut leader = lead_whole(&table);
        leader.keep_on(Runtime::current().expect("a model's thread is within one"));
        leader.start(|| async move {
            let _last = last;
            std::future::pending().await
        });
        let flight = Arc::clone(leader.flight());
        let leaver = thread::spawn(move || drop(leader));
        flight.release();
        leaver.join().unwrap();
        block_on(dropped.pass());
        assert_eq!(table.len(), 0);
    });
}

/// A task leaves the value for a leader that leaves: one of the two drops it, though the flight lives on.
///
/// Catches: `free` leaves what is only for the leader; `end` leaves it for a leader that has left.
#[test]
fn loom_a_leader_leaves_while_its_value_comes() {
    loom::model(|| {
        let table: Table<u32, Arc<OpenOnDrop>, ()> = Table::new();
        let dropped = Gate::new();
        let value = Arc::new(OpenOnDrop(dropped.clone()));
        let runtime = Runtime::current().expect("a model's thread is within one");
        let mut leader = lead_whole(&table);
        leader.keep_on(runtime);
        leader.start(|| async { value });
        leader.promote();
        let _flight = Arc::clone(leader.flight());
        drop(leader);
        block_on(dropped.pass());
        assert_eq!(table.len(), 0);
    });
}

/// The leader of a kept flight leaves before its first poll, while one joins outside any runtime and polls the work, there or within
/// one: the task that finds the work taken goes on with it, or ends.
///
/// Catches: `put_back`, or `end`, doesn't wake that task; `put_back` spawns another beside it.
fn the_leader_of_a_kept_flight_leaves(polls: usize, there: Location) {
    loom::model(move || {
        let table: Arc<Table<u32, u32, ()>> = Arc::new(Table::new());
        let mut leader = lead_whole(&table);
        leader.keep_on(Runtime::current().expect("a model's thread is within one"));
        let mut left = polls;
        at(Location::Task, || {
            leader.start(|| {
                poll_fn(move |cx| {
                    left -= 1;
                    if left == 0 {
                        return Poll::Ready(1);
                    }
                    cx.waker().wake_by_ref();
                    Poll::Pending
                })
            });
        });
        let joiner = thread::spawn(move || {
            let entered = table.enter(&[table.hash(&KEY)], KEY, (), join);
            if let Admission::Follows(mut follower, ()) = entered {
                at(Location::Nowhere, || follower.promote());
                let ended = at(there, || block_on(poll_fn(|cx| follower.poll(cx))));
                assert!(matches!(ended, CallerEnd::Shared(_)));
            }
        });
        drop(leader);
        joiner.join().unwrap();
    });
}

#[test]
fn loom_the_leader_of_a_kept_flight_leaves_against_a_join_outside() {
    the_leader_of_a_kept_flight_leaves(1, Location::Nowhere);
    the_leader_of_a_kept_flight_leaves(2, Location::Nowhere);
}

#[test]
fn loom_the_leader_of_a_kept_flight_leaves_against_a_join_outside_that_is_polled_within() {
    the_leader_of_a_kept_flight_leaves(2, Location::Runtime);
}
