//! The leader of a [solo](super::solo) flight.

use std::{
    fmt, mem,
    panic::resume_unwind,
    task::{Context, Poll, Waker},
};

use super::{
    caller::Caller,
    flight::Link,
    panic::{caught, drop_quietly},
    solo::Solo,
    work::{Drive, Polled, PolledBy, Work, WorkResult},
};

/// The leader's part. It leaves the flight when it is dropped, for whatever reason, and exists before any user code is
/// called.
pub(crate) struct SoloLeader<K, V, C> {
    /// `None` once the flight has ended or is no longer solo.
    link: Option<Link<K, V, C>>,
}

/// Work to be polled, and the waker to put back with it, unless that is in the flight already.
pub(crate) type Taken<'a, V> = (Work<V>, Option<&'a Waker>);

// ===== impl SoloLeader =====

impl<K, V, C> SoloLeader<K, V, C> {
    pub(super) fn new(link: Link<K, V, C>) -> Self {
        Self { link: Some(link) }
    }

    /// Runs `then` on the flight in its entry, or returns the caller that the leader has become.
    #[inline]
    fn with<T>(&mut self, then: impl FnOnce(&mut Solo<V, C>) -> T) -> Result<T, Caller<K, V, C>> {
        let link = self.link.as_ref().expect("polled after completion");
        let mut entries = link.shard.lock();
        match entries.solo(link.id) {
            Some(solo) => Ok(then(solo)),
            None => {
                let flight = entries.take_whole(link.id);
                drop(entries);
                self.link = None;
                Err(Caller::leader(flight))
            }
        }
    }

    /// Ends the flight if it is still solo (T1, T2), or returns the caller that the leader has become. `last` sees the
    /// flight's data before that is dropped.
    #[inline]
    pub(crate) fn end(&mut self, last: impl FnOnce(&C)) -> Result<(), Caller<K, V, C>> {
        let link = self.link.take().expect("polled after completion");
        let mut entries = link.shard.lock();
        let Some(entry) = entries.remove_solo(link.id) else {
            return Err(Caller::leader(entries.take_whole(link.id)));
        };
        drop(entries);
        last(entry.data());
        Ok(())
    }

    /// Makes the flight whole, of which the leader becomes a caller.
    pub(crate) fn make_whole(&mut self) -> Caller<K, V, C> {
        let link = self.link.take().expect("polled after completion");
        let mut entries = link.shard.lock();
        // `None` where it is whole, and was detached.
        let _flight = entries.make_whole(&link.shard, link.id);
        Caller::leader(entries.take_whole(link.id))
    }

    /// The flight has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.link.is_none()
    }
}

impl<K, V, C> SoloLeader<K, V, C>
where
    K: Send + 'static,
    V: Send + Sync + 'static,
    C: Send + Sync + 'static,
{
    /// Calls `work`, and puts what it returns into the flight. `Err`: the caller that the leader has become.
    ///
    /// # Panics
    ///
    /// If `work` does.
    pub(super) fn start<F, D>(&mut self, work: F) -> Result<(), Caller<K, V, C>>
    where
        F: FnOnce() -> D,
        D: Drive<Output = V> + 'static,
    {
        match Work::make(work) {
            Polled::Pending(work) => self.put_back(work, None),
            Polled::Ended(result) => self.end_with(result).map(drop),
        }
    }

    /// Polls the work. Ready with its value, or with the caller that the leader has become, to be polled instead.
    ///
    /// # Panics
    ///
    /// If the work did.
    #[inline]
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<V, Caller<K, V, C>>> {
        let (work, waker) = match self.take_work(cx) {
            Ok(taken) => taken,
            Err(caller) => return Poll::Ready(Err(caller)),
        };
        match work.poll(cx, PolledBy::Solo(&mut ())) {
            Polled::Ended(result) => Poll::Ready(self.end_with(result)),
            Polled::Pending(work) => match self.put_back(work, waker) {
                Ok(()) => Poll::Pending,
                Err(caller) => Poll::Ready(Err(caller)),
            },
        }
    }

    /// Takes the work to poll it and [put it back](Self::put_back).
    #[inline]
    pub(crate) fn take_work<'a>(
        &mut self,
        cx: &Context<'a>,
    ) -> Result<Taken<'a, V>, Caller<K, V, C>> {
        let waker = cx.waker();
        let (work, is_left) = self.with(|solo| {
            let left = solo.waker.as_ref();
            let is_left = left.is_some_and(|left| left.will_wake(waker));
            (solo.work.take(), is_left)
        })?;
        let work = work.expect("nobody else takes it");
        Ok((work, (!is_left).then_some(waker)))
    }

    /// Puts work into the flight, and a clone of the leader's waker with it, under one lock (F2). `Err`: the caller that
    /// the leader has become, which has handed in the work.
    ///
    /// # Panics
    ///
    /// If the clone does, and the flight is still solo.
    pub(crate) fn put_back(
        &mut self,
        work: Work<V>,
        waker: Option<&Waker>,
    ) -> Result<(), Caller<K, V, C>> {
        // Put the work back even if the clone panics: a caller that joins later needs it.
        let mut cloned = caught(|| waker.cloned());
        let mut work = Some(work);
        let mut put = self.with(|solo| {
            solo.work = work.take();
            if let Ok(waker @ Some(_)) = &mut cloned {
                mem::swap(&mut solo.waker, waker);
            }
        });
        if let (Err(caller), Some(work)) = (&mut put, work) {
            caller.hand_in(Polled::Pending(work));
        }
        match cloned {
            // The old waker, or an unneeded one.
            Ok(waker) => drop_quietly(waker),
            Err(payload) if put.is_ok() => resume_unwind(payload),
            // The caller clones the waker again.
            Err(payload) => drop_quietly(payload),
        }
        put
    }

    /// Ends the flight with the work's result, or returns the caller that the leader has become.
    ///
    /// # Panics
    ///
    /// If the work did.
    fn end_with(&mut self, result: WorkResult<V>) -> Result<V, Caller<K, V, C>> {
        match self.end(|_| ()) {
            Ok(()) => Ok(result.unwrap_or_else(|payload| resume_unwind(payload))),
            Err(mut caller) => caller.hand_in(Polled::Ended(result)).ok_or(caller),
        }
    }
}

impl<K, V, C> Drop for SoloLeader<K, V, C> {
    fn drop(&mut self) {
        if self.link.is_some() {
            drop(self.end(|_| ()));
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
