//! Which flight a request may have a part in.

use std::sync::Arc;

use http::{HeaderName, response};
use tokio::time::Instant;

use super::seat::Seat;
use crate::{
    buffer::Place,
    flights::{Cargo, Flights, Stage, Waiting},
    group::{Entered, Visit},
    rules::Variant,
};

/// A request that comes to the table.
pub(crate) struct Newcomer<'a, K, D> {
    pub(crate) flights: &'a Flights<K>,
    pub(crate) now: Instant,
    pub(crate) max_waiters: usize,
    /// Whether a response for a variant is not for it. Called under locks.
    pub(crate) differs: D,
}

pub(crate) enum Joined<K> {
    /// It leads a new flight, and must start it. The response is known to vary by the fields of these names.
    Led(Seat<K>, Option<Arc<[HeaderName]>>),
    /// It waits for what the flight decides, and must board.
    Waits(Seat<K>),
    /// Its response begins with this head; it must board.
    Begins(Seat<K>, Arc<response::Parts>),
    /// There is a flight to wait for, but no waiter was given to be linked there.
    Unprepared(Cargo<K>),
    /// There is a flight, with as many callers as it may have.
    Full,
}

// ===== impl Newcomer =====

impl<K: Eq, D: Fn(&Variant) -> bool> Newcomer<'_, K, D> {
    /// Joins the flight that is for this request, or leads a new one with `cargo`.
    ///
    /// Finding a flight and being linked to it are one step, so whatever the flight decides it decides for all who are
    /// counted.
    pub(crate) fn enter(&self, cargo: Cargo<K>, waiter: Option<&Arc<dyn Waiting<K>>>) -> Joined<K> {
        let mut names = None;
        let mut head = None;
        let mut full = false;
        let mut place = Place::Leader;
        let hash = cargo.hash;
        let entered = self
            .flights
            .table
            .enter(hash, (), cargo, |(), mine, entry| {
                let Some(flight) = entry.flight() else {
                    return Visit::Pass;
                };
                let theirs = &flight.cargo;
                if theirs.key != mine.key || theirs.method != mine.method {
                    return Visit::Pass;
                }
                if !theirs.is_fresh(&self.flights.writes, self.now) {
                    return Visit::Detach;
                }
                let mut exchange = theirs.exchange.lock();
                if matches!(exchange.stage, Stage::Closed)
                    || exchange.is_silent(self.now, theirs.max_silence)
                {
                    return Visit::Detach;
                }
                match &exchange.variant {
                    Some(variant) if (self.differs)(variant) => {
                        names = Some(Arc::clone(variant.names()));
                        return Visit::Pass;
                    }
                    _ => {}
                }
                if flight.callers() >= self.max_waiters {
                    full = true;
                    return Visit::Refuse;
                }
                if let Stage::Open(open) = &exchange.stage {
                    head = Some(Arc::clone(open));
                } else if let Some(waiter) = waiter {
                    exchange.link(Arc::clone(waiter));
                } else {
                    return Visit::Refuse;
                }
                exchange.joined = true;
                place = exchange.buffer.join();
                Visit::Join
            });
        match entered {
            Entered::Led(caller) => Joined::Led(Seat::new(caller, place), names),
            Entered::Joined(caller) => match head {
                Some(head) => Joined::Begins(Seat::new(caller, place), head),
                None => Joined::Waits(Seat::new(caller, place)),
            },
            Entered::Refused(..) if full => Joined::Full,
            Entered::Refused((), cargo) => Joined::Unprepared(cargo),
        }
    }
}
