//! One caller's part in a flight: counted in when it is made, counted out when it is dropped.

use std::{
    fmt,
    panic::resume_unwind,
    sync::Arc,
    task::{Context, Poll, ready},
};

use super::{
    flight::{Ending, Flight},
    outcome::Outcome,
    panic::drop_quietly,
    runtime::Runtime,
    state::Driver,
    wakers::WakerSlot,
    work::{Polled, WorkResult},
};

/// Leaves the flight when it is dropped, for whatever reason. It exists before any user code is called for the flight.
pub(crate) struct Caller<K, V, C> {
    /// `None` once the flight has ended for this caller.
    flight: Option<Arc<Flight<K, V, C>>>,
    slot: WakerSlot,
}

impl<K, V, C> Caller<K, V, C> {
    pub(super) fn leader(flight: Arc<Flight<K, V, C>>) -> Self {
        Self {
            flight: Some(flight),
            slot: WakerSlot::Leader { left: false },
        }
    }

    pub(super) fn follower(flight: Arc<Flight<K, V, C>>) -> Self {
        Self {
            flight: Some(flight),
            slot: WakerSlot::None,
        }
    }

    pub(super) fn leads(&self) -> bool {
        self.slot.leads()
    }

    pub(crate) fn flight(&self) -> &Arc<Flight<K, V, C>> {
        self.flight
            .as_ref()
            .expect("the flight has ended for this caller")
    }

    /// Takes what the ended `flight` holds only for its leader.
    fn take_for_leader(&self, flight: &Flight<K, V, C>) -> Option<WorkResult<V>> {
        match flight.ending.get() {
            Some(Ending::Unshared | Ending::Panicked(_)) if self.leads() => {
                flight.take_for_leader()
            }
            _ => None,
        }
    }

    /// Leaves the flight, as dropping does.
    pub(crate) fn leave(&mut self) {
        if let Some(flight) = self.free() {
            flight.count_out(1);
        }
    }

    /// Leaves a flight that has [counted it out](Flight::count_out) already.
    #[cfg(any(feature = "http", loom))]
    pub(crate) fn leave_uncounted(&mut self) {
        self.free();
    }

    /// Frees the waker slot. Returns the flight, unless it has ended.
    fn free(&mut self) -> Option<Arc<Flight<K, V, C>>> {
        let flight = self.flight.take()?;
        if flight.ending.get().is_none() {
            drop_quietly(flight.free(&mut self.slot));
            return Some(flight);
        }
        // Otherwise a follower would drop it, perhaps while it panics with the message, and the payload's drop may
        // panic too.
        drop_quietly(self.take_for_leader(&flight));
        None
    }
}

impl<K, V, C> Caller<K, V, C>
where
    K: Send + 'static,
    V: Send + Sync + 'static,
    C: Send + Sync + 'static,
{
    /// Calls `work`, and hands in what it returns.
    #[cfg(any(test, loom))]
    pub(crate) fn start<D>(&mut self, work: impl FnOnce() -> D)
    where
        D: super::work::Drive<Output = V> + 'static,
    {
        self.hand_in(super::work::Work::make(work));
    }

    /// Hands the leader's work over to the flight. Returns the value if nobody shares it; otherwise poll this caller.
    ///
    /// # Panics
    ///
    /// If the work did.
    pub(crate) fn hand_in(&mut self, polled: Polled<V>) -> Option<V> {
        let result = match polled {
            Polled::Ended(result) => result,
            Polled::Pending(work) => {
                self.flight().put_back(work, Driver::Leader);
                return None;
            }
        };
        let own = self.flight().end(result, true)?;
        self.flight = None;
        Some(own.unwrap_or_else(|payload| resume_unwind(payload)))
    }

    /// A caller's first act after it has entered: it keeps the flight, if it is to be `kept_on` a runtime, and makes it
    /// independent of its leader unless that is alone.
    pub(super) fn settle(&self, kept_on: Option<Runtime>) {
        let promotes = !self.leads() || kept_on.is_some();
        if let Some(runtime) = kept_on {
            self.flight().keep_on(runtime);
        }
        if promotes {
            self.flight().promote();
        }
    }

    /// Stores the waker, and drives the work if that is this caller's part.
    ///
    /// # Panics
    ///
    /// If the work did: the leader with its payload, a follower with its message.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CallerEnd<K, V, C>> {
        let flight = self.flight.as_ref().expect("polled after completion");
        let own = match flight.ending.get() {
            Some(_) => None,
            None => ready!(flight.poll_caller(&mut self.slot, cx)),
        };
        let flight = self.flight.take().expect("looked at just now");
        let message = match (
            own.or_else(|| self.take_for_leader(&flight)),
            flight.ending.get(),
        ) {
            (Some(Ok(value)), _) => return Poll::Ready(CallerEnd::Alone(value)),
            (Some(Err(payload)), _) => Err(payload),
            (None, Some(Ending::Panicked(message))) => Ok(message.clone()),
            (None, _) => return Poll::Ready(CallerEnd::Shared(flight)),
        };
        // Don't drop what the flight owns while panicking.
        drop(flight);
        match message {
            Ok(message) => message.resume(),
            Err(payload) => resume_unwind(payload),
        }
    }
}

