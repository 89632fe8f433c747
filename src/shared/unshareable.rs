//! `UnshareableKeys`: keys that recently had an unshareable response, so that nobody waits for their head in vain.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::sync::Mutex;

/// How long a key is remembered after its unshareable response.
const LIFETIME: Duration = Duration::from_secs(60);

const SHARDS: usize = 64;

/// How many keys a shard remembers; the oldest is dropped first.
const CAPACITY: usize = 96;

/// A bounded set of hashes of keys, each with the same lifetime. Nothing of a key or a request is kept: if two keys
/// have the same hash, both count as unshareable, which only costs calls.
pub(crate) struct UnshareableKeys {
    /// How many there are, so that the common case takes no lock.
    len: AtomicUsize,
    shards: [Mutex<VecDeque<Remembered>>; SHARDS],
    /// How many lifetimes had passed since `born` when expired entries were last freed in all shards.
    swept: AtomicU64,
    born: Instant,
}

#[derive(Clone, Copy)]
struct Remembered {
    hash: u64,
    until: Instant,
}

// ===== impl UnshareableKeys =====

impl UnshareableKeys {
    pub(crate) fn new() -> Self {
        Self {
            len: AtomicUsize::new(0),
            shards: std::array::from_fn(|_| Mutex::new(VecDeque::new())),
            swept: AtomicU64::new(0),
            born: Instant::now(),
        }
    }

    fn is_empty(&self) -> bool {
        self.len.load(Ordering::Acquire) == 0
    }

    pub(crate) fn contains(&self, hash: u64, now: Instant) -> bool {
        if self.is_empty() {
            return false;
        }
        self.sweep(now);
        let shard = self.shard(hash).lock();
        shard.iter().any(|key| key.hash == hash && key.until > now)
    }

    pub(crate) fn insert(&self, hash: u64, now: Instant) {
        self.sweep(now);
        self.change(self.shard(hash), |keys| {
            keys.retain(|key| key.hash != hash);
            if keys.len() == CAPACITY {
                keys.pop_front();
            }
            keys.push_back(Remembered {
                hash,
                until: now + LIFETIME,
            });
        });
    }

    pub(crate) fn remove(&self, hash: u64) {
        if !self.is_empty() {
            self.change(self.shard(hash), |keys| {
                keys.retain(|key| key.hash != hash);
            });
        }
    }

    fn shard(&self, hash: u64) -> &Mutex<VecDeque<Remembered>> {
        &self.shards[(hash >> 32) as usize % SHARDS]
    }

    /// Frees expired entries, once in each lifetime since `born`.
    fn sweep(&self, now: Instant) {
        let age = now.saturating_duration_since(self.born);
        let lifetimes = age.as_secs() / LIFETIME.as_secs();
        if self.swept.load(Ordering::Relaxed) >= lifetimes
            || self.swept.fetch_max(lifetimes, Ordering::Relaxed) >= lifetimes
        {
            return;
        }
        for shard in &self.shards {
            self.change(shard, |keys| {
                keys.retain(|key| key.until > now);
                keys.shrink_to_fit();
            });
        }
    }

