//! A buffer beside a model of what flights, sources and readers do to it.

use proptest::prelude::*;

use super::*;
use crate::buffer::PrefixHasher;

/// What the flight, the source and the readers may do to a buffer. Readers are chosen by a number modulo how many
/// there are.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// The source is asked for a frame, which comes with the next push, whatever readers do in between.
    Pull,
    Push(usize),
    Trailers,
    Read(usize),
    Join,
    /// One takes the place of a leader that has left before the first frame.
    Lead(usize),
    Leave(usize),
    Finish,
    Fail,
    Discard,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => Just(Op::Pull),
        8 => (0..40_usize).prop_map(Op::Push),
        1 => Just(Op::Trailers),
        16 => (0..8_usize).prop_map(Op::Read),
        2 => Just(Op::Join),
        1 => (0..8_usize).prop_map(Op::Lead),
        1 => (0..8_usize).prop_map(Op::Leave),
        1 => Just(Op::Finish),
        1 => Just(Op::Fail),
        1 => Just(Op::Discard),
    ]
}

struct Reader {
    /// `None` before it begins.
    place: Option<ReaderId>,
    frames: usize,
    behind: bool,
}

/// The buffer, and what is known of it without looking into it.
struct Model {
    buffer: SharedBuffer,
    budget: Arc<Budget>,
    limits: Limits,
    /// The lengths of all frames that were pushed; the bytes of each are its number.
    pushed: Vec<usize>,
    /// The index of the trailers among them, of length 0.
    trailers: Option<usize>,
    readers: Vec<Reader>,
    /// Whether anybody ever joined.
    joined: bool,
    hasher: Option<PrefixHasher>,
    pulled: bool,
    /// The lengths of frames that were pulled for a reader which set the pace, and has left: each is one more in transit.
    late: Vec<usize>,
    /// How many frames somebody has asked for.
    asked: usize,
    /// Whether the source knows that somebody asks.
    is_woken: bool,
    whole: bool,
    cut: bool,
    ended: bool,
    failed: bool,
    discarded: bool,
    /// What followers take that begin after the end.
    complete: Option<CompleteBody>,
}

fn frame(number: usize, len: usize) -> Frame<Bytes> {
    Frame::data(Bytes::from(vec![number as u8; len]))
}

impl Model {
    fn new(expected: Option<u64>, limits: Limits) -> Self {
        let budget = Arc::<Budget>::default();
        let mut buffer = SharedBuffer::new(Arc::clone(&budget));
        let room = buffer.announce(expected, SizeHint::new(), limits);
        let fits = expected.is_none_or(|expected| expected <= limits.max_buffered as u64);
        let is_kept = expected.is_none_or(|expected| expected <= limits.max_body as u64);
        match room {
            Room::Enough => assert!(fits || !is_kept),
            Room::Short => assert!(is_kept && !fits),
            Room::None => assert!(limits.max_buffered == 0 && expected != Some(0)),
        }
        Self {
            buffer,
            budget,
            limits,
            pushed: Vec::new(),
            trailers: None,
            readers: vec![Reader {
                place: Some(ReaderId::Leader),
                frames: 0,
                behind: false,
            }],
            joined: false,
            hasher: None,
            pulled: false,
            late: Vec::new(),
            asked: 0,
            is_woken: false,
            whole: true,
            cut: false,
            ended: false,
            failed: false,
            discarded: false,
            complete: None,
        }
    }

    fn received(&self) -> usize {
        self.pushed.iter().sum()
    }

    fn leader(&self) -> Option<&Reader> {
        let mut readers = self.readers.iter();
        readers.find(|one| one.place == Some(ReaderId::Leader))
    }

    fn is_shared(&self) -> bool {
        self.readers.len() > 1
    }

    fn follow(&mut self, frame: &Frame<Bytes>) -> Option<Prefix> {
        if !self.buffer.is_shared_window() {
            self.hasher = None;
        }
        let hasher = self.hasher.as_mut()?;
        hasher.append(frame.data_ref().map_or(&[], |data| data));
        Some(hasher.prefix())
    }

