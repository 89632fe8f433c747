//! What becomes of a request.

#[cfg(feature = "metrics")]
use super::metrics::{REQUESTS, of_layer};
#[cfg(feature = "tracing")]
use super::{TARGET, shown};
#[cfg(feature = "tracing")]
use crate::group::{Span, report};
use crate::{group::Name, rules::Bypass};

/// Why a request that could have shared a flight made its own call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The response may not be shared.
    Unshareable,
    /// The key recently had such a response.
    Remembered,
    /// The response is for requests that differ in a field that `Vary` names.
    Vary,
    /// It asked after the other replica's call had ended.
    #[cfg(feature = "redis")]
    Late,
    /// The body is over `max_body`, or `max_buffered` had no room for it.
    TooLarge,
    /// The flight had `max_waiters`.
    Full,
    /// It had waited for `wait_timeout`.
    Timeout,
    /// The flight's service has another type of error.
    ErrorType,
    /// The flight's leader left before this caller could take over.
    Leaderless,
    /// It read a body over `max_body` at another pace than the rest of its flight.
    MovedOn,
    /// It is audited.
    Audit,
}

/// The span in which the service was called: all events of a request belong there.
pub(crate) struct CallerSpan {
    #[cfg(feature = "tracing")]
    pub(super) span: Span,
}

// ===== impl Reason =====

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unshareable => "unshareable",
            Self::Remembered => "remembered",
            Self::Vary => "vary",
            #[cfg(feature = "redis")]
            Self::Late => "late",
            Self::TooLarge => "too_large",
            Self::Full => "full",
            Self::Timeout => "timeout",
            Self::ErrorType => "error_type",
            Self::Leaderless => "leaderless",
            Self::MovedOn => "moved_on",
            Self::Audit => "audit",
        }
    }
}

// ===== impl CallerSpan =====

impl CallerSpan {
    /// The current caller's span.
    pub(crate) fn current() -> Self {
        Self {
            #[cfg(feature = "tracing")]
            span: Span::new(tracing::Span::current),
        }
    }

    /// It makes its own call.
    pub(crate) fn forwarded(&self, layer: &Name, reason: Reason) {
        #[cfg(feature = "tracing")]
        report(|| {
            let (span, layer, reason) = (&self.span.0, shown(layer), reason.as_str());
            tracing::debug!(target: TARGET, parent: span, layer, reason, "forwarded");
        });
        request(layer, "forwarded", reason.as_str());
    }
}

// ===== roles =====

pub(crate) fn bypassed(layer: &Name, reason: Bypass) {
    #[cfg(feature = "tracing")]
    report(|| {
        let (layer, reason) = (shown(layer), reason.as_str());
        tracing::trace!(target: TARGET, layer, reason, "bypassed");
    });
    request(layer, "bypassed", reason.as_str());
}

/// What a request was, and why.
pub(crate) fn request(layer: &Name, role: &'static str, reason: &'static str) {
    #[cfg(feature = "metrics")]
    of_layer(layer, |layer| {
        metrics::counter!(REQUESTS, "layer" => layer, "role" => role, "reason" => reason)
            .increment(1);
    });
}
