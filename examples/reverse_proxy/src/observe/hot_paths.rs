//! The paths that are asked for most, in memory that does not grow with what clients send.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Each path has its place in one of these sets, by its hash.
const SETS: usize = 128;
const WAYS: usize = 8;
/// What was asked so long ago counts half.
const HALF_LIFE: Duration = Duration::from_secs(10);
/// As much of a path as is kept.
const LENGTH: usize = 120;

/// Counts requests by path. A path that is asked for often keeps its place; of those that come once, the last ones have
/// one for a while. A path, not a target: queries have secrets in them.
#[derive(Debug)]
pub(crate) struct HotPaths {
    sets: Box<[Mutex<[Slot; WAYS]>]>,
    hasher: RandomState,
    began: Instant,
}

/// A path with its numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HotPath {
    pub(crate) path: Box<str>,
    /// Since the path got its place.
    pub(crate) requests: u64,
    /// Those of them that caused no call.
    pub(crate) saved: u64,
}

#[derive(Debug, Default)]
struct Slot {
    hash: u64,
    /// Requests, halved for each half-life since; 0: the place is free.
    weight: u64,
    /// The half-life in which `weight` was true.
    age: u64,
    counted: HotPath,
}

// ===== impl HotPaths =====

impl HotPaths {
    pub(crate) fn count(&self, path: &str, saved: bool) {
        let hash = self.hasher.hash_one(path);
        let set = &self.sets[hash as usize % SETS];
        let age = self.age();
        let mut slots = set.lock().unwrap_or_else(PoisonError::into_inner);
        for slot in slots.iter_mut() {
            slot.rest(age);
        }
        let slot = match slots.iter().position(|slot| slot.hash == hash) {
            Some(own) => &mut slots[own],
            None => {
                let lightest = slots.iter_mut().min_by_key(|slot| slot.weight);
                let slot = lightest.expect("a set has several places");
                // The place of another is taken once it has lost as many times as it was asked for.
                slot.weight = slot.weight.saturating_sub(1);
                if slot.weight > 0 {
                    return;
                }
                slot.hash = hash;
                slot.counted = HotPath::new(path);
                slot
            }
        };
        slot.weight += 1;
        slot.counted.requests += 1;
        slot.counted.saved += u64::from(saved);
    }

    /// The paths that were asked for most of late, the hottest first.
    pub(crate) fn top(&self, n: usize) -> Vec<HotPath> {
        let age = self.age();
        let mut all = Vec::new();
        for set in &self.sets {
            let mut slots = set.lock().unwrap_or_else(PoisonError::into_inner);
            for slot in slots.iter_mut() {
                slot.rest(age);
                if slot.weight > 0 {
                    all.push((slot.weight, slot.counted.clone()));
                }
            }
        }
        all.sort_by(|(a, one), (b, other)| b.cmp(a).then_with(|| one.path.cmp(&other.path)));
        all.truncate(n);
        all.into_iter().map(|(_, hot)| hot).collect()
    }

    fn age(&self) -> u64 {
        self.began.elapsed().as_secs() / HALF_LIFE.as_secs()
    }
}

impl Default for HotPaths {
    fn default() -> Self {
        Self {
            sets: (0..SETS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            began: Instant::now(),
        }
    }
}

// ===== impl HotPath =====

impl HotPath {
    fn new(path: &str) -> Self {
        let path = match path.char_indices().nth(LENGTH) {
            Some((end, _)) => format!("{}…", &path[..end]).into(),
            None => path.into(),
        };
        Self {
            path,
            ..Self::default()
        }
    }
}

// ===== impl Slot =====

impl Slot {
    fn rest(&mut self, age: u64) {
        let halvings = u32::try_from(age - self.age).unwrap_or(u32::MAX);
        self.weight = self.weight.checked_shr(halvings).unwrap_or(0);
        self.age = age;
        if self.weight == 0 {
            *self = Self {
                age,
                ..Self::default()
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_hottest_paths_stand_out_of_a_crowd_of_paths() {
        let paths = HotPaths::default();
        for n in 0..20_000 {
            paths.count(&format!("/page/{n}"), false);
            if n % 4 == 0 {
                paths.count("/hot", n % 8 != 0);
            }
            if n % 10 == 0 {
                paths.count("/warm", false);
            }
        }
        let top = paths.top(2);
        assert_eq!(&*top[0].path, "/hot");
        assert_eq!((top[0].requests, top[0].saved), (5_000, 2_500));
        assert_eq!((&*top[1].path, top[1].requests), ("/warm", 2_000));
        assert!(paths.top(usize::MAX).len() <= SETS * WAYS);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_hot_gives_way_to_what_is() {
        let paths = HotPaths::default();
        for _ in 0..1_000 {
            paths.count("/yesterday", true);
        }
        tokio::time::advance(10 * HALF_LIFE).await;
        for _ in 0..10 {
            paths.count("/today", true);
        }
        assert_eq!(&*paths.top(1)[0].path, "/today");
        tokio::time::advance(10 * HALF_LIFE).await;
        assert_eq!(paths.top(10), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_path_is_cut_between_characters() {
        let paths = HotPaths::default();
        paths.count(&format!("/{}", "ä".repeat(10_000)), false);
        assert_eq!(paths.top(1)[0].path.chars().count(), LENGTH + 1);
    }
}
