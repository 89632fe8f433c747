//! The layer as a Tower service: roles, readiness, errors, panics, handles, and real servers.
#![cfg(feature = "http")]

#[path = "../support/mod.rs"]
mod support;

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
