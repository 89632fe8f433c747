use std::{fmt, hash, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, request};

use super::digest::{KeyDigest, Sink, Writer};
use super::forwarded;
use super::host::Host;
use super::ignored::{Ignored, Treatment};
use super::named::{Named, named_by, names_fields};
use super::target::RequestTarget;
use crate::buffer_body::{BodyBytes, Trailers};
#[cfg(feature = "redis")]
use crate::replicas::KeyBytes;
use crate::rules::{CLIENT_ADDRESS, RequestField};

/// The default key: the method, the target and every header field except a few that carry neither identity nor
/// representation.
///
/// Two requests are identical if they agree in
///
/// * the method, which is GET or HEAD, or one that [`coalesce`](Self::coalesce) opts in;
/// * the URI, and the `Host` field if it differs from the URI's host. Scheme and host compare case-insensitively,
///   everything else byte by byte. A URI in absolute form (HTTP/2, proxies) never equals one in origin form (HTTP/1.1);
/// * **every request header field** except those below: the same lines, byte by byte. So a different `Authorization`,
///   `Cookie`, `Accept-Encoding`, `Range` or unknown `X-User-Id` keeps two requests apart without any configuration;
/// * for any method but GET and HEAD, the bytes of the body and its trailers.
///
/// The order of lines with the same name counts. The order of different names counts too, although it means nothing in
/// HTTP: clients that send the same fields in another order don't share.
///
/// # What is left out
///
/// | left out | why |
/// | --- | --- |
/// | `connection`, `keep-alive`, `proxy-connection`, `te`, `trailer`, `transfer-encoding` | They describe the connection, not the request. |
/// | `traceparent`, `b3`, `x-b3-*`, `x-request-id`, `request-id`, `x-correlation-id`, `x-unique-id`, `amz-sdk-invocation-id`, `amz-sdk-request`, `cf-ray`, `elastic-apm-traceparent`, `fly-request-id`, `kong-request-id`, `newrelic`, `ot-tracer-sampled`, `ot-tracer-spanid`, `ot-tracer-traceid`, `sentry-trace`, `uber-trace-id`, `x-amz-cf-id`, `x-amzn-trace-id`, `x-azure-ref`, `x-cloud-trace-context`, `x-datadog-parent-id`, `x-datadog-sampling-priority`, `x-datadog-trace-id`, `x-ms-client-request-id`, `x-queue-start`, `x-request-start`, `x-timer`, `x-varnish`, `x-vercel-id` | They are ids and times of one request, set by tracers, CDNs and SDKs: no two requests have the same. |
/// | `via`, `x-forwarded-for`, `x-real-ip`, and a `forwarded` whose lines have no parameters but `for` and `by` | They name the client and the proxies on the way. |
/// | `user-agent`, `sec-ch-*`, `sec-fetch-*`, `priority`, `referer`, `upgrade-insecure-requests` | The client describes itself. |
///
/// Everything else is in the key. That includes `x-forwarded-host`, `x-forwarded-proto`, `x-forwarded-user`,
/// `proxy-authorization`, and a `forwarded` with another parameter, such as `host` or `proto`, or one that cannot be
/// read. It includes `tracestate` and `baggage`, by which services route tenants and test traffic, and `dnt` and
/// `sec-gpc`, which responses must respect by law. If a tracer writes a new id into `tracestate` or `baggage` for each
/// request, and your service reads neither, leave them out with [`ignore_header`](Self::ignore_header). The client's
/// address as CDNs pass it on (`cf-connecting-ip`, `true-client-ip`, ...) is in the key too;
/// [`client_address_headers`](Self::client_address_headers) lists these fields for
/// [`ignore_headers`](Self::ignore_headers).
///
/// When the body is in the key, its framing is not: `content-length` and `expect` are left out as well.
///
/// If the request's own `Connection` names a field of the last three rows, or one passed to
/// [`ignore_header`](Self::ignore_header), that field is in the key after all. So a client can add a field to its key,
/// but never remove one. A field that `Connection` names differs from one that it does not name, because a proxy behind
/// this layer forwards the request without it. (For `upgrade` and `http2-settings` this makes no difference: no proxy
/// forwards them.)
///
/// The layer still obeys a response's `Vary`: if it names `user-agent`, different browsers get different responses. It
/// treats a 403 and a 451 as if their `Vary` named the client's description and address, so a denial for one client
/// does not reach another. It treats a redirect to the request's own `Referer` as if its `Vary` named `referer`.
///
/// <div class="warning">
///
/// **Your service's responses must not depend on what the key leaves out, nor echo it**, unless `Vary` says so. A
/// stranger chooses the values of these fields, and everybody who joins the stranger's call gets the response to them.
/// If one of the following is true, add the field to the key as in the example:
///
/// * The response depends on the client's address, from the connection, from `x-forwarded-for` or from `forwarded`: a
///   country, a list of allowed networks.
/// * It depends on the user agent or its client hints: a page for mobile browsers.
/// * It depends on the `Referer`: a redirect back, a check against hotlinking.
/// * It depends on `Sec-Fetch-*`. A fetch-metadata policy *below* this layer protects nothing: a request that it would
///   refuse joins the call of one that it let through. Put the policy above the layer.
/// * The service refuses a request because of its age (`x-request-start`, `x-queue-start`) or its path (a `via` that
///   shows a loop).
/// * It writes one of these fields into a page, a link or a response field.
/// * The response depends on **an identity that a layer above put into the request's extensions**: no extension is in
///   the key. (An identity derived from a header field is covered, because the field is in the key.)
///
/// </div>
///
/// ```
/// use std::net::SocketAddr;
///
/// use axum::extract::ConnectInfo;
/// use http::header::USER_AGENT;
/// use tower_singleflight::{KeyExtractor, RequestKeyExtractor};
///
/// /// What your authentication layer leaves in the extensions.
/// #[derive(Clone, PartialEq, Eq, Hash)]
/// struct UserId(u64);
///
/// let key = RequestKeyExtractor::new().and(|request| {
///     let user = request.extensions.get::<UserId>().cloned();
///     let peer = request.extensions.get::<ConnectInfo<SocketAddr>>();
///     let agent = request.headers.get(USER_AGENT).cloned();
///     Some((user, peer.map(|peer| peer.0.ip()), agent))
/// });
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
/// # Changes
///
/// Until 1.0 a minor version may change this list; the changelog will say so.
///
/// # Comparison
///
/// Keys compare by method and by a 128-bit keyed hash (HighwayHash) of all the above. The secret is random, one for the
/// process, so keys from different extractors can be compared. A key holds no header value.
#[derive(Clone, Default)]
#[must_use]
pub struct RequestKeyExtractor {
    lists: Arc<Lists>,
}

