//! Bodies that a leader and its followers read: frames, limits, failures, and callers that leave or stop reading.
#![cfg(feature = "http")]

#[path = "../support/mod.rs"]
mod support;

mod alone;
mod crowd;
mod fail;
mod frames;
mod leave;
mod limits;
mod moving_on;
mod races;
mod second_look;
mod silence;
mod sockets;
mod solo;
mod wakers;
mod window;
mod wire;

/// First by its name, so that a test that hangs is a failure.
#[test]
fn a_hang_is_a_failure() {
    support::alarm(std::time::Duration::from_secs(300));
}
