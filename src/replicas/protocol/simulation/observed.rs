//! What the rules need to know of what has happened.

use std::collections::{HashMap, HashSet};

use crate::replicas::{
    id::{Digest, FlightId, Inbox, Seat},
    protocol::{EntryId, Time},
};

/// What has been seen so far.
#[derive(Default)]
pub(super) struct Observed {
    /// Flights that somebody from elsewhere has asked for.
    pub(super) asked_for: HashSet<FlightId>,
    /// Whose seats the store has named.
    pub(super) named: HashMap<Seat, FlightId>,
    pub(super) answered: HashSet<(Inbox, FlightId)>,
    /// When a seat's callers were last announced.
    pub(super) covers: HashMap<Seat, Time>,
    /// How often an entry has contended over a leader that was gone.
    pub(super) retries: HashMap<(usize, EntryId), u32>,
    /// Which flight of which key was gone, as a replica was told, and when.
    pub(super) gone: Vec<(usize, Digest, FlightId, Time)>,
    /// Who has had an answer: from then on it need not be found under the name that it had.
    pub(super) had_answer: HashSet<(usize, EntryId)>,
    /// Since when a follower's seat is not at its leader.
    pub(super) unseated: HashMap<Seat, Time>,
    /// Since when a leader has a seat for a follower that does not want it.
    pub(super) unwanted: HashMap<Seat, Time>,
}

// ===== impl Observed =====

impl Observed {
    /// How many flights of a key were gone, as the replica at `at` was told since then.
    pub(super) fn gone(&self, at: usize, key: Digest, since: Time) -> usize {
        let told = self.gone.iter();
        let told = told.filter(|told| told.0 == at && told.1 == key && told.3 >= since);
        told.map(|told| told.2).collect::<HashSet<_>>().len()
    }
}