#[derive(Clone, Default)]
struct Lists {
    ignored: Ignored,
    /// Beside GET and HEAD.
    coalesced: Vec<Method>,
}

/// The key of a request, made by [`RequestKeyExtractor`].
///
/// It keeps and shows neither header values, only a hash of them, nor the URI's user and password.
#[derive(Clone)]
pub struct RequestKey {
    method: Method,
    target: RequestTarget,
    digest: KeyDigest,
}

// ===== impl RequestKeyExtractor =====

impl RequestKeyExtractor {
    /// An extractor with the default list: see the [type's documentation](Self).
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves one more field out of the key. The inner service's responses must not depend on it.
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
        Arc::make_mut(&mut self.lists).ignored.insert(name);
        self
    }

    /// Leaves these fields out of the key, as [`ignore_header`](Self::ignore_header) does for each.
    pub fn ignore_headers(self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        names.into_iter().fold(self, Self::ignore_header)
    }

    /// The fields in which CDNs, clouds and ingress controllers pass on the client's address, for
    /// [`ignore_headers`](Self::ignore_headers).
    ///
    /// They are in the key unless you leave them out, so behind such a proxy no two clients share a call. Leave them
    /// out if your responses do not depend on the client's address.
    ///
    /// # Example
    ///
    /// ```
    /// use http::Request;
    /// use tower_singleflight::{KeyExtractor, RequestKeyExtractor};
    ///
    /// let extractor = RequestKeyExtractor::new()
    ///     .ignore_headers(RequestKeyExtractor::client_address_headers());
    /// let from = |ip| Request::get("/").header("cf-connecting-ip", ip).body(()).unwrap().into_parts().0;
    /// assert_eq!(extractor.extract(&from("192.0.2.1")), extractor.extract(&from("192.0.2.2")));
    /// ```
    pub fn client_address_headers() -> impl Iterator<Item = HeaderName> {
        CLIENT_ADDRESS.into_iter()
    }

    /// Coalesces requests of this method too. Call it once for each method.
    ///
    /// The bytes of the body are then part of the key, so **a [`BufferBodyLayer`](crate::BufferBodyLayer) above** has
    /// to read them: a request without [`BodyBytes`] has no key. `QUERY`, `REPORT`, `SEARCH` and `PROPFIND` suit this
    /// well: they are safe ([RFC 9110 section 9.2.1]), so nothing is lost when two become one call.
    ///
    /// A method that you opt in counts as safe: its responses detach no flights, unlike a successful write with any
    /// other method. GET and HEAD are always coalesced, and never with a body.
    ///
    /// <div class="warning">
    ///
    /// **`coalesce(Method::POST)` is your promise that no POST below this layer changes anything.** Two identical
    /// orders at the same moment would become one order. If some POSTs are writes, leave them out with
    /// [`and`](Self::and) and a function that returns `None` for them.
    ///
    /// </div>
    ///
    /// # Example
    ///
    /// ```
    /// use http::{Method, Request};
    /// use tower_singleflight::{BodyBytes, KeyExtractor, RequestKeyExtractor};
    ///
    /// let query = Method::from_bytes(b"QUERY")?;
    /// let extractor = RequestKeyExtractor::new().coalesce(query.clone());
    /// let key = |body: &'static str| {
    ///     let request = Request::builder().method(query.clone()).extension(BodyBytes(body.into()));
    ///     extractor.extract(&request.body(()).unwrap().into_parts().0)
    /// };
    /// assert!(key("select a") == key("select a"));
    /// assert!(key("select a") != key("select b"));
    /// # Ok::<(), http::method::InvalidMethod>(())
    /// ```
    ///
    /// [RFC 9110 section 9.2.1]: https://www.rfc-editor.org/rfc/rfc9110#section-9.2.1
    pub fn coalesce(mut self, method: Method) -> Self {
        Arc::make_mut(&mut self.lists).coalesced.push(method);
        self
    }

    /// Whether two requests of one key may differ in the field of this name.
    pub(crate) fn may_leave_out(&self, name: &HeaderName) -> bool {
        let (field, name) = (RequestField::of(name.as_str()), name.as_str());
        self.lists.ignored.treatment(field, name, None) != Treatment::Key
            || !self.lists.coalesced.is_empty() && is_framing(field)
    }

    /// Whether [`coalesce`](Self::coalesce) opts this method in.
    pub(crate) fn opts_in(&self, method: &Method) -> bool {
        self.lists.coalesced.contains(method)
    }

    /// Whether the request has a key.
    pub(crate) fn coalesces(&self, request: &request::Parts) -> bool {
        may_have_key(&request.method)
            || self.opts_in(&request.method) && request.extensions.get::<BodyBytes>().is_some()
    }

    /// The key of a request, whatever its method. Calls `see` with each field line, and with whether two requests of
    /// this key may differ in fields of that name.
    pub(crate) fn read(
        &self,
        request: &request::Parts,
        see: impl FnMut(RequestField, &HeaderValue, bool),
    ) -> RequestKey {
        // `Connection` seldom names fields, and by the time we see it, we may already have left one of them out.
        let mut writer = Writer::new();
        if self.write(request, None, &mut writer, see) {
            let named = named_by(&request.headers);
            writer = Writer::new();
            self.write(request, Some(&named), &mut writer, |_, _, _| {});
        }
        RequestKey {
            method: request.method.clone(),
            target: RequestTarget::default(),
            digest: writer.finish(),
        }
    }

    /// Writes the key of a request for other replicas: the same parts that [`read`](Self::read) hashes with this
    /// process's secret.
    #[cfg(feature = "redis")]
    pub(crate) fn write_shared(&self, request: &request::Parts, bytes: &mut KeyBytes) {
        let named = named_by(&request.headers);
        let mut writer = Writer::to(bytes);
        self.write(request, Some(&named), &mut writer, |_, _, _| {});
        writer.end();
    }

    /// Returns whether a `Connection` names fields; if so, write the key again with them as `named`.
    fn write<S: Sink>(
        &self,
        request: &request::Parts,
        named: Option<&Named>,
        writer: &mut Writer<S>,
        mut see: impl FnMut(RequestField, &HeaderValue, bool),
    ) -> bool {
        let request::Parts {
            method,
            uri,
            headers,
            ..
        } = request;
        writer.part(method.as_str().as_bytes());
        match uri.scheme_str() {
            Some(scheme @ ("http" | "https")) => writer.part(scheme.as_bytes()),
            Some(scheme) => writer.lowercase(scheme.as_bytes()),
            None => writer.optional(None),
        }
        let host = uri
            .authority()
            .map(|it| Host::parse(it.as_str().as_bytes()));
        match &host {
            Some(host) => host.write(writer),
            None => writer.optional(None),
        }
        let path = uri.path_and_query().map(|path| path.as_str().as_bytes());
        writer.optional(path);
        // Whether it comes here follows from the method, which comes first: a GET or HEAD with a body is not coalesced.
        let body = match may_have_key(method) {
            true => None,
            false => request.extensions.get(),
        };
        if let Some(BodyBytes(bytes)) = body {
            writer.part(bytes);
            for (name, value) in Trailers::of(request).into_iter().flatten() {
                writer.field(name.as_str().as_bytes(), value.as_bytes());
            }
            // Ends the list of trailers.
            writer.optional(None);
        }

        let mut are_named = false;
        let mut addresses_alone = None;
        // The map gives the lines of one name together and in their order.
        for (header, value) in headers {
            let name = header.as_str();
            let field = RequestField::of(name);
            let mut treatment = self.lists.ignored.treatment(field, name, named);
            if treatment == Treatment::Key && body.is_some() && is_framing(field) {
                treatment = Treatment::Ignored;
            }
            see(field, value, treatment != Treatment::Key);
            if !treatment.is_in_key() {
                are_named |= field == RequestField::Connection && names_fields(value);
                continue;
            }
            if treatment == Treatment::Forwarded
                && *addresses_alone.get_or_insert_with(|| forwarded::holds_addresses_alone(headers))
            {
                continue;
            }
            if treatment == Treatment::Named {
                writer.named();
            }
            let is_repeated = || {
                host.is_some_and(|host| host.is_repeated_by(value.as_bytes()))
                    && is_only(header, headers)
            };
            if field != RequestField::Host {
                writer.field(name.as_bytes(), value.as_bytes());
            } else if treatment == Treatment::Named || !is_repeated() {
                writer.part(name.as_bytes());
                Host::parse(value.as_bytes()).write(writer);
            }
        }
        are_named
    }
}

