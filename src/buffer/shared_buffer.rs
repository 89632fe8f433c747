//! The frames of one body that have arrived, and who may read which of them.
//!
//! Invariants, cited as B1 to B6:
//!
//! 1. While the buffer is `Whole` it holds every frame from the first, so whoever joins can read from the start.
//! 2. A reader gets all frames in order, then the end that the source had. A reader that has missed a frame is told so,
//!    and never gets a clean end.
//! 3. What is held is paid for from the budget (by `frames`, which says what counts), except up to two frames: the
//!    one in transit, which a caller would hold without the layer too, and one that was pulled for a pacer that has
//!    left since.
//! 4. Only a whole buffer is filled ahead of its readers. Otherwise a frame is pulled when a reader has asked for it.
//! 5. In a `Window` one reader sets the pace: the leader, or the fastest once the leader has left. No frame is dropped
//!    before that reader has had it, and the source is at most `max_body` and one frame ahead of it.
//! 6. In a window with several readers, the prefix of every reader that has had a frame is that of the frames that it
//!    has had.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::{
    budget::Budget,
    complete::CompleteBody,
    frames::{Content, Frames, places},
    prefix::Prefix,
    readers::{Cursor, ReaderId, Readers},
};
use crate::error::{LengthMismatch, PrivateTrailers, SharedError};

/// See the [module docs](self).
#[derive(Debug)]
pub(crate) struct SharedBuffer {
    frames: Frames,
    /// Bytes of data received in all.
    received: u64,
    /// How many the response promised.
    expected: Option<u64>,
    /// Whether these were paid for with the head.
    reserved: bool,
    /// The source's size hint for the rest.
    hint: SizeHint,
    limits: Limits,
    mode: Mode,
    readers: Readers,
    /// How many frames the fastest reader has asked for.
    asked: u64,
    /// Whether a reader's request was held back, because the source waits for the reader that sets the pace.
    unserved: bool,
    /// The source's end: complete, or its failure.
    end: Option<Result<(), SharedError>>,
    /// Why followers read no further.
    cut: Option<SharedError>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    pub(crate) max_body: usize,
    pub(crate) max_buffered: usize,
}

/// Whether the budget has room for a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Enough for all that is known to be needed.
    Enough,
    /// Less, so the buffer becomes a window of what there is.
    Short,
    None,
}

/// The result of a read.
#[derive(Debug)]
pub(crate) enum Read {
    Frame(Frame<Bytes>),
    End,
    Failed(SharedError),
    /// Its next frame is gone (B2).
    FellBehind,
    /// Not there yet.
    Wait {
        /// The driver must be woken, because a reader waits for a frame.
        asked: bool,
        /// The source waits for the reader that sets the pace.
        paced: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Everything is kept.
    Whole,
    /// The body has outgrown its limit, or its only reader will stay alone: only the last `max_body` bytes are kept.
    Window,
    /// Nobody reads; nothing is kept.
    Discarded,
}

// ===== impl SharedBuffer =====

impl SharedBuffer {
    /// With the leader as its only reader.
    #[inline]
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self {
            frames: Frames::new(budget),
            received: 0,
            expected: None,
            reserved: false,
            hint: SizeHint::new(),
            limits: Limits::default(),
            mode: Mode::Whole,
            readers: Readers::new(),
            asked: 0,
            unserved: false,
            end: None,
            cut: None,
        }
    }

    /// The head has arrived. Pays at once for a promised length that fits.
    pub(crate) fn announce(
        &mut self,
        expected: Option<u64>,
        hint: SizeHint,
        limits: Limits,
    ) -> Room {
        self.expected = expected;
        self.hint = hint;
        self.limits = limits;
        let expected = expected.and_then(|bytes| usize::try_from(bytes).ok());
        let fits = expected.filter(|&bytes| bytes <= limits.max_body);
        self.reserved =
            fits.is_some_and(|bytes| self.frames.reservation.grow(bytes, limits.max_buffered));
        let has_room = self.reserved || self.frames.reservation.has_room(limits.max_buffered);
        match (has_room, fits) {
            (false, _) => Room::None,
            (true, Some(_)) if !self.reserved => Room::Short,
            (true, _) => Room::Enough,
        }
    }

