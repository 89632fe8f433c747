//! A caller's part in one of the layer's flights.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use crate::{
    buffer::Place,
    flights::{Cargo, Flight, Stage},
    group::{Caller, Interest, Runtime},
    observe::{self, Asker},
    rules::Variant,
};

/// A [`Caller`] that is counted in [`Stats::waiters`](crate::Stats), and still knows its flight when that has ended.
pub(crate) struct Seat<K> {
    flight: Arc<Flight<K>>,
    caller: Caller<(), (), Cargo<K>>,
    /// Its place among those who read the body.
    place: Place,
    ended: bool,
    /// Nothing was copied, nor is.
    alone: bool,
}

// ===== impl Seat =====

impl<K> Seat<K> {
    pub(crate) fn new(caller: Caller<(), (), Cargo<K>>, place: Place) -> Self {
        let flight = Arc::clone(caller.flight());
        flight.cargo.gauges.enter();
        Self {
            flight,
            caller,
            place,
            ended: false,
            alone: false,
        }
    }

    /// Whether the flight may have to send this reader on before the end of its body.
    pub(crate) fn may_move_on(&self) -> bool {
        !self.flight.cargo.exchange.lock().buffer.is_reserved()
    }

    pub(crate) fn place(&self) -> Place {
        self.place
    }

    pub(crate) fn flight(&self) -> &Arc<Flight<K>> {
        &self.flight
    }

    /// The flight of which this is the leader's seat is for this variant: who differs need not wait for its head.
    pub(crate) fn set_variant(&self, variant: Variant) {
        self.flight.cargo.exchange.lock().variant = Some(variant);
    }

    /// The leader leaves a flight that was closed while it was alone.
    pub(crate) fn leave_alone(mut self) {
        self.alone = true;
    }

    pub(crate) fn take_waker(&self) -> Option<std::task::Waker> {
        self.caller.take_waker()
    }
}

impl<K: Send + Sync + 'static> Seat<K> {
    /// The leader's first act.
    pub(crate) fn start<F, Fut>(&mut self, work: F)
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.caller.start(work);
    }

    /// A follower's first act.
    pub(crate) fn board(&self, follower: &Asker) {
        self.flight.cargo.trace.joined(follower);
        self.caller.board();
    }

    /// The flight goes on though every caller leaves, if there is a runtime for it.
    pub(crate) fn finish_abandoned(&self) {
        if let Some(runtime) = Runtime::current() {
            self.caller.keep_on(runtime);
        }
    }

    /// Drives the flight where that is this caller's part, and leaves its waker. Ready when the flight has ended, which
    /// may be asked again.
    ///
    /// # Panics
    ///
    /// If the flight crashed.
    pub(crate) fn poll(&mut self, interest: Interest, cx: &mut Context<'_>) -> Poll<()> {
        if !self.ended {
            std::task::ready!(self.caller.poll(interest, cx));
            self.ended = true;
        }
        Poll::Ready(())
    }
}

impl<K> Drop for Seat<K> {
    fn drop(&mut self) {
        let cargo = &self.flight.cargo;
        cargo.gauges.leave();
        self.caller.leave();
        if self.alone {
            return;
        }
        // A task that has not noticed yet, or a waker that somebody keeps, may hold the flight for longer.
        let (kept, spent, is_missed) = {
            let mut exchange = cargo.exchange.lock();
            let is_missed = exchange.buffer.leave(self.place);
            let is_over = exchange.buffer.readers() == 0
                && (matches!(exchange.stage, Stage::Closed) || self.flight.is_over());
            let spent = exchange.buffer.take_spent();
            let kept = is_over.then(|| exchange.buffer.discard());
            (kept, spent, is_missed)
        };
        drop((kept, spent));
        if is_missed {
            self.flight.wake_progress();
        }
        observe::settle();
    }
}

impl<K> fmt::Debug for Seat<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat")
            .field("caller", &self.caller)
            .finish_non_exhaustive()
    }
}
