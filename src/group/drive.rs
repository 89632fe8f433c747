//! Driving a flight's work: by its leader, by a task, or by whichever caller is polled.
//!
//! The invariants cited here are those of [`flight`](super::flight).

use std::{
    panic::resume_unwind,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use super::{
    ending::{Message, Payload, caught, drop_quietly},
    flight::{Flight, Work},
    runtime::Runtime,
    state::{Back, Driver, Keeper, State, WorkState},
    task::Task,
    wakers::{Interest, Place},
};

/// What became of a poll of the work.
pub(super) enum Polled<V> {
    Pending(Work<V>),
    Value(V),
    Panicked(Payload),
}

/// What a caller's poll gives when its flight has ended.
pub(crate) enum Landed<V> {
    /// Nobody shares the value, so it was never published.
    Alone(V),
    /// The ending stands in the flight.
    Shared,
    /// This caller itself polled the panic: it goes on with the payload.
    Panicked(Payload),
}

/// Polls the work, and drops it when that was its last poll.
pub(super) fn poll_work<V>(mut work: Work<V>, cx: &mut Context<'_>) -> Polled<V> {
    match caught(|| work.as_mut().poll(cx)) {
        Ok(Poll::Pending) => Polled::Pending(work),
        // A work whose drop panics has panicked for all, though it gave a value.
        Ok(Poll::Ready(value)) => match caught(|| drop(work)) {
            Ok(()) => Polled::Value(value),
            Err(payload) => {
                drop_quietly(value);
                Polled::Panicked(payload)
            }
        },
        Err(payload) => {
            drop_quietly(work);
            Polled::Panicked(payload)
        }
    }
}

// ===== impl Flight =====

impl<K, V, C> Flight<K, V, C> {
    /// Leaves `waker` at `place` and does `then` under the same lock (F2). `None` if the flight has ended.
    ///
    /// `new`: the waker is sure to be another than the one left there, so it is cloned without a look at that, which
    /// would take the lock once more.
    fn leave<T>(
        &self,
        place: &mut Place,
        interest: Interest,
        waker: &Waker,
        new: bool,
        then: impl FnOnce(&mut State<K, V, C>) -> T,
    ) -> Option<T> {
        // Cloned, and the old one dropped, outside the lock (F6).
        let mut fresh = new.then(|| waker.clone());
        loop {
            let mut state = self.state();
            if matches!(state.work, WorkState::Gone) {
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
            let done = then(&mut state);
            drop(state);
            if fresh.is_some() {
                // Work may be in hand, or a task to be spawned.
                drop_quietly(fresh);
            }
            return Some(done);
        }
    }

    /// Wakes the leader, and the followers who wait for what the work says midway. A leader that drives is being polled
    /// right now: it will look.
    pub(crate) fn wake_progress(&self) {
        let wakers = {
            let mut state = self.state();
            let mut wakers = state.places.take_progress();
            if state.driver != Driver::Leader {
                wakers.push(state.places.take(&Place::Leader));
            }
            wakers
        };
        wakers.wake();
    }

    /// Wakes the leader alone.
    pub(crate) fn wake_leader(&self) {
        let wakers = self.state().places.take_leader();
        wakers.wake();
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
            if !state.is_leaderless() {
                self.set_driver(&mut state, Driver::Leader);
                // Who had joined in this very poll has left: no task is to be spawned.
                let unused = state.handover.take();
                drop(state);
                drop(unused);
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
    /// Puts the work into the flight: its leader, who has it from nobody but itself.
    pub(super) fn launch(self: &Arc<Self>, work: Work<V>) {
        let mut state = self.state();
        if let (WorkState::Starting, Driver::Leader) = (&state.work, state.driver) {
            state.work = WorkState::Idle(work);
            return;
        }
        let back = state.put_back(work, Driver::Leader);
        drop(state);
        self.finish(back);
    }

    /// Hands the driving over to a task, if there is a runtime to run it, else to the callers.
    pub(super) fn promote(self: &Arc<Self>) {
        if self.has_task() {
            return;
        }
        match Runtime::current() {
            Some(runtime) => self.promote_on(&runtime),
            None => {
                let mut state = self.state();
                if state.driver == Driver::Leader {
                    self.set_driver(&mut state, Driver::Callers);
                }
            }
        }
    }

    pub(super) fn promote_on(self: &Arc<Self>, runtime: &Runtime) {
        {
            let mut state = self.state();
            if state.driver == Driver::Task || matches!(state.work, WorkState::Gone) {
                return;
            }
            self.set_driver(&mut state, Driver::Task);
            if !matches!(state.work, WorkState::Idle(_)) {
                // Who has the work spawns the task when it puts that back, and needs none if it lands it.
                state.handover = Some(runtime.clone());
                return;
            }
        }
        Self::spawn(runtime, Arc::clone(self));
    }

    fn spawn(runtime: &Runtime, flight: Arc<Self>) {
        runtime.spawn(Task::new(flight));
    }

    /// Does what is left to do when work was put back.
    pub(super) fn finish(self: &Arc<Self>, back: Back<V>) {
        back.wakers.wake();
        if let Some(runtime) = &back.spawn_on {
            Self::spawn(runtime, Arc::clone(self));
        }
        drop_quietly(back.cancelled);
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

    /// A caller's turn: drives the work where that is its part, else leaves its waker.
    pub(crate) fn poll_caller(
        self: &Arc<Self>,
        place: &mut Place,
        interest: Interest,
        cx: &mut Context<'_>,
    ) -> Poll<Landed<V>> {
        if matches!(place, Place::Leader) {
            let mut state = self.state();
            let work = match state.driver {
                Driver::Leader => state.take_work(),
                _ => None,
            };
            if let Some(work) = work {
                let left = state.places.holds(place, cx.waker());
                drop(state);
                return self.poll_inline(work, left, place, cx);
            }
        }
        let new = matches!(place, Place::None);
        let leads = matches!(place, Place::Leader);
        let turn = self.leave(place, interest, cx.waker(), new, |state| {
            let work = match state.driver {
                Driver::Callers => state.take_work(),
                // The task has given the work back to its leader since it looked, and has found no waker to wake.
                Driver::Leader if leads => state.take_work(),
                _ => None,
            };
            (work, state.driver)
        });
        match turn {
            None => Poll::Ready(Landed::Shared),
            Some((None, _)) => Poll::Pending,
            Some((Some(work), Driver::Callers)) => self.poll_for_all(work, place),
            Some((Some(work), _)) => self.poll_inline(work, true, place, cx),
        }
    }

    /// The leader polls with its own waker, which it may have `left` already.
    fn poll_inline(
        self: &Arc<Self>,
        work: Work<V>,
        left: bool,
        place: &mut Place,
        cx: &mut Context<'_>,
    ) -> Poll<Landed<V>> {
        let work = match poll_work(work, cx) {
            Polled::Pending(work) => work,
            Polled::Value(value) => return Poll::Ready(self.landed_here(value)),
            Polled::Panicked(payload) => return Poll::Ready(self.crash_here(payload, place)),
        };
        // The waker is left in the lock in which the work goes back, lest a promotion lose it (F2, F3).
        let mut work = Some(work);
        let back = caught(|| {
            self.leave(place, Interest::Progress, cx.waker(), !left, |state| {
                work.take().map(|work| state.put_back(work, Driver::Leader))
            })
        });
        // A waker whose clone panics is the leader's own misfortune: the others still need the work.
        let (back, panic) = match back {
            Ok(back) => (back.flatten(), None),
            Err(payload) => {
                let back = work
                    .take()
                    .map(|work| self.state().put_back(work, Driver::Leader));
                (back, Some(payload))
            }
        };
        if let Some(back) = back {
            self.finish(back);
        }
        match panic {
            Some(payload) => resume_unwind(payload),
            None => Poll::Pending,
        }
    }

    /// A caller polls with a waker that wakes all of them.
    fn poll_for_all(self: &Arc<Self>, work: Work<V>, place: &mut Place) -> Poll<Landed<V>> {
        let waker = Waker::from(Arc::clone(self));
        match poll_work(work, &mut Context::from_waker(&waker)) {
            Polled::Pending(work) => {
                let back = self.state().put_back(work, Driver::Callers);
                self.finish(back);
                Poll::Pending
            }
            Polled::Value(value) => Poll::Ready(self.landed_here(value)),
            Polled::Panicked(payload) => Poll::Ready(self.crash_here(payload, place)),
        }
    }

    fn landed_here(&self, value: V) -> Landed<V> {
        match self.land_here(value) {
            Some(value) => Landed::Alone(value),
            None => Landed::Shared,
        }
    }

    fn crash_here(&self, payload: Payload, place: &Place) -> Landed<V> {
        let message = Message::of(&payload);
        match place {
            Place::Leader => {
                self.crash(message, None);
                Landed::Panicked(payload)
            }
            _ => {
                self.crash(message, Some(payload));
                Landed::Shared
            }
        }
    }
}

/// Wakes every caller: nobody knows which of them will be polled.
impl<K, V, C> Wake for Flight<K, V, C>
where
    K: Send + 'static,
    V: Send + Sync + 'static,
    C: Send + Sync + 'static,
{
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let wakers = {
            let mut state = self.state();
            // The caller that polls may have registered before this wake-up and park after it: repeated by `put_back`.
            state.rewake |= matches!(state.work, WorkState::Polling);
            state.places.take_all()
        };
        wakers.wake();
    }
}
