//! The frames that are held, oldest first.
//!
//! Invariants:
//!
//! 1. The amount paid equals the charges of the frames plus what was paid in advance. A frame is charged its price, or
//!    only its bytes if its length was reserved, or nothing if it is passed straight on.
//! 2. The frames keep little more memory alive than their prices: their bytes, another quarter of these if they were
//!    compacted or as much again if not, the places of `CHEAP_FRAMES`, and the buffer of a small first frame.
//! 3. Nothing that belongs to the user is dropped here: it goes to `spent`.
//! 4. `prefixes[n]` is of the body up to the end of `queue[n]`. The newest frames have none if they came when nobody
//!    shared.

use std::{collections::VecDeque, mem, sync::Arc};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use super::{
    budget::{Budget, Reservation},
    compact::Compactor,
    prefix::Prefix,
};
use crate::rules;

/// How many frames may be held at the price of their bytes alone.
const CHEAP_FRAMES: usize = if cfg!(test) { 8 } else { 1024 };

/// Beyond that, a frame shorter than this is also charged its place: a body in millions of tiny frames must not hold a
/// multiple of the budget.
const TINY: usize = if cfg!(test) { 32 } else { 512 };

/// A frame's place in a queue that doubles as it grows.
const PLACE: usize = 2 * size_of::<HeldFrame>();

/// A queue of frames that are paid for.
#[derive(Debug)]
pub(super) struct Frames {
    queue: VecDeque<HeldFrame>,
    prefixes: VecDeque<Prefix>,
    /// The index of `queue[0]` in the whole body.
    first: u64,
    /// Bytes of data in `queue`.
    held: usize,
    /// The index of the last frame that could not be paid for.
    unpaid: Option<u64>,
    /// What was paid.
    pub(super) reservation: Reservation,
    compactor: Compactor,
    /// Frames that are gone. Dropping their bytes may run user code, so not under a lock.
    spent: Vec<Content>,
    /// The original of the last compacted frame, to be dropped outside the lock too; kept apart from `spent` to save an
    /// allocation.
    replaced: Option<Bytes>,
}

#[derive(Debug)]
pub(super) struct HeldFrame {
    pub(super) content: Content,
    /// What it was charged from the budget.
    pub(super) charge: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    Data(Bytes),
    /// Boxed: a map is several times the size of `Bytes`, and there is at most one.
    Trailers(Box<HeaderMap>),
}

/// The bytes that the places of frames beyond `CHEAP_FRAMES` take. This counts a bare place, half of `PLACE`, so that a
/// body of many short lines does not exceed `max_body` by its places alone.
pub(super) fn places(frames: usize) -> usize {
    frames.saturating_sub(CHEAP_FRAMES) * size_of::<HeldFrame>()
}

// ===== impl Frames =====

impl Frames {
    #[inline]
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self {
            queue: VecDeque::new(),
            prefixes: VecDeque::new(),
            first: 0,
            held: 0,
            unpaid: None,
            reservation: Reservation::new(budget),
            compactor: Compactor::default(),
            spent: Vec::new(),
            replaced: None,
        }
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The index that the next frame will have.
    pub(super) fn next(&self) -> u64 {
        self.first + self.queue.len() as u64
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held
    }

    pub(super) fn get(&self, place: usize) -> Option<&Content> {
        self.queue.get(place).map(|frame| &frame.content)
    }

    /// Whether it holds trailers, which are always last.
    pub(super) fn has_trailers(&self) -> bool {
        let last = self.queue.back();
        last.is_some_and(|frame| matches!(frame.content, Content::Trailers(_)))
    }

    pub(super) fn prefix(&self, place: usize) -> Option<Prefix> {
        self.prefixes.get(place).copied()
    }

