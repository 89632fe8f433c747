//! `Flights`.

use std::sync::Arc;

use super::{
    cargo::{Cargo, Flight},
    gauges::{Gauges, Stats},
};
use crate::{
    group::Table,
    shared::{UnshareableKeys, WriteEpochs},
    sync::{AtomicBool, Ordering},
};

/// The flights of a layer and of all its clones. The key lies in the [`Cargo`], so the table itself has none.
pub(crate) struct Flights<K> {
    pub(crate) table: Table<(), (), Cargo<K>>,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) unshareable: UnshareableKeys,
    pub(crate) writes: WriteEpochs,
    enabled: AtomicBool,
}

// ===== impl Flights =====

impl<K: Eq> Flights<K> {
    pub(crate) fn new() -> Self {
        Self {
            table: Table::new(),
            gauges: Arc::new(Gauges::new()),
            unshareable: UnshareableKeys::new(),
            writes: WriteEpochs::new(),
            enabled: AtomicBool::new(true),
        }
    }

    /// The flights of all variants of `key`.
    pub(crate) fn of<'a>(
        &'a self,
        hash: u64,
        key: &'a K,
    ) -> impl Iterator<Item = Arc<Flight<K>>> + 'a {
        let flights = self.table.with_hash(hash).into_iter();
        flights.filter(move |flight| flight.cargo.key == *key && self.is_fresh(&flight.cargo))
    }
}

impl<K> Flights<K> {
    /// Whether a new caller could still join: a flight that is too old, or began before a write, is as good as detached.
    pub(crate) fn is_fresh(&self, cargo: &Cargo<K>) -> bool {
        cargo.is_fresh(&self.writes)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.table.count(|flight| self.is_fresh(&flight.cargo))
    }

    pub(crate) fn stats(&self) -> Stats {
        self.gauges.stats(self.in_flight())
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Acquire)
    }

    pub(crate) fn set_enabled(&self, yes: bool) {
        self.enabled.store(yes, Ordering::Release);
    }
}
