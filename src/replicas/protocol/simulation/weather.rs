//! What the network and the machines do in a schedule.

use std::time::Duration;

/// What the network and the machines do in a schedule.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weather {
    /// Nothing fails, and what is sent arrives in order.
    pub(super) calm: bool,
    /// Receivers of a message can be counted, and one link keeps its order.
    pub(super) single: bool,
    pub(super) longest: Duration,
    pub(super) lose: u64,
    pub(super) double: u64,
    pub(super) misdirect: u64,
    pub(super) faults: u64,
    pub(super) forget: bool,
    pub(super) shareable: u64,
    /// How many values the store has no room for.
    pub(super) refuse: u64,
    /// Nothing fails, is lost or goes astray, though it may take its time.
    pub(super) gentle: bool,
}