    /// Sets the prefixes up to the end of each frame (invariant 4).
    pub(super) fn set_prefixes(&mut self, prefixes: impl IntoIterator<Item = Prefix>) {
        self.prefixes = prefixes.into_iter().collect();
        debug_assert_eq!(self.prefixes.len(), self.queue.len());
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &HeldFrame> {
        self.queue.iter()
    }

    // ===== the account =====

    /// What one more frame of this length costs.
    pub(super) fn price(&self, len: usize) -> usize {
        if self.queue.len() < CHEAP_FRAMES || len >= TINY {
            len
        } else {
            len + PLACE
        }
    }

    /// Whether one more frame of this length would exceed `limit`, by bytes or by the frames' places.
    pub(super) fn outgrows(&self, len: usize, limit: usize) -> bool {
        self.held + len > limit || self.is_crowded(limit)
    }

    /// Whether the frames' places would exceed `limit` with one more.
    pub(super) fn is_crowded(&self, limit: usize) -> bool {
        places(self.queue.len() + 1) > limit
    }

    /// Whether a frame is held that was not paid for.
    pub(super) fn owes(&self) -> bool {
        self.unpaid.is_some_and(|unpaid| unpaid >= self.first)
    }

    /// Frees what was paid for frames that will not come.
    pub(super) fn refund(&mut self) {
        let charged: usize = self.queue.iter().map(|frame| frame.charge).sum();
        self.reservation
            .shrink(self.reservation.bytes().saturating_sub(charged));
    }

    // ===== the frames =====

    /// Adds a frame for which `charge` was paid. `stays`: it is not just passed on. Returns the number of its bytes.
    pub(super) fn add(
        &mut self,
        frame: Frame<Bytes>,
        charge: usize,
        stays: bool,
        prefix: Option<Prefix>,
    ) -> usize {
        let Some(mut content) = Content::of(frame) else {
            self.reservation.shrink(charge);
            return 0;
        };
        let len = content.len();
        // A body's first frame is usually the whole body.
        if let (Content::Data(data), true) = (&mut content, stays && self.next() > 0) {
            if let Some(compacted) = self.compactor.compact(data, self.held) {
                let earlier = self.replaced.replace(mem::replace(data, compacted));
                self.spent.extend(earlier.map(Content::Data));
            }
        }
        if charge < len {
            self.unpaid = Some(self.next());
        }
        self.held += len;
        self.prefixes.extend(prefix);
        self.queue.push_back(HeldFrame { content, charge });
        len
    }

    /// A frame that nobody will read.
    pub(super) fn waste(&mut self, frame: Frame<Bytes>) {
        self.spent.extend(Content::of(frame));
    }

    /// Drops the oldest frame.
    pub(super) fn pop(&mut self) -> bool {
        let oldest = self.take_oldest();
        let popped = oldest.is_some();
        self.spent.extend(oldest);
        popped
    }

    pub(super) fn take_oldest(&mut self) -> Option<Content> {
        let HeldFrame { content, charge } = self.queue.pop_front()?;
        self.prefixes.pop_front();
        self.first += 1;
        self.held -= content.len();
        self.reservation.shrink(charge);
        Some(content)
    }

    /// A copy of the frames, which takes over what was paid for them.
    pub(super) fn share_complete(&mut self) -> (Box<[Content]>, Reservation) {
        let copy = |frame: &mut HeldFrame| {
            frame.charge = 0;
            frame.content.clone()
        };
        (
            self.queue.iter_mut().map(copy).collect(),
            self.reservation.take(),
        )
    }

    /// Everything that it holds and has paid for, to be dropped outside the lock.
    pub(super) fn take_all(&mut self) -> impl Sized + use<> {
        self.held = 0;
        self.reservation.shrink(self.reservation.bytes());
        self.prefixes = VecDeque::new();
        let compactor = mem::take(&mut self.compactor);
        (mem::take(&mut self.queue), compactor, self.take_spent())
    }

    /// The frames that are gone since the last call, to be dropped outside the lock.
    pub(super) fn take_spent(&mut self) -> impl Sized + use<> {
        (mem::take(&mut self.spent), self.replaced.take())
    }
}

// ===== impl Content =====

impl Content {
    /// `None` for a new kind of frame that `http-body` may add some day: it could not be copied.
    pub(super) fn of(frame: Frame<Bytes>) -> Option<Self> {
        match frame.into_data() {
            Ok(data) => Some(Self::Data(data)),
            Err(frame) => {
                let trailers = frame.into_trailers().ok()?;
                Some(Self::Trailers(Box::new(trailers)))
            }
        }
    }

    /// Whether followers may have it.
    pub(super) fn may_be_shared(&self) -> bool {
        match self {
            Self::Data(_) => true,
            Self::Trailers(trailers) => rules::trailers_may_be_shared(trailers),
        }
    }

    pub(super) fn to_frame(&self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data.clone()),
            Self::Trailers(trailers) => Frame::trailers(HeaderMap::clone(trailers)),
        }
    }

    /// Bytes of data.
    fn len(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Trailers(_) => 0,
        }
    }
}
