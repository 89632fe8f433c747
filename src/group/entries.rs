//! The flights of one shard: how they are linked, and how a solo one becomes whole.
//!
//! The invariants cited here are those of [`table`](super::table).

use std::sync::Arc;

use super::{
    flight::{Entries, Entry, Flight, Held, Link, Shard},
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
        let link = self.next(shard, hash);
        self.link(&link, key, Held::Solo(Solo::new(data)));
        link
    }

    /// The solo flight, unless it has become whole.
    #[inline]
    pub(super) fn solo(&mut self, link: &Link<K, V, C>) -> Option<&mut Solo<V, C>> {
        match link.held_mut(self)? {
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

    /// Takes the flight that a solo one has become, for its leader (T5).
    pub(super) fn take_whole(&mut self, link: &Link<K, V, C>) -> Arc<Flight<K, V, C>> {
        match self.take_aside(link) {
            Some(Held::Whole(flight)) => flight,
            _ => unreachable!("it is left aside for this leader"),
        }
    }

    /// Whether the flight of this link is in the table.
    #[cfg(feature = "redis")]
    pub(super) fn is_linked(&mut self, link: &Link<K, V, C>) -> bool {
        link.held_mut(self).is_some()
    }
}

impl<K, V, C> Entries<K, V, C> {
    /// The flight with this number. A solo one first becomes a [`Flight`], which is left aside for its leader (T5).
    pub(super) fn make_whole(
        &mut self,
        shard: &Arc<Shard<K, V, C>>,
        hash: u64,
        number: u64,
    ) -> Option<Arc<Flight<K, V, C>>> {
        if let Held::Whole(flight) = self.held_mut(hash, number)? {
            return Some(Arc::clone(flight));
        }
        let (key, held) = self.remove(hash, number)?.into_parts();
        let Held::Solo(solo) = held else {
            unreachable!("looked at just now");
        };
        let state = State::new(solo.work, solo.waker);
        let link = Link::new(shard, hash, number);
        let flight = Arc::new(Flight::new(link, solo.data, state));
        self.link(flight.link(), key, Held::Whole(Arc::clone(&flight)));
        self.put_aside(flight.link(), Held::Whole(Arc::clone(&flight)));
        Some(flight)
    }

    /// As `make_whole`, of the flight of this link.
    pub(super) fn make_whole_of(&mut self, link: &Link<K, V, C>) -> Option<Arc<Flight<K, V, C>>> {
        self.make_whole(&link.shard, link.hash(), link.number())
    }

    /// All flights, as `make_whole` gives them.
    pub(super) fn make_all_whole(
        &mut self,
        shard: &Arc<Shard<K, V, C>>,
    ) -> Vec<Arc<Flight<K, V, C>>> {
        let place = |entry: &Entry<K, V, C>| (entry.hash(), entry.number());
        let places: Vec<_> = self.iter().map(place).collect();
        let flights = places
            .into_iter()
            .filter_map(|(hash, number)| self.make_whole(shard, hash, number));
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
