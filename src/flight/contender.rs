//! A flight's part in the protocol across replicas, and how the protocol sees the flight.
//!
//! Nothing here is called under the lock of a shard or a flight; [`LocalFlight::join`] takes both.

use std::{
    cell::RefCell,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use http::request;
use tokio::time::Instant;

use super::state::Flight;
use crate::{
    key::KeyExtractor,
    replicas::{
        Answering, Contest, ContestOutcome, Digest, LocalFlight, NotShared, Refusal, RemoteSeat,
        Unjoined, http::variant_name,
    },
    rules::Variant,
    shared::{Flights, Replicated, Shared},
};

/// The work's part in the protocol.
pub(crate) struct Contender {
    /// The name of the request's flights.
    pub(super) request: Digest,
    pub(super) part: RefCell<Part>,
    /// While the callers that it is for are moved here.
    pub(super) others: RefCell<Option<ForOthers>>,
}

/// An answer for another variant than the leader's.
pub(super) struct ForOthers {
    pub(super) body: Bytes,
    pub(super) covered: u64,
    pub(super) values: Digest,
}

#[derive(Default)]
pub(super) enum Part {
    /// Nobody knows yet who makes the call.
    Waits(Contest),
    /// Another replica's answer for these callers came to the flight in which they were before.
    Answered(ContestOutcome),
    /// This replica makes the call.
    Calls(Contest),
    /// The call has ended, and followers at other replicas wait.
    Ended(Answering),
    #[default]
    None,
}

/// A flight as the protocol sees it. Weak, because it is dropped under the protocol's lock.
struct FlightForReplicas<K> {
    flight: Weak<Flight<K>>,
    flights: Weak<Flights<K>>,
    max_waiters: usize,
}

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
            Some((body, covered)) => Part::Answered(ContestOutcome::Answer { body, covered }),
            None => {
                let of = |own| variant_name(&replicated.client, name, &own);
                let contested = variant.map_or(name, of);
                Part::Waits(contend(shared, replicated, flight, contested))
            }
        };
        Self {
            request: name,
            part: RefCell::new(part),
            others: RefCell::new(None),
        }
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
    let note = |entry| {
        let contending = &mut flight.data.state().contending;
        contending.entry = Some(entry);
        contending.asked
    };
    replicated.client.contend(name, target, seen, asked, note)
}

// ===== impl FlightForReplicas =====

impl<K> LocalFlight for FlightForReplicas<K>
where
    K: Send + Sync + 'static,
{
    fn join(&self) -> Result<Arc<dyn RemoteSeat>, Unjoined<Arc<dyn RemoteSeat>>> {
        let flight = self.flight.upgrade().ok_or(Refusal::Gone)?;
        let Some(flights) = self.flights.upgrade() else {
            return Err(Unjoined::with(Refusal::Gone, flight));
        };
        let now = Instant::now();
        if flights.unshareable.contains(flight.data.hash, now) {
            let why = Refusal::Alone(NotShared::Unshareable);
            return Err(Unjoined::with(why, (flight, flights)));
        }
        let joined = flight.join_if(|flight| {
            let data = &flight.data;
            if !flights.is_enabled() || !flights.can_be_joined(data, now) {
                return Err(Refusal::Gone);
            }
            let mut state = data.state();
            if state.is_closed {
                return Err(Refusal::Gone);
            }
            if flight.callers() >= self.max_waiters {
                return Err(Refusal::Alone(NotShared::Full));
            }
            state.is_joined = true;
            Ok(())
        });
        match joined {
            Ok(caller) => Ok(Arc::new((caller, flights))),
            Err(why) => Err(Unjoined::with(why, (flight, flights))),
        }
    }

    fn detach(&self) {
        if let Some(flight) = self.flight.upgrade() {
            flight.detach();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        pin::Pin,
        task::{Context, Poll},
    };

    use http::{Request, Response};
    use http_body::{Body, Frame, SizeHint};
    use http_body_util::Full;
    use tower::{Layer, ServiceExt, service_fn};

    use super::*;
    use crate::{SingleflightLayer, key::method_and_uri, sync::Mutex};

    type Look = Box<dyn FnOnce() + Send>;

    /// A body that looks around when it is dropped.
    struct Looks(Full<Bytes>, Option<Look>);

    impl Body for Looks {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Pin::new(&mut self.0).poll_frame(cx)
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_end_stream()
        }

        fn size_hint(&self) -> SizeHint {
            self.0.size_hint()
        }
    }

    impl Drop for Looks {
        fn drop(&mut self) {
            self.1.take().into_iter().for_each(|look| look());
        }
    }

    #[tokio::test]
    async fn nobody_joins_from_elsewhere_while_the_body_of_a_complete_response_is_dropped() {
        let layer = SingleflightLayer::with_key(method_and_uri).finish_abandoned(true);
        let flights = Arc::clone(&layer.layer(()).shared.flights);
        let joined = Arc::new(Mutex::new(None));
        let inner = {
            let joined = Arc::clone(&joined);
            service_fn(move |_: Request<Full<Bytes>>| {
                let (flights, joined) = (Arc::clone(&flights), Arc::clone(&joined));
                let look = move || {
                    let flight = flights.table.all().next().expect("it has not ended");
                    let seen = FlightForReplicas {
                        flight: Arc::downgrade(&flight),
                        flights: Arc::downgrade(&flights),
                        max_waiters: usize::MAX,
                    };
                    *joined.lock() = Some(seen.join().is_ok());
                };
                let body = Looks(Full::from("page"), Some(Box::new(look)));
                std::future::ready(Ok::<_, Infallible>(Response::new(body)))
            })
        };
        let request = Request::new(Full::default());
        let response = layer.layer(inner).oneshot(request).await;
        assert!(response.is_ok());
        assert_eq!(*joined.lock(), Some(false));
        assert_eq!(layer.handle().in_flight(), 0);
    }
}
