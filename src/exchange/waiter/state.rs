//! What a waiter holds, and how its caller and its flights change that.

use std::{mem, sync::Arc, task::Waker};

use http::{Request, response};
use tower_service::Service;

use crate::{
    exchange::{desk::Desk, seat::Seat},
    flights::{Flight, Shared},
    group::Wakers,
    key::KeyExtractor,
    observe::{Asker, Reason},
    sync::{AtomicUsize, Mutex, Ordering},
};

pub(crate) struct Waiter<S, X, ReqBody, ResBody>
where
    // The states hold the service's error, and the key's type.
    S: Service<Request<ReqBody>>,
    X: KeyExtractor,
{
    pub(super) shared: Arc<Shared<X>>,
    asker: Asker,
    /// Where it is linked in its flight's exchange. Written and read under the exchange's lock.
    pub(super) slot: AtomicUsize,
    #[expect(clippy::type_complexity, reason = "the waiter's own parameters")]
    pub(super) state: Mutex<State<S, X::Key, ReqBody, ResBody, S::Error>>,
}

pub(super) struct State<S, K, ReqBody, ResBody, E> {
    pub(super) turn: Turn<K, ResBody, E>,
    pub(super) seat: Option<Seat<K>>,
    pub(super) prospect: Option<(S, Request<ReqBody>)>,
    /// Left by a poll that found no seat.
    pub(super) parked: Option<Waker>,
    /// How often it was moved. A seat that comes with an earlier number is of a flight that it is no longer in: one
    /// flight's head with another's body would be a stranger's response.
    pub(super) moves: usize,
    /// Of the flight that it was moved to as its leader, and that is not started yet.
    pub(super) leading: Option<Seat<K>>,
    /// Its caller has gone, has given up waiting, or has got what was decided.
    pub(super) gone: bool,
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
    /// With the request, to call again.
    Begin(Seat<K>, Arc<response::Parts>, S, Request<ReqBody>),
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
            asker: Asker::here(),
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

    /// Told under no lock.
    pub(super) fn sent_on(&self, reason: Reason) {
        self.shared.flights.gauges.forward(&self.asker, reason);
    }

    /// Who asks, for a seat that it boards by itself.
    pub(crate) fn asker(&self) -> &Asker {
        &self.asker
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
        self.sent_on(Reason::Timeout);
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
    pub(super) fn retire(&self, seat: Seat<X::Key>) {
        let unlinked = {
            let mut exchange = seat.flight().cargo.exchange.lock();
            exchange.unlink(self.slot.load(Ordering::Acquire), std::ptr::from_ref(self))
        };
        drop(unlinked);
        drop(seat);
    }

    /// Puts a decision that ends this waiter's part in its flight. `false` if there is nobody to hear it.
    pub(super) fn decide(
        &self,
        turn: Turn<X::Key, ResBody, S::Error>,
        wakers: &mut Wakers,
    ) -> bool {
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

// ===== impl State =====

impl<S, K, ReqBody, ResBody, E> State<S, K, ReqBody, ResBody, E> {
    /// Takes the seat, or gives it back because it is of a flight that this waiter is no longer in.
    pub(super) fn sit(&mut self, seat: Seat<K>, moves: usize) -> Option<Seat<K>> {
        if self.stays(moves) && !self.gone {
            self.seat = Some(seat);
            None
        } else {
            Some(seat)
        }
    }

    /// Whether this waiter is still in the flight whose seat is out.
    pub(super) fn stays(&self, moves: usize) -> bool {
        let wanted = matches!(self.turn, Turn::Waiting | Turn::Begins(_));
        wanted && self.seat.is_none() && self.moves == moves
    }

    /// Whether there is nothing to poll now, and whoever brings that wakes who has parked.
    pub(super) fn is_between(&self) -> bool {
        self.seat.is_none() && matches!(self.turn, Turn::Waiting | Turn::Begins(_))
    }
}
