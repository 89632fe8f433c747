//! `tower_singleflight::Group`.

use std::future::Future;

use tower_singleflight::Group;

use super::{Peer, Value};

#[derive(Clone)]
pub(crate) struct ThisCrate(Group<u64, Value>);

impl Peer for ThisCrate {
    const NAME: &'static str = "tower-singleflight";

    fn new() -> Self {
        Self(Group::new())
    }

    fn call<F>(&self, key: u64, work: F) -> impl Future<Output = Value> + Send
    where
        F: Future<Output = Value> + Send + 'static,
    {
        let run = self.0.run(key, || work);
        async move { run.await.value }
    }
}