    fn change(
        &self,
        shard: &Mutex<VecDeque<Remembered>>,
        change: impl FnOnce(&mut VecDeque<Remembered>),
    ) {
        let mut keys = shard.lock();
        let before = keys.len();
        change(&mut keys);
        // If there are fewer, the sum wraps.
        let more = keys.len().wrapping_sub(before);
        self.len.fetch_add(more, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    /// As many hashes as a test wants.
    fn hashes() -> impl Iterator<Item = u64> {
        let state = RandomState::new();
        (0_u64..).map(move |key| state.hash_one(key))
    }

    fn held(keys: &UnshareableKeys) -> (usize, usize) {
        let shards = keys.shards.iter().map(Mutex::lock);
        shards.fold((0, 0), |(len, capacity), shard| {
            (len + shard.len(), capacity + shard.capacity())
        })
    }

    #[test]
    fn a_key_is_remembered_for_sixty_seconds() {
        let (keys, now) = (UnshareableKeys::new(), Instant::now());
        assert!(keys.is_empty());
        keys.insert(1, now);
        assert!(!keys.is_empty());
        assert!(keys.contains(1, now));
        assert!(keys.contains(1, now + LIFETIME - MILLI));
        assert!(!keys.contains(2, now));
        assert!(!keys.contains(1, now + LIFETIME));
    }

    #[test]
    fn a_key_that_is_unshareable_again_is_remembered_from_then_on() {
        let (keys, now) = (UnshareableKeys::new(), Instant::now());
        keys.insert(1, now);
        keys.insert(1, now + LIFETIME / 2);
        assert!(keys.contains(1, now + LIFETIME));
        assert!(!keys.contains(1, now + LIFETIME / 2 + LIFETIME));
        assert_eq!(held(&keys).0, 1);
    }

    #[test]
    fn a_key_that_is_unshareable_all_the_time_makes_no_other_forgotten() {
        let (keys, now) = (UnshareableKeys::new(), Instant::now());
        // Both are in one shard.
        keys.insert(1, now);
        for _ in 0..2 * CAPACITY {
            keys.insert(2, now);
        }
        assert!(keys.contains(1, now) && keys.contains(2, now));
        assert_eq!(held(&keys).0, 2);
    }

    #[test]
    fn the_count_is_right_whichever_of_several_is_removed() {
        let (keys, now) = (UnshareableKeys::new(), Instant::now());
        (1..=3).for_each(|key| keys.insert(key, now));
        for left in (0..3).rev() {
            keys.remove(left + 1);
            assert_eq!(keys.len.load(Ordering::Relaxed), left as usize);
        }
    }

    #[test]
    fn a_removed_key_is_not_known() {
        let (keys, now) = (UnshareableKeys::new(), Instant::now());
        keys.insert(1, now);
        keys.remove(2);
        assert!(keys.contains(1, now));
        keys.remove(1);
        assert!(!keys.contains(1, now));
        assert!(keys.is_empty());
    }

    #[test]
    fn the_newest_thousands_are_known_and_the_oldest_make_room() {
        let (keys, now) = (UnshareableKeys::new(), Instant::now());
        let all: Vec<_> = hashes().take(4 * SHARDS * CAPACITY).collect();
        for hash in &all {
            keys.insert(*hash, now);
        }
        let (oldest, newest) = (&all[..100], &all[all.len() - 2000..]);
        assert!(newest.iter().all(|hash| keys.contains(*hash, now)));
        assert!(!oldest.iter().any(|hash| keys.contains(*hash, now)));
        assert!(held(&keys).0 <= SHARDS * CAPACITY);
        // A deque doubles.
        assert!(held(&keys).1 <= SHARDS * CAPACITY.next_power_of_two());
    }

    #[test]
    fn one_question_about_another_key_gives_back_all_that_has_expired() {
        let (keys, now) = (UnshareableKeys::new(), Instant::now());
        for hash in hashes().take(3000) {
            keys.insert(hash, now);
        }
        assert!(!keys.contains(1, now + LIFETIME - MILLI));
        assert!(held(&keys).0 > 2900);
        assert!(!keys.contains(1, now + LIFETIME));
        assert_eq!(held(&keys), (0, 0));
        assert!(keys.is_empty());
    }

    #[test]
    fn nothing_is_held_for_longer_than_two_lifetimes_while_others_ask() {
        let (keys, begin) = (UnshareableKeys::new(), Instant::now());
        for (second, hash) in hashes().take(600).enumerate() {
            let now = begin + Duration::from_secs(second as u64);
            keys.insert(hash, now);
            assert!(held(&keys).0 <= 121, "{second}");
        }
    }

    #[test]
    fn a_key_that_comes_and_goes_costs_no_memory() {
        let (keys, now) = (UnshareableKeys::new(), Instant::now());
        for _ in 0..1000 {
            keys.insert(1, now);
            keys.remove(1);
        }
        assert!(keys.is_empty());
        assert!(held(&keys).1 <= 4);
    }

    #[test]
    fn the_count_is_right_whatever_several_threads_do() {
        let (keys, now) = (UnshareableKeys::new(), Instant::now());
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let keys = &keys;
                scope.spawn(move || {
                    for turn in 0..2000_u64 {
                        let hash = ((turn * 7 + thread) % 50) << 32;
                        match turn % 3 {
                            0 => keys.insert(hash, now + MILLI * (turn as u32 * 100)),
                            1 => keys.remove(hash),
                            _ => _ = keys.contains(hash, now + MILLI * (turn as u32 * 100)),
                        }
                    }
                });
            }
        });
        assert_eq!(keys.len.load(Ordering::SeqCst), held(&keys).0);
    }
}
