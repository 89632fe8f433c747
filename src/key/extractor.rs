use std::hash::Hash;

use http::{Method, Uri, request};

use super::request::{RequestKey, RequestKeyExtractor, may_have_key};
use super::target::copied;

/// Says which requests are identical: those with equal keys.
///
/// Every `Fn(&http::request::Parts) -> Option<K>` implements it, so you can use a closure or a function such as
/// [`method_and_uri`]. [`RequestKeyExtractor`](crate::RequestKeyExtractor) is the default.
///
/// All callers with the same key get the same response. **Everything that the response depends on belongs in the key**:
/// the user, the language, the tenant. A key without the user's identity gives one user's page to another. A key for a
/// method other than GET and HEAD opts that method in: two POSTs with the same key become one call. With a
/// [`BufferBodyLayer`](crate::BufferBodyLayer) above, the bytes of the body are in the extensions, as
/// [`BodyBytes`](crate::BodyBytes).
///
/// # Example
///
/// ```
/// use http::{Method, request};
/// use tower_singleflight::KeyExtractor;
///
/// // Tiles depend on their path alone; everything else is left alone.
/// let tiles = |request: &request::Parts| {
///     let path = request.uri.path();
///     (request.method == Method::GET && path.starts_with("/tiles/")).then(|| path.to_owned())
/// };
///
/// let (tile, ()) = http::Request::get("/tiles/3/1/2").body(())?.into_parts();
/// assert_eq!(tiles.extract(&tile).as_deref(), Some("/tiles/3/1/2"));
/// # Ok::<(), http::Error>(())
/// ```
///
/// # Panics
///
/// A panic of the extractor affects only its own caller: no other caller and no flight.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say which requests are identical",
    label = "not a `KeyExtractor`",
    note = "a closure needs its argument's type: `|request: &http::request::Parts| -> Option<K> {{ .. }}`",
    note = "its key `K` must be `Hash + Eq + Clone + Send + Sync + 'static`"
)]
pub trait KeyExtractor: Send + Sync + 'static {
    /// What identical requests have in common.
    type Key: Hash + Eq + Clone + Send + Sync + 'static;

    /// The key of a request, or `None` if it must not be coalesced.
    fn extract(&self, request: &request::Parts) -> Option<Self::Key>;

    /// The default key that this one is built on, if any. The layer knows what that holds, and so which flights a write
    /// detaches.
    #[doc(hidden)]
    fn default_key(&self) -> Option<&RequestKeyExtractor> {
        None
    }

    /// The part of a key that is the [default key](Self::default_key).
    #[doc(hidden)]
    fn default_part(key: &Self::Key) -> Option<&RequestKey>
    where
        Self: Sized,
    {
        let _ = key;
        None
    }

    /// As [`default_part`](Self::default_part).
    #[doc(hidden)]
    fn default_part_mut(key: &mut Self::Key) -> Option<&mut RequestKey>
    where
        Self: Sized,
    {
        let _ = key;
        None
    }

    /// The hash of a key that already is a keyed hash.
    #[doc(hidden)]
    fn hash_of(key: &Self::Key) -> Option<u64>
    where
        Self: Sized,
    {
        let _ = key;
        None
    }

    /// Returns what [`extract`](Self::extract) does, given what the [default key](Self::default_key) returned.
    #[doc(hidden)]
    fn complete(&self, key: RequestKey, request: &request::Parts) -> Option<Self::Key> {
        drop(key);
        self.extract(request)
    }
}

impl KeyExtractor for RequestKeyExtractor {
    type Key = RequestKey;

    fn extract(&self, request: &request::Parts) -> Option<RequestKey> {
        self.coalesces(request).then(|| {
            let mut key = self.read(request, |_, _, _| {});
            key.keep_target(request);
            key
        })
    }

    fn default_key(&self) -> Option<&RequestKeyExtractor> {
        Some(self)
    }

    fn default_part(key: &RequestKey) -> Option<&RequestKey> {
        Some(key)
    }

    fn default_part_mut(key: &mut RequestKey) -> Option<&mut RequestKey> {
        Some(key)
    }

    fn hash_of(key: &RequestKey) -> Option<u64> {
        Some(key.half())
    }

    fn complete(&self, key: RequestKey, _: &request::Parts) -> Option<RequestKey> {
        Some(key)
    }
}

impl<F, K> KeyExtractor for F
where
    F: Fn(&request::Parts) -> Option<K> + Send + Sync + 'static,
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    type Key = K;

    fn extract(&self, request: &request::Parts) -> Option<K> {
        self(request)
    }
}

/// The minimal key: the method and the URI of a GET or HEAD, and `None` for any other method.
///
/// <div class="warning">
///
/// Use it only for services whose responses depend on nothing else: not on `Authorization` or `Cookie`, not on
/// `Accept-Encoding`, not on `Range`, and not on `Host` where the URI has no authority. A response's `Vary` still keeps
/// variants apart, if the service sends one.
///
/// </div>
///
/// # Example
///
/// ```
/// use http::{Method, Request};
/// use tower_singleflight::method_and_uri;
///
/// let (get, ()) = Request::get("/a?b").header("cookie", "c=d").body(())?.into_parts();
/// assert_eq!(method_and_uri(&get), Some((Method::GET, "/a?b".parse()?)));
///
/// let (post, ()) = Request::post("/a?b").body(())?.into_parts();
/// assert_eq!(method_and_uri(&post), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn method_and_uri(request: &request::Parts) -> Option<(Method, Uri)> {
    may_have_key(&request.method).then(|| (request.method.clone(), copied(&request.uri)))
}