    /// Whether a frame is pulled for a reader that has asked (B4).
    fn may_pull(&self) -> bool {
        let pulls = self.buffer.may_pull(false);
        if pulls {
            assert!(self.asked > self.pushed.len(), "B4");
        }
        let leader = self.leader();
        if let (true, false, Some(leader)) = (pulls, self.whole, leader) {
            let ahead = &self.pushed[leader.frames..];
            let bytes: usize = ahead.iter().sum();
            let max_body = self.limits.max_body;
            let is_near = bytes < max_body && places(ahead.len()) < max_body;
            assert!(ahead.is_empty() || is_near, "B5");
        }
        pulls
    }

    /// As the flight does.
    fn push(&mut self, len: usize, frame: Frame<Bytes>) {
        let pulled = std::mem::take(&mut self.pulled);
        if pulled && self.buffer.readers.pacer.is_none() {
            self.late.push(len);
        }
        if !self.whole && !pulled && !self.may_pull() {
            return;
        }
        self.is_woken = false;
        let exceeds = self.buffer.exceeds(len);
        assert_eq!(
            exceeds,
            self.buffer
                .expected
                .is_some_and(|expected| (self.received() + len) as u64 > expected)
        );
        let prefix = self.follow(&frame);
        let refused = self.buffer.push(frame, SizeHint::new(), prefix).err();
        if let Some(frame) = refused {
            assert!(self.whole, "only a whole buffer refuses a frame");
            self.whole = false;
            let mut prefixes = Vec::new();
            if self.is_shared() {
                let hasher = self.hasher.insert(PrefixHasher::new());
                for data in self.buffer.held_data() {
                    hasher.append(&data);
                    prefixes.push(hasher.prefix());
                }
            }
            self.buffer.outgrow(&prefixes);
            let prefix = self.follow(&frame);
            let pushed = self.buffer.push(frame, SizeHint::new(), prefix);
            assert!(pushed.is_ok(), "a window refuses no frame");
        }
        self.cut |= exceeds;
        self.pushed.push(len);
        self.check_window(len);
    }

    /// B5.
    fn check_window(&self, last: usize) {
        if self.whole || self.discarded {
            return;
        }
        let frames = &self.buffer.frames;
        let held = frames.held();
        let late: usize = self.late.iter().sum();
        assert!(held <= self.limits.max_body + last + late);
        if let Some(leader) = self.leader() {
            assert!(
                frames.first() <= leader.frames as u64,
                "a leader is never cut"
            );
            let ahead: usize = self.pushed[leader.frames..].iter().sum();
            assert!(ahead <= self.limits.max_body + last);
        }
    }

    fn read(&mut self, reader: usize) {
        let index = reader % self.readers.len();
        if self.readers[index].place.is_none() && self.take_complete(index) {
            return;
        }
        let Reader {
            place,
            frames: at,
            behind,
        } = &mut self.readers[index];
        let place = *place.get_or_insert_with(|| self.buffer.begin());
        let (at, behind) = (*at, *behind);
        let is_end = self.buffer.is_end_for(place);
        let paced = self.buffer.readers.pacer == Some(place);
        match self.buffer.read(place) {
            Read::Frame(frame) => {
                assert!(!is_end && !behind);
                assert_eq!(frame.is_trailers(), self.trailers == Some(at), "B2");
                if let Ok(data) = frame.into_data() {
                    assert_eq!(data, vec![at as u8; self.pushed[at]], "B2");
                }
                assert!(place == ReaderId::Leader || !self.cut);
                self.readers[index].frames += 1;
            }
            Read::End => {
                assert!(self.ended && !self.failed && at == self.pushed.len(), "B2");
                assert!(is_end);
            }
            Read::Failed(_) => {
                assert!(!is_end);
                if place == ReaderId::Leader || !self.cut {
                    assert!(self.ended && self.failed && at == self.pushed.len(), "B2");
                }
            }
            Read::FellBehind => {
                assert!(!is_end && !self.whole, "B1");
                assert!(place != ReaderId::Leader && !paced, "B5");
                assert!(behind);
            }
            Read::Wait {
                paced: waits,
                asked,
            } => {
                // While it waits for another reader, the source looks in vain.
                self.is_woken = !waits && (self.is_woken || asked);
                self.asked = at + 1;
                assert!(!self.ended && at == self.pushed.len());
                assert!(!waits || !paced && !self.whole);
                let pulls = self.may_pull();
                assert_eq!(pulls, !waits && !self.discarded, "B4");
                // Whole, it is pulled by whoever drives.
                assert!(!pulls || self.is_woken || self.whole, "nobody is woken");
            }
        }
        self.check_prefix(index);
    }

