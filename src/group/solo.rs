//! A flight that only its leader has been in: no allocation of its own, no reference count, no second lock.
//!
//! It lies in its entry of the table, where its leader finds it under the shard's lock. The first caller to join, or to
//! forget it, makes a whole [`Flight`](super::flight::Flight) of it, and the leader goes on as one of its callers (T5). F1, F2
//! and F6 hold for the entry as they do for a flight.

use std::task::Waker;

use super::work::Work;

/// What the table holds of a solo flight.
pub(crate) struct Solo<V, C> {
    /// `None` while the leader makes or polls it.
    pub(super) work: Option<Work<V>>,
    pub(super) waker: Option<Waker>,
    pub(crate) data: C,
}

// ===== impl Solo =====

impl<V, C> Solo<V, C> {
    pub(super) fn new(data: C) -> Self {
        Self {
            work: None,
            waker: None,
            data,
        }
    }
}
