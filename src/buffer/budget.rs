//! The limit for all buffers of a layer together.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::{group::Name, observe};

/// `max_buffered`'s counter.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    used: AtomicUsize,
    /// The part of `used` held for leaders that nobody has joined, which gives way to others.
    lone: AtomicUsize,
    layer: Arc<Name>,
}

/// A buffer's share of the budget; dropping it frees the share.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<Budget>,
    bytes: usize,
    lone: bool,
}

// ===== impl Budget =====

impl Budget {
    pub(crate) fn new(layer: Arc<Name>) -> Self {
        Self {
            layer,
            ..Self::default()
        }
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether a buffer that nobody shares holds anything.
    pub(crate) fn has_lone(&self) -> bool {
        self.lone.load(Ordering::Relaxed) > 0
    }
}

// ===== impl Reservation =====

impl Reservation {
    #[inline]
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self {
            budget,
            bytes: 0,
            lone: true,
        }
    }

    /// Whether the budget has anything left.
    pub(super) fn has_room(&self, limit: usize) -> bool {
        self.budget.used() < limit
    }

    /// Takes `bytes` more, unless more than `limit` would then be in use in total.
    pub(super) fn grow(&mut self, bytes: usize, limit: usize) -> bool {
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
            if self.lone {
                self.budget.lone.fetch_add(bytes, Ordering::Relaxed);
            }
            observe::buffered(&self.budget.layer, bytes as i64);
        }
        granted
    }

    pub(super) fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        if bytes > 0 {
            self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
            if self.lone {
                self.budget.lone.fetch_sub(bytes, Ordering::Relaxed);
            }
            observe::buffered(&self.budget.layer, -(bytes as i64));
        }
    }

    /// From now on this share gives way to nobody.
    pub(super) fn share(&mut self) {
        if std::mem::take(&mut self.lone) && self.bytes > 0 {
            self.budget.lone.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }

    /// Takes all that was reserved.
    pub(super) fn take(&mut self) -> Self {
        let taken = Self::new(Arc::clone(&self.budget));
        std::mem::replace(self, taken)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_is_shared_gives_way_to_nobody_and_is_given_back() {
        let budget = Arc::<Budget>::default();
        let mut part = Reservation::new(Arc::clone(&budget));
        assert!(part.grow(8, 10));
        assert!(budget.has_lone());
        part.share();
        assert!(!budget.has_lone());
        assert!(part.grow(2, 10) && !part.grow(1, 10));
        assert_eq!((budget.used(), budget.has_lone()), (10, false));
        drop(part);
        assert_eq!((budget.used(), budget.has_lone()), (0, false));
    }
}
