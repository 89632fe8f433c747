//! One caller's part in a flight: counted in when it is made, counted out when it is dropped.

use std::{
    fmt,
    future::Future,
    panic::resume_unwind,
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    drive::{Landed, Polled},
    ending::{Ending, Message, Payload, caught, drop_quietly},
    flight::{Flight, Work},
    outcome::Outcome,
    runtime::Runtime,
    wakers::{Interest, Place},
};

/// Leaves the flight when dropped, on whatever way. It exists before any of the user's code is called for the flight.
pub(crate) struct Caller<K, V, C> {
    /// `None` once the flight has ended for this caller.
    flight: Option<Arc<Flight<K, V, C>>>,
    place: Place,
}

impl<K, V, C> Caller<K, V, C> {
    pub(super) fn leader(flight: Arc<Flight<K, V, C>>) -> Self {
        Self {
            flight: Some(flight),
            place: Place::Leader,
        }
    }

    pub(super) fn follower(flight: Arc<Flight<K, V, C>>) -> Self {
        Self {
            flight: Some(flight),
            place: Place::None,
        }
    }

    pub(super) fn leads(&self) -> bool {
        matches!(self.place, Place::Leader)
    }

    pub(crate) fn flight(&self) -> &Arc<Flight<K, V, C>> {
        self.flight
            .as_ref()
            .expect("the flight has ended for this caller")
    }

    /// What `flight`, which has ended, gave to its leader alone.
    fn take_own(&self, flight: &Flight<K, V, C>) -> Option<Result<V, Payload>> {
        match (&self.place, flight.ending()) {
            (Place::Leader, Some(Ending::Unshared | Ending::Panicked(_))) => flight.take_own(),
            _ => None,
        }
    }
}

impl<K, V, C> Caller<K, V, C>
where
    K: Send + 'static,
    V: Send + Sync + 'static,
    C: Send + Sync + 'static,
{
    /// The leader's part: calls `work`, and puts what it gives into the flight.
    ///
    /// # Panics
    ///
    /// If `work` does: the flight has then crashed for all who joined.
    pub(crate) fn start<F, Fut>(&mut self, work: F)
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = V> + Send + 'static,
    {
        match caught(|| Box::pin(work()) as Work<V>) {
            Ok(work) => self.flight().launch(work),
            Err(payload) => self.crash(payload),
        }
    }

    /// The work has panicked in the leader's own hands.
    fn crash(&mut self, payload: Payload) -> ! {
        if let Some(flight) = self.flight.take() {
            flight.crash(Message::of(&payload), None);
        }
        resume_unwind(payload)
    }

    /// The leader's part where the flight was solo: brings into it what the leader has of the work. Gives the value back if
    /// nobody shares it; else this is to be polled.
    ///
    /// # Panics
    ///
    /// If the work did.
    pub(super) fn hand_in(&mut self, polled: Polled<V>) -> Option<V> {
        match polled {
            Polled::Pending(work) => self.flight().launch(work),
            Polled::Value(value) => {
                let value = self.flight().land_here(value)?;
                self.flight = None;
                return Some(value);
            }
            Polled::Panicked(payload) => self.crash(payload),
        }
        None
    }

    /// A follower's part: from now on the flight does not depend on its leader.
    pub(crate) fn board(&self) {
        self.flight().promote();
    }

    /// As `board`, on a runtime that is known.
    pub(crate) fn board_on(&self, runtime: &Runtime) {
        self.flight().promote_on(runtime);
    }

    /// From now on the flight goes on to its end on `runtime` though every caller leaves.
    pub(crate) fn keep_on(&self, runtime: Runtime) {
        self.flight().keep_on(runtime);
    }

    /// Drives the work where that is this caller's part, and leaves the waker.
    ///
    /// # Panics
    ///
    /// If the work did: the leader with its payload, a follower with its message.
    pub(crate) fn poll(
        &mut self,
        interest: Interest,
        cx: &mut Context<'_>,
    ) -> Poll<Ended<K, V, C>> {
        let flight = self.flight.as_ref().expect("polled after completion");
        let landed = if flight.ending().is_some() {
            Landed::Shared
        } else {
            std::task::ready!(flight.poll_caller(&mut self.place, interest, cx))
        };
        let flight = self.flight.take().expect("looked at just now");
        match landed {
            Landed::Alone(value) => Poll::Ready(Ended::Alone(value)),
            Landed::Panicked(payload) => {
                drop(flight);
                resume_unwind(payload)
            }
            Landed::Shared => match (flight.ending(), self.take_own(&flight)) {
                (_, Some(Ok(value))) => Poll::Ready(Ended::Alone(value)),
                (_, Some(Err(payload))) => {
                    drop(flight);
                    resume_unwind(payload)
                }
                (Some(Ending::Panicked(message)), None) => {
                    let message = message.clone();
                    // What it owns is not to be dropped in a panic.
                    drop(flight);
                    message.resume()
                }
                (_, None) => Poll::Ready(Ended::Shared(flight)),
            },
        }
    }
}

#[cfg(feature = "http")]
impl<K, V, C> Caller<K, V, C> {
    /// Takes this caller's waker, to be woken by who takes it.
    pub(crate) fn take_waker(&self) -> Option<std::task::Waker> {
        self.flight.as_ref()?.take_waker(&self.place)
    }
}

impl<K, V, C> Caller<K, V, C> {
    /// Leaves the flight, as dropping does.
    pub(crate) fn leave(&mut self) {
        let Some(flight) = self.flight.take() else {
            return;
        };
        if flight.ending().is_none() {
            let (waker, own) = flight.free(&self.place);
            drop_quietly(own);
            flight.count_out();
            drop(waker);
        } else {
            // Else a payload whose drop panics would be left to a follower, which may be panicking with its message.
            drop_quietly(self.take_own(&flight));
        }
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

/// The end of a flight, as one of its callers gets it.
pub(crate) enum Ended<K, V, C> {
    Alone(V),
    Shared(Arc<Flight<K, V, C>>),
}

impl<K, V, C> Ended<K, V, C> {
    /// As the caller gets it that `led` the flight, or did not.
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
    // Looked at first, since `try_unwrap` writes to what all of them read at this moment.
    let flight = match Arc::strong_count(&flight) {
        1 => Arc::try_unwrap(flight),
        _ => Err(flight),
    };
    match flight {
        Ok(flight) => match flight.into_ending() {
            Some(Ending::Value(value)) => value,
            _ => unreachable!("{INVARIANT}"),
        },
        Err(flight) => match flight.ending() {
            Some(Ending::Value(value)) => value.clone(),
            _ => unreachable!("{INVARIANT}"),
        },
    }
}
