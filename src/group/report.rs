//! Calls observers, and stops their panics.

#[cfg(feature = "metrics")]
use std::{cell::Cell, thread::LocalKey};

use super::panic::{caught, drop_quietly};

/// Calls an observer. The panic hook has already reported its panic.
pub(crate) fn report<T>(observer: impl FnOnce() -> T) -> Option<T> {
    caught(observer).map_err(drop_quietly).ok()
}

/// A span whose end is reported in the same way.
#[cfg(feature = "tracing")]
pub(crate) struct Span(pub(crate) tracing::Span);

/// Inside a span until it is dropped.
#[cfg(feature = "tracing")]
pub(crate) struct Entered<'a>(Option<tracing::span::Entered<'a>>);

/// A metric's description, which each recorder gets once.
#[cfg(feature = "metrics")]
pub(crate) struct Description {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) unit: metrics::Unit,
    pub(crate) help: &'static str,
}

#[cfg(feature = "metrics")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

// ===== impl Span =====

#[cfg(feature = "tracing")]
impl Span {
    pub(crate) fn new(make: impl FnOnce() -> tracing::Span) -> Self {
        Self(report(make).unwrap_or_else(tracing::Span::none))
    }

    pub(crate) fn enter(&self) -> Entered<'_> {
        Entered(report(|| self.0.enter()))
    }
}

#[cfg(feature = "tracing")]
impl Drop for Span {
    fn drop(&mut self) {
        let span = std::mem::replace(&mut self.0, tracing::Span::none());
        report(|| drop(span));
    }
}

#[cfg(feature = "tracing")]
impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let entered = self.0.take();
        report(|| drop(entered));
    }
}

// ===== metrics =====

/// Reports a value to the current recorder. If that is not `last`, it first gets the descriptions of `metrics`; so a
/// recorder that is installed late, or only for a thread, gets them too.
#[cfg(feature = "metrics")]
pub(crate) fn record(
    metrics: &[Description],
    last: &'static LocalKey<Cell<usize>>,
    value: impl FnOnce(),
) {
    report(|| {
        metrics::with_recorder(|recorder| {
            // The address is only compared, never dereferenced.
            let address = std::ptr::from_ref(recorder).cast::<()>() as usize;
            if last.replace(address) != address {
                for metric in metrics {
                    metric.describe(recorder);
                }
            }
        });
    });
    report(value);
}

#[cfg(feature = "metrics")]
impl Description {
    fn describe(&self, recorder: &dyn metrics::Recorder) {
        let (name, unit, help) = (self.name.into(), Some(self.unit), self.help.into());
        match self.kind {
            Kind::Counter => recorder.describe_counter(name, unit, help),
            Kind::Gauge => recorder.describe_gauge(name, unit, help),
            Kind::Histogram => recorder.describe_histogram(name, unit, help),
        }
    }
}
