//! What becomes of a request.

#[cfg(feature = "tracing")]
use super::tell::Span;
#[cfg(any(feature = "tracing", feature = "metrics"))]
use super::tell::tell;
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
    /// It read a body over `max_body` at another pace than its flight.
    MovedOn,
}

/// Whose request it is that something is told of, wherever and by whom it is decided: the span in which the service was
/// called.
pub(crate) struct Asker {
    #[cfg(feature = "tracing")]
    pub(super) span: Span,
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
            Self::MovedOn => "moved_on",
        }
    }
}

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

// ===== roles =====

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
