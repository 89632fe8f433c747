//! Who joins while a flight begins, ends or panics.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Waker},
};

use loom::{future::block_on, thread};

use super::{
    stand_ins::{Location, at},
    support::{Flights, Gate, KEY, followed, join, lead, lead_whole, led},
};
use crate::group::{Group, caller::CallerEnd, matching::Admission, table::Table, work::Polled};

/// Join against complete: one joins the flight or starts anew, and never gets what had ended before.
///
/// Catches: `SoloLeader::poll` doesn't look whether the flight is whole; of a floor above, `end` reads `is_shared`
/// before it unlinks (the joiner never hears of the value).
fn join_against_complete(location: Location, flights: fn() -> Flights) {
    loom::model(move || {
        let flights = flights();
        let running = Arc::new(AtomicUsize::new(0));
        let work = |value| {
            let running = Arc::clone(&running);
            move || async move {
                assert_eq!(running.fetch_add(1, Ordering::Relaxed), 0, "one call");
                running.fetch_sub(1, Ordering::Relaxed);
                value
            }
        };
        let leader = at(location, || flights.run(work(1)));
        let leader = thread::spawn(move || at(location, || block_on(leader)));
        let joiner = at(location, || block_on(flights.run(work(2))));
        let leader = leader.join().unwrap();
        let shared = leader.shared;
        assert_eq!(leader, led(1, shared));
        assert_eq!(joiner, if shared { followed(1) } else { led(2, false) });
        assert_eq!(flights.in_flight(), 0);
    });
}

#[test]
fn loom_join_against_complete() {
    join_against_complete(Location::Runtime, Flights::of_a_group);
}

#[test]
fn loom_join_against_complete_on_a_floor_above() {
    join_against_complete(Location::Runtime, Flights::of_a_floor_above);
}

/// As above where the callers drive.
///
/// Catches: `end` unlinks last; `leave` doesn't look whether the flight has ended.
#[test]
fn loom_join_against_complete_outside_a_runtime() {
    join_against_complete(Location::Nowhere, Flights::of_a_group);
    join_against_complete(Location::Nowhere, Flights::of_a_floor_above);
}

/// Join against start: whoever comes second joins, also while the first's work is being made.
///
/// Catches: `SoloLeader::start` keeps the work of a flight that has become whole meanwhile; `put_back` forgets the
/// `handover`.
#[test]
fn loom_join_against_start() {
    loom::model(|| {
        let (group, gate) = (Group::new(), Gate::new());
        let first = {
            let (group, gate) = (group.clone(), gate.clone());
            thread::spawn(move || at(Location::Nowhere, || block_on(lead(&group, &gate))))
        };
        let second = lead(&group, &gate);
        gate.open();
        let second = block_on(second);
        let first = first.join().unwrap();
        assert_eq!((first.value, second.value), (1, 1));
        assert_eq!(first.shared, second.shared);
        assert_eq!(group.in_flight(), 0);
    });
}

/// Join against a start that panics: the joiner panics too, or leads.
///
/// Catches: `SoloLeader::end_with` doesn't hand the panic in.
#[test]
fn loom_a_start_that_panics_against_join() {
    loom::model(|| {
        let group = Group::new();
        let inside = group.clone();
        let leader = thread::spawn(move || {
            let start = || {
                inside.run(KEY, || -> std::future::Ready<u32> {
                    resume_unwind(Box::new("boom"))
                })
            };
            // It may have joined the other.
            match catch_unwind(AssertUnwindSafe(|| block_on(start()))) {
                Ok(joined) => assert_eq!(joined, followed(2)),
                Err(payload) => assert_eq!(payload.downcast_ref::<&str>(), Some(&"boom")),
            }
        });
        let joiner = group.run(KEY, || async { 2 });
        match catch_unwind(AssertUnwindSafe(|| block_on(joiner))) {
            Ok(second) => assert_eq!(second.value, 2),
            Err(payload) => assert_eq!(payload.downcast_ref::<&str>(), Some(&"boom")),
        }
        leader.join().unwrap();
        assert_eq!(group.in_flight(), 0);
    });
}

