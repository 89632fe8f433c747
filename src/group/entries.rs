//! The flights of one shard: how they are linked, and how a solo one becomes whole.
//!
//! The invariants cited here are those of [`table`](super::table).

use std::{mem, sync::Arc};

use super::{
    flight::{Entries, Entry, Flight, Held, Link, Shard},
    solo::Solo,
    state::{State, WorkState},
};

// ===== impl Entries =====

impl<K, V, C> Entries<K, V, C> {
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

    /// A new flight for its leader.
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

    /// The solo flight, unless it has become whole.
    #[inline]
    pub(super) fn solo(&mut self, link: &Link<K, V, C>) -> Option<&mut Solo<V>> {
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

impl<K, V> Entries<K, V, ()> {
    /// The flight with this number. A solo one first becomes a [`Flight`], which is left aside for its leader (T5).
    pub(super) fn make_whole(
        &mut self,
        shard: &Arc<Shard<K, V, ()>>,
        hash: u64,
        number: u64,
    ) -> Option<Arc<Flight<K, V, ()>>> {
        let held = self.held_mut(hash, number)?;
        let solo = match held {
            Held::Whole(flight) => return Some(Arc::clone(flight)),
            Held::Solo(solo) => mem::take(solo),
        };
        let link = || Link::new(shard, hash, number);
        let work = solo.work.map_or(WorkState::Polling, WorkState::Idle);
        let state = State::new(work, solo.waker);
        let flight = Arc::new(Flight::with_state(link(), (), false, state));
        *held = Held::Whole(Arc::clone(&flight));
        self.put_aside(&link(), Held::Whole(Arc::clone(&flight)));
        Some(flight)
    }

    /// Makes all solo flights whole, as `make_whole` does.
    pub(super) fn make_all_whole(&mut self, shard: &Arc<Shard<K, V, ()>>) {
        let places: Vec<_> = self
            .iter()
            .map(|entry| (entry.hash(), entry.number()))
            .collect();
        for (hash, number) in places {
            self.make_whole(shard, hash, number);
        }
    }
}

// ===== impl Entry =====

impl<K, V, C> Entry<K, V, C> {
    /// `None` for a flight that is solo.
    pub(crate) fn flight(&self) -> Option<&Arc<Flight<K, V, C>>> {
        match &self.held {
            Held::Solo(_) => None,
            Held::Whole(flight) => Some(flight),
        }
    }
}
