//! One flight: a piece of work that is running, and the callers that wait for it.
//!
//! # The driver
//!
//! The work lies boxed in the flight (that of a [solo](super::solo) flight in the table). One of these drives it:
//!
//! * its **leader**, inline, while the leader is alone: no task, no wake-up across threads;
//! * a **task**, once a second caller has joined: a leader that leaves or is not polled stops nobody, and each wake-up
//!   of the work wakes only that task. If the work is being made or polled when the second caller joins, the thread
//!   that has it spawns the task afterwards, unless the work has ended;
//! * the **callers**, whichever is polled, if there is no Tokio runtime, or if the driving one has shut down.
//!
//! # Invariants, cited as F1 to F9
//!
//! 1. The work is in one place: in the flight, or in the hands of the one thread that makes or polls it. That thread
//!    puts it back, ends the flight, or finds the flight over and drops it.
//! 2. A caller stores its waker under the same lock under which it last saw the flight open, before it polls the work
//!    or returns `Pending`.
//! 3. The thread that puts work back checks the driver under the same lock. If the driver has changed, it spawns or
//!    wakes the new one, which may have found the work taken and parked.
//! 4. `ending` is set once, under the lock under which the flight is over and all wakers are taken. After that no
//!    waker slot is taken or freed, and callers read `ending` without a lock.
//! 5. The flight is unlinked from the table before `ending` is set (T1).
//! 6. Under the lock nothing that belongs to the user is called, polled, cloned, dropped or woken: work, wakers, values
//!    and payloads are moved out first.
//! 7. Locks nest in one order: a shard's, then a flight's.
//! 8. A kept flight goes on without callers, driven by a task. If that task ends with its runtime, the flight moves to
//!    its keeper's runtime, and without a keeper it is cancelled. Both are decided under the shard's lock.
//! 9. Work that was made or polled within a runtime is driven there while that runtime lives, wherever the joiners are.
//!    While the runtime is not known yet, a joiner outside Tokio leaves the work to the leader, until the leader is
//!    polled or leaves.

use std::{sync::Arc, task::Waker};

use super::{
    cancel::cancel,
    panic::{Message, drop_quietly},
    runtime::Runtime,
    shard,
    solo::Solo,
    state::{Driver, State},
    wakers::{WakerSlot, Wakers},
    work::WorkResult,
};
use crate::sync::{AtomicBool, AtomicUsize, Mutex, MutexGuard, OnceLock, Ordering};

/// See the [module docs](self). `C` is what code on top of the table, such as the HTTP layer, keeps in the flight.
// In this order: at the end every caller reads `ending` and then lowers the reference count in front of it. With the
// state in between, these would not share a cache line.
#[repr(C)]
pub(crate) struct Flight<K, V, C> {
    pub(super) link: Link<K, V, C>,
    /// Raised under the shard's lock (T2).
    callers: AtomicUsize,
    /// Whether a second caller has ever joined. Written under the shard's lock.
    shared: AtomicBool,
    /// Whether `FlightState::driver` is a task: a copy that a joiner can read without a lock. If the task has just
    /// gone, the joiner finds out when it is polled.
    has_task: AtomicBool,
    state: Mutex<FlightState<K, V, C>>,
    pub(super) ending: OnceLock<Ending<V>>,
    pub(crate) data: C,
}

/// A flight as the table holds it.
pub(crate) enum Held<K, V, C> {
    Solo(Solo<V, C>),
    Whole(Arc<Flight<K, V, C>>),
}

pub(super) type Shard<K, V, C> = shard::Shard<K, Held<K, V, C>>;
pub(super) type Entries<K, V, C> = shard::Entries<K, Held<K, V, C>>;
pub(crate) type Entry<K, V, C> = shard::Entry<K, Held<K, V, C>>;
pub(super) type Link<K, V, C> = shard::Link<K, Held<K, V, C>>;

pub(super) type FlightState<K, V, C> = State<V, Keeper<K, V, C>>;

/// How a flight ended, if several callers shared it or a task drove it.
pub(super) enum Ending<V> {
    /// The callers clone the value, because somebody joined the leader.
    Value(V),
    /// The value waits for the leader, which nobody joined.
    Unshared,
    Panicked(Message),
}

/// A runtime and a function that spawns there, because a caller leaves in `Drop`, where the bounds of a spawn are
/// missing.
pub(super) struct Keeper<K, V, C> {
    pub(super) runtime: Runtime,
    pub(super) spawn: fn(&Runtime, Arc<Flight<K, V, C>>),
}

// ===== impl Flight =====

