use std::{fmt, hash, sync::Arc};

use http::header::HOST;
use http::{HeaderName, HeaderValue, Method, Uri, request, uri};

use super::digest::{Digest, Writer};
use super::extractor::{KeyExtractor, may_have_key};
use super::host::{self, Host};
use super::ignore::{Ignored, Names, Place};
use super::named::{Named, names_fields};

/// The default key: the method, the target and every header field that is not on a list of those without meaning.
///
/// Two requests are identical if they agree in
///
/// * the method, which is GET or HEAD (any other is not coalesced);
/// * the URI, and the `Host` field where it says something else; scheme and host compare without regard to case, all
///   else byte by byte. One in absolute form (HTTP/2, a proxy's) and one in origin form (HTTP/1.1) don't meet;
/// * **every request header field** but those below: the same lines, byte by byte. An `Authorization`, `Cookie`,
///   `Accept-Encoding`, `Range` or unknown `X-User-Id` that differs keeps two requests apart without anyone having
///   thought of it.
///
/// The order of lines of one name counts. That of different names counts too, although it has no meaning in HTTP: two
/// clients who write the same fields in another order just don't meet.
///
/// # What is left out
///
/// | left out | why |
/// | --- | --- |
/// | `connection`, `keep-alive`, `proxy-connection`, `te`, `trailer`, `transfer-encoding`, `upgrade` | they speak of the connection, not of the request |
/// | `traceparent`, `tracestate`, `baggage`, `b3`, `x-b3-*`, `x-request-id`, `x-correlation-id`, `x-amzn-trace-id`, `x-cloud-trace-context` | trace and request ids: no two requests have the same |
/// | `via`, `forwarded`, `x-forwarded-for`, `x-real-ip` | the way that the request took |
/// | `user-agent`, `sec-ch-*`, `sec-fetch-*`, `sec-gpc`, `dnt`, `priority`, `referer`, `upgrade-insecure-requests` | the client's description of itself |
///
/// `x-forwarded-host`, `x-forwarded-proto`, `x-forwarded-user` and `proxy-authorization` are in the key. So is a field
/// of the last three rows, or one of [`ignore_header`](Self::ignore_header), that the request's own `Connection` names:
/// a client can put a field into its key in this way, and never take one out. A field that is named there is not the same
/// as one that is not, since a proxy behind this layer forwards the request without it.
///
/// A response's `Vary` is obeyed all the same: if it names `user-agent`, browsers that differ get answers of their own.
///
/// <div class="warning">
///
/// **What the key does not hold, the answer must not depend on.** If your service answers by one of these without
/// saying so in `Vary`, add it to the key:
///
/// * the client's address, from the connection or from `forwarded` or `x-forwarded-for`;
/// * the user agent, its client hints, its fetch metadata (`sec-fetch-site`), the referer;
/// * **an identity in the request's extensions**, put there by an authentication layer outside this one: no extension
///   is in the key. (One that was derived from a header field is, since the field is.)
///
/// </div>
///
/// ```
/// use std::net::SocketAddr;
///
/// use axum::extract::ConnectInfo;
/// use http::{header::USER_AGENT, request};
/// use tower_singleflight::{KeyExtractor, RequestKeyExtractor};
///
/// /// What your authentication layer leaves in the extensions.
/// #[derive(Clone, PartialEq, Eq, Hash)]
/// struct UserId(u64);
///
/// let default = RequestKeyExtractor::new();
/// let key = move |request: &request::Parts| {
///     let user = request.extensions.get::<UserId>().cloned();
///     let peer = request.extensions.get::<ConnectInfo<SocketAddr>>();
///     let agent = request.headers.get(USER_AGENT).cloned();
///     Some((default.extract(request)?, user, peer.map(|peer| peer.0.ip()), agent))
/// };
///
/// let ask = |user| {
///     let mut request = http::Request::new(()).into_parts().0;
///     request.extensions.insert(UserId(user));
///     key.extract(&request)
/// };
/// assert!(ask(1) == ask(1));
/// assert!(ask(1) != ask(2));
/// ```
///
/// # Comparison
///
/// Keys compare by method and a 128-bit keyed hash (HighwayHash) of all the above, whose secret is random and lives
/// as long as the process. Keys of different extractors therefore compare, and a key holds no header value.
#[derive(Clone, Default)]
#[must_use]
pub struct RequestKeyExtractor {
    ignored: Arc<Names>,
}

/// The key that [`RequestKeyExtractor`] makes of a request.
///
/// It shows and keeps no header value, only a hash of them all, nor a user or password of the URI.
#[derive(Clone)]
pub struct RequestKey {
    method: Method,
    uri: Uri,
    digest: Digest,
}

// ===== impl RequestKeyExtractor =====

impl RequestKeyExtractor {
    /// The list of the [type's documentation](Self), and no more.
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves one more field out of the key. What the inner service answers must not depend on it.
    ///
    /// # Example
    ///
    /// ```
    /// use http::{HeaderName, Request};
    /// use tower_singleflight::{KeyExtractor, RequestKeyExtractor};
    ///
    /// let extractor = RequestKeyExtractor::new().ignore_header(HeaderName::from_static("x-attempt"));
    /// let attempt = |n: u16| Request::get("/").header("x-attempt", n).body(()).unwrap().into_parts().0;
    /// assert_eq!(extractor.extract(&attempt(1)), extractor.extract(&attempt(2)));
    /// ```
    pub fn ignore_header(mut self, name: HeaderName) -> Self {
        Arc::make_mut(&mut self.ignored).insert(name);
        self
    }

