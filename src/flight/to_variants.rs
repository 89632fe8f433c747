//! Moves followers to other flights: those of their variants, or a new one if they asked too late.
//!
//! Each stays in its place until all are moved (S2).

use std::sync::Arc;

use http::{HeaderName, request};
use tokio::time::Instant;

use super::{
    candidate::Candidate,
    context::WorkContext,
    state::{Decision, FollowerState, HttpFlight, Number, count_out},
};
use crate::{
    group::{caught, drop_quietly},
    key::KeyExtractor,
    observe::Reason,
    rules::Variant,
};

/// The most followers to look at under one lock.
const CHUNK: usize = 32;

/// While this exists, no follower learns where it was moved (S2).
struct Moving<'a, K>(&'a HttpFlight<K>);

// ===== impl Moving =====

impl<'a, K> Moving<'a, K> {
    fn begin(data: &'a HttpFlight<K>) -> Self {
        data.state().is_moving = true;
        Self(data)
    }
}

impl<K> Drop for Moving<'_, K> {
    fn drop(&mut self) {
        self.0.state().is_moving = false;
    }
}

// ===== impl WorkContext =====

impl<X> WorkContext<X>
where
    X: KeyExtractor,
{
    /// Moves followers that asked too late for another replica's response to a new flight. Nobody joins this one any
    /// more.
    #[cfg(feature = "redis")]
    pub(super) fn move_late(&self, covered: u64) {
        let is_late = |_: &request::Parts, number: Number| number.0 >= covered;
        let slots: Vec<_> = {
            let state = self.flight().data.state();
            state.followers.iter().map(|(slot, _)| slot).collect()
        };
        self.move_all(&slots, None, &is_late);
    }

    /// From now on the flight is for its leader's variant, `own`. Other followers move to the flights of their
    /// variants, those below `covered` first, and don't wait for a response that is not for them.
    #[cfg(feature = "redis")]
    pub(super) fn move_others(&self, own: &Variant, covered: u64) {
        let data = &self.flight().data;
        let varying = &self.shared.flights.varying;
        let varying = varying.insert(data.hash, own.names());
        let (mut waiting, _old) = {
            let mut state = data.state();
            let waiting = state.followers.iter();
            let waiting = waiting.filter_map(|(slot, follower)| match follower {
                FollowerState::Here { number, .. } => Some((number.0 >= covered, slot)),
                _ => None,
            });
            let waiting: Vec<_> = waiting.collect();
            (waiting, state.variant.replace((own.clone(), varying)))
        };
        waiting.sort_unstable();
        let slots: Vec<_> = waiting.into_iter().map(|(_, slot)| slot).collect();
        let differs = |head: &request::Parts, _| !own.matches(&head.headers);
        self.move_all(&slots, Some(own.names()), &differs);
        self.flight().wake_callers();
    }

    /// Moves the followers in `slots` that satisfy `moves` to the flights of their own variants, by the fields with
    /// these names. A follower whose key panics makes its own call, and the others are not affected.
    pub(super) fn move_all(
        &self,
        slots: &[usize],
        names: Option<&Arc<[HeaderName]>>,
        moves: &dyn Fn(&request::Parts, Number) -> bool,
    ) {
        let data = &self.flight().data;
        let _moving = Moving::begin(data);
        for chunk in slots.chunks(CHUNK) {
            let dismissed: Vec<_> = {
                let mut state = data.state();
                let moves = |slot: &usize| match state.followers.get(*slot) {
                    Some(FollowerState::Here { head, number, .. }) => moves(head, *number),
                    _ => false,
                };
                let others: Vec<_> = chunk.iter().copied().filter(moves).collect();
                let dismiss = |slot| Some((slot, state.dismiss(slot)?));
                others.into_iter().filter_map(dismiss).collect()
            };
            count_out(self.flight(), dismissed.len());
            let now = Instant::now();
            for (slot, (head, number)) in dismissed {
                let mut head = Some(*head);
                let moved = caught(|| self.move_head(names, &mut head, number, now));
                let (moved, reason) = match moved {
                    Ok(moved) => (moved, Reason::Full),
                    Err(payload) => {
                        drop_quietly(payload);
                        (None, Reason::Leaderless)
                    }
                };
                let found = moved.unwrap_or_else(|| {
                    let head = head.expect("a request that is not moved is still here");
                    let forward = Decision::Forward(Box::new(head), reason);
                    FollowerState::Decided(Box::new(forward))
                });
                let late = {
                    let mut state = data.state();
                    match state.followers.get_mut(slot) {
                        Some(follower @ FollowerState::Moving) => {
                            *follower = found;
                            None
                        }
                        _ => Some(found),
                    }
                };
                // Its caller has left, and dropping its request runs user code.
                drop_quietly(late);
            }
        }
    }

    /// Lets a follower wait in the flight of its own variant. `None` if that is full.
    fn move_head(
        &self,
        names: Option<&Arc<[HeaderName]>>,
        head: &mut Option<request::Parts>,
        number: Number,
        now: Instant,
    ) -> Option<FollowerState<X::Key>> {
        let old = &self.flight().data;
        let request = head.as_ref()?;
        let variant = names.map(|names| Variant::new(Arc::clone(names), &request.headers));
        let key = old.key.clone();
        let candidate = Candidate::new(&self.shared, old.hash, key, head, number, now);
        let caller = candidate.enter_moved(variant)?;
        #[cfg(feature = "redis")]
        {
            self.hand_on(caller.flight());
            self.shared.flights.one_more(caller.flight(), number);
        }
        if caller.flight().is_shared() {
            caller.promote();
        }
        Some(FollowerState::Decided(Box::new(Decision::Move(caller))))
    }
}
