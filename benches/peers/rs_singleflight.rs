//! rs-singleflight 0.2. Values go round in an `Arc`; `do_call` clones them out of it.

use std::{convert::Infallible, future::Future};

use rs_singleflight::Group;

use super::{Peer, Value};

#[derive(Clone)]
pub(crate) struct RsSingleflight(Group<u64, Value, Infallible>);

impl Peer for RsSingleflight {
    const NAME: &'static str = "rs-singleflight";

    fn new() -> Self {
        Self(Group::new())
    }

    async fn call<F>(&self, key: u64, work: F) -> Value
    where
        F: Future<Output = Value> + Send + 'static,
    {
        let Ok(value) = self.0.do_call(key, || async { Ok(work.await) }).await;
        value
    }
}
