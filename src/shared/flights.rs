//! `Flights`.

#[cfg(feature = "redis")]
use std::sync::OnceLock;
use std::{hash::Hash, sync::Arc};

use tokio::time::Instant;

#[cfg(feature = "redis")]
use super::replicated::Replicated;
use super::{
    audit_share::AuditShare,
    stats::{Counters, Stats},
    unshareable::UnshareableKeys,
    varying::VaryingKeys,
    write_target::Resource,
    writes::WriteEpochs,
};
use crate::{
    flight::{Flight, HttpFlight, Number},
    group::{Table, drop_quietly},
    key::{KeyExtractor, RequestKey},
    sync::{AtomicBool, Ordering},
};

/// The flights of a layer and of all its clones. The key lies in the [`HttpFlight`], so the table itself has none.
pub(crate) struct Flights<K> {
    pub(crate) table: Table<(), (), HttpFlight<K>>,
    /// The default key that a key holds, and the hash of a key that is one already.
    default_part: fn(&K) -> Option<&RequestKey>,
    pub(crate) default_part_mut: fn(&mut K) -> Option<&mut RequestKey>,
    hash_of: fn(&K) -> Option<u64>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) unshareable: UnshareableKeys,
    pub(crate) varying: Arc<VaryingKeys>,
    pub(crate) writes: WriteEpochs,
    pub(crate) audit: AuditShare,
    enabled: AtomicBool,
    /// Set before the first request, or never.
    #[cfg(feature = "redis")]
    replicated: OnceLock<Replicated<K>>,
}

// ===== impl Flights =====

impl<K: Eq> Flights<K> {
    pub(crate) fn new<X: KeyExtractor<Key = K>>() -> Self {
        Self {
            table: Table::new(),
            default_part: X::default_part,
            default_part_mut: X::default_part_mut,
            hash_of: X::hash_of,
            counters: Arc::new(Counters::new()),
            unshareable: UnshareableKeys::new(),
            varying: Arc::default(),
            writes: WriteEpochs::new(),
            audit: AuditShare::default(),
            enabled: AtomicBool::new(true),
            #[cfg(feature = "redis")]
            replicated: OnceLock::new(),
        }
    }

    /// The flights of all variants of `key`.
    pub(crate) fn of<'a>(
        &'a self,
        hash: u64,
        key: &'a K,
    ) -> impl Iterator<Item = Arc<Flight<K>>> + 'a {
        let now = Instant::now();
        // Its variants are stored beside it.
        let flights = match self.varying.names(hash) {
            Some(_) => self.table.beside(hash),
            None => self.table.at(hash),
        };
        flights.into_iter().filter(move |flight| {
            flight.data.hash == hash
                && flight.data.key == *key
                && self.can_be_joined(&flight.data, now)
        })
    }
}

impl<K: Hash> Flights<K> {
    /// The hash under which the table keeps a key's flights.
    #[inline]
    pub(crate) fn hash(&self, key: &K) -> u64 {
        (self.hash_of)(key).unwrap_or_else(|| self.table.hash(key))
    }
}

impl<K> Flights<K> {
    /// Whether a new caller could still join. Nobody joins a flight that is too old, too silent, or older than a write to
    /// its target.
    pub(crate) fn can_be_joined(&self, data: &HttpFlight<K>, now: Instant) -> bool {
        let target = || Some(Resource::of((self.default_part)(&data.key)?).target());
        !self.writes.written_since(data.epoch, target)
            && data.expires.is_none_or(|expires| now <= expires)
            && !data.is_silent(now)
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            #[cfg(feature = "redis")]
            replicas: self
                .replicated()
                .map(|replicated| replicated.client.stats()),
            ..self.counters.stats(self.table.len())
        }
    }

    /// A write to this resource has succeeded.
    pub(crate) fn written(&self, resource: &Resource<'_>) {
        #[cfg(feature = "redis")]
        if let Some(replicated) = self.replicated() {
            replicated.written(resource);
        }
        self.writes.record(&resource.target());
    }

    /// The number of a new request.
    #[inline]
    #[cfg_attr(
        not(feature = "redis"),
        expect(clippy::unused_self, reason = "for replicas")
    )]
    pub(crate) fn number(&self) -> Number {
        #[cfg(feature = "redis")]
        if let Some(replicated) = self.replicated() {
            return Number(replicated.client.number());
        }
        Number::default()
    }

    #[cfg(feature = "redis")]
    #[inline]
    pub(crate) fn replicated(&self) -> Option<&Replicated<K>> {
        self.replicated.get()
    }

    /// # Panics
    ///
    /// If the layer already has replicas.
    #[cfg(feature = "redis")]
    pub(crate) fn set_replicated(&self, replicated: Replicated<K>) {
        let set = self.replicated.set(replicated);
        assert!(set.is_ok(), "the layer has its replicas already");
    }

    /// Makes room for the buffer of `flight`: closes other flights whose leader is alone, and drops what those leaders
    /// have read. Returns `false` if there are none.
    pub(crate) fn make_room_for(&self, flight: &Arc<Flight<K>>) -> bool {
        if !self.counters.budget.has_lone() {
            return false;
        }
        let others = self.table.all_whole();
        for flight in others.filter(|other| !Arc::ptr_eq(other, flight)) {
            let given = {
                let mut state = flight.data.state();
                let gives = !state.is_joined && state.buffer.is_kept_for_nobody();
                gives.then(|| {
                    state.buffer.outgrow(&[]);
                    (state.close(), state.buffer.take_spent())
                })
            };
            if given.is_some() {
                flight.release();
            }
            // Another flight's data, whose panic is not this one's.
            drop_quietly(given);
        }
        true
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Acquire)
    }

    pub(crate) fn set_enabled(&self, yes: bool) {
        self.enabled.store(yes, Ordering::Release);
    }
}
