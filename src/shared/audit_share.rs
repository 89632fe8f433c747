//! `AuditShare`.

use std::sync::atomic::{AtomicU64, Ordering};

/// Which share of the requests that could follow is audited.
#[derive(Debug, Default)]
pub(crate) struct AuditShare {
    /// In parts of 2^64; `u64::MAX` is all.
    share: AtomicU64,
    drawn: AtomicU64,
}

// ===== impl AuditShare =====

impl AuditShare {
    /// NaN counts as 0; values below 0 or above 1 are clamped.
    pub(crate) fn set(&self, share: f64) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the cast saturates"
        )]
        let parts = (share * 2_f64.powi(64)) as u64;
        self.share.store(parts, Ordering::Relaxed);
    }

    /// Whether the next request is audited.
    ///
    /// The multiples of the golden ratio, modulo 1, are spread evenly, even if you take only every second or every
    /// tenth.
    pub(crate) fn draw(&self) -> bool {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        match self.share.load(Ordering::Relaxed) {
            0 => false,
            u64::MAX => true,
            share => self.drawn.fetch_add(GOLDEN, Ordering::Relaxed) < share,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(share: f64, of: usize) -> usize {
        let audit = AuditShare::default();
        audit.set(share);
        (0..of).filter(|_| audit.draw()).count()
    }

    #[test]
    fn so_many_are_drawn_as_the_share_says() {
        for (share, expected) in [(0.5, 5000), (0.01, 100), (0.25, 2500), (0.999, 9990)] {
            let drawn = drawn(share, 10_000);
            assert!(drawn.abs_diff(expected) <= 5, "{share}: {drawn}");
        }
    }

    #[test]
    fn of_every_second_request_the_same_share_is_drawn() {
        let audit = AuditShare::default();
        audit.set(0.5);
        let drawn: Vec<_> = (0..10_000).map(|_| audit.draw()).collect();
        let even = drawn.iter().step_by(2).filter(|drawn| **drawn).count();
        assert!(even.abs_diff(2500) <= 5, "{even}");
    }

    #[test]
    fn a_share_that_is_none_is_taken_for_the_nearest() {
        for none in [0.0, -0.0, -1.0, f64::NAN, f64::NEG_INFINITY, 1e-300] {
            assert_eq!(drawn(none, 1000), 0, "{none}");
        }
        for all in [1.0, 1.5, f64::INFINITY, f64::MAX] {
            assert_eq!(drawn(all, 1000), 1000, "{all}");
        }
    }
}
