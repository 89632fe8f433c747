//! What a flight's lock guards.
//!
//! The invariants cited here are those of [`flight`](super::flight).

use std::task::Waker;

use super::{
    runtime::Runtime,
    wakers::WakerSlots,
    work::{Work, WorkResult},
};

/// `S` is where a kept flight goes on.
pub(super) struct State<V, S> {
    /// `None` while a thread makes or polls it, and once the flight is over (F1).
    pub(super) work: Option<Work<V>>,
    /// Whether the work has ended or was cancelled.
    pub(super) is_over: bool,
    pub(super) driver: Driver,
    pub(super) slots: WakerSlots,
    /// The driving task's waker, once it has been polled.
    pub(super) task: Option<Waker>,
    /// Where the thread that has the work spawns a task when it puts the work back, unless the work belongs elsewhere.
    pub(super) handover: Option<Runtime>,
    /// Whether the work was woken while one of its driving callers polled it.
    pub(super) rewake: bool,
    /// Whether the leader has left.
    pub(super) leader_left: bool,
    /// What is only for the leader: the value that nobody shares, or the work's panic.
    pub(super) for_leader: Option<WorkResult<V>>,
    /// Whether the flight outlives its callers while a task can drive it.
    pub(super) kept: bool,
    /// Where a kept flight goes on when its last caller leaves, or when the runtime that drives it shuts down.
    pub(super) keeper: Option<Box<S>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Driver {
    Leader,
    Task,
    Callers,
}

// ===== impl State =====

impl<V, S> State<V, S> {
    #[inline]
    pub(super) fn new(work: Option<Work<V>>, leader: Option<Waker>) -> Self {
        Self {
            work,
            is_over: false,
            driver: Driver::Leader,
            slots: WakerSlots::with_leader(leader),
            task: None,
            handover: None,
            rewake: false,
            leader_left: false,
            for_leader: None,
            kept: false,
            keeper: None,
        }
    }

    /// Takes the work for a caller, to poll it, if it is there and callers drive it (F1).
    pub(super) fn take_work(&mut self, leads: bool) -> Option<Work<V>> {
        let may = match self.driver {
            Driver::Leader => leads,
            Driver::Callers => leads || !self.must_be_polled_by_leader(),
            Driver::Task => false,
        };
        if may { self.work.take() } else { None }
    }

    /// Whether callers must leave the work to its leader, which has not polled it yet (F9).
    pub(super) fn must_be_polled_by_leader(&mut self) -> bool {
        let work = self.work.as_mut();
        !self.leader_left && work.is_some_and(Work::must_be_polled_by_leader)
    }

    /// Notes a wake-up of the work. A caller that is polling it left its waker before this, and may park after it: so
    /// `put_back` wakes all callers once more.
    pub(super) fn note_wake_up(&mut self) {
        self.rewake |= self.driver == Driver::Callers && self.work.is_none();
    }
}
