//! A flight, from its call to its end.

#[cfg(feature = "tracing")]
use super::tell::Span;
#[cfg(any(feature = "tracing", feature = "metrics"))]
use super::tell::tell;
use super::{gauges::settle, request::CallerSpan};

/// One flight, as it is told of from its call to its end.
#[derive(Default)]
pub(crate) struct Trace {
    #[cfg(any(feature = "tracing", feature = "metrics"))]
    begun: std::sync::OnceLock<Begun>,
    /// How many it has had. Those who are moved to the flight of their variant come before it begins.
    #[cfg(feature = "metrics")]
    callers: std::sync::atomic::AtomicU32,
}

#[cfg(any(feature = "tracing", feature = "metrics"))]
struct Begun {
    /// A child of the leader's span, so that whatever task drives the call, it is part of the leader's request.
    #[cfg(feature = "tracing")]
    span: Span,
}

/// How a flight came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlightEnd {
    Complete,
    /// Its last caller has left.
    Cancelled,
    Panicked,
}

/// Inside a flight's span until it is dropped.
#[cfg(feature = "tracing")]
struct Entered<'a>(Option<tracing::span::Entered<'a>>);

/// Tells of the bytes that a part of a flight has charged and given back, also where that panics.
struct Settles;

/// Tells of a call that panics before there is a future.
struct Calling<'a> {
    trace: &'a Trace,
    called: bool,
}

// ===== impl Trace =====

impl Trace {
    /// The flight has a leader, whose request this is.
    pub(crate) fn begin<B>(&self, leader: &CallerSpan, request: &http::Request<B>) {
        #[cfg(any(feature = "tracing", feature = "metrics"))]
        {
            let begun = Begun {
                #[cfg(feature = "tracing")]
                span: Span::new(|| {
                    tracing::info_span!(
                        parent: &leader.span.0,
                        "singleflight",
                        method = %request.method(),
                        path = request.uri().path(),
                    )
                }),
            };
            let _ = self.begun.set(begun);
            #[cfg(feature = "metrics")]
            tell(|| metrics::gauge!("singleflight_flights").increment(1.0));
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

    /// The flight has a caller more.
    pub(crate) fn count_caller(&self) {
        #[cfg(feature = "metrics")]
        self.callers
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    /// A follower has joined: its span follows from the flight's.
    pub(crate) fn joined(&self, follower: &CallerSpan) {
        #[cfg(feature = "tracing")]
        if let Some(begun) = self.begun.get() {
            tell(|| {
                follower.span.0.follows_from(&begun.span.0);
                tracing::debug!(parent: &follower.span.0, "joined");
            });
        }
    }

    /// Runs a part of the flight in its span.
    pub(crate) fn within<T>(&self, part: impl FnOnce() -> T) -> T {
        #[cfg(feature = "tracing")]
        let _entered = self
            .begun
            .get()
            .map(|begun| Entered(tell(|| begun.span.0.enter())));
        let _settles = Settles;
        part()
    }

    /// The work is dropped.
    pub(crate) fn ended(&self, end: FlightEnd) {
        #[cfg(any(feature = "tracing", feature = "metrics"))]
        if let Some(begun) = self.begun.get() {
            #[cfg(feature = "tracing")]
            tell(|| match end {
                FlightEnd::Complete => tracing::trace!(parent: &begun.span.0, "landed"),
                FlightEnd::Cancelled => tracing::debug!(parent: &begun.span.0, "cancelled"),
                FlightEnd::Panicked => tracing::error!(parent: &begun.span.0, "panicked"),
            });
            #[cfg(feature = "metrics")]
            tell(|| {
                metrics::gauge!("singleflight_flights").decrement(1.0);
                let callers = self.callers.load(std::sync::atomic::Ordering::Relaxed);
                metrics::histogram!("singleflight_callers").record(callers);
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

#[cfg(feature = "tracing")]
impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let entered = self.0.take();
        tell(|| drop(entered));
    }
}

impl Drop for Settles {
    fn drop(&mut self) {
        settle();
    }
}

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        if !self.called {
            self.trace.ended(FlightEnd::Panicked);
        }
    }
}
