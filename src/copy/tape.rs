//! The frames of one body, as far as the source has given them.
//!
//! Invariants, cited as C1 to C4:
//!
//! 1. While the tape is `Whole` it holds every frame from the first, so whoever joins can read from the start.
//! 2. A reader gets frames in their order and without a gap, then the end that the source had; one for whom a frame is
//!    gone gets an error, never a clean end.
//! 3. What the tape holds is paid for from the budget (by the reel, which says what counts), but for one frame in transit,
//!    which a pass-through holds as well.
//! 4. Only a whole tape is filled ahead of its readers. Else a frame is pulled when a reader has asked for it.

use std::{mem, sync::Arc};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{
    budget::Budget,
    reel::{Content, Reel},
};
use crate::{
    error::{FellBehind, LengthMismatch, PrivateTrailers, SharedError},
    rules,
};

/// See the [module docs](self).
#[derive(Debug)]
pub(crate) struct Tape {
    reel: Reel,
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
    /// How many frames the leader has had.
    led: u64,
    end: Option<End>,
    /// Followers read no further, for this reason.
    cut: Option<SharedError>,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Everything is kept.
    Whole,
    /// Several readers follow an outgrown body; what is further than `max_body` behind its source is gone.
    Window,
    /// The leader alone reads; what it has read is gone.
    Leader,
    /// Nobody reads; nothing is kept.
    Nobody,
}

#[derive(Debug)]
enum End {
    Complete,
    Failed(SharedError),
}

// ===== impl Tape =====