    /// Whether a frame of this length would fit into a whole buffer if the budget had room.
    pub(crate) fn is_short(&self, len: usize) -> bool {
        self.mode == Mode::Whole
            && !self.exceeds(len)
            && (self.reserved || !self.frames.outgrows(len, self.limits.max_body))
    }

    /// Whether who begins to read now gets every frame, unless the source breaks its promise.
    pub(crate) fn keeps_all(&self) -> bool {
        self.reserved
    }

    /// Whether at least so many bytes wait for the reader at `place`, and the source has not ended.
    pub(crate) fn is_behind(&self, place: ReaderId, bytes: u64) -> bool {
        self.end.is_none() && self.received - self.readers.cursor(place).had.bytes >= bytes
    }

    /// Whether all bytes that the head promised are here once `len` more have come.
    pub(crate) fn is_all_with(&self, len: usize) -> bool {
        self.expected == Some(self.received + len as u64)
    }

    // ===== readers =====

    /// Adds a reader, which has still to begin. Only while the buffer is whole (B1).
    pub(crate) fn join(&mut self) {
        self.frames.reservation.share();
        self.readers.join();
    }

    /// One that has joined begins to read, at the first frame.
    pub(crate) fn begin(&mut self) -> ReaderId {
        self.readers.begin()
    }

    /// One that has joined becomes the leader, where there is none and nobody has begun.
    pub(crate) fn lead(&mut self) {
        self.readers.lead();
    }

    /// So many leave that have joined and not begun.
    pub(crate) fn leave_waiting(&mut self, count: usize) {
        self.readers.leave_waiting(count);
        self.trim();
    }

    /// Returns whether the others wait for this reader and must be woken.
    pub(crate) fn leave(&mut self, place: ReaderId) -> bool {
        let was_pacer = self.readers.leave(place);
        self.trim();
        was_pacer && self.mode == Mode::Window
    }

    pub(crate) fn readers(&self) -> usize {
        self.readers.count()
    }

    /// What the reader at `place` has had so far.
    pub(crate) fn had(&self, place: ReaderId) -> Prefix {
        self.readers.cursor(place).had
    }

    /// How far the [pacer](Readers::pace) has come. All frames, if there are several readers and no pacer.
    fn pace(&self) -> Cursor {
        self.readers.pace().unwrap_or(Cursor {
            frames: self.frames.next(),
            had: Prefix::default(),
        })
    }

    // ===== the source =====

    /// Whether to pull a frame from the source now (B4).
    pub(crate) fn may_pull(&self, eager: bool) -> bool {
        let is_asked = self.asked > self.frames.next();
        match self.mode {
            Mode::Whole => eager || is_asked,
            Mode::Window => is_asked && self.readers.pacer.is_some() && !self.must_wait(),
            Mode::Discarded => false,
        }
    }

    /// Whether the source must wait for the reader that sets the pace (B5).
    fn must_wait(&self) -> bool {
        let pace = self.pace();
        let frames = self.frames.next() - pace.frames;
        let bytes = self.received - pace.had.bytes;
        let max_body = self.limits.max_body;
        frames > 0
            && (bytes >= max_body as u64
                || self.frames.owes()
                || usize::try_from(frames).is_ok_and(|frames| places(frames) >= max_body))
    }

    /// Whether what comes next needs a prefix (B6).
    pub(crate) fn is_shared_window(&self) -> bool {
        self.mode == Mode::Window && self.readers() > 1
    }