    /// One that has not begun leaves with a copy of the body, if that has ended and is whole.
    fn take_complete(&mut self, index: usize) -> bool {
        if self.complete.is_none() {
            let is_whole = self.ended && !self.failed && self.buffer.frames.first() == 0;
            self.complete = self.buffer.share_complete();
            assert_eq!(self.complete.is_some(), is_whole && !self.cut, "B2");
        }
        let Some(body) = &self.complete else {
            return false;
        };
        for (number, len) in self.pushed.iter().enumerate() {
            assert!(!body.is_end(number));
            let frame = body.frame(number).expect("a frame that was pushed");
            assert_eq!(frame.is_trailers(), self.trailers == Some(number), "B2");
            if let Ok(data) = frame.into_data() {
                assert_eq!(data, vec![number as u8; *len], "B2");
            }
        }
        let end = self.pushed.len();
        assert!(body.is_end(end) && body.frame(end).is_none(), "B2");
        assert_eq!(body.len(), self.received() as u64);
        let is_known = self.buffer.expected.is_some() || self.trailers.is_none();
        assert_eq!(body.size_hint(7).exact(), is_known.then_some(7));
        self.buffer.leave_waiting(1);
        self.readers.swap_remove(index);
        true
    }

    /// B6.
    fn check_prefix(&self, index: usize) {
        let Reader { place, frames, .. } = self.readers[index];
        let place = place.expect("it has begun");
        let had = self.buffer.had(place);
        let mut hasher = PrefixHasher::new();
        for (number, len) in self.pushed[..frames].iter().enumerate() {
            hasher.append(&vec![number as u8; *len]);
        }
        assert_eq!(had.bytes, hasher.bytes());
        if self.buffer.is_shared_window() && !self.cut && frames > 0 && !self.ended {
            assert_eq!(had, hasher.prefix(), "B6");
        }
    }

    fn lead(&mut self, reader: usize) {
        // Where nobody leads there is no source yet, and nobody has read.
        let is_begun = self.asked > 0 || self.pulled || !self.pushed.is_empty();
        if self.leader().is_some() || is_begun || self.ended {
            return;
        }
        let index = reader % self.readers.len();
        self.buffer.lead();
        self.readers[index].place = Some(ReaderId::Leader);
        assert_eq!(self.buffer.readers(), self.readers.len());
    }

    fn leave(&mut self, reader: usize) {
        let reader = self.readers.swap_remove(reader % self.readers.len());
        if let Some(place) = reader.place {
            let paced = self.buffer.readers.pacer == Some(place);
            let is_missed = self.buffer.leave(place);
            assert_eq!(is_missed, paced && !self.whole);
            // As it does between two readers that set the pace.
            self.is_woken &= !is_missed;
        } else {
            self.buffer.leave_waiting(1);
        }
        assert_eq!(self.buffer.readers(), self.readers.len());
    }

