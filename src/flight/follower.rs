//! A follower that waits for its head.

use std::{
    panic::resume_unwind,
    task::{Context, Poll},
};

use http::{Request, request};

use super::{caller::Caller, state::Decision};
use crate::{
    group::caught,
    key::KeyExtractor,
    observe::{CallerSpan, Reason},
    service::Singleflight,
};

/// It keeps what it needs for its own call, except its request's head: that is in its place in the flight, where the
/// deciding code can see it.
pub(crate) struct Follower<S, X, ReqBody>
where
    // The shared state depends on the key's type.
    X: KeyExtractor,
{
    pub(crate) caller: Caller<X::Key>,
    pub(crate) own: Own<S, X, ReqBody>,
}

/// What a caller needs for its own call, beside its request's head.
pub(crate) struct Own<S, X, ReqBody>
where
    X: KeyExtractor,
{
    pub(crate) service: Singleflight<S, X>,
    pub(crate) body: ReqBody,
    pub(crate) span: CallerSpan,
    /// How often it has moved on from the body of a flight.
    pub(crate) moves: u8,
}

// ===== impl Own =====

impl<S, X, ReqBody> Own<S, X, ReqBody>
where
    X: KeyExtractor,
{
    /// The caller makes its own call after all.
    pub(crate) fn forward(
        self,
        head: Box<request::Parts>,
        reason: Reason,
    ) -> (Singleflight<S, X>, Request<ReqBody>, CallerSpan) {
        self.service.count_forwarded(&self.span, reason);
        let request = Request::from_parts(*head, self.body);
        (self.service, request, self.span)
    }
}

// ===== impl Follower =====

impl<S, X, ReqBody> Follower<S, X, ReqBody>
where
    X: KeyExtractor,
{
    /// Drives the flight if that is this caller's part, until there is a decision for it. Handles [`Decision::Move`]
    /// itself.
    ///
    /// # Panics
    ///
    /// If the flight's work did.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Decision<X::Key>> {
        let mut is_polled = false;
        loop {
            match self.caller.take_decision() {
                Some(Decision::Move(caller)) => {
                    caller.flight().data.trace.joined(&self.own.span);
                    self.caller = caller;
                    is_polled = false;
                    continue;
                }
                Some(decision) => return Poll::Ready(decision),
                None if is_polled => return Poll::Pending,
                None => {}
            }
            match caught(|| self.caller.poll(cx)) {
                // Check again: the decision may have been made before the waker was stored, or by this very poll.
                Ok(Poll::Pending) => {}
                Ok(Poll::Ready(())) => {
                    // The flight has ended without a decision.
                    if let Some(head) = self.caller.give_up() {
                        return Poll::Ready(Decision::Forward(head, Reason::Leaderless));
                    }
                    // It was cancelled, and its last callers are being moved: there is no place for a waker any more.
                    cx.waker().wake_by_ref();
                }
                // It is not part of that flight any more.
                Err(_) if self.caller.is_dismissed() => cx.waker().wake_by_ref(),
                Err(payload) => resume_unwind(payload),
            }
            is_polled = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::Ready, sync::Arc, task::Waker};

    use bytes::Bytes;
    use http::Response;
    use http_body_util::Empty;
    use tokio::time::Instant;
    use tower::{Layer, service_fn};

    use super::*;
    use crate::{
        SingleflightLayer,
        flight::{
            Admitted, Candidate, Lead,
            state::{FollowerState, count_out},
        },
        group::Work,
        key::method_and_uri,
        shared::Shared,
    };

    fn enter<X: KeyExtractor>(shared: &Shared<X>) -> Admitted<X::Key> {
        let mut head = Some(Request::new(()).into_parts().0);
        let key = shared.extractor.extract(head.as_ref().unwrap()).unwrap();
        let number = shared.flights.number();
        Candidate::new(shared, 0, key, &mut head, number, Instant::now()).enter()
    }

    /// One who leads, and one who follows.
    fn leader_and_follower<S, X: KeyExtractor>(
        service: Singleflight<S, X>,
    ) -> (Lead<X::Key>, Follower<S, X, ()>) {
        let Admitted::Leads(lead, _) = enter(&service.shared) else {
            unreachable!("it is the first")
        };
        let Admitted::Waits(caller) = enter(&service.shared) else {
            unreachable!("there is no head yet")
        };
        let own = Own {
            service,
            body: (),
            span: CallerSpan::current(),
            moves: 0,
        };
        (lead, Follower { caller, own })
    }

    fn end<K: Send + Sync + 'static>(lead: &mut Lead<K>, cx: &mut Context<'_>) {
        let leader = lead.make_whole();
        leader.hand_in(Work::make(|| async {}));
        assert!(leader.poll(cx).is_ready());
    }

    fn inner(_: Request<()>) -> Ready<Result<Response<Empty<Bytes>>, Infallible>> {
        std::future::ready(Ok(Response::new(Empty::new())))
    }

    #[test]
    fn a_follower_makes_its_own_call_if_its_flight_ends_without_a_word() {
        let layer = SingleflightLayer::with_key(method_and_uri);
        let (mut lead, mut follower) = leader_and_follower(layer.layer(service_fn(inner)));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(follower.poll(&mut cx).is_pending());
        end(&mut lead, &mut cx);
        let Poll::Ready(Decision::Forward(_, reason)) = follower.poll(&mut cx) else {
            panic!("it waits for what will not come")
        };
        assert_eq!(reason, Reason::Leaderless);
        drop((lead, follower));
        assert_eq!(layer.handle().stats().waiters, 0);
    }

    #[test]
    fn a_follower_that_is_being_moved_when_its_flight_has_ended_asks_again_and_again() {
        let layer = SingleflightLayer::with_key(method_and_uri);
        let (mut lead, mut follower) = leader_and_follower(layer.layer(service_fn(inner)));
        let mut cx = Context::from_waker(Waker::noop());
        let flight = Arc::clone(follower.caller.flight());
        let dismissed = flight.data.state().dismiss(0);
        count_out(&flight, 1);
        end(&mut lead, &mut cx);
        for _ in 0..3 {
            assert!(follower.poll(&mut cx).is_pending());
            assert!(follower.caller.poll(&mut cx).is_ready());
        }
        drop((lead, follower, dismissed));
        assert_eq!(layer.handle().stats().waiters, 0);
    }

    #[test]
    fn a_follower_that_has_a_decision_of_its_own_is_not_moved_once_more() {
        let layer = SingleflightLayer::with_key(method_and_uri);
        let (lead, mut follower) = leader_and_follower(layer.layer(service_fn(inner)));
        let flight = Arc::clone(follower.caller.flight());
        let dismissed = flight.data.state().dismiss(0);
        count_out(&flight, 1);
        let (head, _) = dismissed.expect("it waits");
        let forward = Box::new(Decision::Forward(head, Reason::Full));
        flight.data.state().followers[0] = FollowerState::Decided(forward);
        assert!(flight.data.state().dismiss(0).is_none());
        let polled = follower.poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(
            polled,
            Poll::Ready(Decision::Forward(_, Reason::Full))
        ));
        drop((lead, follower));
        assert_eq!(layer.handle().stats().waiters, 0);
    }
}