    /// Adds a frame to a whole buffer, or to a window. `Err` gives the frame back: the buffer can't stay whole with it.
    /// `prefix`: the body up to this frame's end (B6).
    pub(crate) fn push(
        &mut self,
        frame: Frame<Bytes>,
        hint: SizeHint,
        prefix: Option<Prefix>,
    ) -> Result<(), Frame<Bytes>> {
        let len = frame.data_ref().map_or(0, Bytes::len);
        match self.mode {
            // The work was cancelled while it was polled.
            Mode::Discarded => self.frames.waste(frame),
            Mode::Whole => {
                let Some(charge) = self.pay_to_stay_whole(len) else {
                    return Err(frame);
                };
                self.add(frame, hint, charge, true, None);
            }
            Mode::Window => {
                if self.exceeds(len) {
                    self.cut_followers(len);
                }
                self.slide(frame, len, hint, prefix);
            }
        }
        Ok(())
    }

    /// Whether a frame of this length exceeds what the response promised.
    fn exceeds(&self, len: usize) -> bool {
        self.expected
            .is_some_and(|expected| self.received + len as u64 > expected)
    }

    /// Pays for a frame of this length and returns the charge, if the buffer can stay whole with it.
    fn pay_to_stay_whole(&mut self, len: usize) -> Option<usize> {
        if self.exceeds(len) {
            return None;
        }
        let (max_body, max_buffered) = (self.limits.max_body, self.limits.max_buffered);
        let price = self.frames.price(len);
        if !self.reserved {
            let fits = !self.frames.outgrows(len, max_body);
            return (fits && self.frames.reservation.grow(price, max_buffered)).then_some(price);
        }
        // A promised length was paid for with the head. The body stays whole even if the budget can't pay for the
        // frames' places.
        if self.frames.reservation.grow(price - len, max_buffered) {
            return Some(price);
        }
        let expected = usize::try_from(self.expected?).ok()?;
        (!self.frames.is_crowded(expected)).then_some(len)
    }

    fn add(
        &mut self,
        frame: Frame<Bytes>,
        hint: SizeHint,
        charge: usize,
        stays: bool,
        prefix: Option<Prefix>,
    ) {
        self.hint = hint;
        self.received += self.frames.add(frame, charge, stays, prefix) as u64;
    }

    /// Adds a frame and drops older ones to make room (B3, B5).
    fn slide(&mut self, frame: Frame<Bytes>, len: usize, hint: SizeHint, prefix: Option<Prefix>) {
        let (max_body, max_buffered) = (self.limits.max_body, self.limits.max_buffered);
        let had = self.pace().frames;
        while self.frames.first() < had && self.frames.outgrows(len, max_body) && self.frames.pop()
        {
        }
        let price = self.frames.price(len);
        let charge = loop {
            if self.frames.reservation.grow(price, max_buffered) {
                break price;
            }
            if self.frames.first() >= had || !self.frames.pop() {
                break 0;
            }
        };
        self.add(frame, hint, charge, self.readers() > 1, prefix);
    }

    /// The data of all frames, to be hashed outside the lock.
    pub(crate) fn held_data(&self) -> Vec<Bytes> {
        let data = |content: &Content| match content {
            Content::Data(data) => data.clone(),
            Content::Trailers(_) => Bytes::new(),
        };
        self.frames
            .iter()
            .map(|frame| data(&frame.content))
            .collect()
    }

    /// The trailers, if it holds them.
    pub(crate) fn trailers(&self) -> Option<HeaderMap> {
        match &self.frames.iter().next_back()?.content {
            Content::Trailers(trailers) => Some(HeaderMap::clone(trailers)),
            Content::Data(_) => None,
        }
    }

    /// Whether followers get the complete body that the response promised.
    pub(crate) fn is_complete(&self) -> bool {
        let end = self.end.as_ref();
        end.map_or_else(|| self.is_all_with(0), Result::is_ok) && self.cut.is_none()
    }

