//! The callers' wakers, each in a slot. They are taken under the flight's lock and woken outside it.

use std::{mem, task::Waker};

use slab::Slab;

use super::panic::quietly;

/// Where a caller's waker is kept.
#[derive(Debug, Default)]
pub(super) enum WakerSlot {
    /// The leader's slot, which costs no allocation.
    Leader {
        /// Whether a waker has been left.
        left: bool,
    },
    /// No waker has been left yet.
    #[default]
    None,
    At(usize),
}

/// The slots of one flight. A follower takes and frees its slot in O(1).
#[derive(Default)]
pub(super) struct WakerSlots {
    leader: Option<Waker>,
    /// Boxed, because most flights have none.
    followers: Option<Box<Followers>>,
}

#[derive(Default)]
struct Followers {
    /// Without gaps, so that work for all of them does not depend on how many have left.
    waiting: Vec<Follower>,
    /// The position of each slot in `waiting`.
    slots: Slab<usize>,
}

struct Follower {
    slot: usize,
    waker: Option<Waker>,
}

/// Wakers to wake once the lock is released. None or one, as in a flight without followers, are cheap.
#[derive(Default)]
#[must_use = "wakers that were taken must be woken"]
pub(crate) struct Wakers {
    first: Option<Waker>,
    more: Vec<Waker>,
    /// The followers of a flight that has ended, taken as a whole.
    followers: Option<Box<Followers>>,
}

// ===== impl WakerSlot =====

impl WakerSlot {
    pub(super) fn leads(&self) -> bool {
        matches!(self, Self::Leader { .. })
    }

    /// Whether no waker has been left here.
    pub(super) fn is_new(&self) -> bool {
        matches!(self, Self::None | Self::Leader { left: false })
    }
}

// ===== impl WakerSlots =====

impl WakerSlots {
    pub(super) fn with_leader(waker: Option<Waker>) -> Self {
        Self {
            leader: waker,
            followers: None,
        }
    }

    /// The waker in `slot`; makes a slot for a caller that has none.
    pub(super) fn slot(&mut self, slot: &mut WakerSlot) -> &mut Option<Waker> {
        if let WakerSlot::Leader { left } = slot {
            *left = true;
            return &mut self.leader;
        }
        self.followers.get_or_insert_default().slot(slot)
    }

    /// Empties the slot, and frees that of a follower. After `close` it is already gone.
    pub(super) fn free(&mut self, slot: &mut WakerSlot) -> Option<Waker> {
        match *slot {
            WakerSlot::Leader { .. } => self.leader.take(),
            WakerSlot::None => None,
            WakerSlot::At(index) => {
                *slot = WakerSlot::None;
                self.followers.as_mut()?.free(index)
            }
        }
    }

    pub(super) fn take_leader(&mut self) -> Option<Waker> {
        self.leader.take()
    }

    /// Takes the wakers of all followers, which keep their slots.
    pub(super) fn take_followers(&mut self) -> Wakers {
        let mut wakers = Wakers::default();
        if let Some(followers) = &mut self.followers {
            followers.take(&mut wakers);
        }
        wakers
    }

    /// Takes the wakers of all callers, which keep their slots.
    pub(super) fn take_all(&mut self) -> Wakers {
        let mut wakers = self.take_followers();
        wakers.push(self.leader.take());
        wakers
    }

    /// Takes all wakers and their slots, because the flight has ended.
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
    fn slot(&mut self, slot: &mut WakerSlot) -> &mut Option<Waker> {
        let index = match *slot {
            WakerSlot::At(slot) => self.slots[slot],
            _ => {
                let index = self.waiting.len();
                let new = self.slots.insert(index);
                self.waiting.push(Follower {
                    slot: new,
                    waker: None,
                });
                *slot = WakerSlot::At(new);
                index
            }
        };
        &mut self.waiting[index].waker
    }

    fn free(&mut self, slot: usize) -> Option<Waker> {
        let index = self.slots.try_remove(slot)?;
        let left = self.waiting.swap_remove(index);
        if let Some(moved) = self.waiting.get(index) {
            self.slots[moved.slot] = index;
        }
        left.waker
    }

    fn take(&mut self, wakers: &mut Wakers) {
        let waiting = self.waiting.iter_mut();
        wakers
            .more
            .extend(waiting.filter_map(|waiting| waiting.waker.take()));
    }
}

// ===== impl Wakers =====

impl Wakers {
    pub(crate) fn one(waker: Option<Waker>) -> Self {
        Self {
            first: waker,
            more: Vec::new(),
            followers: None,
        }
    }

    pub(super) fn push(&mut self, waker: Option<Waker>) {
        match waker {
            Some(waker) if self.first.is_some() => self.more.push(waker),
            Some(waker) => self.first = Some(waker),
            None => {}
        }
    }

    /// Wakes them, as `drop` does: taken wakers are always woken.
    pub(crate) fn wake(self) {
        drop(self);
    }

    /// A panicking waker does not keep others from being woken. Its panic stops at the panic hook, because the waking
    /// thread works for other callers.
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

    /// Followers, each with its slot and its own waker.
    fn followers(slots: &mut WakerSlots, number: usize) -> Vec<(WakerSlot, Arc<Woken>)> {
        (0..number)
            .map(|_| {
                let (mut slot, woken) = (WakerSlot::None, Arc::<Woken>::default());
                let waker = Waker::from(Arc::clone(&woken));
                *slots.slot(&mut slot) = Some(waker);
                (slot, woken)
            })
            .collect()
    }

    #[test]
    fn who_has_left_its_place_leaves_it_to_the_next() {
        let mut slots = WakerSlots::default();
        let (mut left, _) = followers(&mut slots, 1).remove(0);
        drop(slots.free(&mut left));
        let (mut next, _) = followers(&mut slots, 1).remove(0);
        assert!(slots.free(&mut left).is_none());
        assert!(slots.free(&mut next).is_some());
    }

    #[test]
    fn a_follower_keeps_its_place_when_others_leave_theirs() {
        let mut slots = WakerSlots::default();
        let mut all = followers(&mut slots, 5);
        for leaver in [0, 1, 2] {
            let (mut slot, woken) = all.remove(leaver);
            let waker = slots.free(&mut slot).expect("its own");
            waker.wake();
            assert_eq!(woken.0.load(Ordering::Relaxed), 1);
            assert!(slots.free(&mut slot).is_none());
        }
        all.extend(followers(&mut slots, 1));
        for (slot, woken) in &mut all {
            assert!(slots.slot(slot).is_some());
            assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        }
        slots.take_followers().wake();
        for (_, woken) in &all {
            assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        }
    }

    #[test]
    fn followers_that_have_left_are_not_looked_at() {
        let mut slots = WakerSlots::default();
        let mut all = followers(&mut slots, 1_000);
        let last = all.split_off(999);
        for (slot, _) in &mut all {
            drop(slots.free(slot));
        }
        let waiting = slots.followers.as_ref().map(|all| all.waiting.len());
        assert_eq!(waiting, Some(1));
        slots.take_followers().wake();
        assert_eq!(last[0].1.0.load(Ordering::Relaxed), 1);
    }
}
