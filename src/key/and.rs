//! The default key and one of the user's.

use std::{any::type_name, fmt, hash::Hash};

use http::request;

use super::{
    extractor::KeyExtractor,
    request::{RequestKey, RequestKeyExtractor},
};

/// The default key and what a function of yours makes of the request. Made by
/// [`RequestKeyExtractor::and`].
#[derive(Clone)]
#[must_use]
pub struct RequestKeyAnd<F> {
    default: RequestKeyExtractor,
    and: F,
}

// ===== impl RequestKeyAnd =====

impl<F> RequestKeyAnd<F> {
    pub(super) fn new(default: RequestKeyExtractor, and: F) -> Self {
        Self { default, and }
    }
}

impl<F, K> KeyExtractor for RequestKeyAnd<F>
where
    F: Fn(&request::Parts) -> Option<K> + Send + Sync + 'static,
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    type Key = (RequestKey, K);

    fn extract(&self, request: &request::Parts) -> Option<Self::Key> {
        let key = self.default.extract(request)?;
        self.complete(key, request)
    }

    fn default_key(&self) -> Option<&RequestKeyExtractor> {
        Some(&self.default)
    }

    fn default_part(key: &Self::Key) -> Option<&RequestKey> {
        Some(&key.0)
    }

    fn complete(&self, key: RequestKey, request: &request::Parts) -> Option<Self::Key> {
        (self.and)(request).map(|and| (key, and))
    }
}

impl<F> fmt::Debug for RequestKeyAnd<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestKeyAnd")
            .field("default", &self.default)
            .field("and", &format_args!("{}", type_name::<F>()))
            .finish()
    }
}
