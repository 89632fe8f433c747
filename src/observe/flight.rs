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
use super::{gauges::settle, request::Asker};
use crate::group::Name;
#[cfg(feature = "tracing")]
use crate::group::{Span, tell};

/// One flight, as it is told of from its call to its end.
pub(crate) struct Trace {
    #[cfg(any(feature = "tracing", feature = "metrics"))]
    layer: Arc<Name>,
    #[cfg(any(feature = "tracing", feature = "metrics"))]
    since: Instant,
    #[cfg(any(feature = "tracing", feature = "metrics"))]
    begun: OnceLock<Begun>,
}

#[cfg(any(feature = "tracing", feature = "metrics"))]
struct Begun {
    /// A child of the leader's span, so that whatever task drives the call, it is part of the leader's request.
    #[cfg(feature = "tracing")]
    span: Span,
    callers: AtomicU32,
}

/// How a flight came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Landed,
    /// Its last caller has left.
    Cancelled,
    Panicked,
}

/// Tells of a call that panics before there is a future.
struct Calling<'a> {
    trace: &'a Trace,
    called: bool,
}

// ===== impl Trace =====

impl Trace {
    /// Of a flight that may begin `now`.
    pub(crate) fn new(layer: &Arc<Name>, now: Instant) -> Self {
        Self {
            #[cfg(any(feature = "tracing", feature = "metrics"))]
            layer: Arc::clone(layer),
            #[cfg(any(feature = "tracing", feature = "metrics"))]
            since: now,
            #[cfg(any(feature = "tracing", feature = "metrics"))]
            begun: OnceLock::new(),
        }
    }

    /// The flight has a leader, whose request this is.
    pub(crate) fn begin<B>(&self, leader: &Asker, request: &http::Request<B>) {
        #[cfg(any(feature = "tracing", feature = "metrics"))]
        {
            let begun = Begun {
                #[cfg(feature = "tracing")]
                span: Span::new(|| {
                    tracing::info_span!(
                        target: TARGET,
                        parent: &leader.span.0,
                        "singleflight",
                        layer = shown(&self.layer),
                        method = %request.method(),
                        path = request.uri().path(),
                    )
                }),
                callers: AtomicU32::new(1),
            };
            let _ = self.begun.set(begun);
            #[cfg(feature = "metrics")]
            of_layer(&self.layer, |layer| {
                metrics::gauge!(FLIGHTS, "layer" => layer).increment(1.0);
            });
        }
    }

    /// The inner service is called.
    pub(crate) fn calling<T>(&self, call: impl FnOnce() -> T) -> T {
        let mut calling = Calling {
            trace: self,
            called: false,
        };
        let called = self.within(call);
        calling.called = true;
        called
    }

    /// A follower has joined: its span follows from the flight's.
    pub(crate) fn joined(&self, follower: &Asker) {
        #[cfg(any(feature = "tracing", feature = "metrics"))]
        if let Some(begun) = self.begun.get() {
            #[cfg(feature = "tracing")]
            tell(|| {
                let span = &follower.span.0;
                span.follows_from(&begun.span.0);
                tracing::debug!(target: TARGET, parent: span, layer = shown(&self.layer), "joined");
            });
            begun.callers.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Runs a part of the flight in its span.
    pub(crate) fn within<T>(&self, part: impl FnOnce() -> T) -> T {
        #[cfg(feature = "tracing")]
        let _entered = self.begun.get().map(|begun| begun.span.enter());
        let done = part();
        settle();
        done
    }

    /// The work is dropped.
    pub(crate) fn ended(&self, fate: Fate) {
        #[cfg(any(feature = "tracing", feature = "metrics"))]
        if let Some(begun) = self.begun.get() {
            let callers = begun.callers.load(Ordering::Relaxed);
            let duration = self.since.elapsed();
            #[cfg(feature = "tracing")]
            tell(|| {
                let (span, layer) = (&begun.span.0, shown(&self.layer));
                match fate {
                    Fate::Landed => tracing::debug!(
                        target: TARGET, parent: span, layer, callers, ?duration, "landed"
                    ),
                    Fate::Cancelled => tracing::debug!(
                        target: TARGET, parent: span, layer, callers, ?duration, "cancelled"
                    ),
                    Fate::Panicked => tracing::error!(
                        target: TARGET, parent: span, layer, callers, ?duration, "panicked"
                    ),
                }
            });
            #[cfg(feature = "metrics")]
            of_layer(&self.layer, |layer| {
                metrics::gauge!(FLIGHTS, "layer" => layer.clone()).decrement(1.0);
                metrics::histogram!(FLIGHT_SECONDS, "layer" => layer.clone()).record(duration);
                metrics::histogram!(CALLERS, "layer" => layer).record(callers);
            });
        }
    }
}

/// The last of a flight: its copy has been dropped.
#[cfg(feature = "metrics")]
impl Drop for Trace {
    fn drop(&mut self) {
        settle();
    }
}

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        if !self.called {
            self.trace.ended(Fate::Panicked);
        }
    }
}