    /// Leaves more fields out of the key, as [`ignore_header`](Self::ignore_header) does with each.
    pub fn ignore_headers(self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        names.into_iter().fold(self, Self::ignore_header)
    }

    /// Whether two requests of one key may differ in the field of this name.
    pub(crate) fn may_leave_out(&self, name: &HeaderName) -> bool {
        Ignored::new(&self.ignored, None).place(name.as_str()) != Place::Key
    }

    /// Whether requests of this method have a key.
    pub(crate) fn coalesces(&self, method: &Method) -> bool {
        may_have_key(method)
    }

    /// The key of a request, whatever its method. `see` is shown each field line, and whether two requests of this key may
    /// differ in fields of that name.
    pub(crate) fn read(
        &self,
        request: &request::Parts,
        see: impl FnMut(&str, &HeaderValue, bool),
    ) -> RequestKey {
        // That `Connection` names fields is seldom so, and seen only when the first of them may have been left out.
        let (mut digest, names_fields) = self.digest(request, None, see);
        if names_fields {
            let named = Named::by(&request.headers);
            digest = self.digest(request, Some(&named), |_, _, _| {}).0;
        }
        RequestKey {
            method: request.method.clone(),
            uri: without_userinfo(&request.uri),
            digest,
        }
    }

    /// Also tells whether a `Connection` names fields.
    fn digest(
        &self,
        request: &request::Parts,
        named: Option<&Named<'_>>,
        mut see: impl FnMut(&str, &HeaderValue, bool),
    ) -> (Digest, bool) {
        let request::Parts {
            method,
            uri,
            headers,
            ..
        } = request;
        let mut writer = Writer::new();
        writer.part(method.as_str().as_bytes());
        match uri.scheme_str() {
            Some(scheme) => writer.lowercase(scheme.as_bytes()),
            None => writer.optional(None),
        }
        let mut host_is_repeated = false;
        match uri.authority() {
            Some(authority) => {
                let host = Host::of(authority);
                writer.part(host.userinfo);
                writer.lowercase(host.name);
                writer.part(host.port);
                host_is_repeated = host::repeats(headers, authority);
            }
            None => writer.optional(None),
        }
        let path = uri.path_and_query().map(|path| path.as_str().as_bytes());
        writer.optional(path);

        let ignored = Ignored::new(&self.ignored, named);
        let mut are_named = false;
        // The map gives the lines of one name together and in their order.
        for (header, value) in headers {
            let name = header.as_str();
            let place = ignored.place(name);
            see(name, value, place != Place::Key);
            if place == Place::Nowhere {
                are_named |= name == "connection" && names_fields(value);
                continue;
            }
            if place == Place::Named {
                writer.named();
            }
            if *header != HOST {
                writer.field(name.as_bytes(), value.as_bytes());
            } else if !host_is_repeated || place == Place::Named {
                let host = Host::parse(value.as_bytes());
                writer.field(name.as_bytes(), host.userinfo);
                writer.lowercase(host.name);
                writer.part(host.port);
            }
        }
        (writer.finish(), are_named)
    }
}

impl KeyExtractor for RequestKeyExtractor {
    type Key = RequestKey;

    fn extract(&self, request: &request::Parts) -> Option<RequestKey> {
        may_have_key(&request.method).then(|| self.read(request, |_, _, _| {}))
    }
}

impl fmt::Debug for RequestKeyExtractor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestKeyExtractor")
            .field("ignored", &self.ignored.as_slice())
            .finish_non_exhaustive()
    }
}

// ===== impl RequestKey =====

impl RequestKey {
    /// The method of the request, GET or HEAD.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The URI of the request in the form that the request had, without a user and password.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.uri
    }
}

impl PartialEq for RequestKey {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.method == other.method
    }
}

impl Eq for RequestKey {}

impl hash::Hash for RequestKey {
    fn hash<H>(&self, state: &mut H)
    where
        H: hash::Hasher,
    {
        // Half of a digest is as good a hash as any.
        state.write_u64(self.digest[0]);
    }
}

/// Shows no header value and no query: either may hold a secret.
impl fmt::Debug for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestKey")
            .field("method", &self.method)
            .field("authority", &self.uri.authority())
            .field("path", &self.uri.path())
            .finish_non_exhaustive()
    }
}

/// A key holds no credential in clear; the hash of the user and password is in its digest.
fn without_userinfo(uri: &Uri) -> Uri {
    match uri.authority() {
        Some(authority) if authority.as_str().contains('@') => strip(uri, authority),
        _ => uri.clone(),
    }
}

#[cold]
fn strip(uri: &Uri, authority: &uri::Authority) -> Uri {
    let start = authority.as_str().rfind('@').map_or(0, |at| at + 1);
    let mut parts = uri.clone().into_parts();
    parts.authority = authority.as_str()[start..].parse().ok();
    // A URI of one of its own parts is valid; were it not, showing none is better than showing the password.
    Uri::from_parts(parts).unwrap_or_default()
}
