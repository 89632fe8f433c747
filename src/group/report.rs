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

/// Reports how work ended; the rest of the tokens go to `tracing`'s macros.
#[cfg(feature = "tracing")]
macro_rules! report_end {
    ($end:expr, $($event:tt)*) => {
        match $end {
            WorkEnd::Complete => tracing::debug!($($event)*, "landed"),
            WorkEnd::Cancelled => tracing::debug!($($event)*, "cancelled"),
            WorkEnd::Panicked => tracing::error!($($event)*, "panicked"),
        }
    };
}
#[cfg(feature = "tracing")]
pub(crate) use report_end;

// ===== metrics =====

/// Declares metrics, each with its kind, name, unit and description, and `recorded`, which reports a value of one.
#[cfg(feature = "metrics")]
macro_rules! declare_metrics {
    ($($describe:ident $name:ident $text:literal $unit:ident $description:literal)*) => {
        $(pub(super) const $name: &str = $text;)*

        pub(super) fn recorded(value: impl FnOnce()) {
            thread_local! {
                /// The recorder that last got the descriptions.
                static RECORDER: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
            }
            let describe = || { $(metrics::$describe!($name, metrics::Unit::$unit, $description);)* };
            $crate::group::record(describe, &RECORDER, value);
        }
    };
}
#[cfg(feature = "metrics")]
pub(crate) use declare_metrics;

/// Reports a value to the current recorder. If that is not `last`, it first calls `describe`; so a recorder that is
/// installed late, or only for a thread, gets the descriptions too.
#[cfg(feature = "metrics")]
pub(crate) fn record(describe: fn(), last: &'static LocalKey<Cell<usize>>, value: impl FnOnce()) {
    report(|| {
        // The address is only compared, never dereferenced.
        let address = metrics::with_recorder(|it| std::ptr::from_ref(it).cast::<()>() as usize);
        if last.replace(address) != address {
            describe();
        }
    });
    report(value);
}
