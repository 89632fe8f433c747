//! How many bytes all copies of a layer hold together.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::observe;

/// `max_buffered`'s counter.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    used: AtomicUsize,
}

/// A copy's part of the budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Arc<Budget>,
    bytes: usize,
}

// ===== impl Budget =====

impl Budget {
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

// ===== impl Reservation =====

impl Reservation {
    #[inline]
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, bytes: 0 }
    }

    /// Takes `bytes` more if no more than `limit` are then in use by all.
    pub(crate) fn grow(&mut self, bytes: usize, limit: usize) -> bool {
        if bytes == 0 {
            return true;
        }
        let granted = self
            .budget
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|&used| used <= limit)
            })
            .is_ok();
        if granted {
            self.bytes += bytes;
            observe::buffered(bytes);
        }
        granted
    }

    pub(crate) fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        if bytes > 0 {
            self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
            observe::released(bytes);
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}
