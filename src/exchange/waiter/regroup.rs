//! A waiter's move to the flight of its own variant, which it may have to lead.

use std::sync::Arc;

use http::{HeaderName, response};
use tokio::time::Instant;

use super::state::{Turn, Waiter};
use crate::{
    exchange::{
        desk::Desk,
        join::{Joined, Newcomer},
        oneshot::Oneshot,
        origin::{Origin, OriginBody},
        seat::Seat,
        verdict,
        work::Work,
    },
    flights::{Cargo, Flight, Waiting},
    group::{Payload, Wakers, caught},
    key::{KeyExtractor, MayDiffer},
    observe::Reason,
    rules::{RequestFields, Variant},
};

impl<S, X, ReqBody, ResBody> Waiter<S, X, ReqBody, ResBody>
where
    S: Origin<ReqBody, ResBody>,
    X: KeyExtractor,
    ReqBody: Send + 'static,
    ResBody: OriginBody,
{
    /// See [`Waiting::regroup`].
    pub(super) fn move_from(
        self: &Arc<Self>,
        flight: &Flight<X::Key>,
        variant: &Variant,
        wakers: &mut Wakers,
    ) -> Result<(), Payload> {
        let (old, method, moves) = {
            let mut state = self.state.lock();
            let method = match &state.prospect {
                Some((_, request)) if !state.gone => request.method().clone(),
                _ => return Ok(()),
            };
            state.moves += 1;
            let seat = state.seat.take();
            wakers.push(seat.as_ref().and_then(Seat::take_waker));
            (seat, method, state.moves)
        };
        let me: Arc<dyn Waiting<X::Key>> = Arc::<Self>::clone(self);
        // The key's `Clone` and `Eq` are the user's. One who is in no flight must not wait for any.
        let joined = caught(|| {
            let now = Instant::now();
            let cargo = Cargo::new(
                &self.shared,
                flight.cargo.hash,
                flight.cargo.key.clone(),
                method,
                flight.cargo.epoch.map(|(target, _)| target),
                now,
            );
            let newcomer = Newcomer {
                flights: &self.shared.flights,
                now,
                max_waiters: self.shared.settings.max_waiters,
                differs: |variant: &Variant| self.differs(variant),
            };
            newcomer.enter(cargo, Some(&me))
        });
        match joined {
            Ok(Joined::Led(seat, _)) => {
                self.mark(&seat, variant.names());
                self.state.lock().leading = Some(seat);
            }
            Ok(Joined::Waits(seat)) => {
                seat.board(self.asker());
                self.resit(seat, None, moves, wakers);
            }
            Ok(Joined::Begins(seat, head)) => {
                seat.board(self.asker());
                self.resit(seat, Some(head), moves, wakers);
            }
            Ok(Joined::Full | Joined::Unprepared(_)) => self.forward(Reason::Full, wakers),
            Err(payload) => {
                self.forward(Reason::Leaderless, wakers);
                return Err(payload);
            }
        }
        drop(old);
        Ok(())
    }

    /// See [`Waiting::take_off`].
    pub(super) fn start_leading(&self, wakers: &mut Wakers) {
        let leading = self.state.lock().leading.take();
        if let Some(seat) = leading {
            self.lead(seat, wakers);
        }
    }

    /// Leads the flight of `seat` with the request that was kept.
    fn lead(&self, mut seat: Seat<X::Key>, wakers: &mut Wakers) {
        let prospect = {
            let mut state = self.state.lock();
            state.prospect.take()
        };
        let Some((service, request)) = prospect else {
            // The caller has gone. Whoever has joined meanwhile waits for nobody: they make their own calls.
            let waiting = verdict::close(seat.flight());
            for waiter in waiting {
                waiter.forward(Reason::Leaderless, wakers);
            }
            return;
        };
        self.sent_on(Reason::Vary);
        if self.shared.settings.finish_abandoned {
            seat.finish_abandoned();
        }
        let has_credentials = RequestFields::of(request.headers()).credentials;
        let desk = Desk::new(
            &self.shared,
            &request,
            has_credentials,
            MayDiffer::default(),
        );
        let flight = Arc::clone(seat.flight());
        seat.start(|| {
            flight.cargo.trace.begin(self.asker(), &request);
            let call = Oneshot::new(service, request);
            Work::new(flight, Arc::clone(&self.shared), Arc::clone(&desk), call)
        });
        let mut state = self.state.lock();
        if state.gone {
            drop(state);
            drop(seat);
            return;
        }
        let old = state.seat.replace(seat);
        wakers.push(old.as_ref().and_then(Seat::take_waker));
        wakers.push(state.parked.take());
        state.turn = Turn::Leads(desk);
        drop(state);
        drop(old);
    }

    /// Takes the seat of the flight that it was moved to by the move of this number.
    fn resit(
        &self,
        seat: Seat<X::Key>,
        head: Option<Arc<response::Parts>>,
        moves: usize,
        wakers: &mut Wakers,
    ) {
        let mut state = self.state.lock();
        if state.gone {
            drop(state);
            self.retire(seat);
            return;
        }
        // The new flight may have decided already: ended this waiter's part in it, or moved it on.
        if let (Some(head), true) = (head, state.moves == moves) {
            state.turn = Turn::Begins(head);
        }
        let stale = state.sit(seat, moves);
        wakers.push(state.parked.take());
        drop(state);
        drop(stale);
    }

    /// Whom the flight of `seat` is for, if its leader is still there.
    fn mark(&self, seat: &Seat<X::Key>, names: &Arc<[HeaderName]>) {
        let variant = {
            let state = self.state.lock();
            let prospect = state.prospect.as_ref();
            prospect.map(|(_, request)| Variant::new(Arc::clone(names), request.headers()))
        };
        if let Some(variant) = variant {
            seat.set_variant(variant);
        }
    }
}
