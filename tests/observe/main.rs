//! What can be seen from outside: spans, events, metrics, `Cache-Status`.

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "http")]
mod cache_status;
#[cfg(all(feature = "tracing", feature = "metrics"))]
mod group;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(all(feature = "tracing", feature = "metrics"))]
mod panics;
#[cfg(feature = "tracing")]
mod tracing;
