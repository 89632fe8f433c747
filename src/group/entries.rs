//! The flights of one shard: how they are linked, and how a solo one becomes whole.
//!
//! The invariants cited here are those of [`table`](super::table).

use std::sync::Arc;

use super::{
    caller::Caller,
    flight::{Entries, Entry, Flight, Held, Link, Shard},
    shard::Id,
    solo::Solo,
    state::State,
};

// ===== impl Entries =====

impl<K, V, C> Entries<K, V, C> {
    /// A new flight for its leader.
    pub(super) fn link_solo(
        &mut self,
        shard: &Arc<Shard<K, V, C>>,
        hash: u64,
        key: K,
        data: C,
    ) -> Link<K, V, C> {
        let id = self.next(hash);
        let solo = Solo {
            work: None,
            waker: None,
            data,
        };
        self.link(id, key, Held::Solo(solo));
        let shard = Arc::clone(shard);
        Link { shard, id }
    }

    /// The solo flight, unless it has become whole.
    #[inline]
    pub(super) fn solo(&mut self, id: Id) -> Option<&mut Solo<V, C>> {
        match self.held_mut(id)? {
            Held::Solo(solo) => Some(solo),
            Held::Whole(_) => None,
        }
    }

    /// As `remove`, unless the flight has become whole.
    #[inline]
    pub(super) fn remove_solo(&mut self, id: Id) -> Option<Entry<K, V, C>> {
        self.solo(id)?;
        self.remove(id)
    }

    /// Takes the flight that a solo one has become, for its leader (T5).
    pub(super) fn take_whole(&mut self, id: Id) -> Arc<Flight<K, V, C>> {
        match self.take_aside(id) {
            Some(Held::Whole(flight)) => flight,
            _ => unreachable!("it is left aside for this leader"),
        }
    }

    /// The flight of an entry, if it is in the table. A solo one first becomes a [`Flight`], which is left aside for its
    /// leader (T5).
    pub(super) fn make_whole(
        &mut self,
        shard: &Arc<Shard<K, V, C>>,
        id: Id,
    ) -> Option<Arc<Flight<K, V, C>>> {
        if let Held::Whole(flight) = self.held_mut(id)? {
            return Some(Arc::clone(flight));
        }
        let Entry { key, held, .. } = self.remove(id)?;
        let Held::Solo(solo) = held else {
            unreachable!("looked at just now");
        };
        let state = State::new(solo.work, solo.waker);
        let shard = Arc::clone(shard);
        let flight = Arc::new(Flight::new(Link { shard, id }, solo.data, state));
        self.link(id, key, Held::Whole(Arc::clone(&flight)));
        self.put_aside(id, Held::Whole(Arc::clone(&flight)));
        Some(flight)
    }

    /// Joins the flight of an entry that was found under this lock (T2).
    pub(super) fn join(&mut self, shard: &Arc<Shard<K, V, C>>, id: Id) -> Caller<K, V, C> {
        let flight = self.make_whole(shard, id).expect("found under this lock");
        flight.count_in();
        Caller::follower(flight)
    }

    /// All flights, as `make_whole` gives them.
    pub(super) fn make_all_whole(
        &mut self,
        shard: &Arc<Shard<K, V, C>>,
    ) -> Vec<Arc<Flight<K, V, C>>> {
        let ids: Vec<_> = self.iter().map(|entry| entry.id).collect();
        let flights = ids.into_iter().filter_map(|id| self.make_whole(shard, id));
        flights.collect()
    }
}

// ===== impl Entry =====

impl<K, V, C> Entry<K, V, C> {
    /// `None` for a flight that is solo.
    #[cfg(feature = "http")]
    pub(crate) fn flight(&self) -> Option<&Arc<Flight<K, V, C>>> {
        match &self.held {
            Held::Solo(_) => None,
            Held::Whole(flight) => Some(flight),
        }
    }

    pub(crate) fn data(&self) -> &C {
        match &self.held {
            Held::Solo(solo) => &solo.data,
            Held::Whole(flight) => &flight.data,
        }
    }

    pub(crate) fn callers(&self) -> usize {
        match &self.held {
            Held::Solo(_) => 1,
            Held::Whole(flight) => flight.callers(),
        }
    }
}
