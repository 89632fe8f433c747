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
    panic::resume_unwind,
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
    work::Work,
};
use crate::{
    error::ShareError,
    flights::{Cargo, Event, Flight, Shared, Waiting},
    group::{Interest, Payload, Wakers, caught, drop_quietly},
    key::{KeyExtractor, Marks},
    observe::Reason,
    rules::{Said, Variant},
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
    turn: Turn<K, ResBody, E>,
    seat: Option<Seat<K>>,
    prospect: Option<(S, Request<ReqBody>)>,
    /// Left by a poll that found no seat.
    parked: Option<Waker>,
    /// How often it was moved. A seat that comes with an earlier number is of a flight that it is no longer in: one
    /// flight's head with another's body would be a stranger's response.
    moves: usize,
    /// Of the flight that it was moved to as its leader, and that is not started yet.
    leading: Option<Seat<K>>,
    /// Its caller has gone, has given up waiting, or has got what was decided.
    gone: bool,
}

/// What the flight has decided.
pub(crate) enum Turn<K, ResBody, E> {
    Waiting,
    Begins(Arc<response::Parts>),
    Leads(Arc<Desk<ResBody, E>>),
    /// By a flight whose key is now remembered as unshareable, or by any other.
    Forwarded(Option<Arc<Flight<K>>>),
    Failed(E),
}

/// What a waiter becomes.
pub(crate) enum Next<S, K, ReqBody, ResBody, E> {
    Begin(Seat<K>, Arc<response::Parts>),
    Lead(Seat<K>, Arc<Desk<ResBody, E>>),
    Forward(S, Request<ReqBody>, Option<Arc<Flight<K>>>),
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
                moves: 0,
                leading: None,
                gone: false,
            }),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared<X>> {
        &self.shared
    }

    /// The request comes back from a waiter that nobody else has seen.
    pub(crate) fn take_prospect(&self) -> Option<(S, Request<ReqBody>)> {
        self.state.lock().prospect.take()
    }

    /// Takes a seat that comes late, unless the flight it is of has nothing more to do with this waiter.
    pub(crate) fn sit(&self, seat: Seat<X::Key>) {
        let stale = self.state.lock().sit(seat, 0);
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
            let turn = match &state.turn {
                Turn::Begins(_) if state.is_between() => Turn::Waiting,
                _ => mem::replace(&mut state.turn, Turn::Waiting),
            };
            // Whoever comes back with a seat, or has one for it, comes too late.
            state.gone |= !matches!(turn, Turn::Waiting);
            let mut seat = match turn {
                Turn::Begins(head) => {
                    let seat = state.seat.take().expect("a caller that begins has a seat");
                    return Poll::Ready(Next::Begin(seat, head));
                }
                Turn::Leads(desk) => {
                    let seat = state.seat.take().expect("a caller that leads has a seat");
                    return Poll::Ready(Next::Lead(seat, desk));
                }
                Turn::Forwarded(refused_by) => {
                    let prospect = state.prospect.take();
                    let (service, request) = prospect.expect("a waiter keeps its request");
                    return Poll::Ready(Next::Forward(service, request, refused_by));
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
                        if state.is_between() {
                            let old = state.parked.replace(waker);
                            drop(state);
                            drop(old);
                            return Poll::Pending;
                        }
                        continue;
                    }
                },
            };
            let moves = state.moves;
            drop(state);
            let polled = match caught(|| seat.poll(Interest::End, cx)) {
                Ok(polled) => polled,
                Err(payload) => {
                    let concerned = self.state.lock().stays(moves);
                    drop(seat);
                    if concerned {
                        resume_unwind(payload);
                    }
                    // Sent on or moved by that flight, before it crashed.
                    drop_quietly(payload);
                    continue;
                }
            };
            let mut state = self.state.lock();
            let stale = state.sit(seat, moves);
            // One who was moved meanwhile has left no waker where it is now.
            let undecided = matches!(state.turn, Turn::Waiting) && stale.is_none();
            if undecided && polled.is_ready() {
                // The flight has ended and has said nothing: it is served without.
                state.turn = Turn::Forwarded(None);
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
    fn decide(&self, turn: Turn<X::Key, ResBody, S::Error>, wakers: &mut Wakers) -> bool {
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
        self.shared
            .flights
            .gauges
            .count(Event::Forwarded(Reason::Vary));
        if self.shared.settings.finish_abandoned {
            seat.finish_abandoned();
        }
        let has_credentials = Said::by(request.headers()).credentials;
        let desk = Desk::new(&self.shared, &request, has_credentials, Marks::default());
        let flight = Arc::clone(seat.flight());
        seat.start(|| {
            flight.cargo.trace.begin(&request);
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
            self.shared.flights.gauges.count(Event::Forwarded(reason));
        }
    }

    fn refuse(&self, flight: &Arc<Flight<X::Key>>, wakers: &mut Wakers) {
        if self.decide(Turn::Forwarded(Some(Arc::clone(flight))), wakers) {
            let event = Event::Forwarded(Reason::Unshareable);
            self.shared.flights.gauges.count(event);
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
        let me: Arc<dyn Waiting<X::Key>> = self.clone();
        // The key's `Clone` and `Eq` are the user's. One who is in no flight must not wait for any.
        let joined = caught(|| {
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
            newcomer.enter(cargo, Some(&me))
        });
        match joined {
            Ok(Joined::Led(seat, _)) => {
                self.mark(&seat, variant.names());
                self.state.lock().leading = Some(seat);
            }
            Ok(Joined::Waits(seat)) => {
                seat.board();
                self.resit(seat, None, moves, wakers);
            }
            Ok(Joined::Begins(seat, head)) => {
                seat.board();
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

    fn take_off(&self, wakers: &mut Wakers) {
        let leading = self.state.lock().leading.take();
        if let Some(seat) = leading {
            self.lead(seat, wakers);
        }
    }
}

// ===== impl State =====

impl<S, K, ReqBody, ResBody, E> State<S, K, ReqBody, ResBody, E> {
    /// Takes the seat, or gives it back because it is of a flight that this waiter is no longer in.
    fn sit(&mut self, seat: Seat<K>, moves: usize) -> Option<Seat<K>> {
        if self.stays(moves) && !self.gone {
            self.seat = Some(seat);
            None
        } else {
            Some(seat)
        }
    }

    /// Whether this waiter is still in the flight whose seat is out.
    fn stays(&self, moves: usize) -> bool {
        let wanted = matches!(self.turn, Turn::Waiting | Turn::Begins(_));
        wanted && self.seat.is_none() && self.moves == moves
    }

    /// Whether there is nothing to poll now, and whoever brings that wakes who has parked.
    fn is_between(&self) -> bool {
        self.seat.is_none() && matches!(self.turn, Turn::Waiting | Turn::Begins(_))
    }
}