    fn apply(&mut self, op: Op) {
        match op {
            _ if self.readers.is_empty() || self.discarded => {}
            // A source gives nothing after its end.
            Op::Pull | Op::Push(_) | Op::Trailers | Op::Finish | Op::Fail | Op::Join
                if self.ended => {}
            // Nor anything but its end after trailers.
            Op::Push(_) | Op::Trailers if self.trailers.is_some() => {}
            Op::Pull if self.may_pull() => self.pulled = true,
            // It is asked in vain, and waits to be woken again.
            Op::Pull => self.is_woken = false,
            Op::Push(len) => self.push(len, frame(self.pushed.len(), len)),
            Op::Trailers => {
                let pushed = self.pushed.len();
                self.push(0, Frame::trailers(HeaderMap::new()));
                self.trailers = (self.pushed.len() > pushed).then_some(pushed);
            }
            Op::Read(reader) => self.read(reader),
            Op::Join if self.whole && self.readers.len() < 5 => {
                self.buffer.join();
                self.joined = true;
                self.readers.push(Reader {
                    place: None,
                    frames: 0,
                    behind: false,
                });
            }
            Op::Join => {}
            Op::Lead(reader) => self.lead(reader),
            Op::Leave(reader) => self.leave(reader),
            Op::Finish => {
                let received = self.received() as u64;
                let expected = self.buffer.expected;
                self.failed = expected.is_some_and(|expected| expected != received);
                self.buffer.finish();
                self.ended = true;
                self.whole = false;
            }
            Op::Fail => {
                self.buffer.fail(SharedError::new("broken"));
                (self.ended, self.failed) = (true, true);
            }
            Op::Discard => {
                drop(self.buffer.discard());
                (self.discarded, self.whole) = (true, false);
            }
        }
        drop(self.buffer.take_spent());
        let (first, alone) = (self.buffer.frames.first(), !self.is_shared());
        for reader in &mut self.readers {
            let behind = !self.discarded && (reader.frames as u64) < first;
            assert!(
                reader.behind || !behind || !alone,
                "nobody falls behind alone"
            );
            reader.behind |= behind;
            if alone && !self.whole && !self.discarded {
                assert!(first >= reader.frames as u64, "kept for nobody");
            }
        }
        self.check_account();
    }

    /// B3, to the byte.
    fn check_account(&self) {
        let frames = &self.buffer.frames;
        let held: Vec<usize> = frames
            .iter()
            .map(|frame| match &frame.content {
                Content::Data(data) => data.len(),
                Content::Trailers(_) => 0,
            })
            .collect();
        assert_eq!(frames.held(), held.iter().sum::<usize>());
        let charged: usize = frames.iter().map(|frame| frame.charge).sum();
        let due = match self.buffer.expected {
            _ if self.discarded => 0,
            // Of what was paid with the head, the bytes that came are a part.
            Some(expected) if self.buffer.reserved => expected as usize + charged - frames.held(),
            _ => charged,
        };
        // The copy has taken over what was paid.
        let taken = self.complete.as_ref().map_or(0, |body| body._paid.bytes());
        assert_eq!(
            (frames.reservation.bytes(), self.budget.used()),
            (due, due + taken),
            "B3"
        );
        assert!(due + taken <= self.limits.max_buffered, "B3");
        assert_eq!(self.budget.has_lone(), !self.joined && due > 0);
        let unpaid = frames.iter().zip(&held);
        let unpaid = unpaid.filter(|(frame, len)| frame.charge < **len).count();
        let is_paid = self.complete.is_some() || unpaid <= 1 + self.late.len();
        assert!(is_paid, "B3");
        if self.whole {
            assert_eq!((frames.first(), unpaid), (0, 0), "B1");
            assert!(frames.held() <= self.limits.max_body);
        }
    }
}

#[test]
fn a_reader_that_is_alone_before_it_waits_loses_no_frame() {
    let limits = Limits {
        max_body: 10,
        max_buffered: 100,
    };
    let mut model = Model::new(None, limits);
    let (leader, follower) = (Op::Read(0), Op::Read(1));
    for op in [Op::Join, Op::Push(8), leader, follower, Op::Push(8), leader] {
        model.apply(op);
    }
    // The leader waits, and leaves while the frame that it has asked for is on its way.
    for op in [leader, Op::Pull, Op::Leave(0), Op::Push(8)] {
        model.apply(op);
    }
    assert_eq!((model.pushed.len(), model.readers[0].behind), (3, false));
}

