//! What is told to `tracing` and `metrics`; nothing, at no cost, where their features are off.
//!
//! Subscribers and recorders are the user's, and they are told in the middle of what concerns many callers. Their panics
//! go no further than here.
//!
//! # Metrics
//!
//! | name | kind | labels | what |
//! | --- | --- | --- | --- |
//! | `singleflight_requests_total` | counter | `role`, `reason` | requests, when it is known what becomes of them |
//! | `singleflight_flights` | gauge | | calls of the inner service that others could or can share |
//! | `singleflight_waiters` | gauge | | callers that have not yet got all that their flight owes them |
//! | `singleflight_buffered_bytes` | gauge | | bytes set aside for the copies of bodies |
//! | `singleflight_wait_seconds` | histogram | | how long a follower waited for its head, or to be sent on |
//! | `singleflight_callers` | histogram | | callers that a flight has had |

#[cfg(any(feature = "tracing", feature = "metrics"))]
use crate::group::{caught, drop_quietly};
use crate::rules::Bypass;

/// Why a request that could have shared a flight made its own call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The response may not be shared.
    Unshareable,
    /// The key is known for such responses.
    Remembered,
    /// The response is for requests that differ in a field that `Vary` names.
    Vary,
    /// The body is over `max_body`, or `max_buffered` had no room for it.
    TooLarge,
    /// The flight had `max_waiters`.
    Full,
    /// It had waited for `wait_timeout`.
    Timeout,
    /// The flight's service has another type of error.
    ErrorType,
    /// The flight's leader had gone before it could lead.
    Leaderless,
}

// ===== impl Reason =====

#[cfg(any(feature = "tracing", feature = "metrics"))]
impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unshareable => "unshareable",
            Self::Remembered => "remembered",
            Self::Vary => "vary",
            Self::TooLarge => "too_large",
            Self::Full => "full",
            Self::Timeout => "timeout",
            Self::ErrorType => "error_type",
            Self::Leaderless => "leaderless",
        }
    }
}

/// Calls an observer. What it panics with the hook has reported.
#[cfg(any(feature = "tracing", feature = "metrics"))]
fn tell<T>(observer: impl FnOnce() -> T) -> Option<T> {
    caught(observer).map_err(drop_quietly).ok()
}

// ===== requests =====

pub(crate) fn bypassed(reason: Bypass) {
    #[cfg(feature = "tracing")]
    tell(|| tracing::trace!(reason = reason.as_str(), "bypassed"));
    #[cfg(feature = "metrics")]
    request("bypassed", reason.as_str());
}

/// Made a call that others could join.
pub(crate) fn led() {
    #[cfg(feature = "metrics")]
    request("leader", "");
}

/// Got the copy of another's response.
pub(crate) fn followed() {
    #[cfg(feature = "metrics")]
    request("follower", "");
}

#[cfg(feature = "metrics")]
fn request(role: &'static str, reason: &'static str) {
    tell(|| {
        metrics::counter!("singleflight_requests_total", "role" => role, "reason" => reason)
            .increment(1);
    });
}

/// Whose request it is that something is told of, wherever and by whom it is decided: the span in which the service was
/// called.
pub(crate) struct Asker {
    #[cfg(feature = "tracing")]
    span: Span,
}

/// A span whose end is told like all else.
#[cfg(feature = "tracing")]
struct Span(tracing::Span);

// ===== impl Asker =====

impl Asker {
    /// Who calls now.
    pub(crate) fn here() -> Self {
        Self {
            #[cfg(feature = "tracing")]
            span: Span::new(tracing::Span::current),
        }
    }

    /// It makes its own call.
    pub(crate) fn forwarded(&self, reason: Reason) {
        #[cfg(feature = "tracing")]
        tell(|| tracing::debug!(parent: &self.span.0, reason = reason.as_str(), "forwarded"));
        #[cfg(feature = "metrics")]
        request("forwarded", reason.as_str());
    }
}

// ===== impl Span =====

#[cfg(feature = "tracing")]
impl Span {
    fn new(make: impl FnOnce() -> tracing::Span) -> Self {
        Self(tell(make).unwrap_or_else(tracing::Span::none))
    }
}

#[cfg(feature = "tracing")]
impl Drop for Span {
    fn drop(&mut self) {
        let span = std::mem::replace(&mut self.0, tracing::Span::none());
        tell(|| drop(span));
    }
}

// ===== gauges =====

