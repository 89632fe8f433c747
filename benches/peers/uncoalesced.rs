//! No coalescing at all: the work itself.

use std::future::Future;

use super::{Peer, Value};

#[derive(Clone)]
pub(crate) struct Uncoalesced;

impl Peer for Uncoalesced {
    const NAME: &'static str = "uncoalesced";

    fn new() -> Self {
        Self
    }

    fn call<F>(&self, _key: u64, work: F) -> impl Future<Output = Value> + Send
    where
        F: Future<Output = Value> + Send + 'static,
    {
        work
    }
}
