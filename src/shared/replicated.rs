//! `Replicated`: a layer's connection to other replicas, and the names of its flights there.

use http::request;

use super::write_target::Resource;
use crate::{
    key::{KeyExtractor, RequestKey, RequestKeyExtractor},
    replicas::{Digest, KeyBytes, ReplicaClient, http::request_name},
};

pub(crate) struct Replicated<K> {
    pub(crate) client: ReplicaClient,
    /// The extractor of the default key, and that key in a key, if there is one.
    default: Option<RequestKeyExtractor>,
    default_part: fn(&K) -> Option<&RequestKey>,
    /// Writes what the user adds to the default key, as bytes that are the same at all replicas.
    write: Box<Write<K>>,
}

type Write<K> = dyn Fn(&K, &mut KeyBytes) + Send + Sync;

// ===== impl Replicated =====

impl<K> Replicated<K> {
    pub(crate) fn new<X, F>(client: ReplicaClient, extractor: &X, write: F) -> Self
    where
        X: KeyExtractor<Key = K>,
        F: Fn(&K, &mut KeyBytes) + Send + Sync + 'static,
    {
        Self {
            client,
            default: extractor.default_key().cloned(),
            default_part: X::default_part,
            write: Box::new(write),
        }
    }

    /// The name of a request's flights at all replicas.
    pub(crate) fn name(&self, request: &request::Parts, key: &K) -> Digest {
        request_name(&self.client, &request.method, |bytes| {
            if let Some(default) = &self.default {
                default.write_shared(request, bytes);
            }
            (self.write)(key, bytes);
        })
    }

    /// The target under which flights of this key are forgotten.
    pub(crate) fn target(&self, key: &K) -> Digest {
        match (self.default_part)(key) {
            Some(default) => self.resource(&Resource::new(default.uri(), None)),
            None => self.client.targets.digest(|bytes| (self.write)(key, bytes)),
        }
    }

    /// Leaves out the host, because a request may name none: two hosts with the same path cost each other at most a
    /// call.
    fn resource(&self, resource: &Resource<'_>) -> Digest {
        let targets = &self.client.targets;
        targets.digest(|bytes| resource.parts(|part| bytes.part(part)))
    }

    /// Call this before you detach the local flights.
    pub(crate) fn forget(&self, key: &K) {
        self.client.forget_target(self.target(key));
    }

    /// Forgets the flights of a resource that was written. Call this before you detach the local flights.
    pub(crate) fn written(&self, resource: &Resource<'_>) {
        self.client.forget_target(self.resource(resource));
    }
}
