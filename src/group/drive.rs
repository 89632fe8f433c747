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
    state::{Driver, Next, WorkState},
    wakers::{WakerSlot, Wakers},
    work::{Polled, PolledBy, Work, WorkResult},
};

/// Wakes every caller, since any of them may be the one that is polled. Weak: work that keeps its waker keeps no value alive.
struct WakeCallers<K, V, C>(Weak<Flight<K, V, C>>);

// ===== impl Flight =====

impl<K, V, C> Flight<K, V, C> {
    /// Leaves `waker` at `slot` and does `then` under the same lock (F2). `None` if the flight has ended.
    ///
    /// Also returns the waker that lay there. Its drop is the user's code: it belongs where no work is in hand.
    fn leave<T>(
        &self,
        slot: &mut WakerSlot,
        waker: &Waker,
        then: impl FnOnce(&mut FlightState<K, V, C>) -> T,
    ) -> Option<(T, Option<Waker>)> {
        // Cloned outside the lock (F6), and at once by a caller that has left none yet.
        let mut fresh = slot.is_new().then(|| waker.clone());
        loop {
            let mut state = self.state();
            if state.is_over() {
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

    /// Wakes the callers, for whom there is something new. A leader that drives is being polled right now: it will look.
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

    /// Wakes the leader alone.
    pub(crate) fn wake_leader(&self) {
        let waker = self.state().slots.take_leader();
        Wakers::one(waker).wake();
    }

    /// Lets the task that drives the work poll it once more. Where callers drive, the caller that asks does so itself, or
    /// another is at it, which may have looked already.
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
            if !state.leaderless {
                self.set_driver(&mut state, Driver::Leader);
                // A follower that joined in this very poll has left: no task is to be spawned.
                let unused = state.handover.take();
                drop(state);
                drop(unused);
            }
        }
    }

    /// Puts work back after a poll, and returns what is to be done if the driver has changed meanwhile (F3).
    pub(super) fn put_back(
        &self,
        state: &mut FlightState<K, V, C>,
        work: Work<V>,
        polled_as: Driver,
    ) -> Next<V> {
        if state.is_over() {
            return Next::Drop(work);
        }
        let driver = state.driver;
        let again = mem::take(&mut state.rewake);
        let spawn_on = match driver {
            // Somebody has joined, or the work has been polled within a runtime for the first time (F9).
            Driver::Task | Driver::Callers if polled_as != Driver::Task => {
                work.runtime().or_else(|| state.handover.take())
            }
            _ => None,
        };
        state.work = WorkState::Idle(work);
        if let Some(runtime) = spawn_on {
            self.set_driver(state, Driver::Task);
            return Next::Spawn(runtime);
        }
        Next::Wake(match driver {
            _ if driver == polled_as && !again => Wakers::default(),
            Driver::Leader => Wakers::one(state.slots.take_leader()),
            Driver::Callers => state.slots.take_all(),
            // The task may have found the work taken, and have parked.
            Driver::Task => Wakers::one(state.task.clone()),
        })
    }
}

impl<K, V, C> Flight<K, V, C>
where
    K: Send + 'static,
    V: Send + Sync + 'static,
    C: Send + Sync + 'static,
{
    /// Puts the work into the flight, by the leader that has made it.
    pub(super) fn launch(self: &Arc<Self>, work: Work<V>) {
        let next = self.put_back(&mut self.state(), work, Driver::Leader);
        self.go_on(next);
    }

    /// Hands the driving over to a task, on the runtime to which the work belongs or else `here`; or to the callers where
    /// there is neither.
    pub(super) fn promote(self: &Arc<Self>, here: impl FnOnce() -> Option<Runtime>) {
        if self.has_task() {
            return;
        }
        let runtime = {
            let mut state = self.state();
            if state.driver == Driver::Task {
                return;
            }
            let belongs = match &state.work {
                WorkState::Idle(work) => work.runtime(),
                _ => None,
            };
            let Some(runtime) = belongs.or_else(here) else {
                return self.set_driver(&mut state, Driver::Callers);
            };
            self.set_driver(&mut state, Driver::Task);
            if !matches!(state.work, WorkState::Idle(_)) {
                // The thread that has the work spawns the task when it puts the work back, and needs none if that has ended.
                state.handover = Some(runtime);
                return;
            }
            runtime
        };
        Self::spawn(&runtime, Arc::clone(self));
    }

    /// Does what is left to do when work was put back.
    pub(super) fn go_on(self: &Arc<Self>, next: Next<V>) {
        match next {
            Next::Wake(wakers) => wakers.wake(),
            Next::Spawn(runtime) => Self::spawn(&runtime, Arc::clone(self)),
            Next::Drop(work) => quietly(|| cancel(work)),
        }
    }

    /// Lets the flight go on to its end on `runtime` when every caller has left.
    ///
    /// A caller says so while it is in the flight, so that nobody has looked for a keeper in vain.
    pub(super) fn keep_on(&self, runtime: Runtime) {
        self.set_keeper(Keeper {
            runtime,
            spawn: Self::spawn,
        });
    }

    /// One poll of a caller: leaves its waker, and drives the work if that is its part. Ready when the flight has ended,
    /// with what is for this caller alone.
    pub(super) fn poll_caller(
        self: &Arc<Self>,
        slot: &mut WakerSlot,
        cx: &mut Context<'_>,
    ) -> Poll<Option<WorkResult<V>>> {
        let leads = slot.leads();
        let turn = self.leave(slot, cx.waker(), |state| {
            (state.take_work_as(leads), state.driver)
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
                let next = self.put_back(&mut self.state(), work, driver);
                self.go_on(next);
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
