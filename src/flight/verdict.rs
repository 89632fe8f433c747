//! What a flight's failure or head means for waiting followers.
//!
//! Each function, here and in `body`, decides for all waiting followers under the state's lock, and wakes them last. A
//! flight that nobody may join any more is out of the table before anybody can see that.

use std::{any::Any, sync::Arc, task::Poll};

use bytes::Bytes;
use http::{Response, request, response};
use http_body::{Body, Frame};
use tokio::time::Instant;

use super::{
    audit::TakenOriginal,
    context::{Alone, PolledBody, WorkContext},
    head::ShareableHead,
    leader::LeaderResponse,
    state::{Flight, Stage, count_out},
};
use crate::{
    error::ShareError,
    group::{caught, drop_quietly},
    key::KeyExtractor,
    observe::Reason,
    rules::{self, Variant},
};

/// From now on nobody joins the flight. Returns how many followers wait, and what auditors compare with.
pub(super) fn close<K>(flight: &Arc<Flight<K>>) -> (usize, Option<TakenOriginal>) {
    let (is_joined, waiting, taken, _head) = {
        let mut state = flight.data.state();
        let taken = TakenOriginal::of(&mut state);
        (state.is_joined, state.followers.len(), taken, state.close())
    };
    if is_joined {
        flight.release();
    }
    (waiting, taken)
}

/// Dismisses the waiting followers of a flight that nobody joins any more, and counts them out (S3).
pub(super) fn dismiss<K>(flight: &Arc<Flight<K>>, stage: Stage) {
    let dismissed = flight.data.state().dismiss_all(stage);
    count_out(flight, dismissed);
}

// ===== impl WorkContext =====

