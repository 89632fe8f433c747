//! What the layer hangs on a flight.
//!
//! Locks nest in one order: a shard of the table, an exchange, a waiter, a flight's state. Under none of them is anything
//! of the user's called, cloned, dropped or woken, but for the key's `Eq`.

use std::{any::Any, sync::Arc, time::Duration};

use http::{Method, response};
use slab::Slab;
use tokio::time::Instant;

use super::{gauges::Gauges, settings::Shared};
use crate::{
    buffer::SharedBuffer,
    group::{self, Payload, Wakers},
    key::KeyExtractor,
    observe::{Reason, Trace},
    rules::Variant,
    shared::{WriteEpochs, WriteTarget},
    sync::Mutex,
};

pub(crate) type Flight<K> = group::Flight<(), (), Cargo<K>>;

pub(crate) struct Cargo<K> {
    pub(crate) hash: u64,
    pub(crate) key: K,
    /// Part of what is compared: HEAD and GET never share, even where a user's key makes them one.
    pub(crate) method: Method,
    pub(crate) gauges: Arc<Gauges>,
    /// The target, and the last write when the flight began; `None` where writes are not watched.
    pub(crate) epoch: Option<(WriteTarget, u64)>,
    /// From when on it is too old to be joined.
    pub(crate) expires: Option<Instant>,
    /// After so long without a frame it is not joined either.
    pub(crate) max_silence: Duration,
    pub(crate) exchange: Mutex<Exchange<K>>,
    /// After the exchange: it tells of what that gives back when it is dropped.
    pub(crate) trace: Trace,
}

/// How far a flight's request and response have come.
pub(crate) struct Exchange<K> {
    pub(crate) stage: Stage,
    /// Which requests the flight's response is for, as far as that is known.
    pub(crate) variant: Option<Variant>,
    /// Followers for whom nothing has been decided yet.
    pub(crate) waiting: Slab<Arc<dyn Waiting<K>>>,
    pub(crate) buffer: SharedBuffer,
    /// Whether anybody has joined, known under this lock already.
    pub(crate) joined: bool,
    /// When the body last gave a frame, or else the head came; `None` where the whole body was there with its head.
    pub(crate) active: Option<Instant>,
}

pub(crate) enum Stage {
    /// There is no head yet.
    Asked,
    /// There is a head: who joins begins with it.
    Open(Arc<response::Parts>),
    /// Nobody joins any more: the response may not be shared, or the flight is over.
    Closed,
}

/// A follower that waits for its head, as the flight sees it: whatever service it came through.
pub(crate) trait Waiting<K>: Send + Sync {
    /// It is linked in the exchange at `slot`.
    fn linked(&self, slot: usize);

    /// Whether a response for `variant` is not for it.
    fn differs(&self, variant: &Variant) -> bool;

    /// Its response begins with this head.
    fn begin(&self, head: &Arc<response::Parts>, wakers: &mut Wakers);

    /// It makes its own call.
    fn forward(&self, reason: Reason, wakers: &mut Wakers);

    /// As `forward`, because `flight`'s response is unshareable and its key is remembered for that: a shareable one that
    /// this caller then gets clears the key.
    fn refuse(&self, flight: &Arc<Flight<K>>, wakers: &mut Wakers);

    /// The call failed with `error`, of which it takes a share if its own service has the same type of error.
    fn fail(&self, error: &mut dyn Any, wakers: &mut Wakers);

    /// It moves from `flight` to the flight of its own variant, which it is to lead if there is none. `Err`: a panic of
    /// the user's.
    fn regroup(
        self: Arc<Self>,
        flight: &Flight<K>,
        variant: &Variant,
        wakers: &mut Wakers,
    ) -> Result<(), Payload>;

    /// All have moved: it starts the flight that it is to lead. Not before, or that flight could be over already when
    /// others of its variant come.
    fn take_off(&self, wakers: &mut Wakers);
}

// ===== impl Cargo =====

impl<K> Cargo<K> {
    /// Of a flight that may begin `now`. `target`: whose writes are watched.
    #[inline]
    pub(crate) fn new<X>(
        shared: &Shared<X>,
        hash: u64,
        key: K,
        method: Method,
        target: Option<WriteTarget>,
        now: Instant,
    ) -> Self
    where
        X: KeyExtractor<Key = K>,
    {
        let Shared {
            settings, flights, ..
        } = shared;
        Self {
            hash,
            key,
            method,
            gauges: Arc::clone(&flights.gauges),
            trace: Trace::default(),
            epoch: target.map(|target| (target, flights.writes.current())),
            max_silence: settings.max_silence,
            expires: now.checked_add(settings.max_age),
            exchange: Mutex::new(Exchange::new(SharedBuffer::new(Arc::clone(
                &flights.gauges.budget,
            )))),
        }
    }

    /// Whether no write to its target has succeeded since it began, and it is not too old at `now`.
    pub(crate) fn is_fresh(&self, writes: &WriteEpochs, now: Instant) -> bool {
        self.epoch
            .is_none_or(|(target, epoch)| !writes.written_since(epoch, &target))
            && self.expires.is_none_or(|expires| now <= expires)
    }
}

// ===== impl Exchange =====

impl<K> Exchange<K> {
    #[inline]
    pub(crate) fn new(buffer: SharedBuffer) -> Self {
        Self {
            stage: Stage::Asked,
            variant: None,
            waiting: Slab::new(),
            buffer,
            joined: false,
            active: None,
        }
    }

    /// Whether its body has given nothing for so long.
    pub(crate) fn is_silent(&self, now: Instant, max_silence: Duration) -> bool {
        let silence = |active| now.saturating_duration_since(active);
        self.active
            .is_some_and(|active| silence(active) >= max_silence)
    }

    /// From now on nobody joins. The head that was there is to be dropped outside the lock: its extensions are the user's.
    pub(crate) fn close(&mut self) -> Stage {
        std::mem::replace(&mut self.stage, Stage::Closed)
    }

    pub(crate) fn link(&mut self, waiter: Arc<dyn Waiting<K>>) {
        let place = self.waiting.vacant_entry();
        waiter.linked(place.key());
        place.insert(waiter);
    }

    /// Takes `waiter` out of `slot`, if it is still there; to be dropped outside the lock.
    pub(crate) fn unlink<W>(
        &mut self,
        slot: usize,
        waiter: *const W,
    ) -> Option<Arc<dyn Waiting<K>>> {
        let linked = self.waiting.get(slot)?;
        if std::ptr::addr_eq(Arc::as_ptr(linked), waiter) {
            self.waiting.try_remove(slot)
        } else {
            None
        }
    }

    pub(crate) fn take_waiting(&mut self) -> Vec<Arc<dyn Waiting<K>>> {
        std::mem::take(&mut self.waiting)
            .into_iter()
            .map(|(_, waiter)| waiter)
            .collect()
    }
}
