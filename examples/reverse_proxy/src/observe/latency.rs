//! How long clients wait for the head of a response.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// The upper ends of the buckets, in microseconds: nine to each power of ten, from 12 µs to 100 s.
const ENDS: [u64; 63] = ends();
/// One bucket more for everything that takes longer.
const BUCKETS: usize = ENDS.len() + 1;

/// Times, counted in buckets.
#[derive(Debug)]
pub(crate) struct Latency {
    buckets: [AtomicU64; BUCKETS],
    micros: AtomicU64,
}

/// What a [`Latency`] held at one time.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    buckets: [u64; BUCKETS],
    micros: u64,
}

const fn ends() -> [u64; 63] {
    const STEPS: [u64; 9] = [12, 15, 20, 25, 35, 50, 65, 80, 100];
    let (mut ends, mut at, mut ten) = ([0; 63], 0, 1);
    while at < ends.len() {
        ends[at] = STEPS[at % STEPS.len()] * ten;
        at += 1;
        if at % STEPS.len() == 0 {
            ten *= 10;
        }
    }
    ends
}

// ===== impl Latency =====

impl Latency {
    pub(crate) fn record(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = ENDS.partition_point(|&end| end < micros);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.micros.fetch_add(micros, Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Histogram {
        Histogram {
            buckets: std::array::from_fn(|at| self.buckets[at].load(Relaxed)),
            micros: self.micros.load(Relaxed),
        }
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            micros: AtomicU64::new(0),
        }
    }
}

// ===== impl Histogram =====

impl Histogram {
    /// What was recorded after `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            buckets: std::array::from_fn(|at| self.buckets[at].saturating_sub(earlier.buckets[at])),
            micros: self.micros.saturating_sub(earlier.micros),
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub(crate) fn seconds(&self) -> f64 {
        Duration::from_micros(self.micros).as_secs_f64()
    }

    /// How many took no longer than so many microseconds, by the end of a bucket.
    pub(crate) fn up_to(&self, end: u64) -> u64 {
        let buckets = ENDS.partition_point(|&other| other <= end);
        self.buckets[..buckets].iter().sum()
    }

    /// The time in milliseconds that the share `q` of all stays below, as exact as its bucket; `None` of nothing.
    pub(crate) fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = (q * count as f64).max(1.0);
        let mut below = 0.0;
        for (at, &in_bucket) in self.buckets.iter().enumerate() {
            let in_bucket = in_bucket as f64;
            if below + in_bucket >= rank {
                let start = if at == 0 { 0 } else { ENDS[at - 1] } as f64;
                // Nothing is known of the last but that it is longer.
                let end = ENDS.get(at).map_or(start, |&end| end as f64);
                let micros = start + (end - start) * (rank - below) / in_bucket;
                return Some(micros / 1e3);
            }
            below += in_bucket;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_the_buckets_rise_to_a_hundred_seconds() {
        assert!(ENDS.is_sorted());
        assert_eq!((ENDS[0], ENDS[8], ENDS[62]), (12, 100, 100_000_000));
    }

    #[test]
    fn a_quantile_is_within_its_bucket() {
        let latency = Latency::default();
        let earlier = latency.snapshot();
        assert_eq!(earlier.quantile(0.5), None);
        for _ in 0..98 {
            latency.record(Duration::from_millis(5));
        }
        latency.record(Duration::from_millis(90));
        latency.record(Duration::from_secs(3600));
        let seen = latency.snapshot().since(&earlier);
        let found = [0.5, 0.99, 1.0].map(|q| seen.quantile(q).unwrap());
        assert!((3.5..=5.0).contains(&found[0]), "{found:?}");
        assert!((80.0..=100.0).contains(&found[1]), "{found:?}");
        assert_eq!(found[2], 100_000.0, "{found:?}");
        assert_eq!((seen.count(), seen.up_to(5_000)), (100, 98));
    }
}
