//! One lock of the table, and the flights behind it.
//!
//! The invariants cited here are those of [`table`](super::table).

use std::{mem, sync::Arc};

use hashbrown::HashTable;

use super::{flight::Flight, solo::Solo};
use crate::sync::{Mutex, MutexGuard};

/// An emptied table of more entries gives its memory back.
const KEPT_CAPACITY: usize = 32;

/// One lock, one table. Aligned, and behind an `Arc` of its own, so that calls with distinct keys on distinct cores touch
/// no cache line together: neither a lock nor a reference count.
#[repr(align(128))]
pub(crate) struct Shard<K, V, C> {
    entries: Mutex<Entries<K, V, C>>,
}

/// The flights of one shard. The first lies beside the lock: while shards outnumber flights, which is most of the time, a
/// call touches that cache line and neither searches nor fills a table.
pub(super) struct Entries<K, V, C> {
    first: Option<Entry<K, V, C>>,
    rest: HashTable<Entry<K, V, C>>,
    /// Flights that were solo, by number, until their leaders come for them: the entry may go before they do.
    aside: Option<Box<HashTable<Aside<K, V, C>>>>,
    /// The number of the next entry.
    next: u64,
}

pub(crate) struct Entry<K, V, C> {
    hash: u64,
    /// Unlike every other of this shard, ever (T3).
    number: u64,
    key: K,
    flight: Held<K, V, C>,
}

/// A flight, as the table holds it.
enum Held<K, V, C> {
    Solo(Solo<V>),
    Whole(Arc<Flight<K, V, C>>),
}

struct Aside<K, V, C> {
    number: u64,
    flight: Arc<Flight<K, V, C>>,
}

/// What was taken out of a shard: dropped outside its lock (T4).
#[must_use = "drop it where no lock is held"]
pub(crate) struct Unlinked<K, V, C> {
    entry: Option<Entry<K, V, C>>,
    table: Option<HashTable<Entry<K, V, C>>>,
}

// ===== impl Shard =====

