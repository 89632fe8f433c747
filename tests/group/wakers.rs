//! Wakers that panic while somebody joins the work that is being made or polled: whatever else they spoil, the leader stays
//! one of its flight's callers, and the work is driven.
#![allow(unsafe_code, reason = "a waker whose clone or drop panics")]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Poll, RawWaker, RawWakerVTable, Waker},
    thread,
    time::Duration,
};

use tokio::runtime::Builder;
use tower_singleflight::{Group, Run};

use crate::support::{Count, panic_of, poll_once, poll_with, settle, tasks, text};

/// Which of its functions panics, while `armed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Clone,
    Drop,
    Wake,
}

struct Bad {
    fault: Fault,
    armed: AtomicBool,
}

impl Bad {
    fn new(fault: Fault) -> &'static Self {
        let armed = AtomicBool::new(true);
        Box::leak(Box::new(Self { fault, armed }))
    }

    fn disarm(&self) {
        self.armed.store(false, Ordering::SeqCst);
    }

    fn waker(&'static self) -> Waker {
        static TABLE: RawWakerVTable = RawWakerVTable::new(
            |data| {
                bad(data).act(Fault::Clone);
                RawWaker::new(data, &TABLE)
            },
            |data| bad(data).act(Fault::Wake),
            |data| bad(data).act(Fault::Wake),
            |data| bad(data).act(Fault::Drop),
        );
        fn bad(data: *const ()) -> &'static Bad {
            // SAFETY: made below, of a reference that lives for ever.
            unsafe { &*data.cast() }
        }
        let data = std::ptr::from_ref(self).cast();
        // SAFETY: what the table does with `data` is safe, on any thread and any number of times.
        unsafe { Waker::from_raw(RawWaker::new(data, &TABLE)) }
    }

    fn act(&self, now: Fault) {
        if now == self.fault && self.armed.load(Ordering::SeqCst) {
            panic!("bad {now:?}");
        }
    }
}

type Joined = Arc<Mutex<Option<Run<&'static str, u32>>>>;

/// A leader whose work is joined by its first poll, as by another thread meanwhile, and gives 1 in the poll of that number.
/// Who has joined has left `waker`.
fn joined_while_it_polls(
    group: &Group<&'static str, u32>,
    waker: Waker,
    last: u32,
) -> (Run<&'static str, u32>, Joined) {
    let joined = Joined::default();
    let (inside, place, mut polls) = (group.clone(), joined.clone(), 0);
    let leader = group.run("key", || {
        std::future::poll_fn(move |_| {
            polls += 1;
            if polls == 1 {
                let mut follower = inside.run("key", std::future::pending);
                assert!(poll_with(&mut follower, &waker).is_pending());
                *place.lock().unwrap() = Some(follower);
            }
            match polls >= last {
                true => Poll::Ready(1),
                false => Poll::Pending,
            }
        })
    });
    (leader, joined)
}

fn assert_both_get_it(
    group: &Group<&'static str, u32>,
    mut leader: Run<&'static str, u32>,
    joined: &Joined,
) {
    let mut follower = joined.lock().unwrap().take().unwrap();
    // Outside Tokio the callers drive.
    let got = poll_once(&mut follower).is_ready() || poll_once(&mut follower).is_ready();
    assert!(got);
    assert_eq!(group.in_flight(), 0);
    let outcome = poll_once(&mut leader);
    assert!(matches!(outcome, Poll::Ready(outcome) if outcome.value == 1 && outcome.shared));
}

#[test]
fn a_leader_whose_waker_panics_when_cloned_stays_in_a_flight_that_is_joined_in_that_poll() {
    let group = Group::new();
    let (mut leader, joined) = joined_while_it_polls(&group, Waker::noop().clone(), 3);
    let bad = Bad::new(Fault::Clone);
    let payload = panic_of(|| poll_with(&mut leader, &bad.waker()));
    assert_eq!(text(&*payload), "bad Clone");
    assert_eq!((group.in_flight(), group.waiters("key")), (1, 2));
    assert_both_get_it(&group, leader, &joined);
}

async fn ready_at_the_third_poll() -> i32 {
    let mut polls = 0;
    std::future::poll_fn(|_| {
        polls += 1;
        match polls {
            1 | 2 => Poll::Pending,
            _ => Poll::Ready(1),
        }
    })
    .await
}

