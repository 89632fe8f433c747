//! One lock of the table, and the entries behind it. `T` is what the table keeps in an entry.
//!
//! The invariants cited here are those of [`table`](super::table).

use std::{collections::BTreeMap, mem, sync::Arc};

use hashbrown::HashTable;

use crate::sync::{Mutex, MutexGuard};

/// An empty table with room for more entries than this frees its memory.
const KEPT_CAPACITY: usize = 32;

/// One lock, one table. Aligned, and behind its own `Arc`, so that calls with different keys on different cores share
/// no cache line, neither a lock nor a reference count.
#[repr(align(128))]
pub(crate) struct Shard<K, T> {
    entries: Mutex<Entries<K, T>>,
}

/// The first entry is stored beside the lock. While there are more shards than flights, which is the usual case, a call
/// only touches that cache line and uses no table.
pub(super) struct Entries<K, T> {
    first: Option<Entry<K, T>>,
    rest: HashTable<Entry<K, T>>,
    /// What is left for the holder of a number, even after its entry has gone.
    aside: BTreeMap<u64, T>,
    /// The number of the next entry.
    next: u64,
}

pub(crate) struct Entry<K, T> {
    pub(super) id: Id,
    pub(super) key: K,
    pub(super) held: T,
}

/// Identifies an entry of a shard.
#[derive(Clone, Copy)]
pub(super) struct Id {
    hash: u64,
    /// Unique in this shard, forever (T3).
    number: u64,
}

/// Where an entry is linked, or was.
pub(super) struct Link<K, T> {
    pub(super) shard: Arc<Shard<K, T>>,
    pub(super) id: Id,
}

// ===== impl Shard =====

impl<K, T> Shard<K, T> {
    pub(super) fn new() -> Self {
        Self {
            entries: Mutex::new(Entries {
                first: None,
                rest: HashTable::new(),
                aside: BTreeMap::new(),
                next: 0,
            }),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Entries<K, T>> {
        self.entries.lock()
    }
}

// ===== impl Link =====

impl<K, T> Link<K, T> {
    /// Takes the entry out of the table, if it is there (T3). Drop the result outside any lock (T4).
    pub(super) fn unlink(&self) -> Option<Entry<K, T>> {
        self.shard.lock().remove(self.id)
    }

    /// As `unlink`, where `agreed`, which is asked under the shard's lock, says yes; else `Err`.
    pub(super) fn unlink_if(
        &self,
        agreed: impl FnOnce() -> bool,
    ) -> Result<Option<Entry<K, T>>, ()> {
        let mut entries = self.shard.lock();
        match agreed() {
            true => Ok(entries.remove(self.id)),
            false => Err(()),
        }
    }
}

// ===== impl Entries =====

impl<K, T> Entries<K, T> {
    pub(super) fn find(
        &self,
        hash: u64,
        mut matches: impl FnMut(&Entry<K, T>) -> bool,
    ) -> Option<&Entry<K, T>> {
        let mut matches = |entry: &Entry<K, T>| entry.id.hash == hash && matches(entry);
        match &self.first {
            Some(first) if matches(first) => Some(first),
            _ if self.rest.is_empty() => None,
            _ => self.rest.find(hash, matches),
        }
    }

    /// What the entry holds, if it is in the table.
    #[inline]
    pub(super) fn held_mut(&mut self, id: Id) -> Option<&mut T> {
        let entry = match &mut self.first {
            Some(first) if first.id.number == id.number => first,
            _ if self.rest.is_empty() => return None,
            _ => {
                let is_it = |entry: &Entry<K, T>| entry.id.number == id.number;
                self.rest.find_mut(id.hash, is_it)?
            }
        };
        Some(&mut entry.held)
    }

    /// The next entry.
    pub(super) fn next(&mut self, hash: u64) -> Id {
        let number = self.next;
        self.next += 1;
        Id { hash, number }
    }

    #[inline]
    pub(super) fn link(&mut self, id: Id, key: K, held: T) {
        let entry = Entry { id, key, held };
        if self.first.is_none() {
            self.first = Some(entry);
        } else {
            self.rest
                .insert_unique(id.hash, entry, |entry| entry.id.hash);
        }
    }

    /// Takes an entry out, if it is in the table (T3). Drop it outside the lock (T4).
    #[inline]
    pub(super) fn remove(&mut self, id: Id) -> Option<Entry<K, T>> {
        match &self.first {
            Some(first) if first.id.number == id.number => self.first.take(),
            _ if self.rest.is_empty() => None,
            _ => self.remove_from_rest(id),
        }
    }

    #[inline(never)]
    fn remove_from_rest(&mut self, id: Id) -> Option<Entry<K, T>> {
        let is_it = |entry: &Entry<K, T>| entry.id.number == id.number;
        let entry = self.rest.find_entry(id.hash, is_it).ok()?.remove().0;
        if self.rest.is_empty() && self.rest.capacity() > KEPT_CAPACITY {
            self.rest = HashTable::new();
        }
        Some(entry)
    }

    /// Leaves something aside for the holder of this entry's link.
    pub(super) fn put_aside(&mut self, id: Id, held: T) {
        self.aside.insert(id.number, held);
    }

    pub(super) fn take_aside(&mut self, id: Id) -> Option<T> {
        self.aside.remove(&id.number)
    }

    /// Takes all entries out.
    pub(super) fn take_all(&mut self) -> Vec<Entry<K, T>> {
        let (first, rest) = (self.first.take(), mem::take(&mut self.rest));
        first.into_iter().chain(rest).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry<K, T>> {
        self.first.iter().chain(&self.rest)
    }

    #[cfg(feature = "http")]
    pub(super) fn with_hash(&self, hash: u64) -> impl Iterator<Item = &Entry<K, T>> {
        let all = self.first.iter().chain(self.rest.iter_hash(hash));
        all.filter(move |entry| entry.id.hash == hash)
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }
}
