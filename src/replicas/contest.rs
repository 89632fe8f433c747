//! A local flight's part in the protocol: to contend, to get an outcome, and to answer.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::{
    runtime::Handle,
    time::{Instant, Sleep, sleep},
};

use super::{
    hub::Hub,
    message::NotShared,
    protocol::{ContestOutcome, EntryId},
};

/// One local flight's part across replicas, held by its work. Dropping it gives up: the lease is released, and
/// followers at other replicas make their own calls.
pub(crate) struct Contest {
    hub: Arc<Hub>,
    id: EntryId,
    /// Keeps the time for the waiting flight, in case the driver's runtime stands still.
    timer: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

/// A call has ended, and followers at other replicas wait. Dropping it tells them to make their own calls.
#[must_use = "followers elsewhere wait for it"]
pub(crate) struct Answering {
    hub: Arc<Hub>,
    id: EntryId,
}

// ===== impl Contest =====

impl Contest {
    pub(super) fn new(hub: &Arc<Hub>, id: EntryId) -> Self {
        Self {
            hub: Arc::clone(hub),
            id,
            timer: None,
            ended: false,
        }
    }

    /// Waits for the outcome: at most `patience` for the store, and for another replica as long as that is alive.
    pub(crate) async fn outcome(&mut self) -> ContestOutcome {
        poll_fn(|cx| self.poll_outcome(cx)).await
    }

    /// See [`outcome`](Self::outcome).
    pub(crate) fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<ContestOutcome> {
        let (hub, id) = (&self.hub, self.id);
        loop {
            if let Some(outcome) = hub.outcome(id, cx.waker()) {
                self.timer = None;
                return Poll::Ready(outcome);
            }
            if Handle::try_current().is_err() {
                // There is no timer here: the driver keeps the time.
                return Poll::Pending;
            }
            let beat = hub.beat;
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(beat)));
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            timer.as_mut().reset(Instant::now() + beat);
            hub.act(|protocol, now| protocol.tick(now));
        }
    }

    /// Contends again for callers that the last answer did not cover; those below `asked` have asked.
    pub(crate) fn again(&mut self, asked: u64) {
        let id = self.id;
        self.hub.act(|protocol, now| protocol.again(id, asked, now));
    }

    /// The call has ended: nobody who asks from now on, here or at another replica, may get its answer. `None` if
    /// nobody at another replica waits for one.
    pub(crate) fn end(mut self) -> Option<Answering> {
        self.ended = true;
        let id = self.id;
        let is_followed = self.hub.act(|protocol, now| protocol.end(id, now));
        is_followed.then(|| Answering {
            hub: Arc::clone(&self.hub),
            id,
        })
    }
}

impl Drop for Contest {
    fn drop(&mut self) {
        let id = self.id;
        if !self.ended {
            self.hub.act(|protocol, now| protocol.leave(id, now));
        }
    }
}

// ===== impl Answering =====

impl Answering {
    /// Gives followers at other replicas the answer, or the reason why there is none.
    pub(crate) fn answer(self, answer: Result<Bytes, NotShared>) {
        let id = self.id;
        self.hub
            .act(|protocol, now| protocol.answer(id, answer, now));
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let (id, failed) = (self.id, Err(NotShared::Failed));
        // Does nothing if there was an answer.
        self.hub
            .act(|protocol, now| protocol.answer(id, failed, now));
    }
}
