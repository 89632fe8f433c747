//! The layer as a Tower service: roles, readiness, errors, panics, handles, and real servers.
#![cfg(feature = "http")]

#[path = "../support/mod.rs"]
mod support;

mod audit;
mod constructors;
mod followed;
mod forwarding;
mod handles;
mod mixed_users;
mod moved_followers;
mod opted_in_methods;
mod panics;
mod parked_leaders;
mod public_types;
mod random_traffic;
mod readiness;
mod regressions;
mod roles;
mod servers;
mod sessions;
mod shared_errors;
mod stacks;
mod task_locals;

/// First by its name, so that a test that hangs is a failure.
#[test]
fn a_hang_is_a_failure() {
    support::alarm(std::time::Duration::from_secs(300));
}
