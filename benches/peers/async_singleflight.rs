//! async_singleflight 0.6, its group for work that can't fail.

use std::{future::Future, sync::Arc};

use async_singleflight::UnaryGroup;

use super::{Peer, Value};

#[derive(Clone)]
pub(crate) struct AsyncSingleflight(Arc<UnaryGroup<u64, Value>>);

impl Peer for AsyncSingleflight {
    const NAME: &'static str = "async_singleflight";

    fn new() -> Self {
        Self(Arc::new(UnaryGroup::new()))
    }

    async fn call<F>(&self, key: u64, work: F) -> Value
    where
        F: Future<Output = Value> + Send + 'static,
    {
        self.0.work(&key, work).await
    }
}
