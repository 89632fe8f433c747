//! A caller's share in a flight of a group across replicas, and what the callers of that flight know of the others.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll, ready},
};

use super::{caller::Caller, outcome::Outcome};
use crate::{replicas::EntryId, sync::Mutex};

/// The data of one of its flights.
pub(super) type Data<V> = Arc<Mutex<Crossing<V>>>;

pub(super) struct Crossing<V> {
    /// All callers that have joined have smaller numbers.
    pub(super) asked: u64,
    /// Its part in the protocol, once it contends.
    pub(super) entry: Option<EntryId>,
    /// The last value from another replica, for callers below the number. In an `Arc`, because it is cloned under no
    /// lock.
    pub(super) value: Option<(Arc<V>, u64)>,
    /// The leader has left with another replica's value, and one of the others stands in for it and its work.
    is_unled: bool,
}

/// A caller's share in such a flight.
pub(super) struct Across<K, V> {
    pub(super) caller: Caller<K, V, Data<V>>,
    crossing: Data<V>,
    number: u64,
}

// ===== impl Crossing =====

impl<V> Crossing<V> {
    pub(super) fn new(number: u64) -> Self {
        Self {
            asked: number + 1,
            entry: None,
            value: None,
            is_unled: false,
        }
    }

    /// Under the lock of the flight's shard, so that nobody joins unseen.
    pub(super) fn joined_by(&mut self, number: u64) {
        self.asked = self.asked.max(number + 1);
    }
}

// ===== impl Across =====

impl<K, V> Across<K, V> {
    pub(super) fn new(caller: Caller<K, V, Data<V>>, number: u64) -> Self {
        Self {
            crossing: Arc::clone(&caller.flight().data),
            caller,
            number,
        }
    }
}

impl<K, V> Across<K, V>
where
    K: Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<V>> {
        if let Some(outcome) = self.take_elsewhere() {
            return Poll::Ready(outcome);
        }
        let led = self.caller.leads();
        let polled = self.caller.poll(cx);
        // Checked after the waker is stored; otherwise a value that comes in between would be missed.
        if let Some(outcome) = self.take_elsewhere() {
            return Poll::Ready(outcome);
        }
        let ended = ready!(polled);
        let led = led || mem::take(&mut self.crossing.lock().is_unled);
        Poll::Ready(ended.into_outcome(led))
    }

    /// Leaves with another replica's value.
    fn take_elsewhere(&mut self) -> Option<Outcome<V>> {
        let value = {
            let crossing = self.crossing.lock();
            let (value, covered) = crossing.value.as_ref()?;
            (self.number < *covered).then(|| Arc::clone(value))?
        };
        if self.caller.leads() {
            self.crossing.lock().is_unled = true;
        }
        self.caller.leave();
        Some(Outcome {
            value: Arc::try_unwrap(value).unwrap_or_else(|value| V::clone(&value)),
            shared: true,
            led: false,
        })
    }
}
