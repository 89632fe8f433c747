//! The frames of one body, as far as the source has given them.
//!
//! Invariants, cited as C1 to C4:
//!
//! 1. While the tape is `Whole` it holds every frame from the first, so whoever joins can read from the start.
//! 2. A reader gets frames in their order and without a gap, then the end that the source had; one for whom a frame is
//!    gone gets an error, never a clean end.
//! 3. What the tape holds is paid for from the budget, but for one frame in transit, which a pass-through holds as well.
//! 4. Only a whole tape is filled ahead of its readers. Else a frame is pulled when a reader has asked for it.

use std::{collections::VecDeque, mem, sync::Arc};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::budget::{Budget, Reservation};
use crate::error::{FellBehind, LengthMismatch, SharedError};

/// So many frames are held at the price of their bytes alone. Beyond, a frame costs at least the room of its entry: a body
/// in millions of tiny frames must not hold a multiple of what the budget says.
const CHEAP_FRAMES: usize = 1024;

/// See the [module docs](self).
#[derive(Debug)]
pub(crate) struct Tape {
    pieces: VecDeque<Piece>,
    /// The index of `pieces[0]` in the whole body.
    first: u64,
    /// Bytes of data in `pieces`.
    held: usize,
    /// Bytes of data received in all.
    received: u64,
    /// How many the response has promised.
    expected: Option<u64>,
    /// Whether these were paid for with the head.
    prepaid: bool,
    /// What the source says of what it still has.
    hint: SizeHint,
    mode: Mode,
    /// How many frames the fastest reader has asked for.
    asked: u64,
    end: Option<End>,
    /// Followers read no further, for this reason.
    cut: Option<SharedError>,
    reservation: Reservation,
    /// Frames that are gone. Their bytes may be the user's to free, so not under a lock.
    spent: Vec<Content>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_body: usize,
    pub(crate) max_buffered: usize,
}

/// A reader's place.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    frames: u64,
    bytes: u64,
}

/// What a reader finds.
#[derive(Debug)]
pub(crate) enum Read {
    Frame(Frame<Bytes>),
    End,
    Failed(SharedError),
    /// Not there yet. `asked`: the source must be told that somebody waits for it.
    Wait {
        asked: bool,
    },
}

#[derive(Debug)]
struct Piece {
    content: Content,
    /// What it was charged from the budget.
    charge: usize,
}

#[derive(Clone, Debug)]
enum Content {
    Data(Bytes),
    /// Boxed: a map is several times the size of `Bytes`, and there is at most one.
    Trailers(Box<HeaderMap>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Everything is kept.
    Whole,
    /// Several readers follow an outgrown body; what is further than `max_body` behind its source is gone.
    Window,
    /// The leader alone reads; what it has read is gone.
    Leader,
}

#[derive(Debug)]
enum End {
    Complete,
    Failed(SharedError),
}

// ===== impl Tape =====

impl Tape {
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self {
            pieces: VecDeque::new(),
            first: 0,
            held: 0,
            received: 0,
            expected: None,
            prepaid: false,
            hint: SizeHint::new(),
            mode: Mode::Whole,
            asked: 0,
            end: None,
            cut: None,
            reservation: Reservation::new(budget),
            spent: Vec::new(),
        }
    }

    /// The head has come. A promised length is paid for at once; `false` if it can't be.
    pub(crate) fn announce(
        &mut self,
        expected: Option<u64>,
        hint: SizeHint,
        limits: Limits,
    ) -> bool {
        self.expected = expected;
        self.hint = hint;
        let Some(expected) = expected else {
            return true;
        };
        self.prepaid = usize::try_from(expected).is_ok_and(|bytes| {
            bytes <= limits.max_body && self.reservation.grow(bytes, limits.max_buffered)
        });
        self.prepaid
    }

    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    pub(crate) fn expected(&self) -> Option<u64> {
        self.expected
    }

    /// Whether to pull a frame from the source now (C4).
    pub(crate) fn may_pull(&self, eager: bool) -> bool {
        (eager && self.mode == Mode::Whole) || self.asked > self.next()
    }

    /// The index that the next frame will have.
    fn next(&self) -> u64 {
        self.first + self.pieces.len() as u64
    }

    /// Adds a frame to a whole tape, or to one that only follows. `Err` gives the frame back: the tape can't stay whole
    /// with it.
    pub(crate) fn push(
        &mut self,
        frame: Frame<Bytes>,
        hint: SizeHint,
        limits: Limits,
    ) -> Result<(), Frame<Bytes>> {
        if self.mode == Mode::Whole {
            let len = frame.data_ref().map_or(0, Bytes::len);
            let received = self.received + len as u64;
            let fits = match self.expected {
                Some(expected) => received <= expected,
                None => received <= limits.max_body as u64,
            };
            let charge = self.price(len);
            // A promised length was paid for with the head.
            let due = charge - if self.prepaid { len } else { 0 };
            if !fits || !self.reservation.grow(due, limits.max_buffered) {
                return Err(frame);
            }
            self.add(frame, hint, charge);
        } else {
            self.follow(frame, hint, limits);
        }
        Ok(())
    }

    fn price(&self, len: usize) -> usize {
        if self.pieces.len() < CHEAP_FRAMES {
            len
        } else {
            len.max(size_of::<Piece>())
        }
    }

