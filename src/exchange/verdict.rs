//! What a flight's failure or head means for those who wait.
//!
//! Each function, here and in `flow`, decides under the exchange's lock, tells every waiter while none is woken yet, and
//! wakes them last. What nobody may join any more is out of the table before anybody is told.

use std::{panic::resume_unwind, sync::Arc, task::Poll};

use http::{Response, response};
use http_body::{Body, SizeHint};
use tokio::time::Instant;

use super::{
    desk::Answer,
    work::{Brief, Pulled},
};
use crate::{
    buffer::{PrefixHasher, Room},
    error::{ShareError, SharedError},
    flights::{Flight, Stage, Waiting},
    group::{Wakers, caught},
    key::KeyExtractor,
    observe::Reason,
    rules::{self, Variant, Vary},
};

/// What is to become of a response.
pub(super) enum Verdict<B> {
    /// It is its leader's alone, who has it.
    Released,
    Shared(Head, B),
}

/// A head that may be shared.
pub(super) struct Head {
    parts: response::Parts,
    expected: Option<u64>,
    hint: SizeHint,
    is_empty: bool,
    /// Whether its length was paid for.
    announced: bool,
}

pub(super) enum Opened {
    /// The whole response is there.
    Over,
    Streams,
}

/// From now on nobody joins the flight. Gives those for whom nothing was decided.
pub(super) fn close<K>(flight: &Arc<Flight<K>>) -> Vec<Arc<dyn Waiting<K>>> {
    let (joined, waiting, _stage) = {
        let mut exchange = flight.cargo.exchange.lock();
        (exchange.joined, exchange.take_waiting(), exchange.close())
    };
    if joined {
        flight.release();
    }
    waiting
}

/// Moves those for whom the response is not to the flights of their own variants, and then starts these.
fn regroup<K>(
    flight: &Flight<K>,
    moved: Vec<Arc<dyn Waiting<K>>>,
    variant: &Variant,
    wakers: &mut Wakers,
) {
    // After a panic those who have not moved stay for the crash; those who have must not wait for ever.
    let mut panic = None;
    for waiter in &moved {
        panic = Arc::clone(waiter).regroup(flight, variant, wakers).err();
        if panic.is_some() {
            break;
        }
    }
    for waiter in moved {
        panic = panic.or(caught(|| waiter.take_off(wakers)).err());
    }
    if let Some(payload) = panic {
        resume_unwind(payload);
    }
}

// ===== impl Head =====

impl Head {
    /// Whether the body is of a kind that is there at once: of a length that it itself knows.
    pub(super) fn is_at_hand(&self) -> bool {
        !self.is_empty && self.hint.exact().is_some()
    }
}

// ===== impl Brief =====

impl<X, ResBody, E> Brief<X, ResBody, E>
where
    X: KeyExtractor,
    E: ShareError + Send + Sync + 'static,
{
    /// The call has failed: everybody gets the same failure.
    pub(super) fn fail(&self, mut error: E) {
        let waiting = close(&self.flight);
        let mut wakers = Wakers::default();
        for waiter in waiting {
            waiter.fail(&mut error, &mut wakers);
        }
        // Also where nobody waited, so that the leader's error is of the same make in company and alone.
        drop(error.share());
        self.desk.leave(Err(error));
        wakers.wake();
    }
}

