//! A store, as the protocol uses it: short scripts on one key, and messages to listeners.

use std::future::Future;

use bytes::Bytes;

use super::{
    id::Inbox,
    protocol::{Command, Reply},
    secret::Sealer,
};

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
    /// Sends a command, for the replica at the inbox that the link was made for. Commands are carried out in the order in which
    /// their futures are first polled. Everything that others can read of one is a digest, a random name or encrypted.
    fn send(
        &self,
        command: &Command,
        sealer: &Sealer,
    ) -> impl Future<Output = Result<Reply, Broken>> + Send + 'static;
}

pub(crate) trait Listener: Send + 'static {
    /// The next message; `None` once messages may be missing.
    fn next(&mut self) -> impl Future<Output = Option<Bytes>> + Send;
}
