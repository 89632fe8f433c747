//! The flights, by key, in shards.
//!
//! Invariants, cited as T1 to T5:
//!
//! 1. An entry is in the table exactly while a new caller may join its flight. A flight that ends or is abandoned is
//!    unlinked under the shard's lock *before* anybody can see the end, so nobody joins a flight that is over.
//! 2. A caller is counted under the shard's lock under which it found the flight, and the last one is counted out under
//!    the lock under which the flight is unlinked, so nobody joins a flight that its last caller has just left.
//! 3. An entry is removed by its number, never by key: `forget` may have let a successor in.
//! 4. Under a shard's lock keys are compared and entries linked and unlinked. Entries, which own a user's key, are
//!    dropped after the lock is released.
//! 5. Only its leader takes a solo flight. A caller that joins or forgets it makes it whole, under the shard's lock,
//!    and leaves it aside, where its leader finds it even if the entry has gone.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    sync::Arc,
};

#[cfg(feature = "redis")]
use super::flight::Flight;
use super::{
    caller::Caller,
    flight::{Entry, Shard},
    solo_leader::SoloLeader,
};
#[cfg(feature = "redis")]
use crate::replicas::Refusal;

/// Enough shards that callers with different keys rarely meet, and few enough that an empty group takes about 20 KB.
const SHARDS: usize = 64;

/// `key -> flight`. In the HTTP layer a key may have several flights: see [`matching`](super::matching).
pub(crate) struct Table<K, V, C> {
    pub(super) shards: Box<[Arc<Shard<K, V, C>>]>,
    hasher: RandomState,
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

    /// Another position for a flight whose key has this hash, in the same shard.
    #[cfg(feature = "http")]
    pub(crate) fn position<Q>(&self, hash: u64, of: &Q) -> u64
    where
        Q: Hash + ?Sized,
    {
        let shards = (self.shards.len() as u64 - 1) << 32;
        hash ^ (self.hash(of) & !shards)
    }

    pub(super) fn shard(&self, hash: u64) -> &Arc<Shard<K, V, C>> {
        &self.shards[self.index(hash)]
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// How many callers the first matching flight has; 0 if there is none.
    pub(super) fn callers(&self, hash: u64, mut matches: impl FnMut(&K) -> bool) -> usize {
        let entries = self.shard(hash).lock();
        let entry = entries.find(hash, |entry| matches(&entry.key));
        entry.map_or(0, Entry::callers)
    }

    /// Detaches the first matching flight: nobody joins it any more, and callers that have joined go on. Returns
    /// whether there was one.
    pub(super) fn detach(&self, hash: u64, mut matches: impl FnMut(&K) -> bool) -> bool {
        let shard = self.shard(hash);
        let mut entries = shard.lock();
        let Some(entry) = entries.find(hash, |entry| matches(&entry.key)) else {
            return false;
        };
        let id = entry.id;
        // Before the entry goes, so that its leader finds the flight left aside (T5).
        let found = entries.make_whole(shard, id).is_some();
        let unlinked = entries.remove(id);
        drop(entries);
        drop(unlinked);
        found
    }

    /// Detaches all flights, one shard after the other, and returns their number.
    pub(super) fn detach_all(&self) -> usize {
        let detach = |shard: &Arc<Shard<K, V, C>>| {
            let mut entries = shard.lock();
            let _flights = entries.make_all_whole(shard);
            let all = entries.take_all();
            drop(entries);
            all.len()
        };
        self.shards.iter().map(detach).sum()
    }

    /// Leads a new flight of `key` with `data`. `Err`: it has joined one, whose data `joins` has seen under the lock.
    #[inline]
    pub(super) fn enter_key(
        &self,
        hash: u64,
        key: K,
        data: C,
        joins: impl Fn(&C),
    ) -> Result<SoloLeader<K, V, C>, Caller<K, V, C>>
    where
        K: Eq,
    {
        let shard = self.shard(hash);
        let mut entries = shard.lock();
        let Some(entry) = entries.find(hash, |entry| entry.key == key) else {
            let link = entries.link_solo(shard, hash, key, data);
            return Ok(SoloLeader::new(link));
        };
        joins(entry.data());
        let id = entry.id;
        let caller = entries.join(shard, id);
        drop(entries);
        // Here, not at the end of this function: if its drop panicked there, the returned caller would leak.
        drop((key, data));
        Err(caller)
    }

    /// As `enter_key`, if there is a flight to join.
    #[cfg(feature = "redis")]
    pub(super) fn join(&self, hash: u64, key: &K, joins: impl Fn(&C)) -> Option<Caller<K, V, C>>
    where
        K: Eq,
    {
        let shard = self.shard(hash);
        let mut entries = shard.lock();
        let entry = entries.find(hash, |entry| entry.key == *key)?;
        joins(entry.data());
        let id = entry.id;
        Some(entries.join(shard, id))
    }
}

// ===== impl Flight =====

#[cfg(feature = "redis")]
impl<K, V, C> Flight<K, V, C> {
    /// Joins if anybody may, and if `agreed`, called under the shard's lock, returns `Ok`.
    pub(crate) fn join_if(
        self: &Arc<Self>,
        agreed: impl FnOnce(&Self) -> Result<(), Refusal>,
    ) -> Result<Caller<K, V, C>, Refusal> {
        let mut entries = self.link.shard.lock();
        if entries.held_mut(self.link.id).is_none() {
            return Err(Refusal::Gone);
        }
        agreed(self)?;
        self.count_in();
        Ok(Caller::follower(Arc::clone(self)))
    }
}
