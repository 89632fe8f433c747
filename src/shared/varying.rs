//! `VaryingKeys`: by which request fields the responses of a key vary.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::HeaderName;

use crate::sync::Mutex;

/// Kept while there is a flight for any variant of the key, so that a request finds the flight of its own variant
/// without looking at the others.
#[derive(Default)]
pub(crate) struct VaryingKeys {
    /// How many there are, so that the common case takes no lock.
    len: AtomicUsize,
    keys: Mutex<HashMap<u64, VaryingKey>>,
}

#[derive(Default)]
struct VaryingKey {
    /// As in the last response.
    names: Arc<[HeaderName]>,
    flights: usize,
}

/// Held by a flight for one variant of a key.
pub(crate) struct VariantGuard {
    keys: Arc<VaryingKeys>,
    hash: u64,
}

// ===== impl VaryingKeys =====

impl VaryingKeys {
    /// The fields, sorted, if there is a flight for one variant of the key with this hash.
    pub(crate) fn names(&self, hash: u64) -> Option<Arc<[HeaderName]>> {
        if self.len.load(Ordering::Acquire) == 0 {
            return None;
        }
        let keys = self.keys.lock();
        keys.get(&hash).map(|known| Arc::clone(&known.names))
    }

    /// Adds a flight.
    pub(crate) fn insert(self: &Arc<Self>, hash: u64, names: &Arc<[HeaderName]>) -> VariantGuard {
        let mut keys = self.keys.lock();
        let known = keys.entry(hash).or_default();
        known.names = Arc::clone(names);
        known.flights += 1;
        self.len.store(keys.len(), Ordering::Release);
        VariantGuard {
            keys: Arc::clone(self),
            hash,
        }
    }
}

// ===== impl VariantGuard =====

impl Drop for VariantGuard {
    fn drop(&mut self) {
        let mut keys = self.keys.keys.lock();
        let Some(known) = keys.get_mut(&self.hash) else {
            unreachable!("known while there is a flight");
        };
        known.flights -= 1;
        if known.flights == 0 {
            keys.remove(&self.hash);
        }
        if keys.is_empty() {
            // Free the memory that many keys took.
            *keys = HashMap::new();
        }
        self.keys.len.store(keys.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(name: &'static str) -> Arc<[HeaderName]> {
        [HeaderName::from_static(name)].into()
    }

    #[test]
    fn a_key_varies_until_its_last_flight_ends() {
        let keys = Arc::<VaryingKeys>::default();
        assert_eq!(keys.names(1), None);
        let first = keys.insert(1, &names("a"));
        let other = keys.insert(2, &names("b"));
        let second = keys.insert(1, &names("c"));
        assert_eq!(keys.names(1), Some(names("c")));
        drop(second);
        assert_eq!(keys.names(1), Some(names("c")));
        drop(first);
        assert_eq!((keys.names(1), keys.names(2)), (None, Some(names("b"))));
        drop(other);
        assert_eq!(keys.len.load(Ordering::Acquire), 0);
    }

    #[test]
    fn the_memory_of_many_keys_is_given_back_with_the_last() {
        let keys = Arc::<VaryingKeys>::default();
        let guards: Vec<_> = (0..1000)
            .map(|hash| keys.insert(hash, &names("a")))
            .collect();
        drop(guards);
        assert_eq!(keys.keys.lock().capacity(), 0);
    }
}
