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
    aside: AsideTable<K, V, C>,
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

/// Boxed, so that lock and first entry fit into a cache line or two.
type AsideTable<K, V, C> = Option<Box<HashTable<Aside<K, V, C>>>>;

struct Aside<K, V, C> {
    number: u64,
    flight: Arc<Flight<K, V, C>>,
}

/// Where a flight is linked, or was.
pub(super) struct Link<K, V, C> {
    pub(super) shard: Arc<Shard<K, V, C>>,
    hash: u64,
    number: u64,
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

// ===== impl Link =====

impl<K, V, C> Link<K, V, C> {
    /// Takes the flight out of the table, if it is in (T3). What is given is to be dropped outside any lock (T4).
    pub(super) fn unlink(&self) -> Option<Entry<K, V, C>> {
        self.shard.lock().unlink(self)
    }

    /// As `unlink`, where `agreed`, which is asked under the shard's lock, says yes; else `Err`.
    pub(super) fn unlink_if(
        &self,
        agreed: impl FnOnce() -> bool,
    ) -> Result<Option<Entry<K, V, C>>, ()> {
        let mut entries = self.shard.lock();
        match agreed() {
            true => Ok(entries.unlink(self)),
            false => Err(()),
        }
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

    /// A new solo flight.
    pub(super) fn link_solo(
        &mut self,
        shard: &Arc<Shard<K, V, C>>,
        hash: u64,
        key: K,
    ) -> Link<K, V, C> {
        let link = self.next(shard, hash);
        self.link(&link, key, Held::Solo(Solo::default()));
        link
    }

    /// A new flight for whoever leads it.
    pub(super) fn link_whole(
        &mut self,
        shard: &Arc<Shard<K, V, C>>,
        hash: u64,
        key: K,
        data: C,
        keep: bool,
    ) -> Arc<Flight<K, V, C>> {
        let flight = Arc::new(Flight::new(self.next(shard, hash), data, keep));
        self.link(flight.link(), key, Held::Whole(Arc::clone(&flight)));
        flight
    }

    fn next(&mut self, shard: &Arc<Shard<K, V, C>>, hash: u64) -> Link<K, V, C> {
        let number = self.next;
        self.next += 1;
        Link {
            shard: Arc::clone(shard),
            hash,
            number,
        }
    }

    #[inline]
    fn link(&mut self, link: &Link<K, V, C>, key: K, flight: Held<K, V, C>) {
        let entry = Entry {
            hash: link.hash,
            number: link.number,
            key,
            flight,
        };
        if self.first.is_none() {
            self.first = Some(entry);
        } else {
            self.rest
                .insert_unique(link.hash, entry, |entry| entry.hash);
        }
    }

    #[inline]
    fn unlink(&mut self, link: &Link<K, V, C>) -> Option<Entry<K, V, C>> {
        self.remove(link.hash, link.number)
    }

    /// Takes an entry out, if it is in (T3): to be dropped outside the lock (T4).
    #[inline]
    pub(super) fn remove(&mut self, hash: u64, number: u64) -> Option<Entry<K, V, C>> {
        match &self.first {
            Some(first) if first.number == number => self.first.take(),
            _ if self.rest.is_empty() => None,
            _ => self.remove_from_rest(hash, number),
        }
    }

    #[inline(never)]
    fn remove_from_rest(&mut self, hash: u64, number: u64) -> Option<Entry<K, V, C>> {
        let found = self.rest.find_entry(hash, |entry| entry.number == number);
        let entry = found.ok()?.remove().0;
        if self.rest.is_empty() && self.rest.capacity() > KEPT_CAPACITY {
            self.rest = HashTable::new();
        }
        Some(entry)
    }

    /// What there is of a solo flight, unless it has become whole.
    #[inline]
    pub(super) fn solo(&mut self, link: &Link<K, V, C>) -> Option<&mut Solo<V>> {
        let entry = match &mut self.first {
            Some(first) if first.number == link.number => first,
            _ if self.rest.is_empty() => return None,
            _ => self
                .rest
                .find_mut(link.hash, |entry| entry.number == link.number)?,
        };
        match &mut entry.flight {
            Held::Solo(solo) => Some(solo),
            Held::Whole(_) => None,
        }
    }

    /// As `unlink`, unless the flight has become whole.
    #[inline]
    pub(super) fn unlink_solo(&mut self, link: &Link<K, V, C>) -> Option<Entry<K, V, C>> {
        self.solo(link)?;
        self.unlink(link)
    }

    /// What its leader finds of a flight that was solo.
    pub(super) fn take_aside(&mut self, link: &Link<K, V, C>) -> Option<Arc<Flight<K, V, C>>> {
        let aside = self.aside.as_mut()?;
        let found = aside.find_entry(spread(link.number), |aside| aside.number == link.number);
        let flight = found.ok()?.remove().0.flight;
        if aside.is_empty() && aside.capacity() > KEPT_CAPACITY {
            self.aside = None;
        }
        Some(flight)
    }

    /// Whether the flight of this link is in.
    #[cfg(feature = "redis")]
    pub(super) fn is_linked(&self, link: &Link<K, V, C>) -> bool {
        self.find(link.hash, |entry| entry.number == link.number)
            .is_some()
    }

    /// Takes all entries out.
    pub(super) fn take_all(&mut self) -> Vec<Entry<K, V, C>> {
        let (first, rest) = (self.first.take(), mem::take(&mut self.rest));
        first.into_iter().chain(rest).collect()
    }

    #[cfg(any(feature = "http", feature = "redis"))]
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

impl<K, V> Entries<K, V, ()> {
    /// The flight of this number, of which nobody but its leader knew if it was solo; and the leader finds it aside.
    pub(super) fn whole(
        &mut self,
        shard: &Arc<Shard<K, V, ()>>,
        hash: u64,
        number: u64,
    ) -> Option<Arc<Flight<K, V, ()>>> {
        let entry = match &mut self.first {
            Some(first) if first.number == number => first,
            _ => self.rest.find_mut(hash, |entry| entry.number == number)?,
        };
        Some(entry.whole(shard, &mut self.aside))
    }

    /// As `whole`, of all.
    pub(super) fn all_whole(&mut self, shard: &Arc<Shard<K, V, ()>>) {
        for entry in self.first.iter_mut().chain(&mut self.rest) {
            entry.whole(shard, &mut self.aside);
        }
    }
}

/// Numbers follow each other, and hash tables look at the highest bits too.
fn spread(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

// ===== impl Entry =====

impl<K, V> Entry<K, V, ()> {
    fn whole(
        &mut self,
        shard: &Arc<Shard<K, V, ()>>,
        aside: &mut AsideTable<K, V, ()>,
    ) -> Arc<Flight<K, V, ()>> {
        let solo = match &mut self.flight {
            Held::Whole(flight) => return Arc::clone(flight),
            Held::Solo(solo) => mem::take(solo),
        };
        let link = Link {
            shard: Arc::clone(shard),
            hash: self.hash,
            number: self.number,
        };
        let flight = Arc::new(solo.into_flight(link));
        self.flight = Held::Whole(Arc::clone(&flight));
        let left = Aside {
            number: self.number,
            flight: Arc::clone(&flight),
        };
        aside
            .get_or_insert_default()
            .insert_unique(spread(self.number), left, |left| spread(left.number));
        flight
    }
}

impl<K, V, C> Entry<K, V, C> {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn key(&self) -> &K {
        &self.key
    }

    /// `None` for a flight that is solo.
    pub(crate) fn flight(&self) -> Option<&Arc<Flight<K, V, C>>> {
        match &self.flight {
            Held::Solo(_) => None,
            Held::Whole(flight) => Some(flight),
        }
    }
}
