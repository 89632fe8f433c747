//! What the lock of a flight guards.
//!
//! The invariants cited here are those of [`flight`](super::flight).

use std::{mem, sync::Arc, task::Waker};

use super::{
    ending::Payload,
    flight::{Flight, Work},
    runtime::Runtime,
    wakers::{Places, Wakers},
};

pub(super) struct State<K, V, C> {
    pub(super) work: WorkState<V>,
    pub(super) driver: Driver,
    pub(super) places: Places,
    /// The driving task's waker, once it has been polled.
    pub(super) task: Option<Waker>,
    /// Where a task is to be spawned by whoever has the work, once that is put back.
    pub(super) handover: Option<Runtime>,
    /// Whether the work was woken while a caller polled it.
    pub(super) rewake: bool,
    /// Whether the leader has left.
    pub(super) leaderless: bool,
    /// What the work gave to the leader alone: the value that nobody shares, or what it panicked with.
    pub(super) own: Option<Result<V, Payload>>,
    /// How a kept flight goes on when its last caller leaves, or when the runtime that drives it shuts down.
    pub(super) keeper: Option<Box<Keeper<K, V, C>>>,
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
pub(super) struct Back<V> {
    /// Work that was cancelled while it was polled.
    pub(super) cancelled: Option<Work<V>>,
    pub(super) wakers: Wakers,
    pub(super) spawn_on: Option<Runtime>,
}

/// A runtime and the function that spawns there: leaving happens in a `Drop`, which can't name the bounds of a spawn.
pub(crate) struct Keeper<K, V, C> {
    pub(super) runtime: Runtime,
    pub(super) spawn: fn(&Runtime, Arc<Flight<K, V, C>>),
}

// ===== impl State =====

impl<K, V, C> State<K, V, C> {
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

    pub(super) fn is_leaderless(&self) -> bool {
        self.leaderless
    }

    /// Takes the keeper, if the flight is not over.
    pub(super) fn take_keeper(&mut self) -> Option<Box<Keeper<K, V, C>>> {
        match self.work {
            WorkState::Gone => None,
            _ => self.keeper.take(),
        }
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

    /// A clone of the task's waker, which is Tokio's and not the user's (F6).
    pub(super) fn wake_task(&self) -> Wakers {
        Wakers::one(self.task.clone())
    }

    /// Puts work back after a poll, and says what is to be done because the driver has changed meanwhile (F3).
    pub(super) fn put_back(&mut self, work: Work<V>, polled_as: Driver) -> Back<V> {
        let mut back = Back::default();
        match self.work {
            WorkState::Starting | WorkState::Polling => self.work = WorkState::Idle(work),
            WorkState::Idle(_) => unreachable!("work is in one place"),
            WorkState::Gone => {
                back.cancelled = Some(work);
                return back;
            }
        }
        match self.driver {
            driver if driver == polled_as && !mem::take(&mut self.rewake) => {}
            Driver::Leader => back.wakers = self.places.take_leader(),
            Driver::Callers => back.wakers = self.places.take_all(),
            Driver::Task => match self.handover.take() {
                Some(runtime) => back.spawn_on = Some(runtime),
                None => back.wakers = self.wake_task(),
            },
        }
        back
    }
}

// ===== impl Back =====

impl<V> Default for Back<V> {
    fn default() -> Self {
        Self {
            cancelled: None,
            wakers: Wakers::default(),
            spawn_on: None,
        }
    }
}
