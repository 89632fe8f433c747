//! Which keys gave an unshareable response of late, so that nobody waits for their head in vain.

use std::{collections::VecDeque, time::Duration};

use hashbrown::HashTable;
use tokio::time::Instant;

use crate::sync::{AtomicUsize, Mutex, Ordering};

/// How long a key is remembered, from the unshareable response on.
const LIFETIME: Duration = Duration::from_secs(60);

/// How many keys are remembered; the oldest make room.
const CAPACITY: usize = 4096;

/// A bounded set of keys with one lifetime, so the oldest expire first. The clock is read only where there is a key.
pub(crate) struct Memory<K> {
    /// The number of keys, so that the usual answer costs no lock.
    len: AtomicUsize,
    keys: Mutex<Keys<K>>,
}

struct Keys<K> {
    table: HashTable<Remembered<K>>,
    /// Oldest first; those no longer in the table are skipped.
    order: VecDeque<(u64, u64)>,
    next: u64,
}

struct Remembered<K> {
    hash: u64,
    number: u64,
    key: K,
    until: Instant,
}

// ===== impl Memory =====

impl<K: Eq> Memory<K> {
    pub(crate) fn new() -> Self {
        Self {
            len: AtomicUsize::new(0),
            keys: Mutex::new(Keys {
                table: HashTable::new(),
                order: VecDeque::new(),
                next: 0,
            }),
        }
    }

    fn is_empty(&self) -> bool {
        self.len.load(Ordering::Acquire) == 0
    }

    pub(crate) fn knows(&self, hash: u64, key: &K) -> bool {
        if self.is_empty() {
            return false;
        }
        let now = Instant::now();
        let mut keys = self.keys.lock();
        let is_it = |known: &Remembered<K>| known.hash == hash && known.key == *key;
        let Ok(found) = keys.table.find_entry(hash, is_it) else {
            return false;
        };
        if found.get().until > now {
            return true;
        }
        let (expired, _) = found.remove();
        self.len.store(keys.table.len(), Ordering::Release);
        drop(keys);
        drop(expired);
        false
    }

    pub(crate) fn remember(&self, hash: u64, key: K) {
        let until = Instant::now() + LIFETIME;
        let mut keys = self.keys.lock();
        let is_it = |known: &Remembered<K>| known.hash == hash && known.key == key;
        let spare = if let Some(known) = keys.table.find_mut(hash, is_it) {
            // Its place in `order` is now too early; should it come up for eviction, it merely goes sooner.
            known.until = until;
            (Some(key), None)
        } else {
            let evicted = keys.make_room();
            let number = keys.next;
            keys.next += 1;
            keys.order.push_back((hash, number));
            let remembered = Remembered {
                hash,
                number,
                key,
                until,
            };
            keys.table
                .insert_unique(hash, remembered, |known| known.hash);
            (None, evicted)
        };
        self.len.store(keys.table.len(), Ordering::Release);
        drop(keys);
        drop(spare);
    }

    pub(crate) fn clear(&self, hash: u64, key: &K) {
        if self.is_empty() {
            return;
        }
        let mut keys = self.keys.lock();
        let is_it = |known: &Remembered<K>| known.hash == hash && known.key == *key;
        let cleared = keys
            .table
            .find_entry(hash, is_it)
            .ok()
            .map(|found| found.remove().0);
        self.len.store(keys.table.len(), Ordering::Release);
        drop(keys);
        drop(cleared);
    }
}

// ===== impl Keys =====

impl<K> Keys<K> {
    /// Takes out the oldest key where the table is full; what is returned is dropped outside the lock.
    fn make_room(&mut self) -> Option<Remembered<K>> {
        if self.order.len() >= 2 * CAPACITY {
            // Most of them were cleared and remembered again.
            let table = &self.table;
            self.order.retain(|&(hash, number)| {
                table.find(hash, |known| known.number == number).is_some()
            });
        }
        if self.table.len() < CAPACITY {
            return None;
        }
        loop {
            let (hash, number) = self.order.pop_front()?;
            if let Ok(found) = self.table.find_entry(hash, |known| known.number == number) {
                return Some(found.remove().0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_remembered_for_sixty_seconds() {
        let memory = Memory::new();
        memory.remember(1, "key");
        tokio::time::advance(LIFETIME - Duration::from_millis(1)).await;
        assert!(memory.knows(1, &"key"));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!memory.knows(1, &"key"));
        assert!(memory.is_empty());
    }

    #[test]
    fn a_cleared_key_is_not_known() {
        let memory = Memory::new();
        memory.remember(1, "key");
        memory.clear(1, &"other");
        assert!(memory.knows(1, &"key"));
        memory.clear(1, &"key");
        assert!(!memory.knows(1, &"key"));
    }

    #[test]
    fn the_oldest_key_makes_room() {
        let memory = Memory::new();
        for key in 0..=CAPACITY as u64 {
            memory.remember(key, key);
        }
        assert_eq!(memory.keys.lock().table.len(), CAPACITY);
        assert!(!memory.knows(0, &0));
        assert!(memory.knows(1, &1));
    }

    #[test]
    fn a_key_that_comes_and_goes_costs_no_memory() {
        let memory = Memory::new();
        for _ in 0..10 * CAPACITY {
            memory.remember(1, "key");
            memory.clear(1, &"key");
        }
        assert!(memory.keys.lock().order.len() <= 2 * CAPACITY);
        assert!(memory.is_empty());
    }
}
