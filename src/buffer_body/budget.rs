//! How many bytes all requests of a layer have read ahead.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// `max_buffered`, and its counter, which all clones of a layer share.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    pub(super) max: usize,
    used: Arc<AtomicUsize>,
}

/// A request's part of the budget; given back when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Budget,
    bytes: usize,
}

// ===== impl Budget =====

impl Budget {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            used: Arc::default(),
        }
    }
}

// ===== impl Reservation =====

impl Reservation {
    pub(super) fn new(budget: Budget) -> Self {
        Self { budget, bytes: 0 }
    }

    /// Takes `bytes` more, if that is no more than there is for all.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let more = |used: usize| {
            used.checked_add(bytes)
                .filter(|&sum| sum <= self.budget.max)
        };
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let granted = self.budget.used.fetch_update(set, fetch, more).is_ok();
        if granted {
            self.bytes += bytes;
        }
        granted
    }

    pub(super) fn release(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes > 0 {
            self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_together_take_no_more_than_there_is_and_give_back_what_they_took() {
        let budget = Budget::new(10);
        let mut one = Reservation::new(budget.clone());
        let mut two = Reservation::new(budget.clone());
        assert!(one.grow(6) && two.grow(4));
        assert!(!one.grow(1) && !two.grow(usize::MAX));
        one.release();
        assert!(two.grow(6) && !one.grow(1));
        drop((one, two));
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }
}
