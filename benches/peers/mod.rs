//! The contestants, each behind an adapter of its own, and the value that they hand round.

mod async_singleflight;
mod limit_shard;
mod moka;
mod quick_cache;
mod rs_singleflight;
mod shared_map;
mod singleflight_async;
mod this_crate;
mod uncoalesced;

use std::{cell::Cell, future::Future};

pub(crate) use self::{
    async_singleflight::AsyncSingleflight,
    limit_shard::{LimitShard, LimitShardBoxed},
    moka::Moka,
    quick_cache::QuickCache,
    rs_singleflight::RsSingleflight,
    shared_map::SharedMap,
    singleflight_async::SingleflightAsync,
    this_crate::ThisCrate,
    uncoalesced::Uncoalesced,
};

/// One way to coalesce calls. Clones share their flights.
pub(crate) trait Peer: Clone + Send + Sync + 'static {
    const NAME: &'static str;

    fn new() -> Self;

    fn call<F>(&self, key: u64, work: F) -> impl Future<Output = Value> + Send
    where
        F: Future<Output = Value> + Send + 'static;
}

thread_local! {
    static CLONES: Cell<u64> = const { Cell::new(0) };
}

/// What the work gives: it allocates nothing, and counts its clones on this thread.
#[derive(Debug)]
pub(crate) struct Value(pub(crate) u64);

impl Value {
    /// How often a value has been cloned on this thread, ever.
    pub(crate) fn clones() -> u64 {
        CLONES.get()
    }
}

impl Clone for Value {
    fn clone(&self) -> Self {
        CLONES.set(CLONES.get() + 1);
        Self(self.0)
    }
}
