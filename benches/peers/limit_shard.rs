//! The limit, not a peer: a sharded mutex-and-hashbrown map, in which every call inserts one `Arc` and removes it. It
//! coalesces nothing, publishes nothing, cleans nothing up.

use std::{
    future::Future,
    hash::{BuildHasher, RandomState},
    pin::Pin,
    sync::{Arc, Mutex},
};

use hashbrown::HashTable;

use super::{Peer, Value};

const SHARDS: usize = 64;

#[repr(align(128))]
struct Shard(Mutex<HashTable<(u64, Arc<u64>)>>);

#[derive(Clone)]
pub(crate) struct LimitShard {
    shards: Arc<[Shard]>,
    hasher: RandomState,
}

impl Peer for LimitShard {
    const NAME: &'static str = "limit-shard";

    fn new() -> Self {
        Self {
            shards: (0..SHARDS)
                .map(|_| Shard(Mutex::new(HashTable::new())))
                .collect(),
            hasher: RandomState::new(),
        }
    }

    async fn call<F>(&self, key: u64, work: F) -> Value
    where
        F: Future<Output = Value> + Send + 'static,
    {
        let hash = self.hasher.hash_one(key);
        let shard = &self.shards[(hash >> 32) as usize % SHARDS].0;
        let entry = (key, Arc::new(hash));
        shard
            .lock()
            .unwrap()
            .insert_unique(hash, entry, |(_, hash)| **hash);
        let value = work.await;
        let removed = {
            let mut entries = shard.lock().unwrap();
            let found = entries.find_entry(hash, |(other, _)| *other == key);
            found.ok().map(|entry| entry.remove().0)
        };
        drop(removed);
        value
    }
}

/// As `LimitShard`, with the same allocations as a flight: the work is boxed.
#[derive(Clone)]
pub(crate) struct LimitShardBoxed(LimitShard);

impl Peer for LimitShardBoxed {
    const NAME: &'static str = "limit-shard, work boxed";

    fn new() -> Self {
        Self(LimitShard::new())
    }

    async fn call<F>(&self, key: u64, work: F) -> Value
    where
        F: Future<Output = Value> + Send + 'static,
    {
        let work: Pin<Box<dyn Future<Output = Value> + Send>> = Box::pin(work);
        self.0.call(key, work).await
    }
}