    fn add(&mut self, frame: Frame<Bytes>, hint: SizeHint, charge: usize) {
        self.hint = hint;
        let content = match frame.into_data() {
            Ok(data) => {
                self.held += data.len();
                self.received += data.len() as u64;
                Content::Data(data)
            }
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => Content::Trailers(Box::new(trailers)),
                // A kind of frame that `http-body` may grow some day: nothing that could be copied.
                Err(_) => return,
            },
        };
        self.pieces.push_back(Piece { content, charge });
    }

    /// Adds a frame behind which older ones go (C3).
    fn follow(&mut self, frame: Frame<Bytes>, hint: SizeHint, limits: Limits) {
        let len = frame.data_ref().map_or(0, Bytes::len);
        // What the fastest reader has not had yet stays.
        while self.first + 1 < self.asked && self.held + len > limits.max_body && self.pop() {}
        let charge = self.price(len);
        let paid = loop {
            if self.reservation.grow(charge, limits.max_buffered) {
                break charge;
            }
            if self.first + 1 >= self.asked || !self.pop() {
                break 0;
            }
        };
        self.add(frame, hint, paid);
    }

    /// Gives up the oldest frame.
    fn pop(&mut self) -> bool {
        let oldest = self.take_oldest();
        let popped = oldest.is_some();
        self.spent.extend(oldest);
        popped
    }

    /// The frames that are gone since the last time, to be dropped outside the lock.
    pub(crate) fn take_spent(&mut self) -> impl Sized + use<> {
        mem::take(&mut self.spent)
    }

    fn take_oldest(&mut self) -> Option<Content> {
        let Piece { content, charge } = self.pieces.pop_front()?;
        self.first += 1;
        if let Content::Data(data) = &content {
            self.held -= data.len();
        }
        self.reservation.shrink(charge);
        Some(content)
    }

    /// From now on frames are kept for no longer than the window, or than the leader needs them.
    pub(crate) fn outgrow(&mut self, window: bool) {
        self.mode = if window { Mode::Window } else { Mode::Leader };
        if mem::take(&mut self.prepaid) {
            // What was paid in advance for frames that nobody will keep.
            let charged: usize = self.pieces.iter().map(|piece| piece.charge).sum();
            self.reservation
                .shrink(self.reservation.bytes().saturating_sub(charged));
        }
    }

    /// The source has broken its word: followers get an error instead of what is left, the leader goes on.
    pub(crate) fn cut_followers(&mut self, received: u64) {
        if let Some(expected) = self.expected.take() {
            self.cut = Some(SharedError::new(Box::new(LengthMismatch {
                expected,
                received,
            })));
        }
        self.outgrow(false);
    }

    /// The source has ended. Fewer bytes than promised are a failure.
    pub(crate) fn finish(&mut self, shared: bool) {
        self.hint = SizeHint::with_exact(0);
        self.end = Some(match self.expected {
            Some(expected) if expected != self.received => {
                let received = self.received;
                End::Failed(SharedError::new(Box::new(LengthMismatch {
                    expected,
                    received,
                })))
            }
            _ => End::Complete,
        });
        if !shared {
            // Nobody else will ever read it.
            self.mode = Mode::Leader;
        }
    }

    /// The source has failed: so do its readers, after the frames so far.
    pub(crate) fn fail(&mut self, error: SharedError) {
        self.hint = SizeHint::new();
        self.end = Some(End::Failed(error));
    }

    // ===== reading =====

    pub(crate) fn read(&mut self, cursor: &mut Cursor, leads: bool) -> Read {
        if !leads && let Some(error) = &self.cut {
            return Read::Failed(error.clone());
        }
        let Some(place) = cursor.frames.checked_sub(self.first) else {
            return Read::Failed(SharedError::new(Box::new(FellBehind)));
        };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "an index beyond `usize` is beyond the end too"
        )]
        let content = if leads && self.mode == Mode::Leader && place == 0 {
            self.take_oldest()
        } else {
            self.pieces
                .get(place as usize)
                .map(|piece| piece.content.clone())
        };
        if let Some(content) = content {
            cursor.frames += 1;
            return Read::Frame(match content {
                Content::Data(data) => {
                    cursor.bytes += data.len() as u64;
                    Frame::data(data)
                }
                Content::Trailers(trailers) => Frame::trailers(*trailers),
            });
        }
        match &self.end {
            Some(End::Complete) => Read::End,
            Some(End::Failed(error)) => Read::Failed(error.clone()),
            None => {
                let wanted = cursor.frames + 1;
                let asked = wanted > self.asked;
                self.asked = self.asked.max(wanted);
                Read::Wait { asked }
            }
        }
    }

    pub(crate) fn is_end_for(&self, cursor: &Cursor) -> bool {
        matches!(self.end, Some(End::Complete)) && cursor.frames == self.next()
    }

    pub(crate) fn size_hint_for(&self, cursor: &Cursor) -> SizeHint {
        if let Some(expected) = self.expected {
            return SizeHint::with_exact(expected.saturating_sub(cursor.bytes));
        }
        let unread = self.received.saturating_sub(cursor.bytes);
        let mut hint = SizeHint::new();
        // Upper first: the setters check one against the other.
        if let Some(upper) = self.hint.upper() {
            hint.set_upper(upper.saturating_add(unread));
        }
        hint.set_lower(self.hint.lower().saturating_add(unread));
        hint
    }
}
