//! Calls observers, whose panics end here.

use crate::group::{caught, drop_quietly};

/// Calls an observer. What it panics with the hook has reported.
pub(super) fn tell<T>(observer: impl FnOnce() -> T) -> Option<T> {
    caught(observer).map_err(drop_quietly).ok()
}

/// A span whose end is told like all else.
#[cfg(feature = "tracing")]
pub(super) struct Span(pub(super) tracing::Span);

// ===== impl Span =====

#[cfg(feature = "tracing")]
impl Span {
    pub(super) fn new(make: impl FnOnce() -> tracing::Span) -> Self {
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
