//! Request bodies that are read before the layer, and keys that hold them.
#![cfg(feature = "http")]
#![allow(unsafe_code, reason = "an allocator that counts")]

#[path = "../support/mod.rs"]
mod support;

mod cost;
mod keys;
mod reading;
mod sockets;
mod stacks;
mod types;
