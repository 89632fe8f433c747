//! One call for all replicas, over a store that they share.

mod contest;
mod driver;
mod error;
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

#[cfg(test)]
pub(crate) use self::{memory::MemoryStore, store::Request};
pub(crate) use self::{
    contest::Contest,
    hub::{LocalFlight, RemoteSeat},
    id::Digest,
    protocol::{EntryId, Reason, Refusal, Verdict},
    settings::Site,
};
pub use self::{
    error::ReplicasError,
    secret::KeyBytes,
    settings::{ReplicaStats, Replicas},
};