/// Panic against join: a joiner panics with the leader, or leads; the key is free before it sees the panic.
///
/// Catches: `end` publishes before it unlinks (F5).
#[test]
fn loom_panic_against_join() {
    loom::model(|| {
        let group = Group::new();
        let leader = group.run(KEY, || async { resume_unwind(Box::new("boom")) });
        let leader = thread::spawn(move || {
            let payload = catch_unwind(AssertUnwindSafe(|| block_on(leader))).unwrap_err();
            assert_eq!(payload.downcast_ref::<&str>(), Some(&"boom"));
        });
        let joiner = group.run(KEY, || async { 2 });
        match catch_unwind(AssertUnwindSafe(|| block_on(joiner))) {
            Ok(second) => assert_eq!(second, led(2, false)),
            Err(payload) => {
                assert_eq!(payload.downcast_ref::<&str>(), Some(&"boom"));
                assert_eq!(group.in_flight(), 0);
            }
        }
        leader.join().unwrap();
        assert_eq!(group.in_flight(), 0);
    });
}

/// A caller is counted while another thread looks: who sees it sees that the flight is shared.
///
/// Catches: `count_in` raises `callers` before it sets `shared` (the layer's task, which looks at both, may then park for ever).
#[test]
fn loom_who_sees_a_second_caller_sees_that_they_share() {
    loom::model(|| {
        let table: Arc<Table<u32, u32, ()>> = Arc::new(Table::new());
        let enter = |table: &Table<u32, u32, ()>| table.enter(&[table.hash(&KEY)], KEY, (), join);
        let leader = lead_whole(&table);
        let joiner = {
            let table = Arc::clone(&table);
            thread::spawn(move || drop(enter(&table)))
        };
        if leader.flight().callers() > 1 {
            assert!(leader.flight().is_shared());
        }
        joiner.join().unwrap();
        drop(leader);
        assert_eq!(table.len(), 0);
    });
}

/// A leader makes its flight whole while it polls the work, and another joins: the value comes to both, or the other leads.
///
/// Catches: `make_whole` makes a second flight of one that is whole already.
#[test]
fn loom_a_leader_makes_its_flight_whole_in_a_poll() {
    loom::model(|| {
        let table: Arc<Table<u32, u32, ()>> = Arc::new(Table::new());
        let Admission::Leads(mut leader) = table.enter(&[table.hash(&KEY)], KEY, (), join) else {
            unreachable!("nobody else leads")
        };
        let became = leader.start(|| async { 1 });
        assert!(became.is_ok(), "nobody has joined");
        let joiner = {
            let table = Arc::clone(&table);
            thread::spawn(
                move || match table.enter(&[table.hash(&KEY)], KEY, (), join) {
                    Admission::Follows(mut caller, ()) => {
                        caller.promote();
                        let ended = block_on(poll_fn(|cx| caller.poll(cx)));
                        assert_eq!(ended.into_outcome(false).value, 1);
                    }
                    Admission::Leads(own) => drop(own),
                    Admission::Refused => unreachable!("not asked for"),
                },
            )
        };
        let mut caller = match leader.take_work(&Context::from_waker(Waker::noop())) {
            Ok((work, _)) => {
                let mut caller = leader.make_whole();
                caller.hand_in(Polled::Pending(work));
                caller
            }
            Err(caller) => caller,
        };
        let ended = block_on(poll_fn(|cx| caller.poll(cx)));
        match ended {
            CallerEnd::Alone(value) => assert_eq!(value, 1),
            shared => assert_eq!(shared.into_outcome(true).value, 1),
        }
        joiner.join().unwrap();
        assert_eq!(table.len(), 0);
    });
}
