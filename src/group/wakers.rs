//! The callers' wakers: one place for each, taken under the flight's lock and woken outside it.

use std::{mem, task::Waker};

use slab::Slab;

use super::panic::quietly;

/// What a caller waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// The end of the flight, or that somebody wakes this very caller.
    End,
    /// Whatever the work has to say to its callers midway (the frames of a body).
    Progress,
}

/// Where a caller's waker is kept.
#[derive(Debug, Default)]
pub(super) enum Place {
    /// The leader's own place, which costs no allocation.
    Leader {
        /// Whether a waker has been left.
        left: bool,
    },
    /// No waker has been left yet.
    #[default]
    None,
    At(usize),
}

/// The places of one flight. Those of followers are O(1) to take and to leave.
#[derive(Default)]
pub(super) struct Places {
    leader: Option<Waker>,
    /// In a box of their own, since most flights have none.
    followers: Option<Box<Followers>>,
}

#[derive(Default)]
struct Followers {
    /// Side by side: what is done for all who wait does not depend on how many have left.
    waiting: Vec<Waiting>,
    /// Where in `waiting` each place is.
    places: Slab<usize>,
    /// How many of them wait for progress, so that nobody searches for none.
    progress: usize,
}

struct Waiting {
    place: usize,
    waker: Option<Waker>,
    interest: Interest,
}

/// Wakers to wake once the lock is released. None and one, which is all that a lone leader's calls need, are cheap.
#[derive(Default)]
#[must_use = "wakers that were taken must be woken"]
pub(crate) struct Wakers {
    first: Option<Waker>,
    more: Vec<Waker>,
    /// Of a flight that has ended.
    followers: Option<Box<Followers>>,
}

// ===== impl Place =====

impl Place {
    pub(super) fn leads(&self) -> bool {
        matches!(self, Self::Leader { .. })
    }

    /// Whether no waker has been left here.
    pub(super) fn is_new(&self) -> bool {
        matches!(self, Self::None | Self::Leader { left: false })
    }
}

// ===== impl Places =====

impl Places {
    pub(super) fn with_leader(waker: Option<Waker>) -> Self {
        Self {
            leader: waker,
            followers: None,
        }
    }

    /// The waker kept at `place`, which is created for one that has none.
    pub(super) fn slot(&mut self, place: &mut Place, interest: Interest) -> &mut Option<Waker> {
        if let Place::Leader { left } = place {
            *left = true;
            return &mut self.leader;
        }
        self.followers.get_or_insert_default().slot(place, interest)
    }

    /// Empties the place for good. One that was taken with all the others is gone already.
    pub(super) fn free(&mut self, place: &Place) -> Option<Waker> {
        match *place {
            Place::Leader { .. } => self.leader.take(),
            Place::None => None,
            Place::At(place) => self.followers.as_mut()?.free(place),
        }
    }

    /// The waker at `place`, which stays its caller's.
    #[cfg(feature = "http")]
    pub(super) fn take(&mut self, place: &Place) -> Option<Waker> {
        match *place {
            Place::Leader { .. } => self.leader.take(),
            Place::None => None,
            Place::At(place) => self.followers.as_mut()?.get(place)?.waker.take(),
        }
    }

    pub(super) fn take_leader(&mut self) -> Option<Waker> {
        self.leader.take()
    }

    /// Of the followers who wait for progress.
    pub(super) fn take_progress(&mut self) -> Wakers {
        let mut wakers = Wakers::default();
        match &mut self.followers {
            Some(followers) if followers.progress > 0 => followers.take(&mut wakers, |waiting| {
                waiting.interest == Interest::Progress
            }),
            _ => {}
        }
        wakers
    }

    /// Of all; the places stay.
    pub(super) fn take_all(&mut self) -> Wakers {
        let mut wakers = Wakers::one(self.leader.take());
        if let Some(followers) = &mut self.followers {
            followers.take(&mut wakers, |_| true);
        }
        wakers
    }

    /// Of all, and their places with them: the flight has ended.
    pub(super) fn close(&mut self) -> Wakers {
        Wakers {
            first: self.leader.take(),
            more: Vec::new(),
            followers: self.followers.take(),
        }
    }
}

// ===== impl Followers =====

impl Followers {
    fn get(&mut self, place: usize) -> Option<&mut Waiting> {
        let index = *self.places.get(place)?;
        Some(&mut self.waiting[index])
    }

