//! The flights in the air, by key, in shards.
//!
//! Invariants, cited as T1 to T4:
//!
//! 1. An entry is in the table exactly while a new caller may join its flight. Whoever ends or abandons a flight unlinks
//!    it under the shard's lock *before* anybody can see the end, so nobody joins a flight that is over.
//! 2. A caller is counted under the shard's lock in which it found the flight, and the last one is counted out under the
//!    lock in which the flight is unlinked: nobody joins a flight that its last caller has just left.
//! 3. An entry is removed by identity, never by key: `forget` may have let a successor in.
//! 4. Under a shard's lock keys are compared and entries linked and unlinked. Entries, which own a user's key, are
//!    dropped after the lock is released.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    mem,
    sync::Arc,
};

use hashbrown::HashTable;

use super::{caller::Caller, flight::Flight};
use crate::sync::Mutex;

/// Shards enough that callers with distinct keys seldom meet, and few enough that an empty group costs a page or two.
const SHARDS: usize = 64;

/// An emptied shard with a larger table gives its memory back.
const KEPT_CAPACITY: usize = 64;

/// `key -> flight`. A key may have several flights, which `visit` tells apart (the layer's variants).
pub(crate) struct Table<K, V, C> {
    shards: Box<[Arc<Shard<K, V, C>>]>,
    hasher: RandomState,
}

/// One lock, one table. Aligned, and behind an `Arc` of its own, so that calls with distinct keys on distinct cores touch
/// no cache line together: neither a lock nor a reference count.
#[repr(align(128))]
pub(crate) struct Shard<K, V, C> {
    entries: Mutex<HashTable<Entry<K, V, C>>>,
}

pub(crate) struct Entry<K, V, C> {
    hash: u64,
    key: K,
    flight: Arc<Flight<K, V, C>>,
}

/// What a caller makes of a flight whose hash is that of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visit {
    /// Not mine.
    Pass,
    /// I am one of its callers from now on.
    Join,
    /// Mine, but nobody may join it any more.
    Detach,
    /// Mine, and I may neither join it nor lead another.
    Refuse,
}

pub(crate) enum Entered<K, V, C> {
    /// The caller must [`start`](Caller::start) the work.
    Led(Caller<K, V, C>),
    /// The caller must [`board`](Caller::board).
    Joined(Caller<K, V, C>),
    /// What the caller came with.
    Refused(K, C),
}

// ===== impl Table =====

impl<K, V, C> Table<K, V, C> {
    pub(crate) fn new() -> Self {
        let shard = || {
            Arc::new(Shard {
                entries: Mutex::new(HashTable::new()),
            })
        };
        let shards = if cfg!(loom) { 1 } else { SHARDS };
        Self {
            shards: (0..shards).map(|_| shard()).collect(),
            hasher: RandomState::new(),
        }
    }

    pub(crate) fn hash<Q>(&self, key: &Q) -> u64
    where
        Q: Hash + ?Sized,
    {
        self.hasher.hash_one(key)
    }

    /// Which shard holds `hash`; also a spread for whatever else is counted per shard.
    // The middle bits: hashbrown takes the lowest and the highest.
    pub(crate) fn index(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.shards.len() - 1)
    }

    fn shard(&self, hash: u64) -> &Arc<Shard<K, V, C>> {
        &self.shards[self.index(hash)]
    }

    /// Joins the first flight for which `visit` says so, else leads a new one with `cargo`. With `keep` the flight goes
    /// on to its end though every caller leaves.
    ///
    /// `visit` runs under the lock: it may compare keys, and link the caller to what the flight carries.
    pub(crate) fn enter(
        &self,
        hash: u64,
        key: K,
        cargo: C,
        keep: bool,
        mut visit: impl FnMut(&K, &C, &Entry<K, V, C>) -> Visit,
    ) -> Entered<K, V, C> {
        let shard = self.shard(hash);
        // Declared before the lock, so dropped after it (T4).
        let mut stale = Vec::new();
        let mut detached = Vec::new();
        let mut entries = shard.entries.lock();
        let mut found = None;
        for entry in entries.iter_hash(hash).filter(|entry| entry.hash == hash) {
            match visit(&key, &cargo, entry) {
                Visit::Pass => {}
                Visit::Join => {
                    found = Some(Arc::clone(&entry.flight));
                    break;
                }
                Visit::Detach => stale.push(Arc::clone(&entry.flight)),
                Visit::Refuse => {
                    drop(entries);
                    return Entered::Refused(key, cargo);
                }
            }
        }
        for flight in &stale {
            if let Ok(entry) = entries.find_entry(hash, |entry| Arc::ptr_eq(&entry.flight, flight))
            {
                detached.push(entry.remove().0);
            }
        }
        if let Some(flight) = found {
            flight.count_in(keep);
            let caller = Caller::follower(flight);
            drop(entries);
            // Here, not by the end of this function: if a drop panics then, the caller that is given back is leaked.
            drop((key, cargo, detached));
            return Entered::Joined(caller);
        }
        let flight = Arc::new(Flight::new(Arc::clone(shard), hash, cargo, keep));
        let entry = Entry {
            hash,
            key,
            flight: Arc::clone(&flight),
        };
        entries.insert_unique(hash, entry, |entry| entry.hash);
        let caller = Caller::leader(flight);
        drop(entries);
        drop(detached);
        Entered::Led(caller)
    }

    /// The first flight that `matches`.
    pub(crate) fn find(
        &self,
        hash: u64,
        matches: impl FnMut(&K) -> bool,
    ) -> Option<Arc<Flight<K, V, C>>> {
        let mut matches = matches;
        let entries = self.shard(hash).entries.lock();
        let entry = entries.find(hash, |entry| entry.hash == hash && matches(&entry.key))?;
        Some(Arc::clone(&entry.flight))
    }

    pub(crate) fn clear(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| {
                let cleared = mem::take(&mut *shard.entries.lock());
                cleared.len()
            })
            .sum()
    }

    pub(crate) fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.entries.lock().len())
            .sum()
    }
}