#[test]
fn a_lone_leader_whose_waker_panics_when_cloned_may_be_polled_again() {
    let group = Group::new();
    let mut leader = group.run("key", ready_at_the_third_poll);
    let bad = Bad::new(Fault::Clone);
    let payload = panic_of(|| poll_with(&mut leader, &bad.waker()));
    assert_eq!(text(&*payload), "bad Clone");
    assert_eq!((group.in_flight(), group.waiters("key")), (1, 1));
    let woken = Count::new();
    assert!(poll_with(&mut leader, &woken.waker()).is_pending());
    assert!(poll_once(&mut leader).is_ready());
    assert_eq!(group.in_flight(), 0);
}

/// The clone that the leader was about to leave is not needed any more.
#[test]
fn a_leader_whose_waker_panics_when_dropped_stays_in_a_flight_that_is_joined_in_that_poll() {
    let group = Group::new();
    let (mut leader, joined) = joined_while_it_polls(&group, Waker::noop().clone(), 3);
    let bad = Bad::new(Fault::Drop);
    let waker = bad.waker();
    // Whether it panics is the waker's affair.
    let _ = catch_unwind(AssertUnwindSafe(|| poll_with(&mut leader, &waker)));
    bad.disarm();
    assert_eq!((group.in_flight(), group.waiters("key")), (1, 2));
    drop(joined.lock().unwrap().take());
    assert_eq!((group.in_flight(), group.waiters("key")), (1, 1));
    drop(leader);
    assert_eq!((group.in_flight(), group.waiters("key")), (0, 0));
}

#[test]
fn a_lone_leader_whose_old_waker_panics_when_dropped_goes_on() {
    let group = Group::new();
    let mut leader = group.run("key", ready_at_the_third_poll);
    let bad = Bad::new(Fault::Drop);
    let waker = bad.waker();
    assert!(poll_with(&mut leader, &waker).is_pending());
    // Whether it panics is the waker's affair.
    let _ = catch_unwind(AssertUnwindSafe(|| poll_once(&mut leader)));
    bad.disarm();
    assert_eq!((group.in_flight(), group.waiters("key")), (1, 1));
    assert!(poll_once(&mut leader).is_ready());
    assert_eq!(group.in_flight(), 0);
}

/// It leaves its waker and takes the work in one step, and drops the old waker after that.
#[test]
fn a_caller_that_drives_and_whose_old_waker_panics_when_dropped_loses_no_work() {
    let group = Group::new();
    let mut leader = group.run("key", ready_at_the_third_poll);
    let mut follower = group.run("key", || async { 2 });
    let bad = Bad::new(Fault::Drop);
    let waker = bad.waker();
    assert!(poll_with(&mut follower, &waker).is_pending());
    // As above.
    let _ = catch_unwind(AssertUnwindSafe(|| poll_once(&mut follower)));
    bad.disarm();
    assert_eq!((group.in_flight(), group.waiters("key")), (1, 2));
    // The second poll of the work may have been made above, or not.
    let got = poll_once(&mut leader).is_ready() || poll_once(&mut leader).is_ready();
    assert!(got);
    assert_eq!(group.in_flight(), 0);
    assert!(poll_once(&mut follower).is_ready());
}

/// The leader puts the work back, for the callers to drive, and wakes them.
#[test]
fn a_followers_panicking_waker_harms_no_leader_that_hands_the_work_over() {
    let group = Group::new();
    let bad = Bad::new(Fault::Wake);
    let (mut leader, joined) = joined_while_it_polls(&group, bad.waker(), 3);
    assert!(poll_once(&mut leader).is_pending());
    bad.disarm();
    assert_eq!((group.in_flight(), group.waiters("key")), (1, 2));
    assert_both_get_it(&group, leader, &joined);
}

/// The leader lands the value, and wakes who waits for it.
#[test]
fn a_followers_panicking_waker_takes_no_value_from_the_leader() {
    let group = Group::new();
    let bad = Bad::new(Fault::Wake);
    let (mut leader, joined) = joined_while_it_polls(&group, bad.waker(), 1);
    let outcome = poll_once(&mut leader);
    assert!(matches!(outcome, Poll::Ready(outcome) if outcome.value == 1 && outcome.shared));
    assert_eq!((group.in_flight(), group.waiters("key")), (0, 0));
    let mut follower = joined.lock().unwrap().take().unwrap();
    assert!(poll_once(&mut follower).is_ready());
}