#[test]
fn one_who_takes_the_place_of_a_leader_that_has_left_is_not_cut() {
    let limits = Limits {
        max_body: 10,
        max_buffered: 100,
    };
    let mut model = Model::new(None, limits);
    for op in [Op::Join, Op::Leave(0), Op::Lead(0), Op::Join] {
        model.apply(op);
    }
    for op in [Op::Push(8), Op::Push(8), Op::Push(8), Op::Push(8)] {
        // The other reads ahead of it.
        for op in [Op::Read(1), Op::Read(1), op] {
            model.apply(op);
        }
    }
    assert_eq!((model.pushed.len(), model.readers[0].behind), (2, false));
}

#[test]
fn a_source_is_as_far_ahead_of_its_leader_as_max_body_and_no_further() {
    let limits = Limits {
        max_body: 16,
        max_buffered: 100,
    };
    let mut model = Model::new(None, limits);
    let (leader, follower) = (Op::Read(0), Op::Read(1));
    for op in [Op::Join, Op::Push(8), Op::Push(8), Op::Push(8), leader] {
        model.apply(op);
    }
    for op in [follower, follower, follower, follower, Op::Push(8)] {
        model.apply(op);
    }
    assert_eq!(model.pushed.len(), 3);
    for op in [leader, follower, Op::Push(8)] {
        model.apply(op);
    }
    assert_eq!(model.pushed.len(), 4);
}

#[test]
fn the_fastest_follower_sets_the_pace_where_the_leader_has_left() {
    let limits = Limits {
        max_body: 10,
        max_buffered: 100,
    };
    let mut model = Model::new(None, limits);
    let push = Op::Push(4);
    for op in [Op::Join, Op::Join, push, push, Op::Read(1), Op::Leave(0)] {
        model.apply(op);
    }
    // The last to join is the first now, and has read nothing.
    let (slow, fast) = (Op::Read(0), Op::Read(1));
    for op in [Op::Push(8), fast, fast, fast, Op::Push(8), fast] {
        model.apply(op);
    }
    assert_eq!(model.pushed.len(), 4);
    assert!(!model.readers[1].behind && model.readers[0].behind);
    model.apply(slow);
}

#[test]
fn one_who_sets_the_pace_in_the_place_of_another_asks_for_the_frame_that_it_had_asked_for() {
    let limits = Limits {
        max_body: 10,
        max_buffered: 100,
    };
    let mut model = Model::new(None, limits);
    let (leader, follower) = (Op::Read(0), Op::Read(1));
    for op in [Op::Join, Op::Push(8), leader, follower] {
        model.apply(op);
    }
    for op in [Op::Push(8), leader, follower, leader, Op::Leave(0)] {
        model.apply(op);
    }
    // The source has heard the leader, and looks when it has left.
    model.apply(Op::Pull);
    assert!(!model.pulled && !model.is_woken);
    model.apply(Op::Read(0));
    assert!(model.is_woken);
    model.apply(Op::Push(8));
    assert_eq!(model.pushed.len(), 3);
}

#[test]
fn one_frame_at_a_time_is_held_that_was_not_paid_for() {
    let limits = Limits {
        max_body: 100,
        max_buffered: 10,
    };
    let mut model = Model::new(None, limits);
    let (leader, follower) = (Op::Read(0), Op::Read(1));
    for op in [Op::Join, Op::Push(8), Op::Push(8)] {
        model.apply(op);
    }
    // The follower asks for more than its leader has had.
    for op in [follower, follower, follower, Op::Push(8)] {
        model.apply(op);
    }
    assert_eq!(model.pushed.len(), 2);
    for op in [leader, leader, follower, Op::Push(8)] {
        model.apply(op);
    }
    assert_eq!(model.pushed.len(), 3);
}

#[test]
fn a_first_frame_that_was_not_paid_for_is_the_only_one_too() {
    let limits = Limits {
        max_body: 100,
        max_buffered: 4,
    };
    let mut model = Model::new(None, limits);
    let (leader, follower) = (Op::Read(0), Op::Read(1));
    for op in [Op::Join, Op::Push(8), follower, follower, Op::Push(8)] {
        model.apply(op);
    }
    assert_eq!(model.pushed.len(), 1);
    for op in [leader, follower, Op::Push(8)] {
        model.apply(op);
    }
    assert_eq!(model.pushed.len(), 2);
}

