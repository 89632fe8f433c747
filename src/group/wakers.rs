//! The callers' wakers: one place for each, taken under the flight's lock and woken outside it.

use std::{panic::resume_unwind, task::Waker};

use slab::Slab;

use super::ending::caught;

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
pub(crate) enum Place {
    /// The leader's own place, which costs no allocation.
    Leader,
    /// No waker has been left yet.
    #[default]
    None,
    At(usize),
}

/// The places of one flight. Those of followers are O(1) to take and to leave.
#[derive(Default)]
pub(crate) struct Places {
    leader: Option<Waker>,
    /// In a box of their own, since most flights have none.
    followers: Option<Box<Followers>>,
}

#[derive(Default)]
struct Followers {
    places: Slab<Follower>,
    /// How many of them wait for progress, so that nobody searches for none.
    progress: usize,
}

struct Follower {
    waker: Option<Waker>,
    interest: Interest,
}

/// Wakers to wake once the lock is released. None and one, which is all that a lone leader's calls need, are cheap.
#[derive(Default)]
#[must_use = "wakers that were taken must be woken"]
pub(crate) struct Wakers {
    first: Option<Waker>,
    many: Option<Many>,
}

#[derive(Default)]
struct Many {
    wakers: Vec<Waker>,
    followers: Option<Box<Followers>>,
}

// ===== impl Places =====

impl Places {
    pub(crate) fn with_leader(waker: Option<Waker>) -> Self {
        Self {
            leader: waker,
            followers: None,
        }
    }

    /// The waker kept at `place`, which is created for one that has none.
    pub(crate) fn slot(&mut self, place: &mut Place, interest: Interest) -> &mut Option<Waker> {
        if let Place::Leader = place {
            return &mut self.leader;
        }
        self.followers.get_or_insert_default().slot(place, interest)
    }

    /// Whether the waker at `place` wakes what `waker` wakes.
    pub(crate) fn holds(&self, place: &Place, waker: &Waker) -> bool {
        let held = match (place, &self.followers) {
            (Place::Leader, _) => self.leader.as_ref(),
            (Place::At(index), Some(followers)) => followers
                .places
                .get(*index)
                .and_then(|follower| follower.waker.as_ref()),
            _ => None,
        };
        held.is_some_and(|held| held.will_wake(waker))
    }

    /// Empties the place for good. One that was taken with all the others is gone already.
    pub(crate) fn free(&mut self, place: &Place) -> Option<Waker> {
        match *place {
            Place::Leader => self.leader.take(),
            Place::None => None,
            Place::At(index) => self.followers.as_mut()?.free(index),
        }
    }

    /// The waker at `place`, which stays its caller's.
    pub(crate) fn take(&mut self, place: &Place) -> Option<Waker> {
        match *place {
            Place::Leader => self.leader.take(),
            Place::None => None,
            Place::At(index) => {
                let followers = self.followers.as_mut()?;
                followers.places.get_mut(index)?.waker.take()
            }
        }
    }

    pub(crate) fn take_leader(&mut self) -> Wakers {
        Wakers::one(self.leader.take())
    }

    /// Of the followers who wait for progress.
    pub(crate) fn take_progress(&mut self) -> Wakers {
        let mut wakers = Wakers::default();
        match &mut self.followers {
            Some(followers) if followers.progress > 0 => followers.take(&mut wakers, |follower| {
                follower.interest == Interest::Progress
            }),
            _ => {}
        }
        wakers
    }

    /// Of all; the places stay.
    pub(crate) fn take_all(&mut self) -> Wakers {
        let mut wakers = self.take_leader();
        if let Some(followers) = &mut self.followers {
            followers.take(&mut wakers, |_| true);
        }
        wakers
    }

    /// Of all, and their places with them: the flight has ended.
    pub(crate) fn close(&mut self) -> Wakers {
        let mut wakers = self.take_leader();
        if let Some(followers) = self.followers.take() {
            wakers.many().followers = Some(followers);
        }
        wakers
    }
}

// ===== impl Followers =====

impl Followers {
    fn slot(&mut self, place: &mut Place, interest: Interest) -> &mut Option<Waker> {
        let index = match *place {
            Place::At(index) => index,
            _ => self.places.insert(Follower {
                waker: None,
                interest: Interest::End,
            }),
        };
        *place = Place::At(index);
        let follower = &mut self.places[index];
        match (follower.interest, interest) {
            (Interest::End, Interest::Progress) => self.progress += 1,
            (Interest::Progress, Interest::End) => self.progress -= 1,
            _ => {}
        }
        follower.interest = interest;
        &mut follower.waker
    }

    fn free(&mut self, index: usize) -> Option<Waker> {
        let follower = self.places.try_remove(index)?;
        if follower.interest == Interest::Progress {
            self.progress -= 1;
        }
        follower.waker
    }

    fn take(&mut self, wakers: &mut Wakers, wanted: impl Fn(&Follower) -> bool) {
        let followers = self.places.iter_mut().map(|(_, follower)| follower);
        wakers.many().wakers.extend(
            followers
                .filter(|follower| wanted(follower))
                .filter_map(|follower| follower.waker.take()),
        );
    }
}

// ===== impl Wakers =====

impl Wakers {
    pub(crate) fn one(waker: Option<Waker>) -> Self {
        Self {
            first: waker,
            many: None,
        }
    }

    fn many(&mut self) -> &mut Many {
        self.many.get_or_insert_default()
    }

    pub(crate) fn push(&mut self, waker: Option<Waker>) {
        match waker {
            Some(waker) if self.first.is_some() => self.many().wakers.push(waker),
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
        let (first, many) = (self.first.take(), self.many.take());
        if first.is_some() || many.is_some() {
            wake_all(first, many.unwrap_or_default());
        }
    }
}

fn wake_all(first: Option<Waker>, many: Many) {
    let followers = many.followers.into_iter().flat_map(|all| all.places);
    let followers = followers.filter_map(|(_, follower)| follower.waker);
    // One that panics keeps no other from its turn.
    let mut panic = None;
    for waker in first.into_iter().chain(many.wakers).chain(followers) {
        panic = caught(|| waker.wake()).err().or(panic);
    }
    match panic {
        Some(payload) if !std::thread::panicking() => resume_unwind(payload),
        _ => {}
    }
}
