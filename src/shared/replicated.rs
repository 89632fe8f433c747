//! `Replicated`: where a layer's flights meet those of other replicas, and by which names.

use std::sync::Arc;

use http::request;

use super::write_target::Resource;
use crate::{
    key::KeyExtractor,
    replicas::{Digest, KeyBytes, ReplicaClient, ReplicaStats, http::request_name},
};

pub(crate) struct Replicated<K> {
    pub(crate) client: ReplicaClient,
    names: Box<dyn WriteKey<K>>,
}

/// Writes keys as bytes that are the same at all replicas.
trait WriteKey<K>: Send + Sync {
    fn write(&self, request: &request::Parts, key: &K, bytes: &mut KeyBytes);

    /// By what flights of this key are forgotten.
    fn target(&self, client: &ReplicaClient, key: &K) -> Digest;
}

/// The parts of the default key, if the extractor has one, and those that the user writes.
struct Names<X, F> {
    extractor: Arc<X>,
    own: F,
}

// ===== impl Replicated =====

impl<K> Replicated<K> {
    pub(crate) fn new<X, F>(client: ReplicaClient, extractor: Arc<X>, own: F) -> Self
    where
        X: KeyExtractor<Key = K>,
        F: Fn(&K, &mut KeyBytes) + Send + Sync + 'static,
    {
        Self {
            client,
            names: Box::new(Names { extractor, own }),
        }
    }

    pub(crate) fn stats(&self) -> ReplicaStats {
        self.client.stats()
    }

    /// The name of a request's flights at all replicas.
    pub(crate) fn name(&self, request: &request::Parts, key: &K) -> Digest {
        request_name(&self.client, &request.method, |bytes| {
            self.names.write(request, key, bytes);
        })
    }

    /// By what flights of this key are forgotten.
    pub(crate) fn target(&self, key: &K) -> Digest {
        self.names.target(&self.client, key)
    }

    /// Call it before the local flights are detached.
    pub(crate) fn forget(&self, key: &K) {
        self.client.forget_target(self.target(key));
    }

    /// Flights of a resource that has been written. Call it before the local flights are detached.
    pub(crate) fn written(&self, resource: &Resource<'_>) {
        self.client
            .forget_target(of_resource(&self.client, resource));
    }
}

/// Hosts are left out, as a request may name none: two that have the same path cost each other at most a call.
fn of_resource(client: &ReplicaClient, resource: &Resource<'_>) -> Digest {
    client.target(|bytes| resource.parts(|part| bytes.part(part)))
}

// ===== impl Names =====

impl<X, F> WriteKey<X::Key> for Names<X, F>
where
    X: KeyExtractor,
    F: Fn(&X::Key, &mut KeyBytes) + Send + Sync,
{
    fn write(&self, request: &request::Parts, key: &X::Key, bytes: &mut KeyBytes) {
        if let Some(default) = self.extractor.default_key() {
            default.write_shared(request, bytes);
        }
        (self.own)(key, bytes);
    }

    fn target(&self, client: &ReplicaClient, key: &X::Key) -> Digest {
        match X::default_part(key) {
            Some(default) => of_resource(client, &Resource::new(default.uri(), None)),
            None => client.target(|bytes| (self.own)(key, bytes)),
        }
    }
}
