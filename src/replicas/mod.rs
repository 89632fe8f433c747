//! One call for all replicas, over a store that they share.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `settings` | [`Replicas`], what a user says, and [`ReplicaClient`], through which an owner of flights uses them |
//! | `contest` | [`Contest`], and `Answering`: what the work of one local flight holds |
//! | `hub` | the protocol under a lock, and what it asks of a local flight: [`LocalFlight`], [`RemoteSeat`] |
//! | `driver` | the task that talks to the store |
//! | `protocol` | the state machine, without I/O and without a clock |
//! | `message` | what replicas tell each other, and how that is written |
//! | `secret` | the keys for that, and the digests of flights' keys |
//! | `store`, `redis` | what a store does, and Redis or Valkey |
//! | `http` | how a layer's keys and responses are written for other replicas |
//! | `memory`, `shelf` | a store in memory, for tests |
//!
//! The store names who leads a key and carries messages. Who shares which answer is decided in the leader's process, under its
//! flight's lock, by the code that decides it for local followers.
//!
//! # What an owner of flights does
//!
//! A [`Group`](crate::Group) across replicas is such an owner; see `group::replicated`. Its flights stay what they are, with four
//! additions.
//!
//! **Before the call.** Each caller takes a [`number`](ReplicaClient::number) when it asks. The leader of a local flight calls
//! [`contend`](ReplicaClient::contend) with the digest of its key before it makes its call, and awaits the [`ContestOutcome`]:
//!
//! * [`Lead`](ContestOutcome::Lead), [`Alone`](ContestOutcome::Alone): make the call. It may have followers at other replicas in both cases. Of
//!   `AloneReason::Told` the reason says what else follows: after [`NotShared::Unshareable`] local followers need not wait for this leader's
//!   head, since there is nothing to share.
//! * [`Answer`](ContestOutcome::Answer): another replica's answer, for the callers whose numbers are below `covered`. The leader there had
//!   been told of them while its call was in flight; of the others it had not, and they must not get it. If nobody but covered
//!   callers can have joined, which is to be decided under the lock under which callers join, the flight is over: drop the
//!   [`Contest`]. Else give the answer to those whom it covers and call [`again`](Contest::again), for the others.
//!   An answer that the owner can't read, or that varies by what this leader's request has otherwise, is none: it makes the call, or
//!   drops the contest and contends under another digest.
//!
//! **Joins here.** A caller that joins a local flight passes its number to [`one_more`](ReplicaClient::one_more). It raises the largest number
//! of the flight under the lock under which it joins, so that `contend` and `again` are called with one more than the largest.
//! While the flight leads this costs a lock and no message.
//!
//! **Joins from elsewhere** come as [`LocalFlight::join`], under the protocol's lock. It does what a local join does under the
//! flight's lock (its limits of callers and age, what has been written or forgotten since, what is known to be unshareable), and
//! gives a [`RemoteSeat`] that counts as a caller until it is dropped; [`start`](RemoteSeat::start) comes right after, under no lock,
//! and promotes the flight as a local follower does. Its body is not read: the seat only keeps the call going. A flight that may not
//! be joined refuses with [`Refusal::Gone`], where a new flight of the key would do, or with [`Refusal::Alone`].
//!
//! **The end.** In the instant in which nobody may join the flight any more since its last byte has come, and before anybody can see
//! that, the work calls [`end`](Contest::end). If that gives an `Answering`, followers elsewhere wait: they get
//! `Answering::answer`, one blob of bytes that the owner's code at the other side reads. Where it is known before the end that
//! there will be none (an unshareable head, a body over the limit, a failure that can't be written), `end` and
//! `answer(Err(reason))` come at once, and the call goes on for local callers alone. A work that is dropped before its end drops the
//! contest with it, which releases the key and sends followers on.
//!
//! **Forgetting** calls [`forget_target`](ReplicaClient::forget_target), or [`forget_all`](ReplicaClient::forget_all), before the local flights are
//! detached. A flight has one target beside its key; what another replica forgets comes as [`LocalFlight::detach`].
//!
//! Locks nest in one order: the protocol's, then a shard's, then a flight's. Never call a [`ReplicaClient`] or [`Contest`] under one of the
//! latter.

mod contest;
mod driver;
mod error;
#[cfg(feature = "http")]
pub(crate) mod http;
mod hub;
mod id;
#[cfg(test)]
mod memory;
mod message;
mod protocol;
mod redis;
mod secret;
mod settings;
#[cfg(test)]
mod shelf;
mod store;

#[cfg(feature = "http")]
pub(crate) use self::contest::Answering;
#[cfg(feature = "http")]
pub(crate) use self::protocol::AloneReason;
pub(crate) use self::{
    contest::Contest,
    hub::{LocalFlight, RemoteSeat},
    id::Digest,
    message::NotShared,
    protocol::{ContestOutcome, EntryId, Refusal, Unjoined},
    settings::ReplicaClient,
};
pub use self::{
    error::ReplicasError,
    secret::KeyBytes,
    settings::{ReplicaStats, Replicas},
};
#[cfg(test)]
pub(crate) use self::{memory::MemoryStore, store::Request};
