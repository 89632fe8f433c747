//! What can happen in a schedule.

use bytes::Bytes;

use crate::replicas::{
    id::{FlightId, Seat},
    message::Message,
    protocol::{self, Command, EntryId},
};

#[derive(Clone, Debug)]
pub(super) enum Event {
    Arrive {
        replica: usize,
        key: usize,
    },
    Depart {
        replica: usize,
        pick: u64,
    },
    CallEnds {
        replica: usize,
        call: usize,
    },
    Answers {
        replica: usize,
        call: usize,
        entry: EntryId,
    },
    ToStore {
        replica: usize,
        link: u64,
        command: Command,
    },
    Reply {
        replica: usize,
        link: u64,
        reply: Reply,
    },
    Message {
        replica: usize,
        link: u64,
        message: Message,
    },
    Tick {
        replica: usize,
    },
    Forget {
        replica: usize,
        key: usize,
    },
    ForgetAll {
        replica: usize,
    },
    Stop,
    Resume,
    Restart,
    LoseLease {
        key: usize,
    },
    Unlink {
        replica: usize,
    },
    Link {
        replica: usize,
    },
    Pause {
        replica: usize,
    },
    Unpause {
        replica: usize,
    },
    Kill {
        replica: usize,
    },
}

/// What the store has answered.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    Contended(FlightId, protocol::Reply),
    Renewed(FlightId, bool),
    Heard(Seat, usize),
    Fetched(Seat, Option<Bytes>),
    Stored(FlightId, bool),
}

// ===== impl Event =====

impl Event {
    pub(super) fn is_scripted(&self) -> bool {
        matches!(
            self,
            Self::Arrive { .. }
                | Self::Depart { .. }
                | Self::Forget { .. }
                | Self::ForgetAll { .. }
                | Self::Stop
                | Self::Resume
                | Self::Restart
                | Self::LoseLease { .. }
                | Self::Pause { .. }
                | Self::Unpause { .. }
                | Self::Kill { .. }
        )
    }
}
