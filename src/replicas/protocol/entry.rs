//! One local flight's part in the protocol.

use std::{collections::BTreeMap, task::Waker, time::Duration};

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
    /// The leader's, while it waits for an outcome.
    pub(super) waker: Option<Waker>,
    /// The script under way.
    pub(super) attempt: Option<Attempt>,
    /// The name of its last attempt to lead.
    pub(super) flight: FlightId,
    /// How long the store may still be waited for.
    pub(super) budget: Duration,
    /// How often it has contended again because the leader that it followed was gone.
    pub(super) retries: u32,
    /// Seats of earlier attempts, which may still be answered until it leads.
    pub(super) earlier: Vec<Followed>,
    /// When the leader that it follows, or followed last, was last heard of.
    pub(super) heard: Time,

    /// Whether followers from other replicas may join (P1).
    pub(super) open: bool,
    /// When the call began.
    pub(super) began: Option<Time>,
    pub(super) ended: bool,
    /// When to renew its lease, if it has one.
    pub(super) lease: Option<Time>,
    pub(super) followers: BTreeMap<Seat, Follower<L::Seat>>,
    /// Seats that were left or refused: a late message about one must not take it again.
    pub(super) left: Vec<Seat>,
    /// Its deadline in the timers.
    pub(super) due: Option<Time>,
}

/// What the local leader waits for.
#[derive(Debug)]
pub(super) enum Phase {
    /// The store's reply, until this time.
    Asking { until: Time },
    /// Another replica's answer.
    Following(Following),
    /// The answer's body.
    Fetching {
        from: Followed,
        covered: u64,
        until: Time,
    },
    /// Nothing; holds the outcome until it is taken.
    Told(Option<ContestOutcome>),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) join: Address,
    pub(super) sent: Time,
    /// The callers that its join announced.
    pub(super) asked: u64,
    /// The replica and flight that refused it before the store named that flight as the leader.
    pub(super) gone: Option<(Inbox, FlightId)>,
}

/// A seat in another replica's flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Followed {
    pub(super) inbox: Inbox,
    pub(super) to: Address,
}

#[derive(Debug)]
pub(super) struct Following {
    pub(super) at: Followed,
    pub(super) probe_at: Time,
    /// A probe is under way.
    pub(super) probed: bool,
    /// Callers below this number have been announced.
    pub(super) announced: u64,
    /// When the next announcement may be sent.
    pub(super) cover_from: Time,
}

/// A follower at another replica.
pub(super) struct Follower<S> {
    pub(super) inbox: Inbox,
    pub(super) to: Address,
    /// Its callers below this number had asked when it last announced them (P2).
    pub(super) asked: u64,
    pub(super) heard: Time,
    pub(super) seat: S,
}

/// How many left seats are remembered.
const LEFT: usize = 64;

/// A follower that misses so many probes is gone.
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
            waker: None,
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

    /// Whether its local leader waits for an outcome.
    pub(super) fn waits(&self) -> bool {
        !matches!(self.phase, Phase::Told(_))
    }

    /// Which of this entry's seats an address names, if any. While the store's reply is under way, the flight of its
    /// seat is not known yet.
    pub(super) fn seat_at(&self, to: &Address) -> Option<SeatAt> {
        let is_asked = |attempt: Attempt| {
            let join = attempt.join;
            (join.seat, join.digest) == (to.seat, to.digest)
        };
        match &self.phase {
            Phase::Following(following) if following.at.to == *to => return Some(SeatAt::Now),
            Phase::Asking { .. } if self.attempt.is_some_and(is_asked) => {
                return Some(SeatAt::Asked);
            }
            _ => {}
        }
        let is_earlier = self.earlier.iter().any(|at| at.to == *to);
        is_earlier.then_some(SeatAt::Earlier)
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

// ===== impl Phase =====

impl Phase {
    /// The seat that it follows.
    pub(super) fn followed(&self) -> Option<Followed> {
        match self {
            Self::Following(Following { at, .. }) | Self::Fetching { from: at, .. } => Some(*at),
            Self::Asking { .. } | Self::Told(_) => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SeatAt {
    /// The seat of the script whose reply is under way.
    Asked,
    /// The seat of the flight that it follows.
    Now,
    Earlier,
}

impl ProtocolSettings {
    /// How long a follower may be silent.
    pub(super) fn silent(&self) -> Duration {
        SILENT_PROBES * self.probe
    }
}
