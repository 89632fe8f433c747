//! A store, as the protocol uses it: short scripts on one key, and messages to listeners.

use std::{fmt, future::Future};

use bytes::Bytes;

use super::{
    id::{Digest, FlightId, Inbox, ValueId},
    protocol::Contended,
};

/// A request to the store: everything in it is a digest, a random name or encrypted.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// Takes the lease of `digest` for `flight` at `inbox`. If another inbox has it, sends `join` there, with the name
    /// of the flight appended; if nobody receives that, or if the flight is `pass_over`, takes the lease over.
    Contend {
        digest: Digest,
        inbox: Inbox,
        flight: FlightId,
        pass_over: Option<FlightId>,
        join: Vec<u8>,
    },
    Renew {
        digest: Digest,
        inbox: Inbox,
        flight: FlightId,
    },
    Release {
        digest: Digest,
        inbox: Inbox,
        flight: FlightId,
    },
    Put(ValueId, Vec<u8>),
    Fetch(ValueId),
    Delete(ValueId),
    Tell(Inbox, Vec<u8>),
    TellAll(Vec<u8>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Contended(Contended),
    Renewed(bool),
    Fetched(Option<Bytes>),
    /// How many received a message, if that can be counted.
    Heard(Option<usize>),
    Done,
    /// The store has refused.
    Refused,
}

/// The link has broken: requests sent over it will not be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

pub(crate) trait Store: Send + Sync + 'static {
    type Link: Link;
    type Listener: Listener;

    /// Connects, and listens at `inbox` and to messages for all.
    fn connect(
        &self,
        inbox: Inbox,
    ) -> impl Future<Output = Result<(Self::Link, Self::Listener), Broken>> + Send;
}

pub(crate) trait Link: Send + Sync + 'static {
    /// Sends a request. Requests are carried out in the order in which their futures are first polled.
    fn send(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<Reply, Broken>> + Send + 'static;
}

pub(crate) trait Listener: Send + 'static {
    /// The next message; `None` once messages may be missing.
    fn next(&mut self) -> impl Future<Output = Option<Bytes>> + Send;
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Contend { .. } => "Contend",
            Self::Renew { .. } => "Renew",
            Self::Release { .. } => "Release",
            Self::Put(..) => "Put",
            Self::Fetch(_) => "Fetch",
            Self::Delete(_) => "Delete",
            Self::Tell(..) => "Tell",
            Self::TellAll(_) => "TellAll",
        })
    }
}
