//! Reports to `tracing` and `metrics`; costs nothing if their features are off.
//!
//! Subscribers and recorders are the user's code, called in the middle of work for many callers. `report` stops their
//! panics; it is part of `group`, because a named [`Group`](crate::Group) reports its work too.
//!
//! | file | what |
//! | --- | --- |
//! | `request` | what becomes of a request, and why |
//! | `flight` | a flight from its call to its end |
//! | `audit` | the results of audits |
//! | `gauges` | waiters and bytes |
//! | `metrics` | the metrics' names, units and descriptions |
//!
//! `guide/observability.md` lists everything that is reported.

mod audit;
mod flight;
mod gauges;
#[cfg(feature = "metrics")]
mod metrics;
mod request;

pub(crate) use self::{
    audit::{BodyDifference, Difference, audited, differs},
    flight::FlightTrace,
    gauges::{WaitTimer, buffered, settle, waiters},
    request::{CallerSpan, Reason, bypassed, request},
};

/// The target of the span and the events, as documented.
#[cfg(feature = "tracing")]
const TARGET: &str = "tower_singleflight::Singleflight";

/// The name of a layer without a name.
#[cfg(any(feature = "tracing", feature = "metrics"))]
const UNNAMED: &str = "default";

/// The field `layer`.
#[cfg(feature = "tracing")]
fn shown(layer: &crate::group::Name) -> &str {
    layer.get().map_or(UNNAMED, |name| name)
}
