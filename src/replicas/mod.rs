//! One call for all replicas, over a store that they share.

mod id;
mod message;
mod protocol;
mod secret;
mod shelf;
