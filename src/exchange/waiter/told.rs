//! What flights tell a waiter.

use std::{any::Any, sync::Arc};

use http::response;

use super::state::{Turn, Waiter};
use crate::{
    error::ShareError,
    exchange::{
        origin::{Origin, OriginBody},
        seat::Seat,
    },
    flights::{Flight, Waiting},
    group::{Payload, Wakers},
    key::KeyExtractor,
    observe::Reason,
    rules::Variant,
    sync::Ordering,
};

impl<S, X, ReqBody, ResBody> Waiting<X::Key> for Waiter<S, X, ReqBody, ResBody>
where
    S: Origin<ReqBody, ResBody>,
    X: KeyExtractor,
    ReqBody: Send + 'static,
    ResBody: OriginBody,
{
    fn linked(&self, slot: usize) {
        self.slot.store(slot, Ordering::Release);
    }

    fn differs(&self, variant: &Variant) -> bool {
        let state = self.state.lock();
        state
            .prospect
            .as_ref()
            .is_some_and(|(_, request)| !variant.matches(request.headers()))
    }

    fn begin(&self, head: &Arc<response::Parts>, wakers: &mut Wakers) {
        let mut state = self.state.lock();
        if state.gone {
            return;
        }
        wakers.push(state.parked.take());
        wakers.push(state.seat.as_ref().and_then(Seat::take_waker));
        state.turn = Turn::Begins(Arc::clone(head));
    }

    fn forward(&self, reason: Reason, wakers: &mut Wakers) {
        if self.decide(Turn::Forwarded(None), wakers) {
            self.sent_on(reason);
        }
    }

    fn refuse(&self, flight: &Arc<Flight<X::Key>>, wakers: &mut Wakers) {
        if self.decide(Turn::Forwarded(Some(Arc::clone(flight))), wakers) {
            self.sent_on(Reason::Unshareable);
        }
    }

    fn fail(&self, error: &mut dyn Any, wakers: &mut Wakers) {
        match error.downcast_mut::<S::Error>() {
            Some(error) => {
                let share = error.share();
                self.decide(Turn::Failed(share), wakers);
            }
            // One layer over services whose errors differ in type.
            None => self.forward(Reason::ErrorType, wakers),
        }
    }

    fn regroup(
        self: Arc<Self>,
        flight: &Flight<X::Key>,
        variant: &Variant,
        wakers: &mut Wakers,
    ) -> Result<(), Payload> {
        self.move_from(flight, variant, wakers)
    }

    fn take_off(&self, wakers: &mut Wakers) {
        self.start_leading(wakers);
    }
}
