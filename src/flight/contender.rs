//! A flight's part in the protocol across replicas, and how the protocol sees the flight.
//!
//! Nothing here is called under a lock of a shard or a flight, but for [`LocalFlight::join`], which takes both.

use std::{
    mem,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use http::request;
use tokio::time::Instant;

use super::state::{Flight, HttpFlight};
use crate::{
    group,
    key::KeyExtractor,
    replicas::{
        Answering, Contest, Digest, LocalFlight, Reason, Refusal, RemoteSeat, Unjoined,
        http::variant_name,
    },
    rules::Variant,
    shared::{Flights, Replicated, Shared},
    sync::Mutex,
};

/// What the work holds of the protocol.
pub(crate) struct Contender {
    /// The name of the request's flights.
    pub(super) request: Digest,
    state: Mutex<Part>,
    /// While others are moved whom it is for.
    pub(super) others: Mutex<Option<ForOthers>>,
}

/// An answer that is for requests of another variant than the leader's.
pub(super) struct ForOthers {
    pub(super) body: Bytes,
    pub(super) covered: u64,
    pub(super) values: Digest,
}

pub(super) enum Part {
    /// It is not known yet who makes the call. Whether it contends for a variant of the request's flights.
    Waits {
        contest: Contest,
        is_variant: bool,
    },
    /// Another replica's answer, for the callers below this number, has come to the flight that they were in before.
    Answered(Bytes, u64),
    /// This replica makes the call.
    Calls(Contest),
    /// The call has ended, and followers elsewhere wait.
    Ended(Answering),
    None,
}

/// As the protocol sees a flight. Weak: it is dropped under the protocol's lock.
struct FlightForReplicas<K> {
    flight: Weak<Flight<K>>,
    flights: Weak<Flights<K>>,
    max_waiters: usize,
}

/// A follower elsewhere: a caller that does not read.
struct RemoteFollower<K> {
    caller: group::Caller<(), (), HttpFlight<K>>,
    _flights: Arc<Flights<K>>,
}

/// What is not to be dropped under a lock.
struct Spare<T>(T);

// ===== impl Contender =====

impl Contender {
    /// The leader contends for its flight.
    pub(crate) fn new<X: KeyExtractor>(
        shared: &Arc<Shared<X>>,
        replicated: &Replicated<X::Key>,
        flight: &Arc<Flight<X::Key>>,
        request: &request::Parts,
    ) -> Self {
        let name = replicated.name(request, &flight.data.key);
        let (variant, answer) = {
            let mut state = flight.data.state();
            let variant = state.variant.as_ref().map(own);
            (variant, state.contending.answer.take())
        };
        let part = match answer {
            Some((body, covered)) => Part::Answered(body, covered),
            None => {
                let is_variant = variant.is_some();
                let contested =
                    variant.map_or(name, |own| variant_name(&replicated.site, name, &own));
                Part::Waits {
                    contest: contend(shared, replicated, flight, contested),
                    is_variant,
                }
            }
        };
        Self {
            request: name,
            state: Mutex::new(part),
            others: Mutex::new(None),
        }
    }

    pub(super) fn take(&self) -> Part {
        mem::replace(&mut *self.state.lock(), Part::None)
    }

    pub(super) fn put(&self, part: Part) {
        *self.state.lock() = part;
    }
}

pub(super) fn own<T>((variant, _): &(Variant, T)) -> Variant {
    variant.clone()
}

pub(super) fn contend<X: KeyExtractor>(
    shared: &Arc<Shared<X>>,
    replicated: &Replicated<X::Key>,
    flight: &Arc<Flight<X::Key>>,
    name: Digest,
) -> Contest {
    let seen = Arc::new(FlightForReplicas {
        flight: Arc::downgrade(flight),
        flights: Arc::downgrade(&shared.flights),
        max_waiters: shared.settings.max_waiters,
    });
    let target = replicated.target(&flight.data.key);
    let asked = flight.data.state().contending.asked;
    let contest = replicated.site.contend(name, Some(target), seen, asked);
    // Whoever joins from here on says so itself.
    let now = {
        let mut state = flight.data.state();
        state.contending.entry = Some(contest.id());
        state.contending.asked
    };
    if now > asked {
        replicated.site.one_more(contest.id(), now - 1);
    }
    contest
}

// ===== impl FlightForReplicas =====

impl<K> LocalFlight for FlightForReplicas<K>
where
    K: Send + Sync + 'static,
{
    fn join(&self) -> Result<Arc<dyn RemoteSeat>, Unjoined<Arc<dyn RemoteSeat>>> {
        let flight = self.flight.upgrade().ok_or(Refusal::Gone)?;
        let Some(flights) = self.flights.upgrade() else {
            return Err(unjoined(Refusal::Gone, flight));
        };
        let now = Instant::now();
        if flights.unshareable.contains(flight.data.hash, now) {
            let why = Refusal::Alone(Reason::Unshareable);
            return Err(unjoined(why, (flight, flights)));
        }
        let joined = flight.join_if(|flight| {
            let data = &flight.data;
            if !flights.is_enabled() || !flights.is_fresh(data, now) {
                return Err(Refusal::Gone);
            }
            if data.is_silent(now) {
                return Err(Refusal::Gone);
            }
            let mut state = data.state();
            if state.is_closed {
                return Err(Refusal::Gone);
            }
            if flight.callers() >= self.max_waiters {
                return Err(Refusal::Alone(Reason::Full));
            }
            state.is_joined = true;
            Ok(())
        });
        match joined {
            Ok(caller) => Ok(Arc::new(RemoteFollower {
                caller,
                _flights: flights,
            })),
            Err(why) => Err(unjoined(why.unwrap_or(Refusal::Gone), (flight, flights))),
        }
    }

    fn detach(&self) {
        if let Some(flight) = self.flight.upgrade() {
            flight.detach();
        }
    }
}

fn unjoined<T: Send + Sync + 'static>(why: Refusal, spare: T) -> Unjoined<Arc<dyn RemoteSeat>> {
    Unjoined {
        why,
        spare: Some(Arc::new(Spare(spare))),
    }
}

// ===== impl RemoteFollower =====

impl<K> RemoteSeat for RemoteFollower<K>
where
    K: Send + Sync + 'static,
{
    fn start(&self) {
        self.caller.promote();
    }
}

impl<T: Send + Sync> RemoteSeat for Spare<T> {
    fn start(&self) {}
}
