//! What is reported to `tracing` and `metrics`; nothing, at no cost, where their features are off.
//!
//! Subscribers and recorders are the user's, and they are called in the middle of what concerns many callers. Their panics
//! go no further than `report`, which is on the ground floor, as a named [`Group`](crate::Group) reports its work too.
//!
//! | file | what |
//! | --- | --- |
//! | `request` | what becomes of a request, and why |
//! | `flight` | a flight from its call to its end |
//! | `audit` | what comes of an audit |
//! | `gauges` | waiters and bytes |
//! | `metrics` | the metrics' names, units and descriptions |
//!
//! `guide/observability.md` lists all that is reported.

mod audit;
mod flight;
mod gauges;
#[cfg(feature = "metrics")]
mod metrics;
mod request;

pub(crate) use self::{
    audit::{BodyDifference, Difference, audited, differs},
    flight::{FlightEnd, FlightTrace},
    gauges::{WaitTimer, buffered, released, settle, waiter_came, waiter_went},
    request::{CallerSpan, Reason, bypassed, followed, led},
};

/// Of the span and the events: a path that the documentation has.
#[cfg(feature = "tracing")]
const TARGET: &str = "tower_singleflight::Singleflight";

/// A layer that nobody has named.
#[cfg(any(feature = "tracing", feature = "metrics"))]
const UNNAMED: &str = "default";

/// The field `layer`.
#[cfg(feature = "tracing")]
fn shown(layer: &crate::group::Name) -> &str {
    layer.get().map_or(UNNAMED, |name| name)
}
