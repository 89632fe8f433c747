//! `Flights`.

use std::sync::Arc;

use tokio::time::Instant;

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
        let now = Instant::now();
        let flights = self.table.with_hash(hash).into_iter();
        flights.filter(move |flight| {
            flight.cargo.key == *key && self.can_be_joined(&flight.cargo, now)
        })
    }
}

impl<K> Flights<K> {
    /// Whether a new caller could still join: a flight that is too old, too silent, or older than a write, is as good as
    /// detached.
    pub(crate) fn can_be_joined(&self, cargo: &Cargo<K>, now: Instant) -> bool {
        cargo.is_fresh(&self.writes, now)
            && !cargo.exchange.lock().is_silent(now, cargo.max_silence)
    }

    pub(crate) fn in_flight(&self) -> usize {
        let now = Instant::now();
        self.table
            .count(|flight| self.can_be_joined(&flight.cargo, now))
    }

    pub(crate) fn stats(&self) -> Stats {
        self.gauges.stats(self.table.len())
    }

    /// Makes room for the buffer of `flight`: nobody can join the other flights any more whose leader is alone, and those
    /// keep nothing but what their leader has not had. `false` if there are none.
    pub(crate) fn make_room_for(&self, flight: &Arc<Flight<K>>) -> bool {
        if !self.gauges.budget.has_lone() {
            return false;
        }
        let others = self.table.all();
        for flight in others.filter(|other| !Arc::ptr_eq(other, flight)) {
            let given = {
                let mut exchange = flight.cargo.exchange.lock();
                let gives = !exchange.joined && exchange.buffer.is_kept_for_nobody();
                gives.then(|| {
                    exchange.buffer.outgrow(&[]);
                    (exchange.close(), exchange.buffer.take_spent())
                })
            };
            if given.is_some() {
                flight.release();
            }
            drop(given);
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
