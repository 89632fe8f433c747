//! A caller's part in one of the layer's flights.

use std::{
    any::Any,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::request;

use super::state::{Decision, Flight, FollowerState, HttpFlight, State};
use crate::{
    buffer::ReaderId,
    group::{self, Polled, Runtime},
    observe,
};

/// A [`group::Caller`] that counts in [`Stats::waiters`](crate::Stats), has a place among the body's readers, and still
/// knows its flight after that has ended.
///
/// Dropping it gives up all of that.
pub(crate) struct Caller<K> {
    flight: Arc<Flight<K>>,
    inner: group::Caller<(), (), HttpFlight<K>>,
    part: Part,
    ended: bool,
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Reads(ReaderId),
    /// A follower that waits for its head, in this slot (S1).
    Waits(usize),
    /// A follower that has a complete response, which counts for it from now on.
    Complete,
    /// It has been counted out (S3).
    Dismissed,
    /// A follower that neither waits nor reads any more.
    Left,
}

// ===== impl Caller =====

impl<K> Caller<K> {
    fn new(inner: group::Caller<(), (), HttpFlight<K>>, part: Part) -> Self {
        let flight = Arc::clone(inner.flight());
        flight.data.counters.enter();
        flight.data.trace.count_caller();
        Self {
            flight,
            inner,
            part,
            ended: false,
        }
    }

    pub(super) fn take_waker(&mut self) -> Option<std::task::Waker> {
        self.inner.take_waker()
    }

    /// Makes a caller the leader of a flight without one.
    pub(super) fn take_lead(&mut self) {
        self.inner.take_lead();
    }

    pub(super) fn leader(inner: group::Caller<(), (), HttpFlight<K>>) -> Self {
        Self::new(inner, Part::Reads(ReaderId::Leader))
    }

    /// One that has led the flight while it was solo, and is counted already.
    pub(super) fn was_solo(inner: group::Caller<(), (), HttpFlight<K>>) -> Self {
        Self {
            flight: Arc::clone(inner.flight()),
            inner,
            part: Part::Reads(ReaderId::Leader),
            ended: false,
        }
    }

    /// The response that the work has left for its leader.
    pub(super) fn take_response(&self) -> Option<Box<dyn Any + Send>> {
        self.flight.data.state().response.take()
    }

    /// A follower that joins after the head has come.
    pub(super) fn reader(inner: group::Caller<(), (), HttpFlight<K>>, place: ReaderId) -> Self {
        Self::new(inner, Part::Reads(place))
    }

    pub(super) fn waiter(inner: group::Caller<(), (), HttpFlight<K>>, slot: usize) -> Self {
        Self::new(inner, Part::Waits(slot))
    }

    /// Whether this reader may have to move on before the end of the body.
    pub(crate) fn may_move_on(&self) -> bool {
        !self.flight.data.state().buffer.keeps_all()
    }

    /// Its place among the body's readers.
    pub(crate) fn place(&self) -> ReaderId {
        match self.part {
            Part::Reads(place) => place,
            _ => unreachable!("only a reader asks"),
        }
    }

    pub(crate) fn flight(&self) -> &Arc<Flight<K>> {
        &self.flight
    }

    /// Takes the decision for a waiting follower, which then waits no longer.
    pub(super) fn take_decision(&mut self) -> Option<Decision<K>> {
        let slot = self.slot();
        let data = &self.flight.data;
        let (decision, place, _unread) = {
            let mut state = data.state();
            let (decision, place) = state.take_decision(slot, &data.counters)?;
            let unread = match decision {
                Decision::Complete(..) => take_unread(&self.flight, &mut state),
                _ => None,
            };
            (decision, place, unread)
        };
        self.part = match decision {
            Decision::Complete(..) => Part::Complete,
            Decision::Begin(..) | Decision::Lead(..) => Part::Reads(place),
            Decision::Move(..) | Decision::Forward(..) | Decision::Fail(..) => Part::Dismissed,
        };
        if let Decision::Lead(..) = decision {
            self.inner.take_lead();
        }
        Some(decision)
    }

    /// Whether a waiting follower was dismissed (S3).
    pub(super) fn is_dismissed(&self) -> bool {
        self.flight.data.state().is_dismissed(self.slot())
    }

    /// A follower that has waited long enough leaves, with its request's head. `None` if it already has a decision.
    pub(crate) fn give_up(&mut self) -> Option<Box<request::Parts>> {
        let slot = self.slot();
        let mut state = self.flight.data.state();
        if !state.may_give_up(slot) {
            return None;
        }
        let (FollowerState::Here { head, .. }, _) = state.leave(slot) else {
            unreachable!("nothing is decided for it");
        };
        drop(state);
        self.part = Part::Left;
        Some(head)
    }

    fn slot(&self) -> usize {
        match self.part {
            Part::Waits(slot) => slot,
            _ => unreachable!("a follower waits until something is decided"),
        }
    }
}

impl<K: Send + Sync + 'static> Caller<K> {
    /// Hands the leader's work over to the flight.
    ///
    /// # Panics
    ///
    /// If the work did.
    pub(super) fn hand_in(&mut self, polled: Polled<()>) {
        // If that ends the flight, its leader's response is there, and so is the end of its body: nobody polls this again.
        self.inner.hand_in(polled);
    }

    /// A follower's first act: from now on the flight does not depend on its leader.
    pub(crate) fn promote(&self) {
        self.flight.promote();
    }

    /// Lets the flight go on after every caller has left, if there is a runtime for it.
    pub(crate) fn finish_abandoned(&self) {
        if let Some(runtime) = Runtime::current() {
            self.flight.keep_on(runtime);
        }
    }

    /// Drives the flight if that is this caller's part, and stores its waker. Ready when the flight has ended; may be
    /// polled again then.
    ///
    /// # Panics
    ///
    /// If the flight's work did.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.ended {
            ready!(self.inner.poll(cx));
            self.ended = true;
        }
        Poll::Ready(())
    }
}