pub(crate) fn waiter_came() {
    #[cfg(feature = "metrics")]
    tell(|| metrics::gauge!("singleflight_waiters").increment(1.0));
}

pub(crate) fn waiter_went() {
    #[cfg(feature = "metrics")]
    tell(|| metrics::gauge!("singleflight_waiters").decrement(1.0));
}

pub(crate) fn buffered(bytes: usize) {
    #[cfg(feature = "metrics")]
    tell(|| metrics::gauge!("singleflight_buffered_bytes").increment(bytes as f64));
}

pub(crate) fn released(bytes: usize) {
    #[cfg(feature = "metrics")]
    tell(|| metrics::gauge!("singleflight_buffered_bytes").decrement(bytes as f64));
}

// ===== flights =====

/// One flight, as it is told of from its call to its end.
#[derive(Default)]
pub(crate) struct Trace {
    #[cfg(any(feature = "tracing", feature = "metrics"))]
    begun: std::sync::OnceLock<Begun>,
}

#[cfg(any(feature = "tracing", feature = "metrics"))]
struct Begun {
    /// A child of the leader's span, so that whatever task drives the call, it is part of the leader's request.
    #[cfg(feature = "tracing")]
    span: Span,
    #[cfg(feature = "metrics")]
    callers: std::sync::atomic::AtomicU32,
}

/// How a flight came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Landed,
    /// Its last caller has left.
    Cancelled,
    Panicked,
}

/// Inside a flight's span until it is dropped.
#[cfg(feature = "tracing")]
struct Entered<'a>(Option<tracing::span::Entered<'a>>);

/// Tells of a call that panics before there is a future.
struct Calling<'a> {
    trace: &'a Trace,
    called: bool,
}

// ===== impl Trace =====

impl Trace {
    /// The flight has a leader, whose request this is.
    pub(crate) fn begin<B>(&self, leader: &Asker, request: &http::Request<B>) {
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
                #[cfg(feature = "metrics")]
                callers: std::sync::atomic::AtomicU32::new(1),
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

    /// A follower has joined: its span follows from the flight's.
    pub(crate) fn joined(&self, follower: &Asker) {
        #[cfg(any(feature = "tracing", feature = "metrics"))]
        if let Some(begun) = self.begun.get() {
            #[cfg(feature = "tracing")]
            tell(|| {
                follower.span.0.follows_from(&begun.span.0);
                tracing::debug!(parent: &follower.span.0, "joined");
            });
            #[cfg(feature = "metrics")]
            begun
                .callers
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// Runs a part of the flight in its span.
    pub(crate) fn within<T>(&self, part: impl FnOnce() -> T) -> T {
        #[cfg(feature = "tracing")]
        let _entered = self
            .begun
            .get()
            .map(|begun| Entered(tell(|| begun.span.0.enter())));
        part()
    }

    /// The work is dropped.
    pub(crate) fn ended(&self, fate: Fate) {
        #[cfg(any(feature = "tracing", feature = "metrics"))]
        if let Some(begun) = self.begun.get() {
            #[cfg(feature = "tracing")]
            tell(|| match fate {
                Fate::Landed => tracing::trace!(parent: &begun.span.0, "landed"),
                Fate::Cancelled => tracing::debug!(parent: &begun.span.0, "cancelled"),
                Fate::Panicked => tracing::error!(parent: &begun.span.0, "panicked"),
            });
            #[cfg(feature = "metrics")]
            tell(|| {
                metrics::gauge!("singleflight_flights").decrement(1.0);
                let callers = begun.callers.load(std::sync::atomic::Ordering::Relaxed);
                metrics::histogram!("singleflight_callers").record(callers);
            });
        }
    }
}

#[cfg(feature = "tracing")]
impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let entered = self.0.take();
        tell(|| drop(entered));
    }
}

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        if !self.called {
            self.trace.ended(Fate::Panicked);
        }
    }
}

// ===== waiting =====

/// How long a follower waits; no clock is read where nobody wants to know.
pub(crate) struct Wait {
    #[cfg(feature = "metrics")]
    since: tokio::time::Instant,
}

impl Wait {
    pub(crate) fn begin() -> Self {
        Self {
            #[cfg(feature = "metrics")]
            since: tokio::time::Instant::now(),
        }
    }

    /// Passes on what ended it.
    pub(crate) fn ended<T>(&self, next: T) -> T {
        #[cfg(feature = "metrics")]
        tell(|| metrics::histogram!("singleflight_wait_seconds").record(self.since.elapsed()));
        next
    }
}
