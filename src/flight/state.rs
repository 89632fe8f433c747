//! What the layer keeps in a flight.
//!
//! Locks nest in one order: a shard of the table, a flight's [`State`], its waker slots. Under these locks no user code
//! is called, cloned, dropped or woken, except the key's `Eq`.
//!
//! Invariants, cited as S1 to S5:
//!
//! 1. A follower has a place in `followers` from when it is counted until it takes its decision or leaves. Its
//!    request's head is kept there, so that the deciding code can see it.
//! 2. A follower's decision is in `stage`, or in its own place if it was moved. No follower reads it while others are
//!    being moved: otherwise a moved one might lead and end its variant's flight before the others arrive.
//! 3. A follower that may not have the response is [dismissed](State::dismiss) under the lock under which that is
//!    decided: it stops being a reader, and the deciding code counts it out, before it is woken.
//! 4. Nobody joins once `is_closed`. The flight is out of the table before anybody is notified.
//! 5. A flight in stage `Uncalled` has callers that were moved to it, but no work. The caller that makes it `Called`,
//!    under this lock, starts the work with its own request.

use std::{
    any::Any,
    mem,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

#[cfg(feature = "redis")]
use bytes::Bytes;
use http::{Method, request, response};
use slab::Slab;
use tokio::time::Instant;

use super::{
    caller::Caller,
    complete::{CompleteReader, CompleteResponse},
};
#[cfg(feature = "redis")]
use crate::replicas::EntryId;
use crate::{
    audit::Original,
    buffer::{ReaderId, SharedBuffer},
    group,
    observe::{FlightTrace, Reason},
    rules::Variant,
    shared::{Counters, VariantGuard},
    sync::{Mutex, MutexGuard},
};

pub(crate) type Flight<K> = group::Flight<(), (), HttpFlight<K>>;

/// See the [module docs](self).
pub(crate) struct HttpFlight<K> {
    pub(crate) hash: u64,
    pub(crate) key: K,
    /// Compared too: HEAD and GET never share, even if a user's key makes them equal.
    pub(crate) method: Method,
    pub(crate) counters: Arc<Counters>,
    /// The number of the last write when the flight began.
    pub(crate) epoch: u64,
    /// When it becomes too old to be joined.
    pub(crate) expires: Option<Instant>,
    /// How long it may be silent before nobody joins it.
    pub(crate) max_silence: Duration,
    /// Made when it is first needed: a flight that has its whole response before anybody joins needs none.
    pub(crate) state: Mutex<Option<Box<State<K>>>>,
    /// After the state: dropping it reports what the state has freed.
    pub(crate) trace: FlightTrace,
}

/// The lock of a flight's [`State`].
pub(crate) struct StateGuard<'a, K>(MutexGuard<'a, Option<Box<State<K>>>>);

/// A flight's progress.
pub(crate) struct State<K> {
    pub(crate) stage: Stage,
    pub(crate) is_closed: bool,
    /// The variant that the flight's response is for, once known.
    pub(crate) variant: Option<(Variant, VariantGuard)>,
    /// Followers that have no decision yet, or have not taken it (S1).
    pub(crate) followers: Slab<FollowerState<K>>,
    /// Whether some of them are being moved (S2).
    pub(crate) is_moving: bool,
    pub(crate) buffer: SharedBuffer,
    /// The whole body, once a follower takes its decision after the end.
    pub(crate) complete: Option<Arc<CompleteResponse>>,
    /// Whether anybody has joined, as known under this lock.
    pub(crate) is_joined: bool,
    /// When the last frame came, or the head; `None` if the whole body came with its head.
    pub(crate) active: Option<Instant>,
    /// The leader's own, until it comes for it: a `Result` of its service's types.
    pub(crate) response: Option<Box<dyn Any + Send>>,
    /// Auditors compare their responses with it.
    pub(crate) original: Option<Arc<Original>>,
    #[cfg(feature = "redis")]
    pub(crate) contending: Contending,
}

/// A caller's number among those of this replica, in the order in which they ask. Empty without other replicas.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Number(#[cfg(feature = "redis")] pub(crate) u64);

/// What other replicas know of a flight.
#[cfg(feature = "redis")]
#[derive(Default)]
pub(crate) struct Contending {
    /// All callers that have joined have smaller numbers.
    pub(crate) asked: u64,
    /// Its part in the protocol, once it contends.
    pub(crate) entry: Option<EntryId>,
    /// Another replica's answer for the flight's variant, which its leader takes instead of contending. It covers all
    /// callers.
    pub(crate) answer: Option<(Bytes, u64)>,
}