    fn slot(&mut self, place: &mut Place, interest: Interest) -> &mut Option<Waker> {
        let index = match *place {
            Place::At(place) => self.places[place],
            _ => {
                let index = self.waiting.len();
                let new = self.places.insert(index);
                self.waiting.push(Waiting {
                    place: new,
                    waker: None,
                    interest: Interest::End,
                });
                *place = Place::At(new);
                index
            }
        };
        let waiting = &mut self.waiting[index];
        match (waiting.interest, interest) {
            (Interest::End, Interest::Progress) => self.progress += 1,
            (Interest::Progress, Interest::End) => self.progress -= 1,
            _ => {}
        }
        waiting.interest = interest;
        &mut waiting.waker
    }

    fn free(&mut self, place: usize) -> Option<Waker> {
        let index = self.places.try_remove(place)?;
        let left = self.waiting.swap_remove(index);
        if let Some(moved) = self.waiting.get(index) {
            self.places[moved.place] = index;
        }
        if left.interest == Interest::Progress {
            self.progress -= 1;
        }
        left.waker
    }

    fn take(&mut self, wakers: &mut Wakers, wanted: impl Fn(&Waiting) -> bool) {
        let waiting = self.waiting.iter_mut().filter(|waiting| wanted(waiting));
        wakers
            .more
            .extend(waiting.filter_map(|waiting| waiting.waker.take()));
    }
}

// ===== impl Wakers =====

impl Wakers {
    pub(super) fn one(waker: Option<Waker>) -> Self {
        Self {
            first: waker,
            more: Vec::new(),
            followers: None,
        }
    }

    pub(crate) fn push(&mut self, waker: Option<Waker>) {
        match waker {
            Some(waker) if self.first.is_some() => self.more.push(waker),
            Some(waker) => self.first = Some(waker),
            None => {}
        }
    }

    /// Wakes them. Dropping does the same: what was taken is woken on whatever way.
    pub(crate) fn wake(self) {
        drop(self);
    }
}

impl Drop for Wakers {
    #[inline]
    fn drop(&mut self) {
        if let Some(waker) = self.first.take() {
            quietly(|| waker.wake());
        }
        if !self.more.is_empty() || self.followers.is_some() {
            self.wake_more();
        }
    }
}

impl Wakers {
    /// One that panics keeps no other from its turn, and is nobody's panic but the hook's: whoever wakes here is at work for
    /// others.
    #[inline(never)]
    fn wake_more(&mut self) {
        let followers = self.followers.take().map(|all| all.waiting);
        let followers = followers.into_iter().flatten();
        let wakers = mem::take(&mut self.more).into_iter();
        for waker in wakers.chain(followers.filter_map(|waiting| waiting.waker)) {
            quietly(|| waker.wake());
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Followers who wait for progress, each with its place and its own waker.
    fn followers(places: &mut Places, number: usize) -> Vec<(Place, Arc<Woken>)> {
        (0..number)
            .map(|_| {
                let (mut place, woken) = (Place::None, Arc::<Woken>::default());
                let waker = Waker::from(Arc::clone(&woken));
                *places.slot(&mut place, Interest::Progress) = Some(waker);
                (place, woken)
            })
            .collect()
    }

    #[test]
    fn a_follower_keeps_its_place_when_others_leave_theirs() {
        let mut places = Places::default();
        let mut all = followers(&mut places, 5);
        for leaver in [0, 1, 2] {
            let (place, woken) = all.remove(leaver);
            let waker = places.free(&place).expect("its own");
            waker.wake();
            assert_eq!(woken.0.load(Ordering::Relaxed), 1);
            assert!(places.free(&place).is_none());
        }
        all.extend(followers(&mut places, 1));
        for (place, woken) in &mut all {
            assert!(places.slot(place, Interest::Progress).is_some());
            assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        }
        places.take_progress().wake();
        for (_, woken) in &all {
            assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        }
    }

    #[test]
    fn followers_that_have_left_are_not_looked_at() {
        let mut places = Places::default();
        let mut all = followers(&mut places, 1_000);
        let last = all.split_off(999);
        for (place, _) in &all {
            drop(places.free(place));
        }
        let waiting = places.followers.as_ref().map(|all| all.waiting.len());
        assert_eq!(waiting, Some(1));
        places.take_progress().wake();
        assert_eq!(last[0].1.0.load(Ordering::Relaxed), 1);
    }
}
