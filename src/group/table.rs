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
    sync::Arc,
};

use super::{
    caller::Caller,
    flight::Flight,
    shard::{Entries, Entry, Shard},
    solo::SoloLeader,
};

/// Shards enough that callers with distinct keys seldom meet, and few enough that an empty group costs a page or two.
const SHARDS: usize = 64;

/// `key -> flight`. A key may have several flights, which `visit` tells apart (the layer's variants).
pub(crate) struct Table<K, V, C> {
    shards: Box<[Arc<Shard<K, V, C>>]>,
    hasher: RandomState,
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
    pub(crate) fn new() -> Self {
        let shards = if cfg!(loom) { 1 } else { SHARDS };
        Self {
            shards: (0..shards).map(|_| Arc::new(Shard::new())).collect(),
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
        visit: impl FnMut(&K, &C, &Entry<K, V, C>) -> Visit,
    ) -> Entered<K, V, C> {
        self.enter_as(hash, key, cargo, keep, visit, |entries, key, cargo| {
            let home = Arc::clone(self.shard(hash));
            let flight = Flight::new(home, hash, entries.next_number(), cargo, keep);
            let flight = Arc::new(flight);
            entries.link_whole(hash, key, Arc::clone(&flight));
            Caller::leader(flight)
        })
    }

    fn enter_as<L>(
        &self,
        hash: u64,
        key: K,
        cargo: C,
        keep: bool,
        mut visit: impl FnMut(&K, &C, &Entry<K, V, C>) -> Visit,
        lead: impl FnOnce(&mut Entries<K, V, C>, K, C) -> L,
    ) -> Entered<K, V, C, L> {
        let shard = self.shard(hash);
        // Declared before the lock, so dropped after it (T4).
        let mut detached = Vec::new();
        let mut stale = Vec::new();
        let mut refused = false;
        let mut entries = shard.lock();
        let found = entries.find_mut(hash, |entry| match visit(&key, &cargo, entry) {
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
        if let Some(entry) = found {
            let number = entry.number();
            let (flight, cargo) = match entry.take_solo() {
                None => (entry.flight().map(Arc::clone), Some(cargo)),
                Some(solo) => {
                    // A solo flight carries nothing: what the first to join has is as good as its leader's.
                    let home = Arc::clone(shard);
                    let flight = Arc::new(Flight::of_solo(home, hash, number, solo, cargo));
                    entry.become_whole(Arc::clone(&flight));
                    entries.put_aside(number, Arc::clone(&flight));
                    (Some(flight), None)
                }
            };
            let flight = flight.expect("solo or whole");
            flight.count_in(keep);
            let caller = Caller::follower(flight);
            for number in stale {
                detached.push(entries.unlink(hash, number));
            }
            drop(entries);
            // Here, not by the end of this function: if a drop panics then, the caller that is given back is leaked.
            drop((key, cargo, detached));
            return Entered::Joined(caller);
        }
        for number in stale {
            detached.push(entries.unlink(hash, number));
        }
        let leader = lead(&mut entries, key, cargo);
        drop(entries);
        drop(detached);
        Entered::Led(leader)
    }

    /// How many callers the first flight has that `matches`; 0 if there is none.
    pub(crate) fn callers(&self, hash: u64, mut matches: impl FnMut(&K) -> bool) -> usize {
        let entries = self.shard(hash).lock();
        let entry = entries.find(hash, |entry| matches(entry.key()));
        entry.map_or(0, |entry| {
            entry.flight().map_or(1, |flight| flight.callers())
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

impl<K, V> Table<K, V, ()> {
    /// As `enter`; who leads does so [solo](super::solo), until somebody joins.
    pub(crate) fn enter_solo(
        &self,
        hash: u64,
        key: K,
        visit: impl FnMut(&K, &(), &Entry<K, V, ()>) -> Visit,
    ) -> Entered<K, V, (), SoloLeader<K, V, ()>> {
        self.enter_as(hash, key, (), false, visit, |entries, key, ()| {
            let number = entries.next_number();
            entries.link_solo(hash, key);
            SoloLeader::new(Arc::clone(self.shard(hash)), hash, number)
        })
    }

    /// Detaches the first flight that `matches`: nobody joins it any more, who has joined goes on. Whether there is one.
    pub(crate) fn detach(&self, hash: u64, mut matches: impl FnMut(&K) -> bool) -> bool {
        let shard = self.shard(hash);
        let mut entries = shard.lock();
        let Some(entry) = entries.find_mut(hash, |entry| matches(entry.key())) else {
            return false;
        };
        let number = entry.number();
        if let Some(solo) = entry.take_solo() {
            let flight = Flight::of_solo(Arc::clone(shard), hash, number, solo, ());
            entries.put_aside(number, Arc::new(flight));
        }
        let unlinked = entries.unlink(hash, number);
        drop(entries);
        unlinked.was_linked()
    }

    /// As `detach`, of all, a shard at a time. Their number.
    pub(crate) fn detach_all(&self) -> usize {
        let detach = |shard: &Arc<Shard<K, V, ()>>| {
            let mut entries = shard.lock();
            let mut all = entries.take_all();
            for entry in &mut all {
                if let Some(solo) = entry.take_solo() {
                    let (hash, number) = (entry.hash(), entry.number());
                    let flight = Flight::of_solo(Arc::clone(shard), hash, number, solo, ());
                    entries.put_aside(number, Arc::new(flight));
                }
            }
            drop(entries);
            all.len()
        };
        self.shards.iter().map(detach).sum()
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

    /// All flights, a shard at a time: not one moment's picture.
    pub(crate) fn all(&self) -> impl Iterator<Item = Arc<Flight<K, V, C>>> {
        self.shards.iter().flat_map(|shard| {
            let entries = shard.lock();
            let flights = entries.iter().filter_map(Entry::flight);
            flights.map(Arc::clone).collect::<Vec<_>>()
        })
    }
}
