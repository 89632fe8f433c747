//! A flight that nobody but its leader has been in: no allocation of its own, no reference count, no second lock.
//!
//! It lies in its entry of the table, and its leader comes there under the shard's lock. The first to join makes a whole
//! [`Flight`](super::flight::Flight) of it, as `forget` does, and the leader goes on as one of that one's callers (T5). F1,
//! F2 and F6 hold of the entry as of a flight.
// Measured against a `Flight` for everybody: 10 locked instructions instead of 14, one allocation instead of two.

use std::{
    fmt,
    future::Future,
    mem,
    panic::resume_unwind,
    task::{Context, Poll, Waker},
};

use super::{
    caller::Caller,
    flight::Flight,
    panic::{caught, drop_quietly},
    shard::Link,
    state::{State, WorkState},
    work::{Polled, Work, WorkResult},
};

/// What the table holds of it.
pub(super) struct Solo<V> {
    /// `None` while its leader makes or polls it.
    pub(super) work: Option<Work<V>>,
    pub(super) waker: Option<Waker>,
}

/// The leader's part. Leaves the flight when dropped, on whatever way; made before any of the user's code is called.
pub(crate) struct SoloLeader<K, V, C> {
    /// `None` once the flight has ended, or is solo no longer.
    link: Option<Link<K, V, C>>,
}

/// What a leader has become whose flight is solo no longer: one of its callers, to be polled instead once it has
/// [handed in](Caller::hand_in) what it has of the work.
type Became<K, V, C> = (Caller<K, V, C>, Option<Polled<V>>);

// ===== impl SoloLeader =====

impl<K, V, C> SoloLeader<K, V, C> {
    pub(super) fn new(link: Link<K, V, C>) -> Self {
        Self { link: Some(link) }
    }

    /// Does `then` with the flight in its entry; or gives the caller that the leader has become.
    #[inline]
    fn with<T>(&mut self, then: impl FnOnce(&mut Solo<V>) -> T) -> Result<T, Caller<K, V, C>> {
        let link = self.link.as_ref().expect("polled after completion");
        let mut entries = link.shard.lock();
        match entries.solo(link) {
            Some(solo) => Ok(then(solo)),
            None => {
                let flight = entries.take_aside(link);
                drop(entries);
                self.link = None;
                Err(Caller::leader(flight.expect("left for this leader")))
            }
        }
    }

    /// Ends the flight, if it is solo still (T1, T2); or gives the caller that the leader has become.
    #[inline]
    fn end(&mut self) -> Option<Caller<K, V, C>> {
        let link = self.link.take().expect("polled after completion");
        let mut entries = link.shard.lock();
        if let Some(entry) = entries.unlink_solo(&link) {
            drop(entries);
            drop(entry);
            return None;
        }
        let flight = entries.take_aside(&link);
        drop(entries);
        Some(Caller::leader(flight.expect("left for this leader")))
    }
}

impl<K, V, C> SoloLeader<K, V, C>
where
    K: Send + 'static,
    V: Send + Sync + 'static,
    C: Send + Sync + 'static,
{
    /// Calls `work`, and puts what it gives into the flight. Gives the caller that the leader has become meanwhile.
    ///
    /// # Panics
    ///
    /// If `work` does: all who have joined then panic too.
    pub(super) fn start<F, Fut>(&mut self, work: F) -> Option<Caller<K, V, C>>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = V> + Send + 'static,
    {
        let became = match Work::make(work) {
            Polled::Pending(work) => {
                let mut work = Some(work);
                let caller = self.with(|solo| mem::swap(&mut solo.work, &mut work)).err();
                caller.map(|caller| (caller, work.map(Polled::Pending)))
            }
            Polled::Ended(result) => self.end_with(result).err(),
        };
        let (mut caller, polled) = became?;
        polled.and_then(|polled| caller.hand_in(polled));
        Some(caller)
    }

    /// Polls the work. Ready with its value, or with what the leader has become.
    ///
    /// # Panics
    ///
    /// If the work did.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<V, Became<K, V, C>>> {
        let taken = self.with(|solo| {
            let left = solo
                .waker
                .as_ref()
                .is_some_and(|left| left.will_wake(cx.waker()));
            (solo.work.take(), left)
        });
        let (work, left) = match taken {
            Ok((work, left)) => (work.expect("nobody else takes it"), left),
            Err(caller) => return Poll::Ready(Err((caller, None))),
        };
        let became = match work.poll(cx) {
            Polled::Ended(result) => match self.end_with(result) {
                Ok(value) => return Poll::Ready(Ok(value)),
                Err(became) => became,
            },
            Polled::Pending(work) => {
                // One whose clone panics does so once the work is back: who joins later still needs that.
                let waker = match left {
                    true => Ok(None),
                    false => caught(|| Some(cx.waker().clone())),
                };
                let (waker, panic) = match waker {
                    Ok(waker) => (waker, None),
                    Err(payload) => (None, Some(payload)),
                };
                match self.put_back(work, waker) {
                    Ok(()) => match panic {
                        None => return Poll::Pending,
                        Some(payload) => resume_unwind(payload),
                    },
                    // The caller clones the waker again.
                    Err(became) => became,
                }
            }
        };
        Poll::Ready(Err(became))
    }

    /// Puts the work back, and the leader's waker in the same lock (F2); or gives what the leader has become.
    fn put_back(&mut self, work: Work<V>, mut waker: Option<Waker>) -> Result<(), Became<K, V, C>> {
        let mut work = Some(work);
        let put = self.with(|solo| {
            solo.work = work.take();
            if waker.is_some() {
                mem::swap(&mut solo.waker, &mut waker);
            }
        });
        // The old one, outside the lock, or one that has no place here. Work may be in hand.
        drop_quietly(waker);
        match (put, work) {
            (Err(caller), Some(work)) => Err((caller, Some(Polled::Pending(work)))),
            _ => Ok(()),
        }
    }

    /// The work has ended: here, or in what the leader has become.
    ///
    /// # Panics
    ///
    /// If the work did, and the flight ends here.
    fn end_with(&mut self, result: WorkResult<V>) -> Result<V, Became<K, V, C>> {
        match self.end() {
            None => Ok(result.unwrap_or_else(|payload| resume_unwind(payload))),
            Some(caller) => Err((caller, Some(Polled::Ended(result)))),
        }
    }
}

impl<K, V, C> Drop for SoloLeader<K, V, C> {
    fn drop(&mut self) {
        if self.link.is_some() {
            drop(self.end());
        }
    }
}

impl<K, V, C> fmt::Debug for SoloLeader<K, V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("leads", &true)
            .field("ended", &self.link.is_none())
            .finish_non_exhaustive()
    }
}

// ===== impl Solo =====

impl<V> Default for Solo<V> {
    fn default() -> Self {
        Self {
            work: None,
            waker: None,
        }
    }
}

impl<V> Solo<V> {
    /// The flight that goes on where this one was.
    pub(super) fn into_flight<K>(self, link: Link<K, V, ()>) -> Flight<K, V, ()> {
        let work = self.work.map_or(WorkState::Polling, WorkState::Idle);
        Flight::with_state(link, (), false, State::new(work, self.waker))
    }
}
