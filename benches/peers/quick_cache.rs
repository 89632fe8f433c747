//! quick_cache 0.7: a cache whose entry is removed, by who made it, as soon as it is there.

use std::{convert::Infallible, future::Future, sync::Arc};

use quick_cache::sync::Cache;

use super::{Peer, Value};

#[derive(Clone)]
pub(crate) struct QuickCache(Arc<Cache<u64, Value>>);

impl Peer for QuickCache {
    const NAME: &'static str = "quick_cache";

    fn new() -> Self {
        Self(Arc::new(Cache::new(100_000)))
    }

    async fn call<F>(&self, key: u64, work: F) -> Value
    where
        F: Future<Output = Value> + Send + 'static,
    {
        let mut led = false;
        let work = async {
            led = true;
            Ok::<_, Infallible>(work.await)
        };
        let Ok(value) = self.0.get_or_insert_async(&key, work).await;
        if led {
            self.0.remove(&key);
        }
        value
    }
}