/// The task that the leader spawns when it puts the work back is dropped by the runtime, and wakes who waits.
#[test]
fn a_followers_panicking_waker_harms_no_leader_whose_runtime_has_gone() {
    let group = Group::new();
    let runtime = Builder::new_current_thread().build().unwrap();
    let handle = runtime.handle().clone();
    let bad = Bad::new(Fault::Wake);
    let (mut leader, joined) = joined_while_it_polls(&group, bad.waker(), 3);
    drop(runtime);
    {
        let _in = handle.enter();
        assert!(poll_once(&mut leader).is_pending());
    }
    bad.disarm();
    assert_eq!((group.in_flight(), group.waiters("key")), (1, 2));
    assert_both_get_it(&group, leader, &joined);
}

/// A waker that drops another caller of the flight in which it lies: it is cloned and dropped under no lock.
struct Leaves {
    now: Fault,
    other: Mutex<Option<Run<&'static str, u32>>>,
}

impl Leaves {
    fn waker(self) -> Waker {
        static TABLE: RawWakerVTable = RawWakerVTable::new(
            |data| {
                leaves(data).act(Fault::Clone);
                RawWaker::new(data, &TABLE)
            },
            |data| leaves(data).act(Fault::Wake),
            |data| leaves(data).act(Fault::Wake),
            |data| leaves(data).act(Fault::Drop),
        );
        fn leaves(data: *const ()) -> &'static Leaves {
            // SAFETY: made below, of a reference that lives for ever.
            unsafe { &*data.cast() }
        }
        let data = std::ptr::from_ref::<Self>(Box::leak(Box::new(self))).cast();
        // SAFETY: what the table does with `data` is safe, on any thread and any number of times.
        unsafe { Waker::from_raw(RawWaker::new(data, &TABLE)) }
    }

    fn act(&self, now: Fault) {
        if now == self.now {
            let other = self.other.lock().unwrap().take();
            drop(other);
        }
    }
}

#[test]
fn wakers_are_cloned_and_dropped_under_no_lock_of_their_flight() {
    for now in [Fault::Clone, Fault::Drop] {
        for leads in [false, true] {
            let (done, is_done) = mpsc::channel();
            // On a thread of its own: a deadlock is to fail the test, not to hang it.
            thread::spawn(move || {
                let group = Group::new();
                let mut leader = group.run("key", std::future::pending::<u32>);
                let mut follower = group.run("key", std::future::pending);
                // It has left a waker, so its place is freed under the lock.
                let mut other = group.run("key", std::future::pending);
                assert!(poll_once(&mut other).is_pending());
                let caller = if leads { &mut leader } else { &mut follower };
                let other = Mutex::new(Some(other));
                let waker = Leaves { now, other }.waker();
                // In another's place, and then another in its place.
                assert!(poll_with(caller, &Count::new().waker()).is_pending());
                assert!(poll_with(caller, &waker).is_pending());
                assert!(poll_with(caller, &Count::new().waker()).is_pending());
                drop((leader, follower));
                drop(waker);
                done.send(group.in_flight()).unwrap();
            });
            let left = is_done.recv_timeout(Duration::from_secs(20));
            assert_eq!(left, Ok(0), "{now:?}");
        }
    }
}

#[tokio::test]
async fn a_panicking_waker_of_a_lone_leader_keeps_no_task_from_its_end() {
    let group = Group::new();
    let (open, gate) = tokio::sync::oneshot::channel::<()>();
    // Kept, so a task drives and wakes its one caller.
    let mut leader = group.spawn("key", || async move {
        let _ = gate.await;
        1
    });
    let bad = Bad::new(Fault::Wake);
    assert!(poll_with(&mut leader, &bad.waker()).is_pending());
    tokio::task::yield_now().await;
    open.send(()).unwrap();
    settle().await;
    assert_eq!((tasks(), group.in_flight()), (0, 0));
    assert!(matches!(poll_once(&mut leader), Poll::Ready(outcome) if outcome.value == 1));
}

#[test]
fn a_caller_whose_waker_panics_when_dropped_leaves_all_the_same() {
    let group = Group::new();
    let mut leader = group.run("key", std::future::pending::<u32>);
    let mut follower = group.run("key", std::future::pending);
    let bad = Bad::new(Fault::Drop);
    for caller in [&mut leader, &mut follower] {
        // What is dropped when the call ends is this waker itself, not the clone that lies in the flight.
        let waker = std::mem::ManuallyDrop::new(bad.waker());
        assert!(poll_with(caller, &waker).is_pending());
    }
    drop(leader);
    assert_eq!(group.waiters("key"), 1);
    drop(follower);
    assert_eq!(group.in_flight(), 0);
    bad.disarm();
}
