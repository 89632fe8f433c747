//! singleflight-async 0.2.

use std::{future::Future, sync::Arc};

use singleflight_async::SingleFlight;

use super::{Peer, Value};

#[derive(Clone)]
pub(crate) struct SingleflightAsync(Arc<SingleFlight<u64, Value>>);

impl Peer for SingleflightAsync {
    const NAME: &'static str = "singleflight-async";

    fn new() -> Self {
        Self(Arc::new(SingleFlight::new()))
    }

    async fn call<F>(&self, key: u64, work: F) -> Value
    where
        F: Future<Output = Value> + Send + 'static,
    {
        self.0.work(key, || work).await
    }
}