#[cfg(feature = "redis")]
impl Contending {
    /// Whether this caller asked too late for the answer.
    pub(crate) fn is_too_late(&self, number: Number) -> bool {
        let answer = self.answer.as_ref();
        answer.is_some_and(|(_, covered)| number.0 >= *covered)
    }
}

#[derive(Default)]
pub(crate) enum Stage {
    /// Nobody has called yet (S5).
    Uncalled,
    /// There is no head yet.
    #[default]
    Called,
    /// The response is shared, and this is its head.
    Shared(Arc<response::Parts>),
    /// Followers make their own calls.
    Refused(Reason),
    /// The call has failed. Holds a copy of the error for each follower.
    Failed(Vec<Box<dyn Any + Send>>),
}

/// A follower that waits for its head.
pub(crate) enum FollowerState<K> {
    /// Its decision is `stage`.
    Here {
        head: Box<request::Parts>,
        number: Number,
    },
    /// The response is shared, but not for it: it is being moved.
    Moving,
    /// It has been moved, or it makes its own call because there is no flight to move to.
    Decided(Box<Decision<K>>),
}

/// What a follower is to do.
pub(crate) enum Decision<K> {
    Begin(Box<request::Parts>, Arc<response::Parts>),
    /// Its response is complete: it needs the flight no more.
    Complete(Box<request::Parts>, Arc<response::Parts>, CompleteReader),
    /// It starts the work.
    Lead(Box<request::Parts>),
    /// It waits in another flight, which now holds its head.
    Move(Caller<K>),
    Forward(Box<request::Parts>, Reason),
    Fail(Box<request::Parts>, Box<dyn Any + Send>),
}

/// Counts out the dismissed followers (S3).
pub(super) fn count_out<K>(flight: &Arc<Flight<K>>, dismissed: usize) {
    if dismissed > 0 {
        flight.data.counters.leave(dismissed);
        flight.count_out(dismissed);
    }
}

// ===== impl HttpFlight =====

impl<K> HttpFlight<K> {
    pub(crate) fn state(&self) -> StateGuard<'_, K> {
        let mut state = self.state.lock();
        state.get_or_insert_with(|| State::new(&self.counters));
        StateGuard(state)
    }

    pub(crate) fn state_mut(&mut self) -> &mut State<K> {
        let state = self.state.get_mut();
        state.get_or_insert_with(|| State::new(&self.counters))
    }

    /// Whether its body has given nothing for too long.
    pub(crate) fn is_silent(&self, now: Instant) -> bool {
        let state = self.state.lock();
        let active = state.as_ref().and_then(|state| state.active);
        active.is_some_and(|active| now.saturating_duration_since(active) >= self.max_silence)
    }
}

// ===== impl StateGuard =====

const MADE: &str = "made under this lock";

impl<K> Deref for StateGuard<'_, K> {
    type Target = State<K>;

    fn deref(&self) -> &State<K> {
        self.0.as_ref().expect(MADE)
    }
}

impl<K> DerefMut for StateGuard<'_, K> {
    fn deref_mut(&mut self) -> &mut State<K> {
        self.0.as_mut().expect(MADE)
    }
}

// ===== impl State =====

impl<K> State<K> {
    fn new(counters: &Counters) -> Box<Self> {
        Box::new(Self {
            stage: Stage::Called,
            is_closed: false,
            variant: None,
            followers: Slab::new(),
            is_moving: false,
            buffer: SharedBuffer::new(Arc::clone(&counters.budget)),
            complete: None,
            is_joined: false,
            active: None,
            response: None,
            original: None,
            #[cfg(feature = "redis")]
            contending: Contending::default(),
        })
    }

    /// The flight's response, for one more auditor.
    pub(crate) fn original(&mut self, counters: &Arc<Counters>) -> Arc<Original> {
        let buffer = &self.buffer;
        let new = || Original::new(Arc::clone(counters), buffer.held_data(), buffer.trailers());
        Arc::clone(self.original.get_or_insert_with(new))
    }

    /// From now on nobody joins (S4). Returns a head that nobody waits for, to be dropped outside the lock: its
    /// extensions belong to the user.
    pub(crate) fn close(&mut self) -> Option<Stage> {
        self.is_closed = true;
        let unwanted = matches!(self.stage, Stage::Shared(_))
            && self.followers.is_empty()
            && self.original.is_none();
        unwanted.then(|| mem::take(&mut self.stage))
    }