impl<K> Drop for Caller<K> {
    fn drop(&mut self) {
        let data = &self.flight.data;
        let mut waiting = None;
        if let Part::Waits(slot) = self.part {
            let (left, is_dismissed) = data.state().leave(slot);
            self.part = match is_dismissed {
                true => Part::Dismissed,
                false => Part::Left,
            };
            waiting = Some(left);
        }
        match self.part {
            Part::Dismissed => {
                self.inner.leave_uncounted();
                return drop(waiting);
            }
            Part::Complete => return self.inner.leave(),
            _ => {}
        }
        data.counters.leave(1);
        self.inner.leave();
        let place = match self.part {
            Part::Reads(place) => Some(place),
            _ => None,
        };
        // A task that has not noticed yet, or a stored waker, may hold the flight for longer.
        let (kept, spent, unclaimed, is_missed) = {
            let mut state = data.state();
            let is_missed = place.is_some_and(|place| state.buffer.leave(place));
            let spent = state.buffer.take_spent();
            // Its own response. One that is left later is dropped by the work.
            let unclaimed = match place {
                Some(ReaderId::Leader) => state.response.take(),
                _ => None,
            };
            let kept = take_unread(&self.flight, &mut state);
            (kept, spent, unclaimed, is_missed)
        };
        if is_missed {
            self.flight.wake_callers();
        }
        // Last: dropping what belongs to the user may panic.
        drop((kept, spent));
        observe::settle();
        drop((waiting, unclaimed));
    }
}

/// What is kept of a body that nobody will read any more.
fn take_unread<K>(flight: &Flight<K>, state: &mut State<K>) -> Option<impl Sized + use<K>> {
    let is_over = state.buffer.readers() == 0 && (state.is_closed || flight.is_over());
    is_over.then(|| (state.buffer.discard(), state.complete.take()))
}

/// Drops what is kept of a body that nobody reads: dismissed callers that don't know it yet still hold the flight.
pub(super) fn drop_unread<K>(flight: &Flight<K>) {
    let unread = take_unread(flight, &mut flight.data.state());
    drop(unread);
    observe::settle();
}
