//! The leader of a flight that nobody else has been in.

use super::{caller::Caller, state::HttpFlight};
use crate::{group, observe::FlightTrace, shared::Counters};

/// A [`group::SoloLeader`] that counts in [`Stats::waiters`](crate::Stats), until it [ends](Self::end) its flight or
/// becomes a [`Caller`], which goes on with the count.
///
/// It leaves its flight when it is dropped, as what it has become by then.
pub(crate) struct SoloLeader<K> {
    pub(super) inner: group::SoloLeader<(), (), HttpFlight<K>>,
}

// ===== impl SoloLeader =====

impl<K> SoloLeader<K> {
    pub(super) fn new(
        inner: group::SoloLeader<(), (), HttpFlight<K>>,
        counters: &Counters,
        trace: &FlightTrace,
    ) -> Self {
        counters.enter();
        trace.count_caller();
        Self { inner }
    }

    /// Ends the flight, or returns the caller that the leader has become: it is not alone, or nobody may join any more.
    pub(super) fn end(&mut self) -> Result<(), Caller<K>> {
        let ended = self.inner.end(|data| data.counters.leave(1));
        ended.map_err(Caller::was_solo)
    }

    /// The caller that the leader becomes, of a flight with which others can do more than join.
    pub(super) fn make_whole(&mut self) -> Caller<K> {
        Caller::was_solo(self.inner.make_whole())
    }
}

impl<K> Drop for SoloLeader<K> {
    fn drop(&mut self) {
        if !self.inner.has_ended() {
            drop(self.end());
        }
    }
}