impl fmt::Debug for RequestKeyExtractor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestKeyExtractor")
            .field("ignored", &self.lists.ignored.names())
            .field("coalesced", &self.lists.coalesced)
            .finish_non_exhaustive()
    }
}

/// Whether a field that is present has just one line.
fn is_only(name: &HeaderName, headers: &HeaderMap) -> bool {
    headers.len() == headers.keys_len() || headers.get_all(name).iter().nth(1).is_none()
}

/// The methods that are coalesced unless a key function opts others in.
pub(super) fn may_have_key(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Whether a field describes how a body is sent rather than the body itself. `Transfer-Encoding` is in no key.
fn is_framing(field: RequestField) -> bool {
    matches!(field, RequestField::ContentLength | RequestField::Expect)
}

#[cfg(feature = "redis")]
impl Sink for &mut KeyBytes {
    fn append(&mut self, piece: &[u8]) {
        self.raw(piece);
    }
}

// ===== impl RequestKey =====

impl RequestKey {
    /// The method of the request.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The URI as the request had it, without user and password.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        self.target.uri()
    }

    /// A key is compared without its target, which is read only while the key is in the table.
    pub(crate) fn keep_target(&mut self, request: &request::Parts) {
        self.target = RequestTarget::of(request);
    }

    /// The host and port that it is for, if the request names one.
    pub(crate) fn authority(&self) -> Option<&[u8]> {
        self.target.authority()
    }

    /// Half of a keyed digest is a hash already.
    pub(super) fn half(&self) -> u64 {
        self.digest[0]
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
        state.write_u64(self.half());
    }
}

/// Shows no header value and no query: either may hold a secret.
impl fmt::Debug for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestKey")
            .field("method", &self.method)
            .field("authority", &self.uri().authority())
            .field("path", &self.uri().path())
            .finish_non_exhaustive()
    }
}