#[test]
fn frames_without_bytes_set_a_pace_too() {
    let limits = Limits {
        max_body: 100,
        max_buffered: 1000,
    };
    let mut model = Model::new(None, limits);
    for op in [Op::Join, Op::Push(101)] {
        model.apply(op);
    }
    // The leader has had what is over the limit, and reads no further.
    model.apply(Op::Read(0));
    for _ in 0..100 {
        model.apply(Op::Read(1));
        model.apply(Op::Push(0));
    }
    assert!(places(model.pushed.len() - 2) < limits.max_body);
}

#[test]
fn of_followers_whose_leader_has_left_the_fastest_loses_no_frame_when_the_body_outgrows_its_limit()
{
    let limits = Limits {
        max_body: 10,
        max_buffered: 100,
    };
    let mut model = Model::new(None, limits);
    for op in [Op::Join, Op::Join, Op::Leave(0), Op::Push(4), Op::Push(4)] {
        model.apply(op);
    }
    for op in [Op::Read(0), Op::Push(8)] {
        model.apply(op);
    }
    let behind: Vec<_> = model.readers.iter().map(|one| one.behind).collect();
    assert_eq!((model.pushed.len(), behind), (3, vec![false, true]));
}

#[test]
fn of_followers_that_read_the_one_that_is_behind_loses_frames_when_the_body_outgrows_its_limit() {
    let limits = Limits {
        max_body: 10,
        max_buffered: 100,
    };
    for ahead in [0, 1] {
        let mut model = Model::new(None, limits);
        let (slow, fast) = (Op::Read(1 - ahead), Op::Read(ahead));
        for op in [Op::Join, Op::Join, Op::Leave(0), Op::Push(4), Op::Push(4)] {
            model.apply(op);
        }
        for op in [slow, fast, fast, Op::Push(8)] {
            model.apply(op);
        }
        let behind = [ahead, 1 - ahead].map(|at| model.readers[at].behind);
        assert_eq!((model.pushed.len(), behind), (3, [false, true]));
    }
}

#[test]
fn what_the_leader_of_a_window_has_had_is_dropped_once_those_who_waited_have_left() {
    let limits = Limits {
        max_body: 10,
        max_buffered: 100,
    };
    let mut model = Model::new(None, limits);
    let leader = Op::Read(0);
    for op in [Op::Join, Op::Push(8), leader, Op::Push(8), leader] {
        model.apply(op);
    }
    assert_eq!(model.budget.used(), 8);
    model.apply(Op::Leave(1));
    assert_eq!(model.budget.used(), 0);
}

#[test]
fn the_places_of_tiny_frames_of_a_promised_length_are_paid_for_as_far_as_the_budget_goes() {
    let len = 16 * 31;
    for (max_buffered, pays) in [(len, false), (1 << 20, true)] {
        let limits = Limits {
            max_body: 1000,
            max_buffered,
        };
        let mut model = Model::new(Some(len as u64), limits);
        model.apply(Op::Join);
        for _ in 0..16 {
            model.apply(Op::Push(31));
        }
        assert!(model.whole);
        assert_eq!(model.budget.used() > len, pays);
    }
}

/// Whoever pushes it holds the flight's lock.
#[test]
fn a_frame_that_nobody_will_read_is_dropped_with_what_is_spent() {
    let owner = Arc::<[u8]>::from(&b"page"[..]);
    let mut buffer = SharedBuffer::new(Arc::default());
    drop(buffer.discard());
    let data = Bytes::from_owner(Arc::clone(&owner));
    let pushed = buffer.push(Frame::data(data), SizeHint::new(), None);
    assert!(pushed.is_ok() && Arc::strong_count(&owner) == 2);
    drop(buffer.take_spent());
    assert_eq!(Arc::strong_count(&owner), 1);
}

