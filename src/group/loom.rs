//! Loom models of the ground floor: every interleaving of a few threads, up to a number of preemptions.
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 cargo test --release --no-default-features --lib loom`
//!
//! Two preemptions take two seconds, three some twenty; the two models of a promotion need three. A lost wake-up shows as
//! a deadlock. Each model names the mutation that it catches; each of these was made once by hand, seen to fail, and taken
//! back.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use loom::{
    future::{AtomicWaker, block_on},
    sync::atomic::AtomicBool,
    thread,
};

use super::{
    Group, Outcome, Run,
    caller::{Caller, Ended},
    flight::Flight,
    runtime::{Place, at},
    table::Table,
    visit::{Entered, Visit},
    wakers::Interest,
};

const KEY: u32 = 0;

/// What the work waits for.
#[derive(Clone)]
struct Gate(Arc<(AtomicBool, AtomicWaker)>);

impl Gate {
    fn new() -> Self {
        Self(Arc::new((AtomicBool::new(false), AtomicWaker::new())))
    }

    fn open(&self) {
        self.0.0.store(true, Ordering::Release);
        self.0.1.wake();
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.1.register_by_ref(cx.waker());
        match self.0.0.load(Ordering::Acquire) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    async fn pass(self) {
        poll_fn(|cx| self.poll(cx)).await;
    }
}

/// Opens the gate when it is dropped.
struct OpenOnDrop(Gate);

impl Drop for OpenOnDrop {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// Counts its wake-ups where loom doesn't see it.
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn poll_with<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

fn outcome(value: u32, shared: bool) -> Outcome<u32> {
    Outcome { value, shared }
}

/// A leader whose work gives 1 once the gate is open.
fn lead(group: &Group<u32, u32>, gate: &Gate) -> Run<u32, u32> {
    let gate = gate.clone();
    group.run(KEY, || async {
        gate.pass().await;
        1
    })
}

fn follow(group: &Group<u32, u32>) -> Run<u32, u32> {
    group.run(KEY, || -> std::future::Ready<u32> {
        unreachable!("somebody else leads")
    })
}

/// Flights as a group's callers enter them, or as those of a floor above: there a leader is never solo.
#[derive(Clone)]
enum Flights {
    Group(Group<u32, u32>),
    Table(Arc<Table<u32, u32, ()>>),
}

/// A caller that has entered either way.
type Call = Pin<Box<dyn Future<Output = Outcome<u32>> + Send>>;

impl Flights {
    fn of_a_group() -> Self {
        Self::Group(Group::new())
    }

    fn of_a_floor_above() -> Self {
        Self::Table(Arc::new(Table::new()))
    }

    fn run<F, Fut>(&self, work: F) -> Call
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = u32> + Send + 'static,
    {
        let table = match self {
            Self::Group(group) => return Box::pin(group.run(KEY, work)),
            Self::Table(table) => table,
        };
        let mut caller = match table.enter(table.hash(&KEY), KEY, (), |_, (), _| Visit::Join) {
            Entered::Led(mut caller) => {
                caller.start(work);
                caller
            }
            Entered::Joined(caller) => {
                caller.board();
                caller
            }
            Entered::Refused(..) => unreachable!("not asked for"),
        };
        Box::pin(poll_fn(move |cx| {
            let ended = std::task::ready!(caller.poll(Interest::End, cx));
            Poll::Ready(ended.into_outcome())
        }))
    }

    fn in_flight(&self) -> usize {
        match self {
            Self::Group(group) => group.in_flight(),
            Self::Table(table) => table.len(),
        }
    }
}

/// Join against complete: one joins the flight or starts anew, and never gets what had ended before.
///
/// Catches: `SoloLeader::poll` doesn't look whether the flight is whole; of a floor above, `land_here` reads `is_shared`
/// before it unlinks (the joiner never hears of the value).
fn join_against_complete(place: Place, flights: fn() -> Flights) {
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
        let leader = flights.run(work(1));
        let leader = thread::spawn(move || block_on(leader));
        let joiner = at(place, || flights.run(work(2)));
        let joiner = block_on(joiner);
        let leader = leader.join().unwrap();
        let shared = leader.shared;
        assert_eq!(leader, outcome(1, shared));
        assert_eq!(joiner, outcome(if shared { 1 } else { 2 }, shared));
        assert_eq!(flights.in_flight(), 0);
    });
}

#[test]
fn loom_join_against_complete() {
    join_against_complete(Place::Runtime, Flights::of_a_group);
}

#[test]
fn loom_join_against_complete_on_a_floor_above() {
    join_against_complete(Place::Runtime, Flights::of_a_floor_above);
}

/// As above where the callers drive.
///
/// Catches: `publish` or `land` unlinks last; `register` doesn't look whether the flight has ended.
#[test]
fn loom_join_against_complete_outside_a_runtime() {
    join_against_complete(Place::Nowhere, Flights::of_a_group);
    join_against_complete(Place::Nowhere, Flights::of_a_floor_above);
}

/// Join against start: whoever comes second joins, also while the first's work is being made.
///
/// Catches: `SoloLeader::put_back` keeps the work of a flight that has become whole meanwhile; `put_back` forgets the
/// `handover`.
#[test]
fn loom_join_against_start() {
    loom::model(|| {
        let (group, gate) = (Group::new(), Gate::new());
        let first = {
            let (group, gate) = (group.clone(), gate.clone());
            thread::spawn(move || block_on(lead(&group, &gate)))
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

/// Forget against the leader's poll: the leader is woken although its flight has moved.
///
/// Catches: `Flight::of_solo` loses the leader's waker; `SoloLeader::poll` puts the work back where it was.
#[test]
fn loom_forget_against_the_leaders_poll() {
    loom::model(|| {
        let (group, gate) = (Group::new(), Gate::new());
        let leader = lead(&group, &gate);
        let leader = thread::spawn(move || block_on(leader));
        assert!(group.forget(&KEY));
        assert_eq!(group.in_flight(), 0);
        gate.open();
        assert_eq!(leader.join().unwrap(), outcome(1, false));
    });
}

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
        assert_eq!(joiner, outcome(if joined { 1 } else { 2 }, joined));
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

/// Promotion against the leader's inline poll: both get the value, whoever has polled when the gate opens.
///
/// Catches: `poll_inline` registers the leader's waker after it has put the work back, in a lock of its own, without
/// looking whether the flight has ended (F2); `put_back` doesn't look at the driver (F3).
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
        assert_eq!(block_on(follower), outcome(1, true));
        assert_eq!(leader.join().unwrap(), outcome(1, true));
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
        assert_eq!(block_on(follower.0), outcome(1, true));
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

/// Join against a start that panics: the joiner panics too, or leads.
///
/// Catches: `SoloLeader::crash` doesn't hand the panic in.
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
                Ok(joined) => assert_eq!(joined, outcome(2, true)),
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

/// Spawn joins against the leader's first poll, and all leave: the flight goes on to its end.
///
/// Catches: `Flight::finish` doesn't spawn what was handed over; `State::put_back` doesn't take it.
#[test]
fn loom_spawn_against_the_leaders_poll() {
    loom::model(|| {
        let (group, gate, done) = (Group::new(), Gate::new(), Gate::new());
        let mut leader = {
            let (gate, done) = (gate.clone(), done.clone());
            group.run(KEY, || async move {
                gate.pass().await;
                done.open();
                1
            })
        };
        let leaver = thread::spawn(move || {
            let _ = poll_with(&mut leader, Waker::noop());
            leader
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
        let leader = lead(&group, &gate);
        let leader = thread::spawn(move || block_on(leader));
        let follower = at(Place::Dying, || follow(&group));
        gate.open();
        assert_eq!(block_on(follower), outcome(1, true));
        assert_eq!(leader.join().unwrap(), outcome(1, true));
        assert_eq!(group.in_flight(), 0);
    });
}

/// Forget against complete against join: whoever joins gets the old flight's value, whoever leads its own.
///
/// Catches: `publish` doesn't wake the task, which has found the work taken; `register` doesn't look whether the flight has
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
            assert_eq!(first, outcome(1, false));
            assert!(group.in_flight() <= 1);
            assert_eq!(group.in_flight(), group.waiters(&KEY));
        }
        gate.open();
        let second = block_on(joiner);
        assert_eq!(second, outcome(if leads { 2 } else { 1 }, !leads));
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
        assert_eq!(leader.join().unwrap(), outcome(1, false));
        assert_eq!((group.in_flight(), group.waiters(&KEY)), (1, 1));
        gate.open();
        assert_eq!(block_on(successor), outcome(1, false));
        assert_eq!(group.in_flight(), 0);
    });
}

/// Panic against join: a joiner panics with the leader, or leads; the key is free before it sees the panic.
///
/// Catches: `crash` publishes before it unlinks (F5).
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
            Ok(second) => assert_eq!(second, outcome(2, false)),
            Err(payload) => {
                assert_eq!(payload.downcast_ref::<&str>(), Some(&"boom"));
                assert_eq!(group.in_flight(), 0);
            }
        }
        leader.join().unwrap();
        assert_eq!(group.in_flight(), 0);
    });
}

/// Waker replacement against publication: the last waker that was left is woken, once.
///
/// Catches: `register` keeps the old waker.
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
            Poll::Ready(value) => assert_eq!(value, outcome(1, true)),
            Poll::Pending => assert_eq!(block_on(follower), outcome(1, true)),
        }
        opener.join().unwrap();
        assert!(first.0.load(Ordering::Relaxed) <= 1);
        assert_eq!(block_on(leader), outcome(1, true));
        assert_eq!(group.in_flight(), 0);
    });
}

/// Callers drive, and the work wakes itself while one of them polls it, who then parks: the other goes on.
///
/// Catches: `wake_by_ref` doesn't note that the work is being polled (`rewake`); `poll_caller` doesn't look at the driver
/// after it has left its waker.
#[test]
fn loom_a_wake_up_while_a_caller_polls_is_repeated() {
    loom::model(|| {
        at(Place::Nowhere, || {
            let group = Group::new();
            let mut woken = false;
            let mut leader = group.run(KEY, || {
                poll_fn(move |cx| {
                    if std::mem::replace(&mut woken, true) {
                        return Poll::Ready(1);
                    }
                    cx.waker().wake_by_ref();
                    Poll::Pending
                })
            });
            let follower = follow(&group);
            let parked = thread::spawn(move || {
                let _ = poll_with(&mut leader, Waker::noop());
                leader
            });
            assert_eq!(block_on(follower), outcome(1, true));
            drop(parked.join().unwrap());
            assert_eq!(group.in_flight(), 0);
        });
    });
}

/// Callers drive, one leaves, and the work is woken from elsewhere: the other hears of it.
///
/// Catches: `poll_caller` polls for all before it leaves its waker; `wake_by_ref` without its `rewake`.
#[test]
fn loom_callers_drive_while_one_leaves() {
    loom::model(|| {
        at(Place::Nowhere, || {
            let (group, gate) = (Group::new(), Gate::new());
            let mut leader = lead(&group, &gate);
            let follower = follow(&group);
            let leaver = thread::spawn(move || {
                let _ = poll_with(&mut leader, Waker::noop());
            });
            let opener = thread::spawn(move || gate.open());
            assert_eq!(block_on(follower), outcome(1, true));
            leaver.join().unwrap();
            opener.join().unwrap();
            assert_eq!(group.in_flight(), 0);
        });
    });
}

/// The runtime that drives the flight shuts down: its callers go on.
///
/// Catches: `Task::drop` doesn't wake the callers.
#[test]
fn loom_runtime_shutdown_against_the_callers() {
    loom::model(|| {
        let (group, gate) = (Group::new(), Gate::new());
        let leader = lead(&group, &gate);
        let follower = at(Place::Dying, || follow(&group));
        let leader = thread::spawn(move || block_on(leader));
        gate.open();
        assert_eq!(block_on(follower), outcome(1, true));
        assert_eq!(leader.join().unwrap(), outcome(1, true));
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
        let caller = at(Place::Dying, || {
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
            group.run(KEY, || async move {
                gate.pass().await;
                done.open();
                1
            })
        };
        let follower = at(Place::Dying, || follow(&group));
        let keeper = group.spawn(KEY, || -> std::future::Ready<u32> { unreachable!() });
        drop((leader, follower, keeper));
        gate.open();
        block_on(done.pass());
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

/// The value of a spawned flight that nobody shares is the leader's, whenever it looks; and nobody's if it leaves.
///
/// Catches: `land` publishes the unshared value as one to be cloned.
#[test]
fn loom_an_unshared_value_is_handed_over() {
    struct Unclonable(#[expect(dead_code, reason = "told of its drop")] OpenOnDrop);
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

/// A caller is counted while another thread looks: who sees it sees that the flight is shared.
///
/// Catches: `count_in` raises `callers` before it sets `shared` (the layer's task, which looks at both, may then park for ever).
#[test]
fn loom_who_sees_a_second_caller_sees_that_they_share() {
    loom::model(|| {
        let table: Arc<Table<u32, u32, ()>> = Arc::new(Table::new());
        let enter = |table: &Table<u32, u32, ()>| {
            table.enter(table.hash(&KEY), KEY, (), |_, (), _| Visit::Join)
        };
        let Entered::Led(leader) = enter(&table) else {
            unreachable!("nobody else leads")
        };
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

/// A task gives the flight back to its leader (`demote`) while that is looking who drives.
///
/// Catches: `poll_caller` looks only for `Driver::Callers` after it has left its waker, which it once did; `put_back`
/// doesn't wake the leader.
#[test]
fn loom_demotion_against_the_leaders_poll() {
    type Demoted = Flight<u32, u32, ()>;
    loom::model(|| {
        let table: Table<u32, u32, ()> = Table::new();
        let enter = || table.enter(table.hash(&KEY), KEY, (), |_, (), _| Visit::Join);
        let flight: Arc<Mutex<Option<Arc<Demoted>>>> = Arc::default();
        let Entered::Led(mut leader) = enter() else {
            unreachable!("nobody else leads")
        };
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
        let Entered::Joined(follower) = enter() else {
            unreachable!("the leader leads")
        };
        leader.flight().detach();
        *flight.lock().unwrap() = Some(Arc::clone(leader.flight()));
        leave_after_boarding(follower);
        let ended = block_on(poll_fn(|cx| leader.poll(Interest::End, cx)));
        assert!(matches!(ended, Ended::Shared(_)));
        assert_eq!(table.len(), 0);
    });
}

/// The task may poll the work before or after it has left; only after is the flight given back.
fn leave_after_boarding(follower: Caller<u32, u32, ()>) {
    let flight = Arc::clone(follower.flight());
    drop(follower);
    flight.promote();
}
