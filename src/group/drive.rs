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
    wakers::{Interest, Place, Wakers},
    work::{Polled, Work, WorkResult},
};

/// Wakes every caller: nobody knows which of them will be polled. Work that keeps it keeps no value alive.
struct WakeCallers<K, V, C>(Weak<Flight<K, V, C>>);

// ===== impl Flight =====

impl<K, V, C> Flight<K, V, C> {
    /// Leaves `waker` at `place` and does `then` under the same lock (F2). `None` if the flight has ended.
    ///
    /// Gives the waker that lay there too, to be dropped when nothing is in hand: whoever made it may panic then.
    fn leave<T>(
        &self,
        place: &mut Place,
        interest: Interest,
        waker: &Waker,
        then: impl FnOnce(&mut FlightState<K, V, C>) -> T,
    ) -> Option<(T, Option<Waker>)> {
        // Cloned outside the lock (F6). One who has left none yet needs no look at it.
        let mut fresh = place.is_new().then(|| waker.clone());
        loop {
            let mut state = self.state();
            if state.is_over() {
                return None;
            }
            let slot = state.places.slot(place, interest);
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

    /// Wakes the leader, and the followers who wait for what the work says midway. A leader that drives is being polled
    /// right now: it will look.
    pub(crate) fn wake_progress(&self) {
        let wakers = {
            let mut state = self.state();
            let mut wakers = state.places.take_progress();
            if state.driver != Driver::Leader {
                wakers.push(state.places.take_leader());
            }
            wakers
        };
        wakers.wake();
    }

    /// Wakes the leader alone.
    pub(crate) fn wake_leader(&self) {
        let waker = self.state().places.take_leader();
        Wakers::one(waker).wake();
    }

    /// Has the work polled once more by the task that drives it. Where callers drive, the asking caller does so itself,
    /// unless another is at it, who may have looked already what there is to do: repeated by `put_back`.
    pub(crate) fn wake_driver(&self) {
        let wakers = {
            let mut state = self.state();
            state.rewake |=
                state.driver == Driver::Callers && matches!(state.work, WorkState::Polling);
            state.wake_task()
        };
        wakers.wake();
    }

    /// Gives a flight that nobody can join, and whose leader alone is left, back to its leader to drive.
    ///
    /// Called by the work, from within its poll.
    pub(crate) fn demote(&self) {
        if self.callers() == 1 {
            let mut state = self.state();
            if !state.leaderless {
                self.set_driver(&mut state, Driver::Leader);
                // Who had joined in this very poll has left: no task is to be spawned.
                let unused = state.handover.take();
                drop(state);
                drop(unused);
            }
        }
    }

    /// Puts work back after a poll, and gives what is to be done because it is not the poller's to drive any more (F3).
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
            Driver::Leader => Wakers::one(state.places.take_leader()),
            Driver::Callers => state.places.take_all(),
            Driver::Task => state.wake_task(),
        })
    }
}

impl<K, V, C> Flight<K, V, C>
where
    K: Send + 'static,
    V: Send + Sync + 'static,
    C: Send + Sync + 'static,
{
    /// Puts the work into the flight: its leader, who has it from nobody but itself.
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
            let belongs = match &state.work {
                WorkState::Gone => return,
                WorkState::Idle(work) => work.runtime(),
                WorkState::Starting | WorkState::Polling => None,
            };
            if state.driver == Driver::Task {
                return;
            }
            let Some(runtime) = belongs.or_else(here) else {
                return self.set_driver(&mut state, Driver::Callers);
            };
            self.set_driver(&mut state, Driver::Task);
            if !matches!(state.work, WorkState::Idle(_)) {
                // Who has the work spawns the task when it puts that back, and needs none if it has ended.
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

    /// From now on the flight goes on to its end on `runtime` though every caller leaves.
    ///
    /// The leader's to say, before it has left: so no leaver has looked yet.
    pub(super) fn keep_on(&self, runtime: Runtime) {
        self.set_keeper(Keeper {
            runtime,
            spawn: Self::spawn,
        });
    }

    /// A caller's turn: leaves its waker, and drives the work where that is its part. Ready when the flight has ended, with
    /// what is for this caller alone.
    pub(super) fn poll_caller(
        self: &Arc<Self>,
        place: &mut Place,
        interest: Interest,
        cx: &mut Context<'_>,
    ) -> Poll<Option<WorkResult<V>>> {
        let leads = place.leads();
        let turn = self.leave(place, interest, cx.waker(), |state| {
            (state.take_work_as(leads), state.driver)
        });
        let Some(((work, driver), _old)) = turn else {
            return Poll::Ready(None);
        };
        let Some(work) = work else {
            return Poll::Pending;
        };
        let polled = match driver {
            Driver::Leader => work.poll(cx),
            _ => {
                let waker = Waker::from(Arc::new(WakeCallers(Arc::downgrade(self))));
                work.poll(&mut Context::from_waker(&waker))
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
            // The caller that polls has registered before this wake-up and may park after it: repeated by `put_back`.
            state.rewake |= matches!(state.work, WorkState::Polling);
            state.places.take_all()
        };
        wakers.wake();
    }
}
