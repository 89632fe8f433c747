//! The leader of a [solo](super::solo) flight.

use std::{
    fmt,
    future::Future,
    mem,
    panic::resume_unwind,
    task::{Context, Poll, Waker},
};

use super::{
    caller::Caller,
    flight::Link,
    panic::{caught, drop_quietly},
    solo::Solo,
    work::{Polled, Work, WorkResult},
};

/// The leader's part. It leaves the flight when it is dropped, for whatever reason, and exists before any user code is
/// called.
pub(crate) struct SoloLeader<K, V, C> {
    /// `None` once the flight has ended or is no longer solo.
    link: Option<Link<K, V, C>>,
}

/// What the leader becomes when its flight is no longer solo: one of the callers, to be polled instead once it has
/// [handed in](Caller::hand_in) its work.
type Became<K, V, C> = (Caller<K, V, C>, Option<Polled<V>>);

// ===== impl SoloLeader =====

impl<K, V, C> SoloLeader<K, V, C> {
    pub(super) fn new(link: Link<K, V, C>) -> Self {
        Self { link: Some(link) }
    }

    /// Runs `then` on the flight in its entry, or returns the caller that the leader has become.
    #[inline]
    fn with<T>(&mut self, then: impl FnOnce(&mut Solo<V>) -> T) -> Result<T, Caller<K, V, C>> {
        let link = self.link.as_ref().expect("polled after completion");
        let mut entries = link.shard.lock();
        match entries.solo(link) {
            Some(solo) => Ok(then(solo)),
            None => {
                let flight = entries.take_whole(link);
                drop(entries);
                self.link = None;
                Err(Caller::leader(flight))
            }
        }
    }

    /// Ends the flight if it is still solo (T1, T2), or returns the caller that the leader has become.
    #[inline]
    fn end(&mut self) -> Option<Caller<K, V, C>> {
        let link = self.link.take().expect("polled after completion");
        let mut entries = link.shard.lock();
        if let Some(entry) = entries.unlink_solo(&link) {
            drop(entries);
            drop(entry);
            return None;
        }
        let flight = entries.take_whole(&link);
        drop(entries);
        Some(Caller::leader(flight))
    }
}

impl<K, V, C> SoloLeader<K, V, C>
where
    K: Send + 'static,
    V: Send + Sync + 'static,
    C: Send + Sync + 'static,
{
    /// Calls `work`, and puts the future that it returns into the flight. If the flight is no longer solo, returns the
    /// caller that the leader has become.
    ///
    /// # Panics
    ///
    /// If `work` panics: then all callers that have joined panic too.
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
                // Put the work back if the clone panics: a caller that joins later needs it.
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

    /// Puts the work back and the leader's waker with it, under one lock (F2), or returns what the leader has become.
    fn put_back(&mut self, work: Work<V>, mut waker: Option<Waker>) -> Result<(), Became<K, V, C>> {
        let mut work = Some(work);
        let put = self.with(|solo| {
            solo.work = work.take();
            if waker.is_some() {
                mem::swap(&mut solo.waker, &mut waker);
            }
        });
        // Drop the old waker, or an unneeded one, outside the lock; we may hold the work.
        drop_quietly(waker);
        match (put, work) {
            (Err(caller), Some(work)) => Err((caller, Some(Polled::Pending(work)))),
            _ => Ok(()),
        }
    }

    /// Ends the flight with the work's result, or returns what the leader has become.
    ///
    /// # Panics
    ///
    /// If the work did, and the flight is still solo.
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
