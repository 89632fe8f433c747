//! Reports the work of a named group to `tracing` and `metrics`.
//!
//! | metric, span, event | when |
//! | --- | --- |
//! | `singleflight_group_calls_total` | a caller leads or joins |
//! | `singleflight_group_flights`, span `singleflight` | from the call of the work to its end |
//! | `singleflight_group_flight_seconds`, event `landed`, `cancelled` or `panicked` | the work ends |
//! | event `joined` | a caller joins |

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::time::Instant;

#[cfg(feature = "tracing")]
use super::report::{Span, report, report_end};
use super::work::WorkEnd;

#[cfg(feature = "tracing")]
const TARGET: &str = "tower_singleflight::Group";

#[cfg(feature = "metrics")]
super::report::declare_metrics! {
    describe_counter CALLS "singleflight_group_calls_total" Count
        "Callers of a group, by what they did: their work ran (leader), or they joined (follower)"
    describe_gauge FLIGHTS "singleflight_group_flights" Count
        "Work of a group that is running"
    describe_histogram SECONDS "singleflight_group_flight_seconds" Seconds
        "How long the work of a group ran, however it ended"
}

pin_project! {
    /// Work, and the trace of its flight.
    pub(super) struct Observed<F> {
        // The first field: the end is reported after the work has been dropped.
        #[pin]
        future: F,
        trace: Trace,
    }
}

/// Reports a flight of a named group, from its start to its drop.
struct Trace {
    name: Arc<str>,
    since: Instant,
    #[cfg(feature = "tracing")]
    span: Span,
    end: WorkEnd,
}

/// `work`, reported under the group's name.
pub(super) fn observed<F, Fut>(name: &Arc<str>, work: F) -> impl FnOnce() -> Observed<Fut>
where
    F: FnOnce() -> Fut,
{
    move || {
        let mut trace = Trace::begin(name);
        Observed {
            future: trace.within(work),
            trace,
        }
    }
}

/// Reports a caller that has joined.
pub(super) fn joined(name: &Arc<str>) {
    #[cfg(feature = "tracing")]
    report(|| tracing::debug!(target: TARGET, group = &**name, "joined"));
    called(name, "follower");
}

#[cfg_attr(
    not(feature = "metrics"),
    expect(unused_variables, reason = "counted by nobody")
)]
fn called(name: &Arc<str>, role: &'static str) {
    #[cfg(feature = "metrics")]
    recorded(|| {
        let group = Arc::clone(name);
        metrics::counter!(CALLS, "group" => group, "role" => role).increment(1);
    });
}

// ===== impl Observed =====

impl<F: Future> Future for Observed<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let polled = this.trace.within(|| this.future.poll(cx));
        if polled.is_ready() {
            this.trace.end = WorkEnd::Complete;
        }
        polled
    }
}

// ===== impl Trace =====

impl Trace {
    fn begin(name: &Arc<str>) -> Self {
        called(name, "leader");
        #[cfg(feature = "metrics")]
        recorded(|| {
            metrics::gauge!(FLIGHTS, "group" => Arc::clone(name)).increment(1.0);
        });
        Self {
            name: Arc::clone(name),
            since: Instant::now(),
            #[cfg(feature = "tracing")]
            span: Span::new(
                || tracing::info_span!(target: TARGET, "singleflight", group = &**name),
            ),
            end: WorkEnd::Cancelled,
        }
    }

    /// Calls or polls the work in its span.
    fn within<T>(&mut self, part: impl FnOnce() -> T) -> T {
        self.end = WorkEnd::Panicked;
        let done = {
            #[cfg(feature = "tracing")]
            let _entered = self.span.enter();
            part()
        };
        self.end = WorkEnd::Cancelled;
        done
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let duration = self.since.elapsed();
        #[cfg(feature = "tracing")]
        report(|| {
            let (span, group) = (&self.span.0, &*self.name);
            report_end!(self.end, target: TARGET, parent: span, group, ?duration);
        });
        #[cfg(feature = "metrics")]
        recorded(|| {
            metrics::gauge!(FLIGHTS, "group" => Arc::clone(&self.name)).decrement(1.0);
            metrics::histogram!(SECONDS, "group" => Arc::clone(&self.name)).record(duration);
        });
    }
}
