//! What the lock of a flight guards.
//!
//! The invariants cited here are those of [`flight`](super::flight).

use std::{mem, task::Waker};

use super::{
    runtime::Runtime,
    wakers::{Places, Wakers},
    work::{Work, WorkResult},
};

/// `S` is how a kept flight goes on.
pub(super) struct State<V, S> {
    pub(super) work: WorkState<V>,
    pub(super) driver: Driver,
    pub(super) places: Places,
    /// The driving task's waker, once it has been polled.
    pub(super) task: Option<Waker>,
    /// Where a task is to be spawned by whoever has the work, once that is put back, unless it belongs elsewhere.
    pub(super) handover: Option<Runtime>,
    /// Whether the work was woken while a caller polled it.
    pub(super) rewake: bool,
    /// Whether the leader has left.
    pub(super) leaderless: bool,
    /// What the work gave to the leader alone: the value that nobody shares, or what it panicked with.
    pub(super) own: Option<WorkResult<V>>,
    /// How a kept flight goes on when its last caller leaves, or when the runtime that drives it shuts down.
    pub(super) keeper: Option<Box<S>>,
}

/// F1.
pub(super) enum WorkState<V> {
    Starting,
    Idle(Work<V>),
    Polling,
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Driver {
    Leader,
    Task,
    Callers,
}

/// What is left to do, outside the lock, when work was put back.
#[must_use = "whoever is to go on must hear of it"]
pub(super) enum Next<V> {
    Wake(Wakers),
    Spawn(Runtime),
    /// The work was cancelled while it was polled.
    Drop(Work<V>),
}

// ===== impl State =====

impl<V, S> State<V, S> {
    #[inline]
    pub(super) fn new(work: WorkState<V>, leader: Option<Waker>) -> Self {
        Self {
            work,
            driver: Driver::Leader,
            places: Places::with_leader(leader),
            task: None,
            handover: None,
            rewake: false,
            leaderless: false,
            own: None,
            keeper: None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.work, WorkState::Gone)
    }

    /// Takes the keeper, if the flight is not over.
    pub(super) fn take_keeper(&mut self) -> Option<Box<S>> {
        if self.is_over() {
            return None;
        }
        self.keeper.take()
    }

    /// Takes the work to poll it, if it is there to be taken (F1).
    pub(super) fn take_work(&mut self) -> Option<Work<V>> {
        match mem::replace(&mut self.work, WorkState::Polling) {
            WorkState::Idle(work) => Some(work),
            other => {
                self.work = other;
                None
            }
        }
    }

    /// As `take_work`, for a caller, if it is the caller's part to drive.
    pub(super) fn take_work_as(&mut self, leads: bool) -> Option<Work<V>> {
        let may = match self.driver {
            Driver::Leader => leads,
            Driver::Callers => leads || !self.is_leaders(),
            Driver::Task => false,
        };
        if may { self.take_work() } else { None }
    }

    /// Whether callers drive, but must leave the work to its leader, who has not polled it yet (F9).
    pub(super) fn is_leaders(&self) -> bool {
        !self.leaderless && matches!(&self.work, WorkState::Idle(work) if work.is_leaders())
    }

    /// A clone of the task's waker, which is Tokio's and not the user's (F6).
    pub(super) fn wake_task(&self) -> Wakers {
        Wakers::one(self.task.clone())
    }
}