#[cfg(feature = "http")]
impl<K, V, C> Table<K, V, C> {
    /// How many flights are `open`, which is asked under the locks.
    pub(crate) fn count(&self, mut open: impl FnMut(&Flight<K, V, C>) -> bool) -> usize {
        let count = |shard: &Arc<Shard<K, V, C>>| {
            let entries = shard.entries.lock();
            entries.iter().filter(|entry| open(&entry.flight)).count()
        };
        self.shards.iter().map(count).sum()
    }

    /// The flights of one hash.
    pub(crate) fn with_hash(&self, hash: u64) -> Vec<Arc<Flight<K, V, C>>> {
        let entries = self.shard(hash).entries.lock();
        entries
            .iter_hash(hash)
            .filter(|entry| entry.hash == hash)
            .map(|entry| Arc::clone(&entry.flight))
            .collect()
    }

    /// All flights, a shard at a time: not one moment's picture.
    pub(crate) fn all(&self) -> impl Iterator<Item = Arc<Flight<K, V, C>>> {
        self.shards.iter().flat_map(|shard| {
            let entries = shard.entries.lock();
            let flights: Vec<_> = entries
                .iter()
                .map(|entry| Arc::clone(&entry.flight))
                .collect();
            flights
        })
    }
}

// ===== impl Entry =====

impl<K, V, C> Entry<K, V, C> {
    pub(crate) fn key(&self) -> &K {
        &self.key
    }

    #[cfg(feature = "http")]
    pub(crate) fn flight(&self) -> &Arc<Flight<K, V, C>> {
        &self.flight
    }
}

// ===== impl Shard =====

impl<K, V, C> Shard<K, V, C> {
    /// Unlinks `flight` if it is still linked (T3). The entry is the caller's to drop, outside the lock.
    pub(crate) fn unlink(&self, flight: &Flight<K, V, C>) -> Unlinked<K, V, C> {
        self.unlink_if(flight, || true).unwrap_or_default()
    }

    /// As `unlink`, where `agreed`, which is asked under the lock, says yes; else `None`.
    pub(crate) fn unlink_if(
        &self,
        flight: &Flight<K, V, C>,
        agreed: impl FnOnce() -> bool,
    ) -> Option<Unlinked<K, V, C>> {
        let mut unlinked = Unlinked::default();
        let mut entries = self.entries.lock();
        if !agreed() {
            return None;
        }
        if let Ok(found) = entries.find_entry(flight.hash(), |entry| {
            std::ptr::eq(Arc::as_ptr(&entry.flight), flight)
        }) {
            unlinked.entry = Some(found.remove().0);
        }
        if entries.is_empty() && entries.capacity() > KEPT_CAPACITY {
            unlinked.table = Some(mem::take(&mut *entries));
        }
        Some(unlinked)
    }
}

/// What was taken out of a table: dropped outside its lock (T4).
#[must_use = "drop it where no lock is held"]
pub(crate) struct Unlinked<K, V, C> {
    entry: Option<Entry<K, V, C>>,
    table: Option<HashTable<Entry<K, V, C>>>,
}

impl<K, V, C> Unlinked<K, V, C> {
    /// Whether a flight was in the table.
    pub(crate) fn was_linked(&self) -> bool {
        self.entry.is_some()
    }
}

impl<K, V, C> Default for Unlinked<K, V, C> {
    fn default() -> Self {
        Self {
            entry: None,
            table: None,
        }
    }
}
