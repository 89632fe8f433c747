//! A `Group`: callers, flights and work, without HTTP.

#[path = "../support/mod.rs"]
mod support;

mod chain;
mod driving;
mod forget;
mod kept;
mod leaving;
mod led;
mod linearizable;
mod names;
mod nothing_kept;
mod panic_hook;
mod panics;
mod reentrancy;
mod runtimes;
mod sharing;
mod solo;
mod try_run;
mod types;
mod wakers;

/// First by its name, so that a test that hangs is a failure.
#[test]
fn a_hang_is_a_failure() {
    support::alarm(std::time::Duration::from_secs(60));
}
