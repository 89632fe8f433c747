//! What may be shared: keys, requests, responses, `Vary`, writes, and the memory of unshareable keys.
#![cfg(feature = "http")]

#[path = "../support/mod.rs"]
mod support;

mod bypass;
mod copies;
mod key;
mod key_reference;
mod sharing;
mod strangers;
mod unshareable;
mod variants;
mod variants_reference;
mod write_targets;
mod writes;

/// First by its name, so that a test that hangs is a failure.
#[test]
fn a_hang_is_a_failure() {
    support::alarm(std::time::Duration::from_secs(300));
}