impl<K, V, C> Shard<K, V, C> {
    pub(super) fn new() -> Self {
        Self {
            entries: Mutex::new(Entries {
                first: None,
                rest: HashTable::new(),
                aside: None,
                next: 0,
            }),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Entries<K, V, C>> {
        self.entries.lock()
    }
}

// ===== impl Entries =====

impl<K, V, C> Entries<K, V, C> {
    pub(super) fn find(
        &self,
        hash: u64,
        mut matches: impl FnMut(&Entry<K, V, C>) -> bool,
    ) -> Option<&Entry<K, V, C>> {
        let mut matches = |entry: &Entry<K, V, C>| entry.hash == hash && matches(entry);
        match &self.first {
            Some(first) if matches(first) => Some(first),
            _ if self.rest.is_empty() => None,
            _ => self.rest.find(hash, matches),
        }
    }

    pub(super) fn find_mut(
        &mut self,
        hash: u64,
        mut matches: impl FnMut(&Entry<K, V, C>) -> bool,
    ) -> Option<&mut Entry<K, V, C>> {
        let mut matches = |entry: &Entry<K, V, C>| entry.hash == hash && matches(entry);
        match &mut self.first {
            Some(first) if matches(first) => Some(first),
            _ if self.rest.is_empty() => None,
            _ => self.rest.find_mut(hash, matches),
        }
    }

    fn by_number(&mut self, hash: u64, number: u64) -> Option<&mut Entry<K, V, C>> {
        match &mut self.first {
            Some(first) if first.number == number => Some(first),
            _ if self.rest.is_empty() => None,
            _ => self.rest.find_mut(hash, |entry| entry.number == number),
        }
    }

    /// The number of the entry that is linked next.
    pub(super) fn next_number(&self) -> u64 {
        self.next
    }

    pub(super) fn link_solo(&mut self, hash: u64, key: K) {
        self.link(hash, key, Held::Solo(Solo::default()));
    }

    pub(super) fn link_whole(&mut self, hash: u64, key: K, flight: Arc<Flight<K, V, C>>) {
        self.link(hash, key, Held::Whole(flight));
    }

    #[inline]
    fn link(&mut self, hash: u64, key: K, flight: Held<K, V, C>) {
        let entry = Entry {
            hash,
            number: self.next,
            key,
            flight,
        };
        self.next += 1;
        if self.first.is_none() {
            self.first = Some(entry);
        } else {
            self.rest.insert_unique(hash, entry, |entry| entry.hash);
        }
    }

    /// Takes the entry of this number out, if it is in (T3), and with it the table that it leaves large and empty.
    pub(super) fn unlink(&mut self, hash: u64, number: u64) -> Unlinked<K, V, C> {
        let mut unlinked = Unlinked::default();
        match &self.first {
            Some(first) if first.number == number => unlinked.entry = self.first.take(),
            _ if self.rest.is_empty() => {}
            _ => {
                let found = self.rest.find_entry(hash, |entry| entry.number == number);
                unlinked.entry = found.ok().map(|entry| entry.remove().0);
                if self.rest.is_empty() && self.rest.capacity() > KEPT_CAPACITY {
                    unlinked.table = Some(mem::take(&mut self.rest));
                }
            }
        }
        unlinked
    }

    /// A flight's solo part, unless it has become whole.
    pub(super) fn solo(&mut self, hash: u64, number: u64) -> Option<&mut Solo<V>> {
        match &mut self.by_number(hash, number)?.flight {
            Held::Solo(solo) => Some(solo),
            Held::Whole(_) => None,
        }
    }

    /// As `unlink`, unless the flight has become whole.
    pub(super) fn unlink_solo(&mut self, hash: u64, number: u64) -> Option<Unlinked<K, V, C>> {
        self.solo(hash, number)?;
        Some(self.unlink(hash, number))
    }

    /// Leaves what a solo flight has become to its leader.
    pub(super) fn put_aside(&mut self, number: u64, flight: Arc<Flight<K, V, C>>) {
        let aside = Aside { number, flight };
        self.aside
            .get_or_insert_default()
            .insert_unique(spread(number), aside, |aside| spread(aside.number));
    }

    /// What its leader finds of a flight that was solo.
    pub(super) fn take_aside(&mut self, number: u64) -> Option<Arc<Flight<K, V, C>>> {
        let aside = self.aside.as_mut()?;
        let found = aside.find_entry(spread(number), |aside| aside.number == number);
        let flight = found.ok()?.remove().0.flight;
        if aside.is_empty() && aside.capacity() > KEPT_CAPACITY {
            // It holds nothing of the user's.
            self.aside = None;
        }
        Some(flight)
    }

    /// Takes all entries out, and gives the capacity of a large table back.
    pub(super) fn take_all(&mut self) -> Vec<Entry<K, V, C>> {
        let (first, rest) = (self.first.take(), mem::take(&mut self.rest));
        first.into_iter().chain(rest).collect()
    }

    #[cfg(feature = "http")]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry<K, V, C>> {
        self.first.iter().chain(&self.rest)
    }

    #[cfg(feature = "http")]
    pub(super) fn with_hash(&self, hash: u64) -> impl Iterator<Item = &Entry<K, V, C>> {
        let all = self.first.iter().chain(self.rest.iter_hash(hash));
        all.filter(move |entry| entry.hash == hash)
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }
}

/// Numbers follow each other, and hash tables look at the highest bits too.
fn spread(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

// ===== impl Entry =====

impl<K, V, C> Entry<K, V, C> {
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn key(&self) -> &K {
        &self.key
    }

    /// Takes the flight out of the entry if it is solo, to be given back [`whole`](Self::become_whole) or unlinked.
    pub(super) fn take_solo(&mut self) -> Option<Solo<V>> {
        match &mut self.flight {
            Held::Solo(solo) => Some(mem::take(solo)),
            Held::Whole(_) => None,
        }
    }

    pub(super) fn become_whole(&mut self, flight: Arc<Flight<K, V, C>>) {
        self.flight = Held::Whole(flight);
    }

    /// `None` for a flight that is solo.
    pub(crate) fn flight(&self) -> Option<&Arc<Flight<K, V, C>>> {
        match &self.flight {
            Held::Solo(_) => None,
            Held::Whole(flight) => Some(flight),
        }
    }
}

// ===== impl Unlinked =====

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