    /// All frames of a body that has ended, if it is complete and everybody may have them.
    #[cfg(feature = "redis")]
    pub(crate) fn frames_for_all(&self) -> Option<Vec<Frame<Bytes>>> {
        let has_all = self
            .expected
            .is_none_or(|expected| expected == self.received);
        if self.mode != Mode::Whole || self.cut.is_some() || !has_all {
            return None;
        }
        let frame = |content: &Content| content.may_be_shared().then(|| content.to_frame());
        let frames = self.frames.iter().map(|frame| &frame.content);
        frames.map(frame).collect()
    }

    /// The body for followers that have read nothing yet: `None` unless it has ended, as promised, and everybody may
    /// have all of it. What was paid for it is the copy's from then on.
    pub(crate) fn share_complete(&mut self) -> Option<CompleteBody> {
        let is_whole = matches!(self.end, Some(Ok(()))) && self.frames.first() == 0;
        let may_be_shared = self
            .frames
            .iter()
            .all(|frame| frame.content.may_be_shared());
        if !is_whole || !may_be_shared || self.cut.is_some() {
            return None;
        }
        let has_known_length = self.expected.is_some() || !self.frames.has_trailers();
        let (frames, paid) = self.frames.share_complete();
        Some(CompleteBody {
            frames,
            len: self.received,
            has_known_length,
            _paid: paid,
        })
    }

    /// From now on the buffer is a window. `prefixes`: the [data](Self::held_data) up to the end of each frame; empty
    /// if nobody shares (B6).
    pub(crate) fn outgrow(&mut self, prefixes: &[Prefix]) {
        if self.mode != Mode::Whole {
            return;
        }
        self.mode = Mode::Window;
        if !prefixes.is_empty() {
            for cursor in self.readers.cursors_mut() {
                #[expect(clippy::cast_possible_truncation, reason = "so many frames were held")]
                if let Some(had) = (cursor.frames as usize).checked_sub(1) {
                    cursor.had = prefixes[had];
                }
            }
            self.frames.set_prefixes(prefixes.iter().copied());
        }
        self.readers.find_pacer();
        // Frees what was paid in advance for frames that nobody will keep.
        self.reserved = false;
        self.frames.refund();
        self.trim();
    }

    /// Drops what a lone reader has had, since nobody will read it again.
    fn trim(&mut self) {
        if self.mode == Mode::Window && self.readers() == 1 {
            let had = self.pace().frames;
            while self.frames.first() < had && self.frames.pop() {}
        }
    }

    /// The source exceeds the promised length with a frame of this length: followers get an error instead of the rest,
    /// and the leader goes on.
    fn cut_followers(&mut self, len: usize) {
        if let Some(expected) = self.expected.take() {
            let received = self.received + len as u64;
            self.cut = Some(SharedError::new(LengthMismatch { expected, received }));
        }
    }

    /// The source has ended. It is a failure if it gave fewer bytes than promised.
    pub(crate) fn finish(&mut self) {
        self.hint = SizeHint::with_exact(0);
        self.end = Some(match self.expected {
            Some(expected) if expected != self.received => {
                let received = self.received;
                Err(SharedError::new(LengthMismatch { expected, received }))
            }
            _ => Ok(()),
        });
        // Nobody joins any more: what the last reader has had is not kept.
        self.outgrow(&[]);
    }

    /// The source has failed: its readers get the error after the frames so far.
    pub(crate) fn fail(&mut self, error: SharedError) {
        self.hint = SizeHint::new();
        self.end = Some(Err(error));
    }

    /// Nobody will read any more. Returns everything that it holds and has paid for, to be dropped outside the lock.
    pub(crate) fn discard(&mut self) -> impl Sized + use<> {
        self.mode = Mode::Discarded;
        self.frames.take_all()
    }

