//! One flight: a piece of work in the air, and who waits for it.
//!
//! # The driver
//!
//! The work lies boxed in the flight (a group's, until somebody joins, in the [table](super::solo)) and is driven by one of
//!
//! * its **leader**, inline, while the leader is alone: no task, no wake-up across threads;
//! * a **task**, from the moment a second caller joins: neither a leader that has gone nor one that is not polled stops
//!   the work, and each of the work's wake-ups wakes that task alone. Work that is made or polled at that moment is handed
//!   over by whoever has it, and needs no task if it ends there;
//! * the **callers**, whichever is polled, where no Tokio runtime is at hand or the one that drove has shut down.
//!
//! # Invariants, cited as F1 to F9
//!
//! 1. The work is in one place: not yet there (`Starting`), in the flight (`Idle`), in the hands of the one thread that
//!    polls it (`Polling`), or `Gone`. Whoever took it puts it back, ends the flight, or finds it `Gone` and drops
//!    it.
//! 2. A caller leaves its waker under the same lock in which it last saw the flight open, before it polls the work or
//!    returns `Pending`.
//! 3. Whoever puts work back looks at the driver under the same lock: if that has changed meanwhile, the new driver is
//!    spawned, or woken, since it may have found the work taken and parked.
//! 4. `ending` is set once, under the lock in which the work becomes `Gone` and all wakers are taken; after that no place
//!    is taken or freed, and finished callers read `ending` without a lock.
//! 5. The flight is unlinked from the table before `ending` is set (T1).
//! 6. Under the lock nothing of the user's is called, polled, cloned, dropped or woken: work, wakers, values and payloads
//!    are moved out and dropped or woken after it.
//! 7. Locks nest in one order: a shard's, then a flight's.
//! 8. A kept flight without callers is driven by a task. When that ends with its runtime, the flight moves to its keeper's,
//!    and without a keeper is cancelled; both are decided under the shard's lock.
//! 9. Work that was made or polled within a runtime is driven there while that runtime lives, whoever joins from where. A
//!    joiner outside Tokio leaves work of which that is not known yet to its leader, which is polled or leaves.

use std::{mem, sync::Arc, task::Waker};

use super::{
    cancel::cancel,
    panic::{Message, drop_quietly},
    runtime::Runtime,
    shard::{Entry, Link},
    state::{Driver, State, WorkState},
    wakers::{Place, Wakers},
    work::WorkResult,
};
use crate::sync::{AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering, SetOnce};

/// See the [module docs](self). `C` is what a floor above hangs on the flight.
// In this order: at the end every caller reads `ending`, and then lowers the reference count that lies before all this. With
// the state in between that is not one cache line.
#[repr(C)]
pub(crate) struct Flight<K, V, C> {
    link: Link<K, V, C>,
    /// Raised under the shard's lock (T2).
    callers: AtomicUsize,
    /// Whether a second caller ever joined. Written under the shard's lock.
    shared: AtomicBool,
    /// Whether the flight outlives its callers while somebody else can drive it. Set under the shard's lock.
    kept: AtomicBool,
    /// What `State::driver` says of a task, for those who join by the thousand and would only look. One who sees a task
    /// that has just gone finds, when polled, what is so.
    // Measured: a join and leave in 77 ns rather than 88.
    has_task: AtomicBool,
    state: Mutex<FlightState<K, V, C>>,
    ending: SetOnce<Ending<V>>,
    pub(crate) cargo: C,
}

pub(super) type FlightState<K, V, C> = State<V, Keeper<K, V, C>>;

/// The end of a flight that several callers share, or that a task drove.
pub(super) enum Ending<V> {
    /// To be cloned: somebody has joined the leader.
    Value(V),
    /// To be taken by the leader, whom nobody has joined.
    Unshared,
    Panicked(Message),
}

/// A runtime and the function that spawns there: leaving happens in a `Drop`, which can't name the bounds of a spawn.
pub(super) struct Keeper<K, V, C> {
    pub(super) runtime: Runtime,
    pub(super) spawn: fn(&Runtime, Arc<Flight<K, V, C>>),
}

// ===== impl Flight =====

