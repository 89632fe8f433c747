//! Request bodies that are read before the layer, and keys that hold them.
#![cfg(feature = "http")]

#[path = "../support/mod.rs"]
mod support;

mod keys;
mod reading;
mod sockets;
mod stacks;
mod types;
