//! What is told to `tracing` and `metrics`; nothing, at no cost, where their features are off.
//!
//! Subscribers and recorders are the user's, and they are told in the middle of what concerns many callers. Their panics
//! go no further than here.
//!
//! | file | what |
//! | --- | --- |
//! | `tell` | calls an observer, and holds a span |
//! | `request` | what becomes of a request, and why |
//! | `flight` | a flight from its call to its end |
//! | `gauges` | waiters and bytes |
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

mod flight;
mod gauges;
mod request;
#[cfg(any(feature = "tracing", feature = "metrics"))]
mod tell;

pub(crate) use self::{
    flight::{FlightEnd, Trace},
    gauges::{Wait, buffered, released, settle, waiter_came, waiter_went},
    request::{CallerSpan, Reason, bypassed, followed, led},
};