impl<K, V, C> Flight<K, V, C> {
    /// A flight with its leader counted in.
    #[inline]
    pub(super) fn new(link: Link<K, V, C>, cargo: C, keep: bool) -> Self {
        Self::with_state(link, cargo, keep, State::new(WorkState::Starting, None))
    }

    #[inline]
    pub(super) fn with_state(
        link: Link<K, V, C>,
        cargo: C,
        keep: bool,
        state: FlightState<K, V, C>,
    ) -> Self {
        Self {
            link,
            callers: AtomicUsize::new(1),
            shared: AtomicBool::new(false),
            kept: AtomicBool::new(keep),
            has_task: AtomicBool::new(false),
            ending: SetOnce::new(),
            state: Mutex::new(state),
            cargo,
        }
    }

    pub(super) fn link(&self) -> &Link<K, V, C> {
        &self.link
    }

    pub(super) fn state(&self) -> MutexGuard<'_, FlightState<K, V, C>> {
        self.state.lock()
    }

    /// How many callers hold on to this flight.
    pub(crate) fn callers(&self) -> usize {
        self.callers.load(Ordering::Acquire)
    }

    /// Whether a second caller has joined, ever.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Acquire)
    }

    /// Whether a task drives, as seen without the lock.
    pub(super) fn has_task(&self) -> bool {
        self.has_task.load(Ordering::Acquire)
    }

    pub(super) fn set_driver(&self, state: &mut FlightState<K, V, C>, driver: Driver) {
        state.driver = driver;
        self.has_task
            .store(driver == Driver::Task, Ordering::Release);
    }

    pub(super) fn ending(&self) -> Option<&Ending<V>> {
        self.ending.get()
    }

    pub(super) fn into_ending(self) -> Option<Ending<V>> {
        self.ending.into_inner()
    }

    /// One more caller. Only under the lock of its shard, while it is linked there (T2).
    pub(super) fn count_in(&self, keep: bool) {
        // In this order: who sees more callers than it knew of, sees that they share.
        self.shared.store(true, Ordering::Release);
        self.callers.fetch_add(1, Ordering::AcqRel);
        if keep {
            self.kept.store(true, Ordering::Release);
        }
    }

    pub(super) fn set_keeper(&self, keeper: Keeper<K, V, C>) {
        let keeper = Box::new(keeper);
        // Dropped after the lock.
        let _old = self.state().keeper.replace(keeper);
        self.kept.store(true, Ordering::Release);
    }

    /// From now on nobody joins; who has joined goes on. Whether it was linked.
    pub(crate) fn detach(&self) -> bool {
        self.link.unlink().is_some()
    }

    /// As `detach`, where `agreed`, which is asked when nobody can join at that moment, says yes. Whether it did.
    #[cfg(feature = "redis")]
    pub(super) fn detach_if(&self, agreed: impl FnOnce() -> bool) -> bool {
        self.link.unlink_if(agreed).is_ok()
    }

    /// As `detach`; and from now on the flight ends when its last caller leaves, whatever was said before.
    #[cfg(feature = "http")]
    pub(crate) fn release(&self) {
        let unlinked = self.link.unlink_if(|| {
            self.kept.store(false, Ordering::Release);
            true
        });
        drop(unlinked);
    }

    /// Whether the work is gone: it has ended, or was cancelled.
    #[cfg(feature = "http")]
    pub(crate) fn is_over(&self) -> bool {
        self.state().is_over()
    }

    // ===== ending =====

    /// The work has ended, and its box is dropped. Unlinks the flight, and then lets its callers see the end (F5).
    ///
    /// What is for the leader alone waits here for it, or is given back to the leader that has polled the work itself.
    pub(super) fn end(&self, result: WorkResult<V>, by_leader: bool) -> Option<WorkResult<V>> {
        let unlinked = self.link.unlink();
        let (ending, own) = match result {
            Ok(value) if self.is_shared() => (Ending::Value(value), None),
            // Nobody else is in the flight, nor will be.
            Ok(value) if by_leader => return Some(Ok(value)),
            Ok(value) => (Ending::Unshared, Some(Ok(value))),
            Err(payload) => (Ending::Panicked(Message::of(&payload)), Some(Err(payload))),
        };
        let (own, given_back) = match by_leader {
            true => (None, own),
            false => (own, None),
        };
        self.publish(ending, own);
        drop(unlinked);
        given_back
    }

    fn publish(&self, ending: Ending<V>, own: Option<WorkResult<V>>) {
        let (wakers, nobodys) = {
            let mut state = self.state();
            state.work = WorkState::Gone;
            let set = self.ending.set(ending);
            debug_assert!(set.is_ok(), "a flight ends once");
            let nobodys = match state.leaderless {
                true => own,
                false => mem::replace(&mut state.own, own),
            };
            let mut wakers = state.places.close();
            // It may have found the work taken, and have parked.
            wakers.push(state.task.take());
            (wakers, nobodys)
        };
        wakers.wake();
        drop_quietly(nobodys);
    }

    /// What the leader alone gets of a flight that another polled.
    pub(super) fn take_own(&self) -> Option<WorkResult<V>> {
        self.state().own.take()
    }

    // ===== leaving =====

    /// Counts a caller out. The last one cancels the work, here and now.
    pub(super) fn count_out(self: &Arc<Self>) {
        let mut callers = self.callers.load(Ordering::Acquire);
        while callers > 1 {
            match self.callers.compare_exchange_weak(
                callers,
                callers - 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return,
                Err(now) => callers = now,
            }
        }
        // Whoever joins does so under this lock, so the last one is known to be the last (T2).
        let unlinked = self
            .link
            .unlink_if(|| self.callers.fetch_sub(1, Ordering::AcqRel) == 1 && !self.goes_on());
        match unlinked {
            Ok(unlinked) => self.cancel(unlinked),
            Err(()) => self.keep(),
        }
    }

    /// Whether it is kept, and somebody other than its callers drives it or can (F8).
    fn goes_on(&self) -> bool {
        self.kept.load(Ordering::Acquire) && {
            let state = self.state();
            state.driver == Driver::Task || state.keeper.is_some()
        }
    }

    /// Lets a kept flight that its leader drove, and has left, go on in a task.
    fn keep(self: &Arc<Self>) {
        let keeper = {
            let mut state = self.state();
            if state.driver == Driver::Task {
                return;
            }
            // Without a keeper a caller has joined meanwhile, and drives.
            let Some(keeper) = state.take_keeper() else {
                return;
            };
            self.set_driver(&mut state, Driver::Task);
            keeper
        };
        (keeper.spawn)(&keeper.runtime, Arc::clone(self));
    }

    /// Nobody drives the flight any more: if nobody waits for it either, it is over.
    pub(super) fn cancel_if_deserted(self: &Arc<Self>) {
        let unlinked = self
            .link
            .unlink_if(|| self.callers() == 0 && !self.goes_on());
        if let Ok(unlinked) = unlinked {
            self.cancel(unlinked);
        }
    }

    fn cancel(&self, unlinked: Option<Entry<K, V, C>>) {
        let (work, task) = {
            let mut state = self.state();
            // Work that is being polled is dropped by who polls it, as soon as that poll returns (F1).
            (
                mem::replace(&mut state.work, WorkState::Gone),
                state.task.take(),
            )
        };
        if let Some(task) = task {
            task.wake();
        }
        drop(unlinked);
        if let WorkState::Idle(work) = work {
            cancel(work);
        }
    }

    #[cfg(feature = "http")]
    pub(super) fn take_waker(&self, place: &Place) -> Option<Waker> {
        self.state().places.take(place)
    }

    /// Frees a leaver's place, and gives what is to be dropped outside the lock: what lay there, and the wakers of those who
    /// have waited for the leader's first poll (F9).
    pub(super) fn free(&self, place: &Place) -> (Option<Waker>, Option<WorkResult<V>>, Wakers) {
        let mut state = self.state();
        let waker = state.places.free(place);
        if !matches!(place, Place::Leader { .. }) {
            return (waker, None, Wakers::default());
        }
        let wakers = match state.driver {
            Driver::Callers if state.is_leaders() => state.places.take_all(),
            _ => Wakers::default(),
        };
        state.leaderless = true;
        (waker, state.own.take(), wakers)
    }
}
