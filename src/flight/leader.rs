//! The caller whose request is forwarded.

use std::{
    mem,
    panic::resume_unwind,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Response, response};
use http_body::Frame;

use super::{
    caller::Caller,
    reader::Reader,
    solo::SoloLeader,
    state::{Flight, HttpFlight},
};
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
        let Lead::Solo(leader) = &mut self.lead else {
            unreachable!("only a solo leader polls alone");
        };
        let ended = leader.end();
        self.lead = match ended {
            Ok(()) => Lead::Over,
            Err(caller) => Lead::Whole(caller),
        };
        match &self.lead {
            Lead::Whole(caller) => Err(Arc::clone(caller.flight())),
            _ => Ok(()),
        }
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
        match &mut self.lead {
            Lead::Solo(leader) => {
                if let Some((caller, polled)) = leader.inner.start(work) {
                    self.become_caller(caller, polled);
                }
            }
            Lead::Whole(caller) => caller.start(work),
            Lead::Over => unreachable!("it has just begun"),
        }
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
                Ok((work, left)) => {
                    let polled = work.poll(cx, PolledBy::Solo(self));
                    self.polled(polled, left, cx);
                }
                Err(caller) => self.become_caller(caller, None),
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
        let caller = match mem::replace(&mut self.lead, Lead::Over) {
            Lead::Whole(caller) => Some(caller),
            _ => None,
        };
        let (parts, body) = match response? {
            LeaderResponse::Shared(parts) => {
                let caller = caller.expect("a flight whose body streams is whole");
                return Poll::Ready(Ok((parts, ResponseBody::shared(Reader::new(caller)))));
            }
            LeaderResponse::Untouched(response) => {
                let (parts, body) = response.into_parts();
                (parts, ResponseBody::inner(body))
            }
            LeaderResponse::Whole(parts, frame) => (parts, ResponseBody::one_frame(frame)),
        };
        if let Some(caller) = caller {
            caller.leave_alone();
        }
        Poll::Ready(Ok((parts, body)))
    }

    /// Does what is left to do after this leader has polled the work.
    fn polled(&mut self, polled: Polled<()>, left: bool, cx: &Context<'_>) {
        match &mut self.lead {
            Lead::Solo(leader) => {
                if let Poll::Ready(Err((caller, polled))) = leader.inner.polled(polled, left, cx) {
                    self.become_caller(caller, polled);
                }
            }
            // The work has made it whole.
            Lead::Whole(caller) => caller.hand_in(polled),
            // Or has ended it.
            Lead::Over => {
                if let Polled::Ended(Err(payload)) = polled {
                    resume_unwind(payload);
                }
            }
        }
    }

    /// The flight is not solo any more.
    fn become_caller(
        &mut self,
        caller: group::Caller<(), (), HttpFlight<K>>,
        polled: Option<Polled<()>>,
    ) {
        // Before anything else: a panic from here on finds the caller where it belongs.
        self.lead = Lead::Whole(Caller::was_solo(caller));
        if let (Lead::Whole(caller), Some(polled)) = (&mut self.lead, polled) {
            caller.hand_in(polled);
        }
    }
}

impl<K, B, E> Drop for Leader<K, B, E> {
    fn drop(&mut self) {
        let Lead::Whole(caller) = mem::replace(&mut self.lead, Lead::Over) else {
            return;
        };
        let flight = Arc::clone(caller.flight());
        drop(caller);
        // Nobody comes for it now. What is left later is dropped by the work.
        let unclaimed = flight.data.state().response.take();
        drop(unclaimed);
    }
}