#[test]
fn one_of_a_promised_length_lacks_memory_for_its_places_where_another_is_over_its_limit() {
    for promised in [true, false] {
        let limits = Limits {
            max_body: 200,
            max_buffered: if promised { 200 } else { 1000 },
        };
        let mut buffer = SharedBuffer::new(Arc::default());
        buffer.announce(promised.then_some(200), SizeHint::new(), limits);
        buffer.join();
        let mut push = || buffer.push(frame(0, 1), SizeHint::new(), None).is_ok();
        assert!((0..200).any(|_| !push()));
        assert_eq!(buffer.is_short(1), promised);
    }
}

#[test]
fn what_is_left_of_a_body_is_known_as_far_as_its_source_says() {
    let limits = Limits {
        max_body: 100,
        max_buffered: 100,
    };
    let hint = |lower, upper| {
        let mut hint = SizeHint::new();
        hint.set_upper(upper);
        hint.set_lower(lower);
        hint
    };
    let bounds = |buffer: &SharedBuffer, place| {
        let hint = buffer.size_hint_for(place);
        (hint.lower(), hint.upper())
    };
    for trailers in [false, true] {
        let mut buffer = SharedBuffer::new(Arc::default());
        buffer.announce(None, hint(10, 20), limits);
        buffer.join();
        let follower = buffer.begin();
        buffer.push(frame(0, 8), hint(2, 12), None).unwrap();
        assert!(matches!(buffer.read(ReaderId::Leader), Read::Frame(_)));
        assert_eq!(bounds(&buffer, ReaderId::Leader), (2, Some(12)));
        assert_eq!(bounds(&buffer, follower), (10, Some(20)));
        if trailers {
            let frame = Frame::trailers(HeaderMap::new());
            buffer.push(frame, hint(0, 0), None).unwrap();
        }
        buffer.finish();
        // With a length that is known HTTP/1.1 has no place for trailers.
        let upper = |left| (!trailers).then_some(left);
        assert_eq!(bounds(&buffer, ReaderId::Leader), (0, upper(0)));
        assert_eq!(bounds(&buffer, follower), (8, upper(8)));
    }
    let mut buffer = SharedBuffer::new(Arc::default());
    buffer.announce(None, hint(10, 20), limits);
    buffer.push(frame(0, 8), hint(0, 0), None).unwrap();
    assert_eq!(bounds(&buffer, ReaderId::Leader), (8, None));
    let mut buffer = SharedBuffer::new(Arc::default());
    buffer.announce(None, hint(10, 20), limits);
    buffer.push(frame(0, 8), hint(2, 12), None).unwrap();
    buffer.fail(SharedError::new("broken"));
    assert_eq!(bounds(&buffer, ReaderId::Leader), (8, None));
}

#[cfg(feature = "redis")]
#[test]
fn a_body_that_is_short_or_a_window_is_for_no_other_replica() {
    let limits = Limits {
        max_body: 100,
        max_buffered: 100,
    };
    for (expected, is_window, is_whole) in [
        (Some(4), false, true),
        (None, false, true),
        (Some(9), false, false),
        (None, true, false),
    ] {
        let mut buffer = SharedBuffer::new(Arc::default());
        buffer.announce(expected, SizeHint::new(), limits);
        buffer.push(frame(0, 4), SizeHint::new(), None).unwrap();
        if is_window {
            buffer.outgrow(&[]);
        }
        assert_eq!(buffer.frames_for_all().is_some(), is_whole);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_buffer_does_what_its_invariants_say(
        expected in proptest::option::of(0..200_u64),
        max_body in 0..200_usize,
        max_buffered in 0..300_usize,
        ops in proptest::collection::vec(op(), 0..80),
    ) {
        let limits = Limits { max_body, max_buffered };
        let mut model = Model::new(expected, limits);
        model.check_account();
        for op in ops {
            model.apply(op);
        }
        let budget = Arc::clone(&model.budget);
        drop(model);
        assert_eq!(budget.used(), 0);
        assert!(!budget.has_lone());
    }
}
