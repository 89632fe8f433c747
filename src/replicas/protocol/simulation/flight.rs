//! A local flight, its callers and its call.

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use crate::replicas::{
    id::Inbox,
    protocol::{EntryId, Local, NotShared, Refusal, Time, Unjoined},
};

/// What a real flight does, as far as the protocol can tell.
#[derive(Debug, Default)]
pub(super) struct Flight {
    pub(super) key: usize,
    /// Whether a caller may join here.
    pub(super) open: bool,
    /// Whether one could join from elsewhere: a moment longer, after the call's end.
    pub(super) linked: bool,
    pub(super) max_waiters: usize,
    pub(super) began: Time,
    pub(super) entry: Option<EntryId>,
    pub(super) callers: Vec<Caller>,
    pub(super) seats: usize,
    /// How many have joined from elsewhere, and for how many of them it was promoted.
    pub(super) joined: usize,
    pub(super) started: usize,
    pub(super) call: Option<usize>,
    pub(super) over: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) number: u64,
    pub(super) asked: u64,
    pub(super) at: Time,
}

pub(super) type FlightRef = Rc<RefCell<Flight>>;

#[derive(Clone)]
pub(super) struct LocalFlight(pub(super) FlightRef);

#[derive(Clone)]
pub(super) struct SeatGuard(pub(super) FlightRef);

#[derive(Default)]
pub(super) struct Call {
    pub(super) key: usize,
    pub(super) replica: usize,
    pub(super) leads: bool,
    pub(super) ended: Option<u64>,
    pub(super) gone: bool,
    pub(super) began: Time,
    /// Or when it was given up.
    pub(super) ended_at: Time,
    /// How many callers of each follower's inbox the leader had been told of when it ended.
    pub(super) told: HashMap<Inbox, u64>,
}

// ===== impl Flight =====

impl Flight {
    /// Nobody joins it any more.
    pub(super) fn close(&mut self) {
        self.open = false;
        self.linked = false;
    }
}

// ===== impl LocalFlight =====

impl Local for LocalFlight {
    type Seat = SeatGuard;

    fn join(&self) -> Result<SeatGuard, Unjoined<SeatGuard>> {
        let mut flight = self.0.borrow_mut();
        if !flight.linked {
            return Err(Refusal::Gone.into());
        }
        if flight.callers.len() + flight.seats >= flight.max_waiters {
            return Err(Refusal::Alone(NotShared::Full).into());
        }
        flight.seats += 1;
        flight.joined += 1;
        Ok(SeatGuard(Rc::clone(&self.0)))
    }
}