    /// Dismisses all waiting followers of a closed flight (S3), and returns how many to count out: none if they already
    /// were.
    pub(crate) fn dismiss_all(&mut self, stage: Stage) -> usize {
        if matches!(self.stage, Stage::Refused(_) | Stage::Failed(_)) {
            return 0;
        }
        self.stage = stage;
        let followers = self.followers.iter();
        let waiting = followers.filter(|(_, it)| matches!(it, FollowerState::Here { .. }));
        let dismissed = waiting.count();
        self.buffer.leave_waiting(dismissed);
        dismissed
    }

    /// Dismisses the follower in `slot`, which is to be moved (S3). Returns its request's head.
    pub(crate) fn dismiss(&mut self, slot: usize) -> Option<(Box<request::Parts>, Number)> {
        let follower = self.followers.get_mut(slot)?;
        match mem::replace(follower, FollowerState::Moving) {
            FollowerState::Here { head, number } => {
                self.buffer.leave_waiting(1);
                Some((head, number))
            }
            other => {
                *follower = other;
                None
            }
        }
    }

    /// Adds a follower that waits for its head. It has joined the readers.
    pub(crate) fn wait(&mut self, head: request::Parts, number: Number) -> usize {
        let head = Box::new(head);
        self.followers.insert(FollowerState::Here { head, number })
    }

    /// Notes the number of a caller that has joined.
    #[cfg(feature = "redis")]
    pub(crate) fn asked_by(&mut self, number: Number) {
        let asked = &mut self.contending.asked;
        *asked = number.0.saturating_add(1).max(*asked);
    }

    /// Whether the follower in `slot` was dismissed.
    pub(crate) fn is_dismissed(&self, slot: usize) -> bool {
        let all = matches!(self.stage, Stage::Refused(_) | Stage::Failed(_));
        all || !matches!(self.followers[slot], FollowerState::Here { .. })
    }

    /// Removes a follower that leaves. Returns whether it was dismissed; otherwise it is no reader any more.
    pub(crate) fn leave(&mut self, slot: usize) -> (FollowerState<K>, bool) {
        let is_dismissed = self.is_dismissed(slot);
        if !is_dismissed {
            self.buffer.leave_waiting(1);
        }
        (self.followers.remove(slot), is_dismissed)
    }

    /// Whether there is a decision for all waiting followers.
    fn is_decided(&self) -> bool {
        !matches!(self.stage, Stage::Called)
    }

    /// Whether there is a decision for the follower in `slot` that it may take (S2).
    fn is_decided_for(&self, slot: usize) -> bool {
        let was_moved = || matches!(self.followers[slot], FollowerState::Decided(_));
        !self.is_moving && (self.is_decided() || was_moved())
    }

    /// Whether the follower in `slot` may still leave by itself, because it has no decision yet.
    pub(crate) fn may_give_up(&self, slot: usize) -> bool {
        !self.is_decided() && !self.is_dismissed(slot)
    }

    /// Takes the follower out of `slot`, if there is a decision for it. Returns the decision, and its place among the readers.
    pub(crate) fn take_decision(
        &mut self,
        slot: usize,
        counters: &Arc<Counters>,
    ) -> Option<(Decision<K>, ReaderId)> {
        if !self.is_decided_for(slot) {
            return None;
        }
        let head = match self.followers.remove(slot) {
            FollowerState::Here { head, .. } => head,
            FollowerState::Decided(decision) => return Some((*decision, ReaderId::Leader)),
            FollowerState::Moving => unreachable!("all are moved before it is decided"),
        };
        let decision = match &mut self.stage {
            Stage::Shared(response) => {
                let response = Arc::clone(response);
                let Some(complete) = self.complete(counters) else {
                    let place = self.buffer.begin();
                    return Some((Decision::Begin(head, response), place));
                };
                self.buffer.leave_waiting(1);
                Decision::Complete(head, response, CompleteReader::new(complete))
            }
            Stage::Refused(reason) => Decision::Forward(head, *reason),
            Stage::Failed(shares) => {
                let share = shares.pop().expect("there is one for each follower");
                Decision::Fail(head, share)
            }
            Stage::Uncalled => {
                self.lead();
                Decision::Lead(head)
            }
            Stage::Called => unreachable!("looked at just now"),
        };
        Some((decision, ReaderId::Leader))
    }

    /// The whole body for followers that have read nothing of it, if it is complete.
    fn complete(&mut self, counters: &Arc<Counters>) -> Option<Arc<CompleteResponse>> {
        if self.complete.is_none() {
            let body = self.buffer.share_complete()?;
            let counters = Arc::clone(counters);
            self.complete = Some(Arc::new(CompleteResponse { body, counters }));
        }
        self.complete.clone()
    }

    /// One who has joined the readers becomes the leader (S5).
    pub(crate) fn lead(&mut self) {
        self.stage = Stage::Called;
        self.buffer.lead();
    }
}