impl<X, ResBody, E> Brief<X, ResBody, E>
where
    X: KeyExtractor,
    ResBody: Body,
{
    /// The head has come: may others have the response at all?
    pub(super) fn judge(&self, response: Response<ResBody>) -> Verdict<ResBody> {
        let (parts, body) = response.into_parts();
        let cargo = &self.flight.cargo;
        let remembered = &self.shared.flights.unshareable;
        let shareable = rules::may_share(
            &self.desk.asked.method,
            self.desk.asked.has_credentials,
            &parts,
        ) && (self.shared.settings.policy)(&parts);
        if !shareable {
            if rules::marks_key_unshareable(&parts) {
                remembered.insert(cargo.hash, Instant::now());
            }
            return self.release(parts, body, Reason::Unshareable);
        }
        remembered.remove(cargo.hash);
        let hint = body.size_hint();
        let mut head = Head {
            expected: rules::expected(&self.desk.asked.method, &parts, &hint),
            is_empty: body.is_end_stream(),
            parts,
            hint,
            announced: false,
        };
        // One that may turn out to need no copy is paid for when it does.
        if !head.is_at_hand() || self.flight.is_shared() {
            head.announced = true;
            if !self.announce(head.expected, head.hint) {
                return self.release(head.parts, body, Reason::TooLarge);
            }
        }
        Verdict::Shared(head, body)
    }

    /// Reserves room for the body, as far as there is any. `false` if there is none.
    fn announce(&self, expected: Option<u64>, hint: SizeHint) -> bool {
        let limits = self.shared.settings.limits;
        let announce = || {
            let mut exchange = self.flight.cargo.exchange.lock();
            exchange.buffer.announce(expected, hint, limits)
        };
        let mut room = announce();
        if room != Room::Enough && self.shared.flights.make_room_for(&self.flight) {
            room = announce();
        }
        room != Room::None
    }

    /// The response is its leader's alone, as it came. Everybody else makes a call of its own.
    fn release(&self, parts: response::Parts, body: ResBody, reason: Reason) -> Verdict<ResBody> {
        let waiting = close(&self.flight);
        let mut wakers = Wakers::default();
        for waiter in waiting {
            match reason {
                Reason::Unshareable => waiter.refuse(&self.flight, &mut wakers),
                _ => waiter.forward(reason, &mut wakers),
            }
        }
        let response = Response::from_parts(parts, body);
        self.desk.leave(Ok(Answer::Untouched(response)));
        wakers.wake();
        Verdict::Released
    }

    /// Lets those begin who may, and moves those for whom the response is not. They are woken by the caller, once it has
    /// pulled what there is of the body: a server that sees head and body together writes them together.
    pub(super) fn open(
        &self,
        head: Head,
        first: Poll<Option<Result<Pulled, SharedError>>>,
        hasher: &mut Option<PrefixHasher>,
        wakers: &mut Wakers,
    ) -> Opened {
        let Head {
            parts,
            expected,
            hint,
            is_empty,
            announced,
        } = head;
        let first = match first {
            Poll::Ready(Some(Ok(pulled))) if pulled.is_last => {
                let len = pulled.frame.data_ref().map_or(0, |data| data.len() as u64);
                if expected.is_none_or(|expected| expected == len) && self.close_alone() {
                    self.desk
                        .leave(Ok(Answer::Whole(parts, Some(pulled.frame))));
                    return Opened::Over;
                }
                Poll::Ready(Some(Ok(pulled)))
            }
            other => other,
        };
        if is_empty && expected.unwrap_or(0) == 0 && self.close_alone() {
            self.desk.leave(Ok(Answer::Whole(parts, None)));
            return Opened::Over;
        }

        let variant = self.variant(&parts);
        let copy = Arc::new(rules::copy_head(&parts));
        let fits = announced || self.announce(expected, hint);
        let (moved, begun) = {
            let mut exchange = self.flight.cargo.exchange.lock();
            let (mut moved, mut begun) = (Vec::new(), Vec::new());
            // Closed: it has given way to a buffer that somebody shares.
            if fits && !matches!(exchange.stage, Stage::Closed) {
                exchange.stage = Stage::Open(Arc::clone(&copy));
                for waiter in exchange.take_waiting() {
                    if variant
                        .as_ref()
                        .is_some_and(|variant| waiter.differs(variant))
                    {
                        moved.push(waiter);
                    } else {
                        begun.push(waiter);
                    }
                }
                exchange.variant.clone_from(&variant);
            }
            (moved, begun)
        };
        if let Some(variant) = &variant {
            regroup(&self.flight, moved, variant, wakers);
        }
        begun.iter().for_each(|waiter| waiter.begin(&copy, wakers));
        self.desk.leave(Ok(Answer::Shared(parts)));
        if !fits && self.refuse_followers().is_break() {
            return Opened::Over;
        }

        let over = match first {
            Poll::Pending => is_empty,
            Poll::Ready(Some(Ok(pulled))) => {
                let is_last = pulled.is_last;
                self.receive(pulled, hasher).is_break() || is_last
            }
            Poll::Ready(Some(Err(error))) => {
                self.land(Some(error));
                return Opened::Over;
            }
            Poll::Ready(None) => true,
        };
        if over {
            self.land(None);
            return Opened::Over;
        }
        Opened::Streams
    }

    /// Which requests of this key the response is for, if not for all.
    fn variant(&self, parts: &response::Parts) -> Option<Variant> {
        // `*` is not shared in the first place.
        let Vary::Fields(names) = Vary::of(parts, &self.desk.asked.fields) else {
            return None;
        };
        let shared = &self.shared;
        let names: Arc<[_]> = if names.iter().all(|name| shared.may_differ(name)) {
            names
        } else {
            // What the key tells is the same for all.
            names
                .iter()
                .filter(|name| shared.may_differ(name))
                .cloned()
                .collect()
        };
        (!names.is_empty()).then(|| Variant::of_fields(names, &self.desk.asked.fields))
    }

    /// Ends a flight whose whole response is there, if its leader is alone.
    fn close_alone(&self) -> bool {
        let mut exchange = self.flight.cargo.exchange.lock();
        if !exchange.joined {
            exchange.stage = Stage::Closed;
        }
        !exchange.joined
    }
}