impl Tape {
    #[inline]
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self {
            reel: Reel::new(budget),
            received: 0,
            expected: None,
            prepaid: false,
            hint: SizeHint::new(),
            mode: Mode::Whole,
            asked: 0,
            led: 0,
            end: None,
            cut: None,
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
        if self.mode == Mode::Nobody {
            return true;
        }
        let Some(expected) = expected else {
            return true;
        };
        self.prepaid = usize::try_from(expected).is_ok_and(|bytes| {
            bytes <= limits.max_body && self.reel.pay(bytes, limits.max_buffered)
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
        match self.mode {
            Mode::Whole if eager => true,
            Mode::Nobody => false,
            _ => self.asked > self.reel.next(),
        }
    }

    /// Adds a frame to a whole tape, or to one that only follows. `Err` gives the frame back: the tape can't stay whole
    /// with it.
    pub(crate) fn push(
        &mut self,
        frame: Frame<Bytes>,
        hint: SizeHint,
        limits: Limits,
    ) -> Result<(), Frame<Bytes>> {
        if self.mode == Mode::Nobody {
            // Of work that was cancelled while it was polled.
            self.reel.waste(frame);
        } else if self.mode == Mode::Whole {
            let len = frame.data_ref().map_or(0, Bytes::len);
            let Some(charge) = self.pay_whole(len, limits) else {
                return Err(frame);
            };
            self.add(frame, hint, charge);
        } else {
            self.follow(frame, hint, limits);
        }
        Ok(())
    }

    /// What a frame of this length was charged, if the tape can stay whole with it.
    fn pay_whole(&mut self, len: usize, limits: Limits) -> Option<usize> {
        let price = self.reel.price(len);
        let Some(expected) = self.expected else {
            let fits = !self.reel.outgrows(len, limits.max_body);
            return (fits && self.reel.pay(price, limits.max_buffered)).then_some(price);
        };
        if self.received + len as u64 > expected {
            return None;
        }
        debug_assert!(self.prepaid, "what could not be paid for is not kept whole");
        // A promised length was paid for with the head; and kept, though there be nothing left for the frames' places.
        if self.reel.pay(price - len, limits.max_buffered) {
            Some(price)
        } else {
            let expected = usize::try_from(expected).ok()?;
            (!self.reel.is_crowded(expected)).then_some(len)
        }
    }

    fn add(&mut self, frame: Frame<Bytes>, hint: SizeHint, charge: usize) {
        self.hint = hint;
        let stays = self.mode != Mode::Leader;
        self.received += self.reel.add(frame, charge, stays) as u64;
    }

    /// Adds a frame behind which older ones go (C3).
    fn follow(&mut self, frame: Frame<Bytes>, hint: SizeHint, limits: Limits) {
        let len = frame.data_ref().map_or(0, Bytes::len);
        // What the fastest reader has not had yet stays; for a leader alone, what it has not had.
        let had = match self.mode {
            Mode::Window => self.asked.saturating_sub(1),
            Mode::Whole | Mode::Leader | Mode::Nobody => self.led,
        };
        while self.reel.first() < had && self.reel.outgrows(len, limits.max_body) && self.reel.pop()
        {
        }
        let charge = self.reel.price(len);
        let paid = loop {
            if self.reel.pay(charge, limits.max_buffered) {
                break charge;
            }
            if self.reel.first() >= had || !self.reel.pop() {
                break 0;
            }
        };
        self.add(frame, hint, paid);
    }

    /// Nobody will read: everything that is held, and paid for, to be dropped outside the lock.
    pub(crate) fn take_all(&mut self) -> impl Sized + use<> {
        self.mode = Mode::Nobody;
        self.reel.take_all()
    }

    /// The frames that are gone since the last time, to be dropped outside the lock.
    pub(crate) fn take_spent(&mut self) -> impl Sized + use<> {
        self.reel.take_spent()
    }

    /// From now on frames are kept for no longer than the window, or than the leader needs them.
    pub(crate) fn outgrow(&mut self, window: bool) {
        if self.mode == Mode::Nobody {
            return;
        }
        if window {
            self.mode = Mode::Window;
        } else {
            self.leave_to_leader();
        }
        if mem::take(&mut self.prepaid) {
            // What was paid in advance for frames that nobody will keep.
            self.reel.refund();
        }
    }

    /// Only the leader will read on, so what it has had is gone.
    fn leave_to_leader(&mut self) {
        self.mode = Mode::Leader;
        while self.reel.first() < self.led && self.reel.pop() {}
    }

    /// The source has broken its word: followers get an error instead of what is left, the leader goes on.
    pub(crate) fn cut_followers(&mut self, received: u64) {
        if let Some(expected) = self.expected.take() {
            self.cut = Some(SharedError::new(LengthMismatch { expected, received }));
        }
        self.outgrow(false);
    }

    /// The source has ended. Fewer bytes than promised are a failure.
    pub(crate) fn finish(&mut self, shared: bool) {
        self.hint = SizeHint::with_exact(0);
        self.end = Some(match self.expected {
            Some(expected) if expected != self.received => {
                let received = self.received;
                End::Failed(SharedError::new(LengthMismatch { expected, received }))
            }
            _ => End::Complete,
        });
        if !shared && self.mode == Mode::Whole {
            // Nobody else will ever read it.
            self.leave_to_leader();
        }
    }

    /// The source has failed: so do its readers, after the frames so far.
    pub(crate) fn fail(&mut self, error: SharedError) {
        self.hint = SizeHint::new();
        self.end = Some(End::Failed(error));
    }

    // ===== reading =====

    pub(crate) fn read(&mut self, cursor: &mut Cursor, leads: bool) -> Read {
        match &self.cut {
            Some(error) if !leads => return Read::Failed(error.clone()),
            _ => {}
        }
        let Some(place) = cursor.frames.checked_sub(self.reel.first()) else {
            return Read::Failed(SharedError::new(FellBehind));
        };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "an index beyond `usize` is beyond the end too"
        )]
        let content = if leads && self.mode == Mode::Leader && place == 0 {
            self.reel.take_oldest()
        } else {
            self.reel.get(place as usize).cloned()
        };
        if let Some(content) = content {
            match &content {
                Content::Trailers(trailers)
                    if !leads && !rules::trailers_may_be_shared(trailers) =>
                {
                    return Read::Failed(SharedError::new(PrivateTrailers));
                }
                _ => cursor.frames += 1,
            }
            if leads {
                self.led = cursor.frames;
            }
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
                // A whole tape that has followers is filled ahead of them anyway (C4).
                Read::Wait {
                    asked: asked && self.mode != Mode::Whole,
                }
            }
        }
    }

    pub(crate) fn is_end_for(&self, cursor: &Cursor) -> bool {
        matches!(self.end, Some(End::Complete)) && cursor.frames == self.reel.next()
    }

    pub(crate) fn size_hint_for(&self, cursor: &Cursor) -> SizeHint {
        if let Some(expected) = self.expected {
            return SizeHint::with_exact(expected.saturating_sub(cursor.bytes));
        }
        let unread = self.received.saturating_sub(cursor.bytes);
        // To a server that is told the length, HTTP/1.1 has no place for trailers. So it is told only once none can come.
        let lasts = matches!(self.end, Some(End::Complete)) && !self.reel.has_trailers();
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
mod tests {
    use http::HeaderMap;
    use proptest::prelude::*;

    use super::*;

    const READERS: usize = 3;

    /// What the flight, the source and the readers may do to a tape.
    #[derive(Clone, Copy, Debug)]
    enum Op {
        Push(usize),
        Trailers,
        Read(usize),
        Outgrow(bool),
        Finish,
        Fail,
        Clear,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            8 => (0..40_usize).prop_map(Op::Push),
            1 => Just(Op::Trailers),
            12 => (0..READERS).prop_map(Op::Read),
            1 => any::<bool>().prop_map(Op::Outgrow),
            1 => Just(Op::Finish),
            1 => Just(Op::Fail),
            1 => Just(Op::Clear),
        ]
    }

    /// The tape, and what is known of it without looking into it.
    struct Model {
        tape: Tape,
        budget: Arc<Budget>,
        limits: Limits,
        /// The lengths of all frames that were pushed; the bytes of each are its number.
        pushed: Vec<usize>,
        /// The index of the trailers among them, of length 0.
        trailers: Option<usize>,
        /// Reader 0 leads.
        cursors: [Cursor; READERS],
        behind: [bool; READERS],
        asked: u64,
        whole: bool,
        windowed: bool,
        cut: bool,
        failed: bool,
        ended: bool,
        cleared: bool,
    }

    fn frame(number: usize, len: usize) -> Frame<Bytes> {
        Frame::data(Bytes::from(vec![number as u8; len]))
    }

    impl Model {
        fn new(expected: Option<u64>, limits: Limits, windowed: bool) -> Self {
            let budget = Arc::<Budget>::default();
            let mut tape = Tape::new(Arc::clone(&budget));
            let announced = tape.announce(expected, SizeHint::new(), limits);
            let fits = expected
                .is_none_or(|expected| expected <= limits.max_body.min(limits.max_buffered) as u64);
            assert_eq!(announced, fits);
            if !announced {
                tape.outgrow(false);
            }
            Self {
                tape,
                budget,
                limits,
                pushed: Vec::new(),
                trailers: None,
                cursors: [Cursor::default(); READERS],
                behind: [false; READERS],
                asked: 0,
                whole: announced,
                windowed: announced && windowed,
                cut: false,
                failed: false,
                ended: false,
                cleared: false,
            }
        }

        fn push(&mut self, len: usize, pushed: Frame<Bytes>) {
            let received: usize = self.pushed.iter().sum::<usize>() + len;
            let price = self.tape.reel.price(len);
            let due = self.tape.reel.paid() + price;
            let outgrows = self.tape.reel.outgrows(len, self.limits.max_body);
            let refused = self.tape.push(pushed, SizeHint::new(), self.limits).err();
            self.pushed.push(len);
            let Some(frame) = refused else {
                return;
            };
            assert!(self.whole, "only a whole tape refuses a frame");
            // As the flight does.
            match self.tape.expected() {
                Some(expected) if received as u64 > expected => {
                    self.tape.cut_followers(received as u64);
                    (self.cut, self.windowed) = (true, false);
                }
                expected => {
                    let unpaid = match expected {
                        Some(expected) => {
                            due - len > self.limits.max_buffered
                                && self.tape.reel.is_crowded(expected as usize)
                        }
                        None => outgrows || due > self.limits.max_buffered,
                    };
                    assert!(unpaid, "a frame that fits is refused");
                    self.tape.outgrow(self.windowed);
                }
            }
            self.whole = false;
            let refused = self.tape.push(frame, SizeHint::new(), self.limits);
            assert!(refused.is_ok(), "a tape that is not whole refuses no frame");
        }

        fn read(&mut self, reader: usize) {
            let leads = reader == 0;
            let at = self.cursors[reader].frames as usize;
            let is_end = self.tape.is_end_for(&self.cursors[reader]);
            match self.tape.read(&mut self.cursors[reader], leads) {
                Read::Frame(frame) => {
                    assert!(!is_end && !self.behind[reader]);
                    assert_eq!(frame.is_trailers(), self.trailers == Some(at), "C2");
                    if let Ok(data) = frame.into_data() {
                        assert_eq!(data, vec![at as u8; self.pushed[at]], "C2");
                    }
                    assert!(leads || !self.cut);
                }
                Read::End => {
                    assert!(self.ended && !self.failed && at == self.pushed.len(), "C2");
                    assert!(is_end);
                }
                Read::Failed(error) => {
                    assert!(!is_end);
                    if SharedError::find::<FellBehind>(&error).is_some() {
                        assert!(!self.whole, "C1");
                        assert!(
                            self.windowed || !leads,
                            "a leader alone keeps what it has not had"
                        );
                        self.behind[reader] = true;
                    } else if leads || !self.cut {
                        assert!(self.ended && self.failed && at == self.pushed.len(), "C2");
                    }
                }
                Read::Wait { .. } => {
                    assert!(!self.ended && at == self.pushed.len());
                    self.asked = self.asked.max(at as u64 + 1);
                }
            }
            if self.cleared {
                return;
            }
            let wanted = self.asked > self.pushed.len() as u64;
            assert_eq!(self.tape.may_pull(true), self.whole || wanted, "C4");
            assert_eq!(self.tape.may_pull(false), wanted, "C4");
        }

        fn apply(&mut self, op: Op) {
            match op {
                // A source says nothing after its end, and nobody reads what is given up.
                Op::Push(_) | Op::Trailers | Op::Finish | Op::Fail if self.ended => {}
                // Nor anything but its end after trailers.
                Op::Push(_) | Op::Trailers if self.trailers.is_some() => {}
                Op::Read(_) | Op::Outgrow(_) if self.cleared => {}
                Op::Push(len) => self.push(len, frame(self.pushed.len(), len)),
                Op::Trailers => {
                    self.trailers = Some(self.pushed.len());
                    self.push(0, Frame::trailers(HeaderMap::new()));
                }
                Op::Read(reader) => self.read(reader),
                Op::Outgrow(_) if self.ended => {}
                Op::Outgrow(window) => {
                    if self.whole {
                        (self.whole, self.windowed) = (false, window);
                        self.tape.outgrow(window);
                    }
                }
                Op::Finish => {
                    let received: usize = self.pushed.iter().sum();
                    self.failed = self
                        .tape
                        .expected()
                        .is_some_and(|expected| expected != received as u64);
                    self.tape.finish(true);
                    self.ended = true;
                }
                Op::Fail => {
                    self.tape.fail(SharedError::new("broken"));
                    (self.ended, self.failed) = (true, true);
                }
                Op::Clear => {
                    drop(self.tape.take_all());
                    (self.cleared, self.whole) = (true, false);
                }
            }
            drop(self.tape.take_spent());
            self.check_account();
        }

        /// C3, to the byte.
        fn check_account(&self) {
            let tape = &self.tape;
            let held = tape.reel.pieces().map(|piece| match &piece.content {
                Content::Data(data) => data.len(),
                Content::Trailers(_) => 0,
            });
            let held: Vec<usize> = held.collect();
            assert_eq!(tape.reel.held(), held.iter().sum::<usize>());
            let charges = tape.reel.pieces().map(|piece| piece.charge);
            let charged: usize = charges.sum();
            let reserved = match tape.expected {
                _ if self.cleared => 0,
                // Of what was paid with the head, the bytes that came are a part.
                Some(expected) if tape.prepaid => expected as usize + charged - tape.reel.held(),
                _ => charged,
            };
            assert_eq!(tape.reel.paid(), reserved, "C3");
            assert_eq!(self.budget.used(), reserved, "C3");
            assert!(reserved <= self.limits.max_buffered, "C3");
            let unpaid = tape.reel.pieces().zip(&held);
            let unpaid = unpaid.filter(|(piece, len)| piece.charge < **len).count();
            assert!(unpaid <= 1 || !tape.prepaid, "C3");
            if self.whole {
                assert_eq!((tape.reel.first(), unpaid), (0, 0), "C1");
                assert!(tape.reel.held() <= self.limits.max_body);
            }
            if self.cleared {
                assert_eq!((tape.reel.held(), reserved), (0, 0));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn a_tape_does_what_its_invariants_say(
            expected in proptest::option::of(0..200_u64),
            max_body in 0..200_usize,
            max_buffered in 0..300_usize,
            windowed: bool,
            ops in proptest::collection::vec(op(), 0..60),
        ) {
            let limits = Limits { max_body, max_buffered };
            let mut model = Model::new(expected, limits, windowed);
            model.check_account();
            for op in ops {
                model.apply(op);
            }
            let budget = Arc::clone(&model.budget);
            drop(model);
            assert_eq!(budget.used(), 0);
        }
    }
}
