//! `Flights`.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    stats::{Counters, Stats},
    unshareable::UnshareableKeys,
    varying::VaryingKeys,
    writes::WriteEpochs,
};
use crate::{
    flight::{Flight, HttpFlight},
    group::Table,
    sync::{AtomicBool, Ordering},
};

/// The flights of a layer and of all its clones. The key lies in the [`HttpFlight`], so the table itself has none.
pub(crate) struct Flights<K> {
    pub(crate) table: Table<(), (), HttpFlight<K>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) unshareable: UnshareableKeys,
    pub(crate) varying: Arc<VaryingKeys>,
    pub(crate) writes: WriteEpochs,
    enabled: AtomicBool,
}

// ===== impl Flights =====

impl<K: Eq> Flights<K> {
    pub(crate) fn new() -> Self {
        Self {
            table: Table::new(),
            counters: Arc::new(Counters::new()),
            unshareable: UnshareableKeys::new(),
            varying: Arc::default(),
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
        // Those of its variants lie beside it.
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

impl<K> Flights<K> {
    /// Whether a new caller could still join: a flight that is too old, too silent, or older than a write, is as good as
    /// detached.
    pub(crate) fn can_be_joined(&self, data: &HttpFlight<K>, now: Instant) -> bool {
        data.is_fresh(&self.writes, now) && !data.state.lock().is_silent(now, data.max_silence)
    }

    pub(crate) fn in_flight(&self) -> usize {
        let now = Instant::now();
        self.table
            .count(|flight| self.can_be_joined(&flight.data, now))
    }

    pub(crate) fn stats(&self) -> Stats {
        self.counters.stats(self.table.len())
    }

    /// Makes room for the buffer of `flight`: nobody can join the other flights any more whose leader is alone, and those
    /// keep nothing but what their leader has not had. `false` if there are none.
    pub(crate) fn make_room_for(&self, flight: &Arc<Flight<K>>) -> bool {
        if !self.counters.budget.has_lone() {
            return false;
        }
        let others = self.table.all();
        for flight in others.filter(|other| !Arc::ptr_eq(other, flight)) {
            let given = {
                let mut state = flight.data.state.lock();
                let gives = !state.is_joined && state.buffer.is_kept_for_nobody();
                gives.then(|| {
                    state.buffer.outgrow(&[]);
                    (state.close(), state.buffer.take_spent())
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
