//! A flight, from its call to its end.

use std::sync::Arc;
#[cfg(any(feature = "tracing", feature = "metrics"))]
use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering},
};

use tokio::time::Instant;

#[cfg(feature = "metrics")]
use super::metrics::{CALLERS, FLIGHT_SECONDS, FLIGHTS, of_layer};
#[cfg(feature = "tracing")]
use super::{TARGET, shown};
use super::{gauges::settle, request::CallerSpan};
use crate::group::{Name, WorkEnd};
#[cfg(feature = "tracing")]
use crate::group::{Span, report, report_end};

/// Reports one flight, from its call to its end.
#[derive(Clone)]
pub(crate) struct FlightTrace {
    #[cfg(any(feature = "tracing", feature = "metrics"))]
    flight: Arc<Traced>,
}

#[cfg(any(feature = "tracing", feature = "metrics"))]
struct Traced {
    layer: Arc<Name>,
    since: Instant,
    /// Its span: a child of the leader's, so that the call belongs to the leader's request whichever task drives it.
    begun: OnceLock<CallerSpan>,
    /// How many callers it has had. Those that are moved to the flight of their variant come before it begins.
    callers: AtomicU32,
}

/// Reports a call that panics before it returns a future; `None` once it has.
struct Calling<'a>(Option<&'a FlightTrace>);

// ===== impl FlightTrace =====

impl FlightTrace {
    /// For a flight that may begin `now`.
    pub(crate) fn new(layer: &Arc<Name>, now: Instant) -> Self {
        Self {
            #[cfg(any(feature = "tracing", feature = "metrics"))]
            flight: Arc::new(Traced {
                layer: Arc::clone(layer),
                since: now,
                begun: OnceLock::new(),
                callers: AtomicU32::new(0),
            }),
        }
    }

    /// The flight has a leader; this is its request.
    pub(crate) fn begin<B>(&self, leader: &CallerSpan, request: &http::Request<B>) {
        #[cfg(any(feature = "tracing", feature = "metrics"))]
        {
            let begun = CallerSpan {
                #[cfg(feature = "tracing")]
                span: Span::new(|| {
                    tracing::info_span!(
                        target: TARGET,
                        parent: &leader.span.0,
                        "singleflight",
                        layer = shown(&self.flight.layer),
                        method = %request.method(),
                        path = request.uri().path(),
                    )
                }),
            };
            let _ = self.flight.begun.set(begun);
            #[cfg(feature = "metrics")]
            of_layer(&self.flight.layer, |layer| {
                metrics::gauge!(FLIGHTS, "layer" => layer).increment(1.0);
            });
        }
    }

    /// Runs what may panic before there is any work: it makes the work, or calls the inner service.
    pub(crate) fn calling<T>(&self, call: impl FnOnce() -> T) -> T {
        let mut calling = Calling(Some(self));
        let called = self.within(call);
        calling.0 = None;
        called
    }

    /// The flight has one more caller.
    pub(crate) fn count_caller(&self) {
        #[cfg(any(feature = "tracing", feature = "metrics"))]
        self.flight.callers.fetch_add(1, Ordering::Relaxed);
    }

    /// A follower has joined: its span follows from the flight's.
    pub(crate) fn joined(&self, follower: &CallerSpan) {
        #[cfg(feature = "tracing")]
        if let Some(begun) = self.flight.begun.get() {
            report(|| {
                let span = &follower.span.0;
                span.follows_from(&begun.span.0);
                tracing::debug!(target: TARGET, parent: span, layer = shown(&self.flight.layer), "joined");
            });
        }
    }

    /// Runs a part of the flight in its span.
    pub(crate) fn within<T>(&self, part: impl FnOnce() -> T) -> T {
        #[cfg(feature = "tracing")]
        let _entered = self.flight.begun.get().map(|begun| begun.span.enter());
        let value = part();
        // After a panic, dropping the trace does it.
        settle();
        value
    }

    /// The work has been dropped.
    pub(crate) fn ended(&self, end: WorkEnd) {
        #[cfg(any(feature = "tracing", feature = "metrics"))]
        if let Some(begun) = self.flight.begun.get() {
            let callers = self.flight.callers.load(Ordering::Relaxed);
            let duration = self.flight.since.elapsed();
            #[cfg(feature = "tracing")]
            report(|| {
                let (span, layer) = (&begun.span.0, shown(&self.flight.layer));
                report_end!(end, target: TARGET, parent: span, layer, callers, ?duration);
            });
            #[cfg(feature = "metrics")]
            of_layer(&self.flight.layer, |layer| {
                metrics::gauge!(FLIGHTS, "layer" => layer.clone()).decrement(1.0);
                metrics::histogram!(FLIGHT_SECONDS, "layer" => layer.clone()).record(duration);
                metrics::histogram!(CALLERS, "layer" => layer).record(callers);
            });
        }
    }
}

/// The flight's copy has been dropped.
#[cfg(feature = "metrics")]
impl Drop for FlightTrace {
    fn drop(&mut self) {
        settle();
    }
}

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        if let Some(trace) = self.0 {
            trace.ended(WorkEnd::Panicked);
        }
    }
}
