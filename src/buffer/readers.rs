//! Who reads a body, how far each has come, and who sets the pace.

use slab::Slab;

use super::prefix::Prefix;

#[derive(Debug)]
pub(super) struct Readers {
    leader: Option<Cursor>,
    /// Followers that have not begun to read.
    waiting: usize,
    followers: Slab<Cursor>,
    /// The reader that sets the pace (B5). `None` once it has left: the next one that waits at the front takes its
    /// place.
    pub(super) pacer: Option<ReaderId>,
}

/// Identifies a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReaderId {
    Leader,
    Follower(usize),
}

/// How far a reader has read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    pub(super) frames: u64,
    /// In a window with the digest, otherwise only the bytes.
    pub(super) had: Prefix,
}

// ===== impl Readers =====

impl Readers {
    /// The leader alone.
    #[inline]
    pub(super) fn new() -> Self {
        Self {
            leader: Some(Cursor::default()),
            waiting: 0,
            followers: Slab::new(),
            pacer: Some(ReaderId::Leader),
        }
    }

    pub(super) fn count(&self) -> usize {
        usize::from(self.leader.is_some()) + self.waiting + self.followers.len()
    }

    pub(super) fn join(&mut self) {
        self.waiting += 1;
    }

    /// So many leave that have not begun to read.
    pub(super) fn leave_waiting(&mut self, count: usize) {
        self.waiting -= count;
    }

    /// One that waits begins to read.
    pub(super) fn begin(&mut self) -> ReaderId {
        self.waiting -= 1;
        ReaderId::Follower(self.followers.insert(Cursor::default()))
    }

    /// One that waits becomes the leader, which sets the pace.
    pub(super) fn lead(&mut self) {
        self.waiting -= 1;
        self.leader = Some(Cursor::default());
        self.pacer = Some(ReaderId::Leader);
    }

    /// Returns whether it set the pace.
    pub(super) fn leave(&mut self, place: ReaderId) -> bool {
        match place {
            ReaderId::Leader => self.leader = None,
            ReaderId::Follower(index) => drop(self.followers.try_remove(index)),
        }
        let paced = self.pacer == Some(place);
        if paced {
            self.pacer = None;
        }
        paced
    }

    pub(super) fn cursor(&self, place: ReaderId) -> &Cursor {
        match place {
            ReaderId::Leader => self.leader.as_ref().expect("a reader has a cursor"),
            ReaderId::Follower(index) => &self.followers[index],
        }
    }

    pub(super) fn cursor_mut(&mut self, place: ReaderId) -> &mut Cursor {
        match place {
            ReaderId::Leader => self.leader.as_mut().expect("a reader has a cursor"),
            ReaderId::Follower(index) => &mut self.followers[index],
        }
    }

    pub(super) fn cursors_mut(&mut self) -> impl Iterator<Item = &mut Cursor> {
        let followers = self.followers.iter_mut().map(|(_, cursor)| cursor);
        self.leader.iter_mut().chain(followers)
    }

    /// How far the pacer has come. Without one: how far the slowest may be, if somebody has not begun to read; or the
    /// only reader. Otherwise `None`.
    pub(super) fn pace(&self) -> Option<Cursor> {
        match self.pacer {
            Some(place) => Some(*self.cursor(place)),
            None if self.waiting > 0 => Some(Cursor::default()),
            None if self.count() > 1 => None,
            None => self.followers.iter().next().map(|(_, cursor)| *cursor),
        }
    }

    /// If nobody sets the pace, the fastest does from now on.
    pub(super) fn find_pacer(&mut self) {
        if self.pacer.is_none() {
            let followers = self.followers.iter();
            let fastest = followers.max_by_key(|(_, cursor)| cursor.frames);
            self.pacer = fastest.map(|(index, _)| ReaderId::Follower(index));
        }
    }
}
