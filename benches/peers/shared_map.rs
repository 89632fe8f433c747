//! What one writes by hand: `Mutex<HashMap<_, Shared<_>>>`. The work removes its own entry.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex},
};

use futures_util::future::{BoxFuture, FutureExt, Shared};

use super::{Peer, Value};

type Flights = Mutex<HashMap<u64, Shared<BoxFuture<'static, Value>>>>;

#[derive(Clone)]
pub(crate) struct SharedMap(Arc<Flights>);

impl Peer for SharedMap {
    const NAME: &'static str = "mutex-map-of-shared";

    fn new() -> Self {
        Self(Arc::default())
    }

    fn call<F>(&self, key: u64, work: F) -> impl Future<Output = Value> + Send
    where
        F: Future<Output = Value> + Send + 'static,
    {
        let flights = Arc::clone(&self.0);
        let lead = || {
            async move {
                let value = work.await;
                flights.lock().unwrap().remove(&key);
                value
            }
            .boxed()
            .shared()
        };
        let mut flights = self.0.lock().unwrap();
        flights.entry(key).or_insert_with(lead).clone()
    }
}