impl<K, V, C> Flight<K, V, C> {
    /// A new flight, with its leader counted in.
    pub(super) fn new(link: Link<K, V, C>, data: C, state: FlightState<K, V, C>) -> Self {
        Self {
            link,
            callers: AtomicUsize::new(1),
            shared: AtomicBool::new(false),
            has_task: AtomicBool::new(false),
            ending: OnceLock::new(),
            state: Mutex::new(state),
            data,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, FlightState<K, V, C>> {
        self.state.lock()
    }

    /// How many callers the flight has.
    pub(crate) fn callers(&self) -> usize {
        self.callers.load(Ordering::Acquire)
    }

    /// Whether a second caller has ever joined.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Acquire)
    }

    /// Whether a task drives the flight, read without the lock.
    pub(super) fn has_task(&self) -> bool {
        self.has_task.load(Ordering::Acquire)
    }

    pub(super) fn set_driver(&self, state: &mut FlightState<K, V, C>, driver: Driver) {
        state.driver = driver;
        self.has_task
            .store(driver == Driver::Task, Ordering::Release);
    }

    /// Counts a caller in. Only under the shard's lock, while the flight is linked there (T2).
    pub(super) fn count_in(&self) {
        // In this order: a thread that sees the second caller also sees that they share.
        self.shared.store(true, Ordering::Release);
        self.callers.fetch_add(1, Ordering::AcqRel);
    }

    /// Lets nobody join any more; callers that have joined go on. Returns whether the flight was linked.
    pub(crate) fn detach(&self) -> bool {
        self.link.unlink().is_some()
    }

    /// As `detach`. The flight then ends when its last caller leaves, or now if there is none, even if it was kept.
    #[cfg(any(feature = "http", loom))]
    pub(crate) fn release(self: &Arc<Self>) {
        let unlinked = self.link.unlink_if(|| {
            self.state().kept = false;
            true
        });
        drop(unlinked);
        self.cancel_if_deserted();
    }

    /// Whether the leader has left.
    #[cfg(feature = "http")]
    pub(crate) fn leader_has_left(&self) -> bool {
        self.state().leader_left
    }

    /// Whether the work has ended or was cancelled.
    #[cfg(feature = "http")]
    pub(crate) fn is_over(&self) -> bool {
        self.state().is_over
    }

    // ===== ending =====

    /// Ends the flight with the work's result, after the work was dropped. Unlinks the flight before its callers can
    /// see that (F5).
    ///
    /// What is only for the leader waits here, or is returned if the leader itself polled the work.
    pub(super) fn end(&self, result: WorkResult<V>, by_leader: bool) -> Option<WorkResult<V>> {
        let unlinked = self.link.unlink();
        let (ending, mut own) = match result {
            Ok(value) if self.is_shared() => (Ending::Value(value), None),
            // Nobody else is in the flight, or can join it.
            Ok(value) if by_leader => return Some(Ok(value)),
            Ok(value) => (Ending::Unshared, Some(Ok(value))),
            Err(payload) => (Ending::Panicked(Message::of(&payload)), Some(Err(payload))),
        };
        let wakers = {
            let mut state = self.state();
            state.is_over = true;
            let set = self.ending.set(ending);
            debug_assert!(set.is_ok(), "a flight ends once");
            if !by_leader && !state.leader_left {
                state.for_leader = own.take();
            }
            let mut wakers = state.slots.close();
            // The task may have found the work taken and parked.
            wakers.push(state.task.take());
            wakers
        };
        wakers.wake();
        if !by_leader {
            // The leader has left.
            drop_quietly(own.take());
        }
        drop(unlinked);
        own
    }

    /// Takes what is only for the leader.
    pub(super) fn take_for_leader(&self) -> Option<WorkResult<V>> {
        self.state().for_leader.take()
    }

    // ===== leaving =====

    /// Counts callers out. The last one cancels the work at once.
    pub(crate) fn count_out(self: &Arc<Self>, leaving: usize) {
        let mut callers = self.callers.load(Ordering::Acquire);
        while callers > leaving {
            match self.callers.compare_exchange_weak(
                callers,
                callers - leaving,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return,
                Err(now) => callers = now,
            }
        }
        // Callers join under this lock, so the last one is really the last (T2).
        let unlinked = self.link.unlink_if(|| {
            self.callers.fetch_sub(leaving, Ordering::AcqRel) == leaving && !self.goes_on()
        });
        match unlinked {
            Ok(unlinked) => self.cancel(unlinked),
            Err(()) => self.keep(),
        }
    }

    /// Whether the flight is kept, and a task drives it or can (F8).
    fn goes_on(&self) -> bool {
        let state = self.state();
        state.kept && (state.driver == Driver::Task || state.keeper.is_some())
    }

    /// Lets a task drive a kept flight after its driving leader has left.
    fn keep(self: &Arc<Self>) {
        let keeper = {
            let mut state = self.state();
            if state.driver == Driver::Task {
                return;
            }
            // If there is no keeper, a caller has joined meanwhile and drives.
            let Some(keeper) = state.keeper.take() else {
                return;
            };
            self.set_driver(&mut state, Driver::Task);
            keeper
        };
        (keeper.spawn)(&keeper.runtime, Arc::clone(self));
    }

    /// Cancels a flight that nobody drives, if nobody waits for it either.
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
            // The thread that polls the work drops it as soon as that poll returns (F1).
            state.is_over = true;
            (state.work.take(), state.task.take())
        };
        if let Some(task) = task {
            task.wake();
        }
        drop(unlinked);
        if let Some(work) = work {
            cancel(work);
        }
    }

    /// Frees the waker slot of a caller that leaves. Returns what to drop outside the lock: its waker, and those of
    /// callers that waited for the leader's first poll (F9).
    pub(super) fn free(
        &self,
        slot: &mut WakerSlot,
    ) -> (Option<Waker>, Option<WorkResult<V>>, Wakers) {
        let mut state = self.state();
        let waker = state.slots.free(slot);
        if !matches!(slot, WakerSlot::Leader { .. }) {
            return (waker, None, Wakers::default());
        }
        let unheard = state.driver == Driver::Callers && state.must_be_polled_by_leader();
        let wakers = match unheard {
            true => state.slots.take_all(),
            false => Wakers::default(),
        };
        state.leader_left = true;
        (waker, state.for_leader.take(), wakers)
    }
}
