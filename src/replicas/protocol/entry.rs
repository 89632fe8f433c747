//! One local flight's part in the protocol.

use std::{collections::BTreeMap, time::Duration};

use super::{ContestOutcome, Local, ProtocolSettings, Time};
use crate::replicas::{
    id::{Digest, FlightId, Inbox, Seat},
    message::Address,
};

pub(super) struct Entry<L: Local> {
    pub(super) digest: Digest,
    pub(super) target: Option<Digest>,
    pub(super) local: L,
    /// Callers below this number have asked.
    pub(super) asked: u64,
    pub(super) phase: Phase,
    /// The script under way.
    pub(super) attempt: Option<Attempt>,
    /// The name of the last attempt to lead.
    pub(super) flight: FlightId,
    /// How long the store may still be waited for.
    pub(super) budget: Duration,
    /// How often it has contended again because its leader was gone.
    pub(super) retries: u32,
    /// Seats of earlier attempts, which may be answered until this one leads.
    pub(super) earlier: Vec<Followed>,
    /// When the leader that it follows, or followed last, was known to be alive.
    pub(super) heard: Time,

    /// Whether followers from elsewhere may join (P1).
    pub(super) open: bool,
    /// When the call began.
    pub(super) began: Option<Time>,
    pub(super) ended: bool,
    /// When the lease that it has is renewed.
    pub(super) lease: Option<Time>,
    pub(super) followers: BTreeMap<Seat, Follower<L::Seat>>,
    /// Seats that were given up, or refused: what comes later about one takes none.
    pub(super) left: Vec<Seat>,
    /// What its timer is set to.
    pub(super) due: Option<Time>,
}

/// What the local leader waits for.
#[derive(Debug)]
pub(super) enum Phase {
    /// The store's reply, until then.
    Asking { until: Time },
    /// Another replica's answer.
    Following(Following),
    /// The answer's body.
    Fetching {
        from: Followed,
        covered: u64,
        until: Time,
    },
    /// Nothing more; the outcome, until it is taken.
    Told(Option<ContestOutcome>),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) join: Address,
    pub(super) sent: Time,
    /// What was announced.
    pub(super) asked: u64,
    /// Who has said that it can't be joined, before the store said that it leads.
    pub(super) gone: Option<(Inbox, FlightId)>,
}

/// A seat in a flight of another replica.
#[derive(Clone, Copy, Debug)]
pub(super) struct Followed {
    pub(super) inbox: Inbox,
    pub(super) flight: FlightId,
    pub(super) seat: Seat,
}

#[derive(Debug)]
pub(super) struct Following {
    pub(super) at: Followed,
    pub(super) probe_at: Time,
    /// Asked, and no answer yet.
    pub(super) probed: bool,
    /// Callers below this number have been announced.
    pub(super) announced: u64,
    /// When the next may be.
    pub(super) cover_from: Time,
}

/// A follower elsewhere.
pub(super) struct Follower<S> {
    pub(super) inbox: Inbox,
    /// Its callers below this number had asked when it last said so (P2).
    pub(super) asked: u64,
    pub(super) heard: Time,
    pub(super) seat: S,
}

/// Seats that are remembered after they were left.
const LEFT: usize = 64;

/// A follower that has not asked for so many probes has gone without a word.
const SILENT_PROBES: u32 = 4;

// ===== impl Entry =====

impl<L: Local> Entry<L> {
    pub(super) fn new(
        digest: Digest,
        target: Option<Digest>,
        local: L,
        asked: u64,
        budget: Duration,
    ) -> Self {
        Self {
            digest,
            target,
            local,
            asked,
            phase: Phase::Told(None),
            attempt: None,
            flight: FlightId(0),
            budget,
            retries: 0,
            earlier: Vec::new(),
            heard: Time::ZERO,
            open: true,
            began: None,
            ended: false,
            lease: None,
            followers: BTreeMap::new(),
            left: Vec::new(),
            due: None,
        }
    }

    /// Whether its local leader waits for something.
    pub(super) fn waits(&self) -> bool {
        !matches!(self.phase, Phase::Told(_))
    }

    /// The seat that an address is of, if it is one of this entry's. A seat whose reply is under way is in a flight that is
    /// not known yet.
    pub(super) fn seat_at(&self, to: &Address) -> Option<SeatAt> {
        if to.digest != self.digest {
            return None;
        }
        let is_it = |at: &Followed| at.seat == to.seat && at.flight == to.flight;
        match &self.phase {
            Phase::Following(following) if is_it(&following.at) => return Some(SeatAt::Now),
            Phase::Asking { .. } if self.attempt.is_some_and(|a| a.join.seat == to.seat) => {
                return Some(SeatAt::Asked);
            }
            _ => {}
        }
        self.earlier.iter().any(is_it).then_some(SeatAt::Earlier)
    }

    pub(super) fn remember_left(&mut self, seat: Seat) {
        if self.left.len() < LEFT && !self.left.contains(&seat) {
            self.left.push(seat);
        }
    }

    pub(super) fn next_due(&self, settings: &ProtocolSettings) -> Option<Time> {
        let phase = match &self.phase {
            Phase::Asking { until } | Phase::Fetching { until, .. } => Some(*until),
            Phase::Following(following) => Some(match self.asked > following.announced {
                true => following.probe_at.min(following.cover_from),
                false => following.probe_at,
            }),
            Phase::Told(_) => None,
        };
        let oldest = self.followers.values().map(|follower| follower.heard).min();
        let silent = oldest.map(|heard| heard + settings.silent());
        [phase, self.lease, silent].into_iter().flatten().min()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SeatAt {
    /// Of the script whose reply is under way.
    Asked,
    /// Where it follows.
    Now,
    Earlier,
}

impl ProtocolSettings {
    /// How long a follower may be silent.
    pub(super) fn silent(&self) -> Duration {
        SILENT_PROBES * self.probe
    }
}
