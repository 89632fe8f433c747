//! Flights that are forgotten, and their leaders and successors.

use loom::{future::block_on, thread};

use super::support::{Gate, KEY, OpenOnDrop, followed, lead, led};
use crate::group::{
    Group, Run,
    flight::Entry,
    matching::{Admission, Match},
    run::Part,
    table::Table,
};

/// Forget against the leader's poll: the leader is woken although its flight has moved.
///
/// Catches: `make_whole` loses the leader's waker; `SoloLeader::put_back` puts the work back where it was.
#[test]
fn loom_forget_against_the_leaders_poll() {
    loom::model(|| {
        let (group, gate) = (Group::new(), Gate::new());
        let leader = lead(&group, &gate);
        let leader = thread::spawn(move || block_on(leader));
        assert!(group.forget(&KEY));
        assert_eq!(group.in_flight(), 0);
        gate.open();
        assert_eq!(leader.join().unwrap(), led(1, false));
    });
}

/// Forget against the leader's leaving: it takes the work along, which lies in the entry or has been left aside.
///
/// Catches: `SoloLeader::drop` doesn't look aside; `detach` takes the entry out as it is.
#[test]
fn loom_forget_against_the_leaders_leaving() {
    loom::model(|| {
        let group: Group<u32, u32> = Group::new();
        let dropped = Gate::new();
        let last = OpenOnDrop(dropped.clone());
        let leader = group.run(KEY, || async move {
            let _last = last;
            std::future::pending().await
        });
        let leaver = thread::spawn(move || drop(leader));
        group.forget(&KEY);
        leaver.join().unwrap();
        assert_eq!(group.in_flight(), 0);
        block_on(dropped.pass());
    });
}

/// Forget against complete against join: whoever joins gets the old flight's value, whoever leads its own.
///
/// Catches: `end` doesn't wake the task, which has found the work taken; `leave` doesn't look whether the flight has
/// ended.
#[test]
fn loom_forget_against_complete_against_join() {
    loom::model(|| {
        let (group, gate) = (Group::new(), Gate::new());
        let leader = group.run(KEY, || async { 1 });
        let leader = thread::spawn(move || block_on(leader));
        let forgetter = {
            let group = group.clone();
            thread::spawn(move || group.forget(&KEY))
        };
        let mut leads = false;
        let joiner = group.run(KEY, || {
            leads = true;
            let gate = gate.clone();
            async {
                gate.pass().await;
                2
            }
        });
        let first = leader.join().unwrap();
        forgetter.join().unwrap();
        if leads {
            // It may itself be the one that was forgotten; the end of the first has not removed it.
            assert_eq!(first, led(1, false));
            assert!(group.in_flight() <= 1);
            assert_eq!(group.in_flight(), group.waiters(&KEY));
        }
        gate.open();
        let second = block_on(joiner);
        assert_eq!(second, if leads { led(2, false) } else { followed(1) });
        assert_eq!(first.shared, !leads);
        assert_eq!(group.in_flight(), 0);
    });
}

/// The end of a forgotten flight against its successor's start: the successor stays.
///
/// Catches: `unlink` finds the entry by its hash alone (T3).
#[test]
fn loom_the_end_of_a_forgotten_flight_leaves_its_successor() {
    loom::model(|| {
        let (group, gate) = (Group::new(), Gate::new());
        let leader = group.run(KEY, || async { 1 });
        assert!(group.forget(&KEY));
        let leader = thread::spawn(move || block_on(leader));
        let successor = lead(&group, &gate);
        assert_eq!(leader.join().unwrap(), led(1, false));
        assert_eq!((group.in_flight(), group.waiters(&KEY)), (1, 1));
        gate.open();
        assert_eq!(block_on(successor), led(1, false));
        assert_eq!(group.in_flight(), 0);
    });
}

/// A newcomer finds a flight that it may not join, while the leader ends it or leaves: the leader gets its value, or takes
/// the work along.
///
/// Catches: `enter` takes a stale entry out as it is.
fn a_newcomer_that_may_not_join(leaves: bool) {
    for found in [Match::<()>::Detach, Match::Refuse] {
        loom::model(move || {
            let table: Table<u32, u32, ()> = Table::new();
            let enter = || {
                let judge = |_: &u32, (): &(), _: &Entry<u32, u32, ()>| found;
                table.enter(&[table.hash(&KEY)], KEY, (), judge)
            };
            let Admission::Leads(mut leader) = enter() else {
                unreachable!("nobody else leads")
            };
            let dropped = Gate::new();
            let last = OpenOnDrop(dropped.clone());
            let became = leader.start(|| async move {
                let _last = last;
                1
            });
            assert!(became.is_ok(), "nobody has come");
            let leader = Run::new(Part::Solo(leader));
            let leader = thread::spawn(move || match leaves {
                true => drop(leader),
                false => assert_eq!(block_on(leader), led(1, false)),
            });
            match enter() {
                Admission::Leads(own) => drop(own),
                Admission::Refused => assert_eq!(found, Match::Refuse),
                Admission::Follows(..) => unreachable!("it may not join"),
            }
            leader.join().unwrap();
            assert_eq!(table.len(), 0);
            block_on(dropped.pass());
        });
    }
}

#[test]
fn loom_a_newcomer_that_may_not_join_against_the_leaders_poll() {
    a_newcomer_that_may_not_join(false);
}

#[test]
fn loom_a_newcomer_that_may_not_join_against_the_leaders_leaving() {
    a_newcomer_that_may_not_join(true);
}
