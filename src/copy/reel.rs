//! The frames that are held, oldest first.
//!
//! Invariants:
//!
//! 1. What was paid is what the pieces were charged, and what was paid in advance for frames to come. A piece is charged its
//!    price, or its bytes alone where its tape has promised them, or nothing while it passes.
//! 2. What is alive because of the pieces is little more than their prices: their bytes, a quarter of these where they were
//!    packed and as much again where they were not, the places of `CHEAP_FRAMES`, and the buffers of the few small frames
//!    that the packer leaves as they came.
//! 3. Nothing of the user's is dropped here: it goes to `spent`.

use std::{collections::VecDeque, mem, sync::Arc};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use super::{
    budget::{Budget, Reservation},
    packer::Packer,
};

/// So many frames are held at the price of their bytes alone.
const CHEAP_FRAMES: usize = if cfg!(test) { 8 } else { 1024 };

/// Beyond, a shorter frame is also charged its place: a body in millions of tiny frames must not hold a multiple of what the
/// budget says.
const TINY: usize = if cfg!(test) { 32 } else { 512 };

/// A frame's place in a queue that doubles as it grows.
const PLACE: usize = 2 * size_of::<Piece>();

/// A queue of frames that are paid for.
#[derive(Debug)]
pub(super) struct Reel {
    pieces: VecDeque<Piece>,
    /// The index of `pieces[0]` in the whole body.
    first: u64,
    /// Bytes of data in `pieces`.
    held: usize,
    reservation: Reservation,
    packer: Packer,
    /// Frames that are gone. Their bytes may be the user's to free, so not under a lock.
    spent: Vec<Content>,
    /// One more of them: what was packed last, and is fetched before the next comes.
    unpacked: Option<Bytes>,
}

#[derive(Debug)]
pub(super) struct Piece {
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

// ===== impl Reel =====

impl Reel {
    #[inline]
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self {
            pieces: VecDeque::new(),
            first: 0,
            held: 0,
            reservation: Reservation::new(budget),
            packer: Packer::default(),
            spent: Vec::new(),
            unpacked: None,
        }
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The index that the next frame will have.
    pub(super) fn next(&self) -> u64 {
        self.first + self.pieces.len() as u64
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held
    }

    pub(super) fn get(&self, place: usize) -> Option<&Content> {
        self.pieces.get(place).map(|piece| &piece.content)
    }

    /// Whether trailers, which are always last, are held.
    pub(super) fn has_trailers(&self) -> bool {
        let last = self.pieces.back();
        last.is_some_and(|piece| matches!(piece.content, Content::Trailers(_)))
    }

    #[cfg(test)]
    pub(super) fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.pieces.iter()
    }

    // ===== the account =====

    /// What one more frame of this length costs.
    pub(super) fn price(&self, len: usize) -> usize {
        if self.pieces.len() < CHEAP_FRAMES || len >= TINY {
            len
        } else {
            len + PLACE
        }
    }

    /// Whether with one more frame, of this length, there are more bytes than `limit`, or so many frames that their places
    /// take more.
    pub(super) fn outgrows(&self, len: usize, limit: usize) -> bool {
        self.held + len > limit || self.is_crowded(limit)
    }

    /// Whether the frames' places would take more than this, with one more.
    pub(super) fn is_crowded(&self, limit: usize) -> bool {
        // Bare, and so half the price: a body of many short lines is not to be over `max_body` for its lines.
        let frames = self.pieces.len() + 1;
        frames.saturating_sub(CHEAP_FRAMES) * size_of::<Piece>() > limit
    }

    /// Pays for frames to come, if the budget has so much.
    pub(super) fn pay(&mut self, bytes: usize, limit: usize) -> bool {
        self.reservation.grow(bytes, limit)
    }

    #[cfg(test)]
    pub(super) fn paid(&self) -> usize {
        self.reservation.bytes()
    }

    /// Takes back what was paid for frames that will not come.
    pub(super) fn refund(&mut self) {
        let charged: usize = self.pieces.iter().map(|piece| piece.charge).sum();
        self.reservation
            .shrink(self.reservation.bytes().saturating_sub(charged));
    }

    // ===== the frames =====

    /// Adds a frame for which `charge` was paid, and which is not just to pass if it `stays`. Gives the bytes of its data.
    pub(super) fn add(&mut self, frame: Frame<Bytes>, charge: usize, stays: bool) -> usize {
        let Some(mut content) = Content::of(frame) else {
            self.reservation.shrink(charge);
            return 0;
        };
        let len = content.len();
        if let (Content::Data(data), true) = (&mut content, stays) {
            if let Some(packed) = self.packer.pack(data, self.held) {
                let earlier = self.unpacked.replace(mem::replace(data, packed));
                self.spent.extend(earlier.map(Content::Data));
            }
        }
        self.held += len;
        self.pieces.push_back(Piece { content, charge });
        len
    }

    /// A frame that nobody will read.
    pub(super) fn waste(&mut self, frame: Frame<Bytes>) {
        self.spent.extend(Content::of(frame));
    }

    /// Gives up the oldest frame.
    pub(super) fn pop(&mut self) -> bool {
        let oldest = self.take_oldest();
        let popped = oldest.is_some();
        self.spent.extend(oldest);
        popped
    }

    pub(super) fn take_oldest(&mut self) -> Option<Content> {
        let Piece { content, charge } = self.pieces.pop_front()?;
        self.first += 1;
        self.held -= content.len();
        self.reservation.shrink(charge);
        Some(content)
    }

    /// Everything that is held, and paid for, to be dropped outside the lock.
    pub(super) fn take_all(&mut self) -> impl Sized + use<> {
        self.held = 0;
        self.reservation.shrink(self.reservation.bytes());
        let packer = mem::take(&mut self.packer);
        (mem::take(&mut self.pieces), packer, self.take_spent())
    }

    /// The frames that are gone since the last time, to be dropped outside the lock.
    pub(super) fn take_spent(&mut self) -> impl Sized + use<> {
        (mem::take(&mut self.spent), self.unpacked.take())
    }
}

// ===== impl Content =====

impl Content {
    /// `None` for a kind of frame that `http-body` may grow some day: nothing that could be copied.
    pub(super) fn of(frame: Frame<Bytes>) -> Option<Self> {
        match frame.into_data() {
            Ok(data) => Some(Self::Data(data)),
            Err(frame) => {
                let trailers = frame.into_trailers().ok()?;
                Some(Self::Trailers(Box::new(trailers)))
            }
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
