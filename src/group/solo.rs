//! A flight in which only its leader has been: no allocation of its own, no reference count, no second lock.
//!
//! It is stored in its table entry, where its leader finds it under the shard's lock. The first caller to join or
//! forget it turns it into a whole [`Flight`](super::flight::Flight), and the leader goes on as one of its callers
//! (T5). F1, F2 and F6 apply to the entry as to a flight.

use std::task::Waker;

use super::work::Work;

/// What the table holds of a solo flight.
pub(crate) struct Solo<V, C> {
    /// `None` while the leader makes or polls it.
    pub(super) work: Option<Work<V>>,
    pub(super) waker: Option<Waker>,
    pub(crate) data: C,
}
