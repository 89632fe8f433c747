//! The caller whose request is forwarded.

use std::{
    mem,
    panic::resume_unwind,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Method, Response, response};
use http_body::Frame;

use super::{caller::Caller, reader::Reader, solo::SoloLeader, state::Flight};
use crate::{
    body::ResponseBody,
    group::{self, Drive, Polled, PolledBy},
    rules::Fields,
};

/// Leads a flight until its response is there.
pub(crate) struct Leader<K, B, E> {
    lead: Lead<K>,
    /// The work leaves it here if this leader polls it alone, else in the flight.
    response: Option<Result<LeaderResponse<B>, E>>,
}

/// The leader's part in its flight.
pub(crate) enum Lead<K> {
    Solo(SoloLeader<K>),
    Whole(Caller<K>),
    Over,
}

/// What we need of the leader's request when its response comes.
pub(crate) struct LeaderRequest {
    /// Where its key's flights are.
    pub(crate) hash: u64,
    pub(crate) method: Method,
    pub(crate) has_credentials: bool,
    /// The fields in which an identical request may differ: for `Vary`.
    pub(crate) fields: Fields,
}

/// What a leader gets.
pub(crate) enum LeaderResponse<B> {
    /// The unchanged response; the flight is over.
    Untouched(Response<B>),
    /// The complete response, which ended before anybody joined.
    Whole(response::Parts, Option<Frame<Bytes>>),
    /// The head; the body is read through the flight.
    Shared(response::Parts),
}

// ===== impl Lead =====

impl<K> Lead<K> {
    /// The leader's part in a flight that is whole.
    pub(crate) fn caller(&self) -> Option<&Caller<K>> {
        match self {
            Self::Whole(caller) => Some(caller),
            _ => None,
        }
    }

    /// The flight, made whole.
    pub(crate) fn make_whole(&mut self) -> &mut Caller<K> {
        if let Self::Solo(leader) = self {
            *self = Self::Whole(leader.make_whole());
        }
        match self {
            Self::Whole(caller) => caller,
            _ => unreachable!("it leads"),
        }
    }
}

// ===== impl Leader =====

impl<K, B, E> Leader<K, B, E> {
    pub(crate) fn new(lead: Lead<K>) -> Self {
        Self {
            lead,
            response: None,
        }
    }

    /// Ends a flight that is solo. `Err`: it is whole by now.
    pub(super) fn end(&mut self) -> Result<(), Arc<Flight<K>>> {
        // It is over even if dropping the key panics.
        let Lead::Solo(mut leader) = mem::replace(&mut self.lead, Lead::Over) else {
            unreachable!("only a solo leader polls alone");
        };
        leader.end().map_err(|caller| {
            let flight = Arc::clone(caller.flight());
            self.lead = Lead::Whole(caller);
            flight
        })
    }

    pub(super) fn make_whole(&mut self) -> Arc<Flight<K>> {
        Arc::clone(self.lead.make_whole().flight())
    }

    pub(super) fn give(&mut self, response: Result<LeaderResponse<B>, E>) {
        self.response = Some(response);
    }
}

impl<K, B, E> Leader<K, B, E>
where
    K: Send + Sync + 'static,
    B: Send + 'static,
    E: Send + 'static,
{
    /// The leader's first act.
    pub(crate) fn start<F, D>(&mut self, work: F)
    where
        F: FnOnce() -> D,
        D: Drive<Output = ()> + 'static,
    {
        self.hand_in(group::Work::make(work), None);
    }

    /// Gives the head and the body of the leader's own response.
    ///
    /// # Panics
    ///
    /// If the flight's work did.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(response::Parts, ResponseBody<B>), E>> {
        if let Lead::Solo(leader) = &mut self.lead {
            match leader.inner.take_work(cx) {
                Ok((work, waker)) => {
                    let polled = work.poll(cx, PolledBy::Solo(self));
                    self.hand_in(polled, waker);
                }
                Err(caller) => self.lead = Lead::Whole(Caller::was_solo(caller)),
            }
        }
        let response = match (self.response.take(), &mut self.lead) {
            (Some(response), _) => response,
            (None, Lead::Solo(_)) => return Poll::Pending,
            (None, Lead::Whole(caller)) => {
                let over = caller.poll(cx);
                let Some(response) = caller.take_response() else {
                    assert!(
                        over.is_pending(),
                        "a flight answers its leader before it ends"
                    );
                    return Poll::Pending;
                };
                let response = response.downcast();
                *response.expect("left by the work that this leader has made")
            }
            (None, Lead::Over) => panic!("polled after completion"),
        };
        let lead = mem::replace(&mut self.lead, Lead::Over);
        Poll::Ready(response.map(|response| match (response, lead) {
            (LeaderResponse::Shared(parts), Lead::Whole(caller)) => {
                (parts, ResponseBody::shared(Reader::new(caller)))
            }
            (LeaderResponse::Shared(_), _) => unreachable!("a flight that streams is whole"),
            (LeaderResponse::Untouched(response), _) => {
                let (parts, body) = response.into_parts();
                (parts, ResponseBody::inner(body))
            }
            (LeaderResponse::Whole(parts, frame), _) => (parts, ResponseBody::one_frame(frame)),
        }))
    }

    /// Puts the work where it belongs, after this leader has made or polled it, and `waker` with it.
    ///
    /// # Panics
    ///
    /// If the work did.
    fn hand_in(&mut self, polled: Polled<()>, waker: Option<&Waker>) {
        if let Lead::Solo(leader) = &mut self.lead {
            match polled {
                Polled::Pending(work) => {
                    if let Err(caller) = leader.inner.put_back(work, waker) {
                        self.lead = Lead::Whole(Caller::was_solo(caller));
                    }
                    return;
                }
                // It has panicked: otherwise it would have ended the flight itself.
                Polled::Ended(_) => drop(self.end()),
            }
        }
        match (&mut self.lead, polled) {
            (Lead::Whole(caller), polled) => caller.hand_in(polled),
            (Lead::Over, Polled::Ended(Err(payload))) => resume_unwind(payload),
            _ => {}
        }
    }
}
