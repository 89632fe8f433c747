//! A follower that waits for its head.
//!
//! It keeps its own request, and an instance of the inner service, for the case that it must make its own call. Both lie
//! where the flight can reach them, so that the verdict itself can move it into another flight, polled or not.
//!
//! A waiter's lock nests inside an exchange's, and a flight's state inside it. A waiter whose seat is not there is being
//! boarded, polled or moved by somebody; whoever comes back with a seat finds in `turn` whether it is still the right one.

use std::{
    any::Any,
    mem,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use http::{HeaderName, Request, response};
use tower_service::Service;

use super::{
    desk::Desk,
    join::{Joined, Newcomer},
    oneshot::Oneshot,
    origin::{Origin, OriginBody},
    seat::Seat,
    verdict,
    work::{Asked, Work},
};
use crate::{
    error::ShareError,
    flights::{Cargo, Event, Flight, Shared, Waiting},
    group::{Interest, Wakers},
    key::KeyExtractor,
    observe::Reason,
    rules::Variant,
    sync::{AtomicUsize, Mutex, Ordering},
};

pub(crate) struct Waiter<S, X, ReqBody, ResBody>
where
    // The states hold the service's error, and the key's type.
    S: Service<Request<ReqBody>>,
    X: KeyExtractor,
{
    shared: Arc<Shared<X>>,
    /// Where it is linked in its flight's exchange. Written and read under the exchange's lock.
    slot: AtomicUsize,
    #[expect(clippy::type_complexity, reason = "the waiter's own parameters")]
    state: Mutex<State<S, X::Key, ReqBody, ResBody, S::Error>>,
}

struct State<S, K, ReqBody, ResBody, E> {
    turn: Turn<ResBody, E>,
    seat: Option<Seat<K>>,
    prospect: Option<(S, Request<ReqBody>)>,
    /// Left by a poll that found no seat.
    parked: Option<Waker>,
    /// Its caller has gone, or has given up waiting.
    gone: bool,
}

/// What the flight has decided.
pub(crate) enum Turn<ResBody, E> {
    Waiting,
    Begins(Arc<response::Parts>),
    Leads(Arc<Desk<ResBody, E>>),
    Forwarded,
    Failed(E),
}

/// What a waiter becomes.
pub(crate) enum Next<S, K, ReqBody, ResBody, E> {
    Begin(Seat<K>, Arc<response::Parts>),
    Lead(Seat<K>, Arc<Desk<ResBody, E>>),
    Forward(S, Request<ReqBody>),
    Fail(E),
}

// ===== impl Waiter =====

impl<S, X, ReqBody, ResBody> Waiter<S, X, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
    X: KeyExtractor,
{
    pub(crate) fn new(shared: Arc<Shared<X>>, service: S, request: Request<ReqBody>) -> Self {
        Self {
            shared,
            slot: AtomicUsize::new(usize::MAX),
            state: Mutex::new(State {
                turn: Turn::Waiting,
                seat: None,
                prospect: Some((service, request)),
                parked: None,
                gone: false,
            }),
        }
    }

    /// The request comes back from a waiter that nobody else has seen.
    pub(crate) fn take_prospect(&self) -> Option<(S, Request<ReqBody>)> {
        self.state.lock().prospect.take()
    }

    /// Takes a seat that comes late, unless the flight it is of has nothing more to do with this waiter.
    pub(crate) fn sit(&self, seat: Seat<X::Key>) {
        let stale = self.state.lock().sit(seat);
        drop(stale);
    }

    /// Drives the flight where that is this caller's part, until something is decided.
    ///
    /// # Panics
    ///
    /// If the flight crashed.
    #[expect(clippy::type_complexity, reason = "the waiter's own parameters")]
    pub(crate) fn poll_turn(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Next<S, X::Key, ReqBody, ResBody, S::Error>> {
        loop {
            let mut state = self.state.lock();
            let mut seat = match mem::replace(&mut state.turn, Turn::Waiting) {
                Turn::Begins(head) => {
                    let seat = state.seat.take().expect("a caller that begins has a seat");
                    return Poll::Ready(Next::Begin(seat, head));
                }
                Turn::Leads(desk) => {
                    let seat = state.seat.take().expect("a caller that leads has a seat");
                    return Poll::Ready(Next::Lead(seat, desk));
                }
                Turn::Forwarded => {
                    let prospect = state.prospect.take();
                    let (service, request) = prospect.expect("a waiter keeps its request");
                    return Poll::Ready(Next::Forward(service, request));
                }
                Turn::Failed(error) => return Poll::Ready(Next::Fail(error)),
                Turn::Waiting => match state.seat.take() {
                    Some(seat) => seat,
                    None => {
                        // It is being moved, by somebody who looks here afterwards.
                        if state
                            .parked
                            .as_ref()
                            .is_some_and(|parked| parked.will_wake(cx.waker()))
                        {
                            return Poll::Pending;
                        }
                        drop(state);
                        let waker = cx.waker().clone();
                        let mut state = self.state.lock();
                        if state.is_moving() {
                            let old = state.parked.replace(waker);
                            drop(state);
                            drop(old);
                            return Poll::Pending;
                        }
                        continue;
                    }
                },
            };
            drop(state);
            let polled = seat.poll(Interest::End, cx);
            let mut state = self.state.lock();
            let stale = state.sit(seat);
            // One who was moved meanwhile has left no waker where it is now.
            let undecided = matches!(state.turn, Turn::Waiting) && stale.is_none();
            if undecided && polled.is_ready() {
                // The flight has ended and has said nothing: it is served without.
                state.turn = Turn::Forwarded;
                let seat = state.seat.take();
                drop(state);
                drop(seat);
                self.shared
                    .flights
                    .gauges
                    .count(Event::Forwarded(Reason::Leaderless));
                continue;
            }
            drop(state);
            drop(stale);
            if undecided && polled.is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Stops waiting, unless something has been decided. The request is the caller's again.
    pub(crate) fn give_up(&self) -> Option<(S, Request<ReqBody>)> {
        let (seat, prospect) = {
            let mut state = self.state.lock();
            if !matches!(state.turn, Turn::Waiting) {
                return None;
            }
            let prospect = state.prospect.take()?;
            state.gone = true;
            (state.seat.take(), prospect)
        };
        self.shared
            .flights
            .gauges
            .count(Event::Forwarded(Reason::Timeout));
        if let Some(seat) = seat {
            self.retire(seat);
        }
        Some(prospect)
    }

    /// The caller has gone.
    pub(crate) fn leave(&self) {
        let (seat, left) = {
            let mut state = self.state.lock();
            state.gone = true;
            let turn = mem::replace(&mut state.turn, Turn::Waiting);
            (
                state.seat.take(),
                (state.prospect.take(), state.parked.take(), turn),
            )
        };
        if let Some(seat) = seat {
            self.retire(seat);
        }
        drop(left);
    }

    /// Unlinks the waiter from the flight of `seat`, and leaves that.
    fn retire(&self, seat: Seat<X::Key>) {
        let unlinked = {
            let mut exchange = seat.flight().cargo.exchange.lock();
            exchange.unlink(self.slot.load(Ordering::Acquire), std::ptr::from_ref(self))
        };
        drop(unlinked);
        drop(seat);
    }

    /// Puts a decision that ends this waiter's part in its flight. `false` if there is nobody to hear it.
    fn decide(&self, turn: Turn<ResBody, S::Error>, wakers: &mut Wakers) -> bool {
        let (seat, old) = {
            let mut state = self.state.lock();
            if state.gone {
                return false;
            }
            wakers.push(state.parked.take());
            let seat = state.seat.take();
            wakers.push(seat.as_ref().and_then(Seat::take_waker));
            (seat, mem::replace(&mut state.turn, turn))
        };
        drop(seat);
        drop(old);
        true
    }
}

impl<S, X, ReqBody, ResBody> Waiter<S, X, ReqBody, ResBody>
where
    S: Origin<ReqBody, ResBody>,
    X: KeyExtractor,
    ReqBody: Send + 'static,
    ResBody: OriginBody,
{
    /// Leads the flight of `seat` with the request that was kept.
    fn lead(&self, mut seat: Seat<X::Key>, names: &Arc<[HeaderName]>, wakers: &mut Wakers) {
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
        seat.set_variant(Variant::new(Arc::clone(names), request.headers()));
        self.shared
            .flights
            .gauges
            .count(Event::Forwarded(Reason::Vary));
        if self.shared.settings.finish_abandoned {
            seat.finish_abandoned();
        }
        let desk = Arc::new(Desk::new());
        let flight = Arc::clone(seat.flight());
        seat.start(|| {
            let asked = Asked::new(&self.shared, &request);
            flight.cargo.trace.begin(&request);
            let call = Oneshot::new(service, request);
            Work::new(
                flight,
                Arc::clone(&self.shared),
                Arc::clone(&desk),
                asked,
                call,
            )
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

    /// Takes the seat of the flight it was moved to.
    fn resit(&self, seat: Seat<X::Key>, head: Option<Arc<response::Parts>>, wakers: &mut Wakers) {
        let mut state = self.state.lock();
        if state.gone {
            drop(state);
            self.retire(seat);
            return;
        }
        wakers.push(state.parked.take());
        if let Some(head) = head {
            state.turn = Turn::Begins(head);
        }
        // The new flight may have decided already, and may have ended this waiter's part in it.
        let stale = match state.turn {
            Turn::Waiting | Turn::Begins(_) => state.seat.replace(seat),
            _ => Some(seat),
        };
        wakers.push(stale.as_ref().and_then(Seat::take_waker));
        drop(state);
        drop(stale);
    }
}

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
        if self.decide(Turn::Forwarded, wakers) {
            self.shared.flights.gauges.count(Event::Forwarded(reason));
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

    fn regroup(self: Arc<Self>, flight: &Flight<X::Key>, variant: &Variant, wakers: &mut Wakers) {
        let (old, method) = {
            let mut state = self.state.lock();
            if state.gone {
                return;
            }
            let Some((_, request)) = &state.prospect else {
                return;
            };
            let method = request.method().clone();
            let seat = state.seat.take();
            wakers.push(seat.as_ref().and_then(Seat::take_waker));
            (seat, method)
        };
        let cargo = Cargo::new(
            &self.shared,
            flight.cargo.hash,
            flight.cargo.key.clone(),
            method,
            flight.cargo.stamp.map(|(target, _)| target),
        );
        let newcomer = Newcomer {
            flights: &self.shared.flights,
            max_waiters: self.shared.settings.max_waiters,
            differs: |variant: &Variant| self.differs(variant),
        };
        let me: Arc<dyn Waiting<X::Key>> = self.clone();
        match newcomer.enter(cargo, Some(&me)) {
            Joined::Led(seat, _) => self.lead(seat, variant.names(), wakers),
            Joined::Waits(seat) => {
                seat.board();
                self.resit(seat, None, wakers);
            }
            Joined::Begins(seat, head) => {
                seat.board();
                self.resit(seat, Some(head), wakers);
            }
            Joined::Full | Joined::Unprepared(_) => self.forward(Reason::Full, wakers),
        }
        drop(old);
    }
}

// ===== impl State =====

impl<S, K, ReqBody, ResBody, E> State<S, K, ReqBody, ResBody, E> {
    /// Takes the seat, or gives it back because it is of a flight that this waiter is no longer in.
    fn sit(&mut self, seat: Seat<K>) -> Option<Seat<K>> {
        let wanted = matches!(self.turn, Turn::Waiting | Turn::Begins(_));
        if wanted && self.seat.is_none() && !self.gone {
            self.seat = Some(seat);
            None
        } else {
            Some(seat)
        }
    }

    fn is_moving(&self) -> bool {
        self.seat.is_none() && matches!(self.turn, Turn::Waiting)
    }
}
