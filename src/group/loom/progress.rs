//! What a floor above does midway: followers read what the work has given so far, ask it for more, and may be sent away.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use loom::{future::block_on, sync::Mutex, thread};

use super::support::{Gate, KEY, OpenOnDrop, join, lead_whole};
use crate::group::{caller::Caller, flight::Flight, matching::Admission, table::Table};

type Whole = Caller<u32, u32, ()>;

/// A leader and a follower of a new flight, which has no work yet.
fn leader_and_follower(table: &Table<u32, u32, ()>) -> (Whole, Whole) {
    let leader = lead_whole(table);
    let Admission::Follows(follower, ()) = table.enter(&[table.hash(&KEY)], KEY, (), join) else {
        unreachable!("there is a leader")
    };
    (leader, follower)
}

/// Frames that were asked for, and frames that there are.
#[derive(Default)]
struct Source {
    asked: usize,
    given: usize,
}

/// A follower asks for a frame while the task looks whether anybody has: it hears of the frame, though the work leaves no waker of
/// its own.
///
/// Catches: `wake_driver` doesn't wake the task; `wake_callers` leaves the followers out.
#[test]
fn loom_a_reader_asks_while_the_task_looks() {
    loom::model(|| {
        let table: Table<u32, u32, ()> = Table::new();
        let (mut leader, mut follower) = leader_and_follower(&table);
        let source = Arc::new(Mutex::new(Source::default()));
        let work = {
            let (source, flight) = (Arc::clone(&source), Arc::clone(leader.flight()));
            poll_fn(move |_| {
                let mut source = source.lock().unwrap();
                if source.asked > source.given {
                    source.given += 1;
                    drop(source);
                    flight.wake_callers();
                }
                Poll::Pending
            })
        };
        follower.promote();
        leader.start(|| work);
        let reader = thread::spawn(move || {
            block_on(poll_fn(|cx| {
                let mut is_polled = false;
                loop {
                    let is_new = {
                        let mut source = source.lock().unwrap();
                        if source.given > 0 {
                            return Poll::Ready(());
                        }
                        std::mem::replace(&mut source.asked, 1) == 0
                    };
                    if is_new {
                        follower.flight().wake_driver();
                    } else if is_polled {
                        return Poll::Pending;
                    }
                    is_polled = true;
                    assert!(follower.poll(cx).is_pending());
                }
            }));
        });
        reader.join().unwrap();
        drop(leader);
        assert_eq!(table.len(), 0);
    });
}

/// Two followers are counted out by another while one of them, which has seen that, leaves without counting itself out, and the leader
/// leaves: the work is dropped once nobody is left.
///
/// Catches: `count_out` asks for one caller, not for as many as leave; `leave_uncounted` counts out.
#[test]
fn loom_dismissal_against_the_leaders_leaving() {
    loom::model(|| {
        let table: Table<u32, u32, ()> = Table::new();
        let dropped = Gate::new();
        let last = OpenOnDrop(dropped.clone());
        let (mut leader, mut follower) = leader_and_follower(&table);
        let Admission::Follows(mut second, ()) = table.enter(&[table.hash(&KEY)], KEY, (), join)
        else {
            unreachable!("there is a leader")
        };
        leader.start(|| async move {
            let _last = last;
            std::future::pending().await
        });
        let flight = Arc::clone(leader.flight());
        let leaver = thread::spawn(move || drop(leader));
        Flight::count_out(&flight, 2);
        follower.leave_uncounted();
        second.leave_uncounted();
        leaver.join().unwrap();
        block_on(dropped.pass());
        assert_eq!((flight.callers(), table.len()), (0, 0));
    });
}

/// A flight that nobody leads is led by one of its two callers, while the other leaves or waits: it ends for whoever stays.
///
/// Catches: `put_back` forgets the callers that have come before the work.
#[test]
fn loom_one_of_two_takes_the_lead() {
    loom::model(|| {
        let table: Table<u32, u32, ()> = Table::new();
        let started = Arc::new(AtomicUsize::new(0));
        let (mut first, second) = leader_and_follower(&table);
        first.give_up_lead();
        second.promote();
        let run = |mut caller: Whole, started: Arc<AtomicUsize>| {
            move || {
                if started.fetch_add(1, Ordering::SeqCst) == 0 {
                    caller.take_lead();
                    caller.start(|| async { 1 });
                }
                let led = caller.leads();
                let ended = block_on(poll_fn(|cx| caller.poll(cx)));
                ended.into_outcome(led).value
            }
        };
        let other = thread::spawn(run(second, Arc::clone(&started)));
        assert_eq!(run(first, started)(), 1);
        assert_eq!(other.join().unwrap(), 1);
        assert_eq!(table.len(), 0);
    });
}
