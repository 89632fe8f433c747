//! `WriteEpochs`: a request that comes after a write does not join a flight that began before it (RFC 9111 section 4.4).

use std::sync::atomic::{AtomicU64, Ordering};

use super::write_target::{SLOTS, WriteTarget};

/// Successful writes are numbered. A small array holds the number of the last write to each target. A flight keeps the
/// number of the latest write when it begins, and nobody joins it once its target has a later one. Two targets that
/// share a slot cost each other at most a call.
#[derive(Debug)]
pub(crate) struct WriteEpochs {
    last: AtomicU64,
    slots: [AtomicU64; SLOTS],
}

// ===== impl WriteEpochs =====

impl WriteEpochs {
    pub(crate) fn new() -> Self {
        Self {
            last: AtomicU64::new(0),
            slots: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// The number of the last write.
    pub(crate) fn current(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }

    /// Whether `target` was written after the write of this number.
    pub(crate) fn written_since(
        &self,
        epoch: u64,
        target: impl FnOnce() -> Option<WriteTarget>,
    ) -> bool {
        let is_later = |slot: usize| self.slots[slot].load(Ordering::Acquire) > epoch;
        self.current() != epoch
            && target().is_some_and(|target| target.read.into_iter().any(is_later))
    }

    /// Records a successful write to `target`. The writer gets its response after this returns.
    pub(crate) fn record(&self, target: &WriteTarget) {
        let number = self.last.fetch_add(1, Ordering::AcqRel) + 1;
        for slot in target.written {
            self.slots[slot].fetch_max(number, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Uri;

    use super::*;
    use crate::shared::Resource;

    fn target(uri: &'static str) -> WriteTarget {
        Resource::new(&Uri::from_static(uri), None).target()
    }

    #[test]
    fn a_target_is_written_since_every_earlier_epoch_and_no_later_one() {
        let epochs = WriteEpochs::new();
        let (one, other) = (target("http://a/1"), target("http://a/2"));
        let begun = epochs.current();
        assert!(!epochs.written_since(begun, || Some(one)));
        epochs.record(&one);
        assert!(epochs.written_since(begun, || Some(one)));
        assert!(!epochs.written_since(begun, || Some(other)));
        let later = epochs.current();
        assert!(!epochs.written_since(later, || Some(one)));
        epochs.record(&other);
        assert!(!epochs.written_since(later, || Some(one)));
        assert!(epochs.written_since(later, || Some(other)));
        assert!(epochs.written_since(begun, || Some(one)));
    }

    #[test]
    fn of_two_writes_at_once_the_later_counts() {
        let target = target("http://a/1");
        for round in 0..1000 {
            let (epochs, ready) = (WriteEpochs::new(), AtomicU64::new(0));
            let write = || {
                ready.fetch_add(1, Ordering::SeqCst);
                while ready.load(Ordering::SeqCst) < 2 {
                    std::thread::yield_now();
                }
                epochs.record(&target);
            };
            std::thread::scope(|threads| {
                threads.spawn(write);
                write();
            });
            // A flight that began between the two.
            assert!(epochs.written_since(1, || Some(target)), "{round}");
            assert!(!epochs.written_since(2, || Some(target)), "{round}");
        }
    }
}
