//! The table as a floor above enters it: its flights carry cargo, by which a caller chooses, and none is solo.
//!
//! The invariants cited here are those of [`table`](super::table).

use std::sync::Arc;

#[cfg(any(feature = "http", feature = "redis"))]
use super::flight::Flight;
#[cfg(feature = "http")]
use super::shard::Shard;
use super::{caller::Caller, shard::Entry, table::Table};

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

pub(crate) enum Entered<K, V, C, L = Caller<K, V, C>> {
    /// The caller must [`start`](Caller::start) the work.
    Led(L),
    /// The caller must [`board`](Caller::board).
    Joined(Caller<K, V, C>),
    /// What the caller came with.
    Refused(K, C),
}

// ===== impl Table =====

impl<K, V, C> Table<K, V, C> {
    /// Joins the first flight for which `visit` says so, else leads a new one with `cargo`.
    ///
    /// `visit` runs under the lock: it may compare keys, and link the caller to what the flight carries.
    pub(crate) fn enter(
        &self,
        hash: u64,
        key: K,
        cargo: C,
        mut visit: impl FnMut(&K, &C, &Entry<K, V, C>) -> Visit,
    ) -> Entered<K, V, C> {
        let shard = self.shard(hash);
        // Declared before the lock, so dropped after it (T4).
        let mut detached = Vec::new();
        let mut stale = Vec::new();
        let mut refused = false;
        let mut entries = shard.lock();
        let found = entries.find(hash, |entry| match visit(&key, &cargo, entry) {
            Visit::Pass => false,
            Visit::Join => true,
            Visit::Detach => {
                stale.push(entry.number());
                false
            }
            Visit::Refuse => {
                refused = true;
                true
            }
        });
        if refused {
            drop(entries);
            return Entered::Refused(key, cargo);
        }
        let found = found.and_then(|entry| entry.flight().map(Arc::clone));
        for number in stale {
            detached.push(entries.remove(hash, number));
        }
        if let Some(flight) = found {
            flight.count_in(false);
            let caller = Caller::follower(flight);
            drop(entries);
            // Here, not by the end of this function: if a drop panics then, the caller that is given back is leaked.
            drop((key, cargo, detached));
            return Entered::Joined(caller);
        }
        let caller = Caller::leader(entries.link_whole(shard, hash, key, cargo, false));
        drop(entries);
        drop(detached);
        Entered::Led(caller)
    }
}

#[cfg(feature = "redis")]
impl<K, V, C> Table<K, V, C> {
    /// Joins the first flight that `matches`, which runs under the lock, if there is one.
    pub(super) fn join(
        &self,
        hash: u64,
        mut matches: impl FnMut(&K, &C) -> bool,
    ) -> Option<Caller<K, V, C>> {
        let entries = self.shard(hash).lock();
        let entry = entries.find(hash, |entry| {
            let flight = entry.flight();
            flight.is_some_and(|flight| matches(entry.key(), &flight.cargo))
        });
        let flight = Arc::clone(entry?.flight()?);
        flight.count_in(false);
        Some(Caller::follower(flight))
    }

    /// The first flight that `matches`.
    pub(super) fn find(
        &self,
        hash: u64,
        mut matches: impl FnMut(&K) -> bool,
    ) -> Option<Arc<Flight<K, V, C>>> {
        let entries = self.shard(hash).lock();
        let entry = entries.find(hash, |entry| matches(entry.key()));
        entry.and_then(Entry::flight).map(Arc::clone)
    }
}

#[cfg(feature = "redis")]
impl<K, V, C> Flight<K, V, C> {
    /// One more caller, if anybody may join.
    pub(super) fn join(self: &Arc<Self>) -> Option<Caller<K, V, C>> {
        let entries = self.link().shard.lock();
        if !entries.is_linked(self.link()) {
            return None;
        }
        self.count_in(false);
        Some(Caller::follower(Arc::clone(self)))
    }
}

#[cfg(feature = "http")]
impl<K, V, C> Table<K, V, C> {
    /// How many flights are `open`, which is asked under the locks.
    pub(crate) fn count(&self, mut open: impl FnMut(&Flight<K, V, C>) -> bool) -> usize {
        let count = |shard: &Arc<Shard<K, V, C>>| {
            let entries = shard.lock();
            let flights = entries.iter().filter_map(Entry::flight);
            flights.filter(|flight| open(flight)).count()
        };
        self.shards.iter().map(count).sum()
    }

    /// The flights of one hash.
    pub(crate) fn with_hash(&self, hash: u64) -> Vec<Arc<Flight<K, V, C>>> {
        let entries = self.shard(hash).lock();
        let flights = entries.with_hash(hash).filter_map(Entry::flight);
        flights.map(Arc::clone).collect()
    }
}

#[cfg(any(feature = "http", feature = "redis"))]
impl<K, V, C> Table<K, V, C> {
    /// All flights, a shard at a time: not one moment's picture.
    pub(crate) fn all(&self) -> impl Iterator<Item = Arc<Flight<K, V, C>>> {
        self.shards.iter().flat_map(|shard| {
            let entries = shard.lock();
            let flights = entries.iter().filter_map(Entry::flight);
            flights.map(Arc::clone).collect::<Vec<_>>()
        })
    }
}
