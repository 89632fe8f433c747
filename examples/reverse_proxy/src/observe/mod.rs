//! What the operator can ask about the requests of clients. The layer's own numbers are in its `Handle`.

mod body;
mod counters;
mod exchange;
mod hot_paths;
mod latency;

pub(crate) use self::{
    body::ObservedBody,
    counters::Counters,
    exchange::Exchange,
    hot_paths::HotPaths,
    latency::{Histogram, Latency},
};

/// Shared by all connections.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    pub(crate) counters: Counters,
    pub(crate) latency: Latency,
    /// `None` where nobody can ask: there is no admin port.
    pub(crate) hot_paths: Option<HotPaths>,
    pub(crate) access_log: bool,
}