#[cfg(feature = "http")]
impl<K, V, C> Caller<K, V, C> {
    /// Takes this caller's waker, which is then to be woken, unless the flight's end has done so.
    pub(crate) fn take_waker(&mut self) -> Option<std::task::Waker> {
        let flight = self.flight.as_ref()?;
        match flight.ending.get() {
            Some(_) => None,
            None => flight.state().slots.free(&mut self.slot),
        }
    }
}

#[cfg(any(feature = "http", loom))]
impl<K, V, C> Caller<K, V, C> {
    /// Leaves the lead of a new flight to the caller that [takes](Self::take_lead) it.
    pub(crate) fn give_up_lead(&mut self) {
        self.slot = WakerSlot::None;
    }

    /// Becomes the leader of a flight without one. Nobody waits and stores a waker there before somebody leads.
    pub(crate) fn take_lead(&mut self) {
        debug_assert!(self.slot.is_new(), "it has not been polled there");
        self.slot = WakerSlot::Leader { left: false };
    }
}

impl<K, V, C> Drop for Caller<K, V, C> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<K, V, C> fmt::Debug for Caller<K, V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("leads", &self.leads())
            .field("ended", &self.flight.is_none())
            .finish_non_exhaustive()
    }
}

/// The end of a flight, for one of its callers.
pub(crate) enum CallerEnd<K, V, C> {
    Alone(V),
    Shared(Arc<Flight<K, V, C>>),
}

impl<K, V, C> CallerEnd<K, V, C> {
    /// The end, for a caller that `led` the flight or not.
    pub(super) fn into_outcome(self, led: bool) -> Outcome<V>
    where
        V: Clone,
    {
        let value = match self {
            Self::Alone(value) => return Outcome::alone(value),
            Self::Shared(flight) => take_or_clone(flight),
        };
        Outcome {
            value,
            shared: true,
            led,
        }
    }
}

/// The last caller to hold the flight takes the value; the others clone it, outside any lock.
fn take_or_clone<K, V: Clone, C>(flight: Arc<Flight<K, V, C>>) -> V {
    const INVARIANT: &str = "a flight that ended for those who share it has a value";
    // Checked first, because `try_unwrap` writes to what all of them are reading now.
    let flight = match Arc::strong_count(&flight) {
        1 => Arc::try_unwrap(flight),
        _ => Err(flight),
    };
    match flight {
        Ok(flight) => match flight.ending.into_inner() {
            Some(Ending::Value(value)) => value,
            _ => unreachable!("{INVARIANT}"),
        },
        Err(flight) => match flight.ending.get() {
            Some(Ending::Value(value)) => value.clone(),
            _ => unreachable!("{INVARIANT}"),
        },
    }
}