impl<X> WorkContext<X>
where
    X: KeyExtractor,
{
    /// The call has failed: everybody gets the same failure.
    pub(super) fn fail<B, E>(&mut self, mut leader: Alone<'_, X::Key, B, E>, mut error: E)
    where
        B: Send + 'static,
        E: ShareError + Send + Sync + 'static,
    {
        if !self.end_alone(&mut leader) {
            return self.fail_all(leader, error);
        }
        // So that the leader's error is of the same make in company and alone.
        drop(error.share());
        self.leave(leader, Err(error));
    }

    /// As `fail`, of a flight that is whole.
    pub(super) fn fail_all<B, E>(&self, leader: Alone<'_, X::Key, B, E>, mut error: E)
    where
        B: Send + 'static,
        E: ShareError + Send + Sync + 'static,
    {
        #[cfg(feature = "redis")]
        let elsewhere = self.failure(&error);
        let (waiting, taken) = close(self.flight());
        let share = |_| Box::new(error.share()) as Box<dyn Any + Send>;
        let shares = (0..waiting).map(share).collect();
        // Also where nobody waits, as in `fail`.
        drop(error.share());
        self.leave(leader, Err(error));
        dismiss(self.flight(), Stage::Failed(shares));
        self.conclude(taken);
        #[cfg(feature = "redis")]
        if let Some((answering, answer)) = elsewhere {
            answering.answer(answer);
        }
    }

    /// The head has come: may others have the response at all? `None`: it is only for the leader, which has it.
    pub(super) fn judge<B, E>(
        &mut self,
        leader: &mut Alone<'_, X::Key, B, E>,
        response: Response<B>,
    ) -> Option<(ShareableHead, B)>
    where
        B: Body + Send + 'static,
        E: Send + 'static,
    {
        let (parts, body) = response.into_parts();
        let remembered = &self.shared.flights.unshareable;
        let shareable = rules::may_share(self.request.has_credentials, &parts)
            && (self.shared.settings.policy)(&parts);
        if !shareable {
            if rules::marks_key_unshareable(&parts) {
                remembered.insert(self.request.hash, Instant::now());
            }
            self.release(leader, parts, body, Reason::Unshareable);
            return None;
        }
        remembered.remove(self.request.hash);
        let mut head = ShareableHead::new(&self.request.method, parts, &body);
        if !head.is_there() {
            self.make_whole(leader);
        }
        if !self.reserve(&mut head) {
            self.release(leader, head.parts, body, Reason::TooLarge);
            return None;
        }
        Some((head, body))
    }

    /// The response goes unchanged to its leader only. Everybody else makes their own call.
    fn release<B, E>(
        &mut self,
        leader: &mut Alone<'_, X::Key, B, E>,
        parts: response::Parts,
        body: B,
        reason: Reason,
    ) where
        B: Send + 'static,
        E: Send + 'static,
    {
        let response = Ok(LeaderResponse::Untouched(Response::from_parts(parts, body)));
        if self.end_alone(leader) {
            return self.leave(leader.take(), response);
        }
        #[cfg(feature = "redis")]
        self.refuse_elsewhere(reason);
        let (_, taken) = close(self.flight());
        self.leave(leader.take(), response);
        dismiss(self.flight(), Stage::Refused(reason));
        if let Some(taken) = taken {
            taken.refuse();
        }
    }

    /// Lets followers that may have the response begin, and moves the others. The caller of this function wakes them
    /// once it has pulled what there is of the body: a server that sees head and body together writes them together.
    ///
    /// Returns what the source has given of the body so far. `None`: the response is complete.
    pub(super) fn open<B, E>(
        &mut self,
        mut leader: Alone<'_, X::Key, B, E>,
        head: ShareableHead,
        first: PolledBody,
    ) -> Option<PolledBody>
    where
        B: Send + 'static,
        E: Send + 'static,
    {
        let ShareableHead {
            parts,
            expected,
            hint,
            is_empty,
            announced,
        } = head;
        let first = match first {
            Poll::Ready(Some(Ok(pulled))) if pulled.is_last => {
                let len = pulled.frame.data_ref().map_or(0, |data| data.len() as u64);
                let is_whole = expected.is_none_or(|expected| expected == len);
                if is_whole && self.close_alone(&mut leader, &parts, Some(&pulled.frame)) {
                    self.leave(leader, Ok(LeaderResponse::Whole(parts, Some(pulled.frame))));
                    return None;
                }
                Poll::Ready(Some(Ok(pulled)))
            }
            other => other,
        };
        if is_empty && expected.unwrap_or(0) == 0 && self.close_alone(&mut leader, &parts, None) {
            self.leave(leader, Ok(LeaderResponse::Whole(parts, None)));
            return None;
        }
        self.make_whole(&mut leader);

        let fits = announced || self.announce(expected, hint);
        let is_shared = fits && self.share(&parts);
        self.leave(leader, Ok(LeaderResponse::Shared(parts)));
        let reason = match fits {
            true => Reason::Unshareable,
            false => Reason::TooLarge,
        };
        if !is_shared {
            self.refuse_followers(reason);
        }
        Some(match first {
            Poll::Pending if is_empty => Poll::Ready(None),
            first => first,
        })
    }

    /// Shares the response with all followers of its variant. `false` if its head can't be copied.
    fn share(&self, parts: &response::Parts) -> bool {
        let data = &self.flight().data;
        // Cloning the extensions is user code: its panic must not cost the leader its response.
        let head = match caught(|| rules::copy_head(parts)) {
            Ok(head) => Arc::new(head),
            Err(payload) => {
                drop_quietly(payload);
                return false;
            }
        };
        let variant = self.variant(parts).map(|variant| {
            let varying = &self.shared.flights.varying;
            let varying = varying.insert(self.request.hash, variant.names());
            (variant, varying)
        });
        let of = variant.as_ref().map(|(variant, _)| variant.clone());
        let (others, _old) = {
            let mut state = data.state();
            if state.is_closed && state.original.is_none() {
                // It has given way to a buffer that is shared.
                return true;
            }
            // A flight at a variant's position stays with that variant, even if this response has no `Vary`.
            let old = variant.and_then(|variant| state.variant.replace(variant));
            let others: Vec<_> = match &of {
                Some(_) => state.followers.iter().map(|(slot, _)| slot).collect(),
                None => Vec::new(),
            };
            if others.is_empty() {
                state.stage = Stage::Shared(Arc::clone(&head));
            }
            (others, old)
        };
        let Some(of) = of.filter(|_| !others.is_empty()) else {
            return true;
        };
        let differs = |head: &request::Parts, _| !of.matches(&head.headers);
        self.move_all(&others, Some(of.names()), &differs);
        data.state().stage = Stage::Shared(head);
        true
    }

    /// Which requests of this key the response is for, if not for all.
    pub(super) fn variant(&self, parts: &response::Parts) -> Option<Variant> {
        let mut names = rules::varies_by(parts, &self.request.fields);
        // Fields that are in the key are the same for all.
        names.retain(|name| self.shared.may_differ(name));
        (!names.is_empty()).then(|| Variant::of_fields(names.into(), &self.request.fields))
    }

    /// Ends a flight whose response is complete, if its leader is alone.
    fn close_alone<B, E>(
        &mut self,
        leader: &mut Alone<'_, X::Key, B, E>,
        parts: &response::Parts,
        frame: Option<&Frame<Bytes>>,
    ) -> bool {
        if self.end_alone(leader) {
            return true;
        }
        let original = {
            let mut state = self.flight().data.state();
            if state.is_joined {
                return false;
            }
            state.is_closed = true;
            state.original.take()
        };
        #[cfg(feature = "redis")]
        self.end_elsewhere_soon();
        if let Some(original) = original {
            self.conclude_whole(&original, parts, frame);
        }
        true
    }
}
