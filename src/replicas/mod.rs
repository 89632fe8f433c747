//! One call for all replicas, over a store that they share.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `settings` | [`Replicas`], the user's settings, and [`ReplicaClient`], through which a group or a layer uses them |
//! | `contest` | [`Contest`] and `Answering`, which the work of a local flight holds |
//! | `hub` | the protocol under a lock, and what it needs of a local flight: [`LocalFlight`], [`RemoteSeat`] |
//! | `driver` | the task that talks to the store |
//! | `protocol` | the state machine, without I/O or a clock |
//! | `message` | the messages between replicas, and how they are written |
//! | `secret` | the secret keys for that, and the digests of flights' keys |
//! | `store`, `redis`, `endpoint` | what a store does, Redis or Valkey as one, and how to connect to it |
//! | `http` | how a layer's keys and responses are written for other replicas |
//! | `memory`, `contents` | a store in memory, for tests |
//!
//! The store says who leads a key, and carries messages. The leader's process decides who shares which answer, under
//! its flight's lock, with the same code as for local followers.
//!
//! # What an owner of flights does
//!
//! A [`Group`](crate::Group) across replicas is such an owner; see `group::replicated`. Its flights work as usual, with
//! four additions.
//!
//! **Before the call.** Each caller takes a [`number`](ReplicaClient::number) when it asks. The leader of a local
//! flight calls [`contend`](ReplicaClient::contend) with the digest of its key before it makes its call, notes the
//! entry under the lock under which callers join, and awaits the [`ContestOutcome`]:
//!
//! * [`Lead`](ContestOutcome::Lead), [`Alone`](ContestOutcome::Alone): make the call. It may have followers at other
//!   replicas in both cases. With `AloneReason::Told` the reason matters: after [`NotShared::Unshareable`] local
//!   followers need not wait for this leader's head, because there is nothing to share.
//! * [`Answer`](ContestOutcome::Answer): another replica's answer, for the callers whose numbers are below `covered`.
//!   The leader there had been told of them while its call was in flight. It had not been told of the others, and they
//!   must not get the answer. If only covered callers have joined (check this under the lock under which callers join),
//!   the flight is over: drop the [`Contest`]. Otherwise give the answer to the covered callers and call
//!   [`again`](Contest::again) for the others. If the owner can't read the answer, or if it varies by a field in which
//!   this leader's request differs, the owner makes the call, or drops the contest and contends under another digest.
//!
//! **Joins here.** A caller that joins a local flight passes its number to [`one_more`](ReplicaClient::one_more). It
//! raises the flight's largest number under the lock under which it joins, so that `contend` and `again` get one more
//! than the largest. While the flight leads, this costs a lock and no message.
//!
//! **Joins from other replicas** call [`LocalFlight::join`], under the protocol's lock. It does what a local join does
//! under the flight's lock (it checks the limits of callers and age, later writes and `forget`s, and whether the key is
//! known to be unshareable), and returns a [`RemoteSeat`] that counts as a caller until it is dropped.
//! [`start`](RemoteSeat::start) follows at once, under no lock, and makes the flight independent of its leader, as a
//! local follower does. The seat reads no body; it only keeps the call going. A flight that may not be joined refuses
//! with [`Refusal::Gone`] if a new flight of the key would do, or else with [`Refusal::Alone`].
//!
//! **The end.** When the last byte has come and nobody may join the flight any more, and before anybody can see that,
//! the work calls [`end`](Contest::end). If that returns an `Answering`, followers at other replicas wait: pass the
//! answer to `Answering::answer` as one blob of bytes, which the owner's code at the other replica reads. If it is
//! known earlier that there will be no answer (an unshareable head, a body over the limit, a failure that can't be
//! written), call `end` and `answer(Err(reason))` at once; the call goes on for local callers. Work that is dropped
//! before its end drops the contest too, which releases the key and sends followers on.
//!
//! **Forgetting** calls [`forget_target`](ReplicaClient::forget_target) or [`forget_all`](ReplicaClient::forget_all)
//! before the local flights are detached. Beside its key a flight has one target: the resource that it is forgotten
//! with when that is written. When another replica forgets it, the protocol calls [`LocalFlight::detach`].
//!
//! Locks nest in one order: the protocol's, then a shard's, then a flight's. Never call a [`ReplicaClient`] or a
//! [`Contest`] under one of the other two.

#[cfg(test)]
mod contents;
mod contest;
mod driver;
mod endpoint;
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
pub(crate) use self::{memory::MemoryStore, protocol::Command};
