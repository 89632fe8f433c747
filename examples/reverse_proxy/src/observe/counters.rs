//! Numbers that only rise.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What the layer can't count, or is not there to count.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Requests of clients.
    pub(crate) requests: Counter,
    /// Responses to clients, by the hundreds of their status.
    pub(crate) responses: [Counter; 5],
    /// Requests that were sent upstream, second tries included.
    pub(crate) calls: Counter,
    /// Responses of the upstream, whatever their status.
    pub(crate) answered: Counter,
    /// Calls that ended without a response of the upstream, and were answered with 502 or 504 here.
    pub(crate) failures: Counter,
    /// Second tries, after a connection that had been used before broke without an answer.
    pub(crate) retries: Counter,
    /// Responses of the upstream whose body broke off.
    pub(crate) broken_bodies: Counter,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

// ===== impl Counters =====

impl Counters {
    pub(crate) fn respond(&self, status: http::StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5);
        self.responses[class - 1].count();
    }

    /// Responses that tell a client of a failure.
    pub(crate) fn errors(&self) -> u64 {
        self.responses[4].get()
    }
}

// ===== impl Counter =====

impl Counter {
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