    /// Whether it holds frames or budget only for followers that may never come.
    pub(crate) fn is_kept_for_nobody(&self) -> bool {
        self.mode == Mode::Whole && self.readers() == 1 && self.frames.reservation.bytes() > 0
    }

    /// The frames that are gone since the last call, to be dropped outside the lock.
    pub(crate) fn take_spent(&mut self) -> impl Sized + use<> {
        self.frames.take_spent()
    }

    // ===== reading =====

    pub(crate) fn read(&mut self, place: ReaderId) -> Read {
        match &self.cut {
            Some(error) if place != ReaderId::Leader => return Read::Failed(error.clone()),
            _ => {}
        }
        let cursor = *self.readers.cursor(place);
        let Some(index) = cursor.frames.checked_sub(self.frames.first()) else {
            return Read::FellBehind;
        };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "an index beyond `usize` is beyond the end too"
        )]
        let index = index as usize;
        let prefix = self.frames.prefix(index);
        match self.frames.get(index) {
            Some(content) if place != ReaderId::Leader && !content.may_be_shared() => {
                return Read::Failed(SharedError::new(PrivateTrailers));
            }
            _ => {}
        }
        let is_alone = self.mode == Mode::Window && self.readers() == 1;
        let content = if is_alone && index == 0 {
            self.frames.take_oldest()
        } else {
            self.frames.get(index).cloned()
        };
        if let Some(content) = content {
            let cursor = self.readers.cursor_mut(place);
            cursor.frames += 1;
            let frame = match content {
                Content::Data(data) => {
                    cursor.had.bytes += data.len() as u64;
                    Frame::data(data)
                }
                Content::Trailers(trailers) => Frame::trailers(*trailers),
            };
            if let Some(prefix) = prefix {
                cursor.had = prefix;
            }
            return Read::Frame(frame);
        }
        match &self.end {
            Some(Ok(())) => Read::End,
            Some(Err(error)) => Read::Failed(error.clone()),
            None => self.wait(place, cursor.frames + 1),
        }
    }

    /// The reader at `place` waits at the front for the frame with the number `wanted`.
    fn wait(&mut self, place: ReaderId, wanted: u64) -> Read {
        let mut asked = wanted > self.asked;
        self.asked = self.asked.max(wanted);
        if self.mode != Mode::Window {
            // A whole buffer is filled ahead of its followers anyway (B4).
            return Read::Wait {
                asked: false,
                paced: false,
            };
        }
        if self.readers.pacer.is_none() {
            self.readers.pacer = Some(place);
            // The reader that had asked has left, and the source does not go on for it.
            self.unserved = true;
        }
        let paced = self.readers.pacer != Some(place) && self.must_wait();
        if paced {
            self.unserved = true;
        } else {
            asked |= std::mem::take(&mut self.unserved);
        }
        Read::Wait { asked, paced }
    }

    pub(crate) fn is_end_for(&self, place: ReaderId) -> bool {
        matches!(self.end, Some(Ok(()))) && self.readers.cursor(place).frames == self.frames.next()
    }

    pub(crate) fn size_hint_for(&self, place: ReaderId) -> SizeHint {
        let had = self.readers.cursor(place).had.bytes;
        if let Some(expected) = self.expected {
            return SizeHint::with_exact(expected.saturating_sub(had));
        }
        let unread = self.received.saturating_sub(had);
        // HTTP/1.1 has no trailers after a body of known length, so we give the length only once no trailers can come.
        let lasts = matches!(self.end, Some(Ok(()))) && !self.frames.has_trailers();
        let mut hint = SizeHint::new();
        // Upper first: the setters check one against the other.
        match self.hint.upper() {
            Some(upper) if lasts || upper > self.hint.lower() => {
                hint.set_upper(upper.saturating_add(unread));
            }
            _ => {}
        }
        hint.set_lower(self.hint.lower().saturating_add(unread));
        hint
    }
}

#[cfg(test)]
#[path = "shared_buffer_tests.rs"]
mod tests;
