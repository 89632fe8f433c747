//! The default key, extended by the user.

use std::{any::type_name, fmt, hash::Hash};

use http::request;

use super::{
    extractor::KeyExtractor,
    request::{RequestKey, RequestKeyExtractor},
};

/// The default key, extended by a function of your own. Made by [`RequestKeyExtractor::and`].
#[derive(Clone)]
#[must_use]
pub struct RequestKeyAnd<F> {
    default: RequestKeyExtractor,
    and: F,
}

impl RequestKeyExtractor {
    /// Adds what `f` returns to the key: a tenant, a user, or whatever the response depends on beside the request's
    /// fields. If `f` returns `None`, the request is not coalesced.
    ///
    /// Call it last. A successful write detaches the flights of its URI, as with the default key alone.
    ///
    /// # Example
    ///
    /// ```
    /// use http::header::{AUTHORIZATION, COOKIE};
    /// use tower_singleflight::{RequestKeyExtractor, SingleflightLayer};
    ///
    /// /// Left in the extensions by the layer that checks who asks.
    /// #[derive(Clone, PartialEq, Eq, Hash)]
    /// struct Tenant(u64);
    ///
    /// // All users of a tenant get one answer.
    /// let key = RequestKeyExtractor::new()
    ///     .ignore_headers([AUTHORIZATION, COOKIE])
    ///     .and(|request| request.extensions.get::<Tenant>().cloned());
    /// let layer = SingleflightLayer::with_extractor(key);
    /// # let _ = layer;
    /// ```
    ///
    /// # Panics
    ///
    /// A panic of `f` affects only its own caller.
    pub fn and<F, K>(self, f: F) -> RequestKeyAnd<F>
    where
        F: Fn(&request::Parts) -> Option<K> + Send + Sync + 'static,
        K: Hash + Eq + Clone + Send + Sync + 'static,
    {
        RequestKeyAnd {
            default: self,
            and: f,
        }
    }
}

// ===== impl RequestKeyAnd =====

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

    fn default_part_mut(key: &mut Self::Key) -> Option<&mut RequestKey> {
        Some(&mut key.0)
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
