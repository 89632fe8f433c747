//! `Replicated`: a layer's connection to other replicas, and the names of its flights there.

use std::sync::Arc;

use http::request;

use super::write_target::Resource;
use crate::{
    key::KeyExtractor,
    replicas::{Digest, KeyBytes, ReplicaClient, http::request_name},
};

pub(crate) struct Replicated<K> {
    pub(crate) client: ReplicaClient,
    write: Box<Write<K>>,
    target: Box<Target<K>>,
}

/// Writes a key as bytes that are the same at all replicas.
type Write<K> = dyn Fn(&request::Parts, &K, &mut KeyBytes) + Send + Sync;

/// The target under which flights of a key are forgotten.
type Target<K> = dyn Fn(&ReplicaClient, &K) -> Digest + Send + Sync;

// ===== impl Replicated =====

impl<K> Replicated<K> {
    /// A key consists of the parts of the default key, if the extractor has one, and those that the user writes.
    pub(crate) fn new<X, F>(client: ReplicaClient, extractor: Arc<X>, user: F) -> Self
    where
        X: KeyExtractor<Key = K>,
        F: Fn(&K, &mut KeyBytes) + Send + Sync + 'static,
    {
        let user = Arc::new(user);
        let write_user = Arc::clone(&user);
        Self {
            client,
            write: Box::new(move |request, key, bytes| {
                if let Some(default) = extractor.default_key() {
                    default.write_shared(request, bytes);
                }
                write_user(key, bytes);
            }),
            target: Box::new(move |client, key| match X::default_part(key) {
                Some(default) => of_resource(client, &Resource::new(default.uri(), None)),
                None => client.targets.digest(|bytes| user(key, bytes)),
            }),
        }
    }

    /// The name of a request's flights at all replicas.
    pub(crate) fn name(&self, request: &request::Parts, key: &K) -> Digest {
        request_name(&self.client, &request.method, |bytes| {
            (self.write)(request, key, bytes);
        })
    }

    /// The target under which flights of this key are forgotten.
    pub(crate) fn target(&self, key: &K) -> Digest {
        (self.target)(&self.client, key)
    }

    /// Call this before you detach the local flights.
    pub(crate) fn forget(&self, key: &K) {
        self.client.forget_target(self.target(key));
    }

    /// Forgets the flights of a resource that was written. Call this before you detach the local flights.
    pub(crate) fn written(&self, resource: &Resource<'_>) {
        self.client
            .forget_target(of_resource(&self.client, resource));
    }
}

/// Leaves out the host, because a request may name none: two hosts with the same path cost each other at most a call.
fn of_resource(client: &ReplicaClient, resource: &Resource<'_>) -> Digest {
    client
        .targets
        .digest(|bytes| resource.parts(|part| bytes.part(part)))
}
