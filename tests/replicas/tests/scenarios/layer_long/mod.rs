//! The layer's scenarios that take seconds: stores that fail, are far away or of another kind, processes that die.

mod bursts;
mod credentials;
mod far_store;
mod processes;
mod staleness;
mod store_fails;
