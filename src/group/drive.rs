//! Driving a flight's work: by its leader, by a task, or by whichever caller is polled.
//!
//! The invariants cited here are those of [`flight`](super::flight).

use std::{
    mem,
    sync::{Arc, Weak},
    task::{Context, Poll, Wake, Waker},
};

use super::{
    cancel::cancel,
    flight::{Flight, FlightState, Keeper},
    panic::quietly,
    runtime::Runtime,
    state::Driver,
    wakers::{WakerSlot, Wakers},
    work::{Polled, PolledBy, Work, WorkResult},
};

/// Wakes every caller, because any of them may be the one to poll next. Weak, so that work that keeps its waker keeps
/// no value alive.
struct WakeCallers<K, V, C>(Weak<Flight<K, V, C>>);

// ===== impl Flight =====

impl<K, V, C> Flight<K, V, C> {
    /// Stores `waker` in `slot` and runs `then` under the same lock (F2). `None` if the flight has ended.
    ///
    /// Also returns the previous waker. Dropping it is user code, so the caller must not hold the work then.
    fn leave_waker<T>(
        &self,
        slot: &mut WakerSlot,
        waker: &Waker,
        then: impl FnOnce(&mut FlightState<K, V, C>) -> T,
    ) -> Option<(T, Option<Waker>)> {
        // Cloned outside the lock (F6), and at once by a caller that has stored none yet.
        let mut fresh = slot.is_new().then(|| waker.clone());
        loop {
            let mut state = self.state();
            if state.is_over {
                return None;
            }
            let slot = state.slots.slot(slot);
            if !slot.as_ref().is_some_and(|old| old.will_wake(waker)) {
                let Some(new) = fresh.take() else {
                    drop(state);
                    fresh = Some(waker.clone());
                    continue;
                };
                fresh = slot.replace(new);
            }
            return Some((then(&mut state), fresh));
        }
    }

    /// Wakes the callers, because there is something new. A driving leader is being polled right now and will see it.
    pub(crate) fn wake_callers(&self) {
        let wakers = {
            let mut state = self.state();
            let mut wakers = state.slots.take_followers();
            if state.driver != Driver::Leader {
                wakers.push(state.slots.take_leader());
            }
            wakers
        };
        wakers.wake();
    }

    /// Lets the driving task poll the work once more. If callers drive, the asking caller polls it itself, or another
    /// one is polling it, which may have looked already.
    pub(crate) fn wake_driver(&self) {
        let wakers = {
            let mut state = self.state();
            state.note_wake_up();
            Wakers::one(state.task.clone())
        };
        wakers.wake();
    }

    /// Lets the leader drive again, if it is alone in a flight that nobody can join.
    ///
    /// The work calls this from within its poll.
    pub(crate) fn demote(&self) {
        if self.callers() == 1 {
            let mut state = self.state();
            if !state.leader_left {
                self.set_driver(&mut state, Driver::Leader);
            }
        }
    }
}

impl<K, V, C> Flight<K, V, C>
where
    K: Send + 'static,
    V: Send + Sync + 'static,
    C: Send + Sync + 'static,
{
    /// Puts new work into the flight, or work back after a poll, and lets the driver go on that it has now (F3). Returns
    /// this driver; `None` if the flight is over.
    pub(super) fn put_back(
        self: &Arc<Self>,
        mut work: Work<V>,
        polled_as: Driver,
    ) -> Option<Driver> {
        let mut state = self.state();
        if state.is_over {
            // It was cancelled while it was polled.
            drop(state);
            quietly(|| cancel(work));
            return None;
        }
        let driver = state.driver;
        let again = mem::take(&mut state.rewake);
        let spawn_on = match driver {
            _ if polled_as == Driver::Task => None,
            // Somebody has joined; or a kept flight's leader has left, and has spawned the task itself.
            Driver::Task => {
                let here = state.handover.take();
                here.map(|here| work.runtime().unwrap_or(here))
            }
            // The work has been polled within a runtime for the first time (F9).
            Driver::Callers => work.runtime(),
            Driver::Leader => None,
        };
        state.work = Some(work);
        if let Some(runtime) = spawn_on {
            self.set_driver(&mut state, Driver::Task);
            drop(state);
            Self::spawn(&runtime, Arc::clone(self));
            return Some(Driver::Task);
        }
        let wakers = match driver {
            _ if driver == polled_as && !again => Wakers::default(),
            Driver::Leader => Wakers::one(state.slots.take_leader()),
            Driver::Callers => state.slots.take_all(),
            // The task may have found the work taken, and have parked.
            Driver::Task => Wakers::one(state.task.clone()),
        };
        drop(state);
        wakers.wake();
        Some(driver)
    }

    /// Hands the driving over to a task, on the runtime to which the work belongs or else the current one; if there is
    /// neither, to the callers.
    pub(super) fn promote(self: &Arc<Self>) {
        if self.has_task() {
            return;
        }
        let runtime = {
            let mut state = self.state();
            if state.driver == Driver::Task {
                return;
            }
            let belongs = state.work.as_mut().and_then(Work::runtime);
            let Some(runtime) = belongs.or_else(Runtime::current) else {
                return self.set_driver(&mut state, Driver::Callers);
            };
            self.set_driver(&mut state, Driver::Task);
            if state.work.is_none() {
                // The thread that has the work spawns the task when it puts the work back, or none if the work has
                // ended.
                state.handover = Some(runtime);
                return;
            }
            runtime
        };
        Self::spawn(&runtime, Arc::clone(self));
    }

    /// Lets the flight run to its end on `runtime` after every caller has left.
    ///
    /// Called by a caller that is still in the flight, so nobody has looked for a keeper yet.
    pub(super) fn keep_on(&self, runtime: Runtime) {
        let keeper = Keeper {
            runtime,
            spawn: Self::spawn,
        };
        let keeper = Some(Box::new(keeper));
        let _old = {
            let mut state = self.state();
            state.kept = true;
            mem::replace(&mut state.keeper, keeper)
        };
    }

    /// One poll of a caller: stores its waker, and drives the work if that is its part. Ready when the flight has
    /// ended, with what is only for this caller.
    pub(super) fn poll_caller(
        self: &Arc<Self>,
        slot: &mut WakerSlot,
        cx: &mut Context<'_>,
    ) -> Poll<Option<WorkResult<V>>> {
        let leads = slot.leads();
        let turn = self.leave_waker(slot, cx.waker(), |state| {
            (state.take_work(leads), state.driver)
        });
        let Some(((work, driver), _old)) = turn else {
            return Poll::Ready(None);
        };
        let Some(work) = work else {
            return Poll::Pending;
        };
        let polled = match driver {
            Driver::Leader => work.poll(cx, PolledBy::Whole(self)),
            _ => {
                let waker = Waker::from(Arc::new(WakeCallers(Arc::downgrade(self))));
                work.poll(&mut Context::from_waker(&waker), PolledBy::Whole(self))
            }
        };
        match polled {
            Polled::Pending(work) => {
                self.put_back(work, driver);
                Poll::Pending
            }
            Polled::Ended(result) => Poll::Ready(self.end(result, leads)),
        }
    }
}

// ===== impl WakeCallers =====

impl<K, V, C> Wake for WakeCallers<K, V, C>
where
    K: Send + 'static,
    V: Send + Sync + 'static,
    C: Send + Sync + 'static,
{
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let Some(flight) = self.0.upgrade() else {
            return;
        };
        let wakers = {
            let mut state = flight.state();
            state.note_wake_up();
            state.slots.take_all()
        };
        wakers.wake();
    }
}
