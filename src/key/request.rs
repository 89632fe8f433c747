use std::{fmt, hash, sync::Arc};

use http::header::{CONTENT_LENGTH, EXPECT, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, request};

use super::digest::{Digest, Sink, Writer};
use super::forwarded;
use super::host::Host;
use super::ignored::{Ignored, Names, Place};
use super::named::{Named, names_fields};
use super::target::Target;
use crate::buffer_body::{BodyBytes, Trailers};
#[cfg(feature = "redis")]
use crate::replicas::KeyBytes;
use crate::rules::CLIENT_ADDRESS;

/// The default key: the method, the target and every header field that is not on a list of those without meaning.
///
/// Two requests are identical if they agree in
///
/// * the method, which is GET or HEAD, or one that [`coalesce`](Self::coalesce) opts in;
/// * the URI, and the `Host` field where it says something else; scheme and host compare without regard to case, all
///   else byte by byte. One in absolute form (HTTP/2, a proxy's) and one in origin form (HTTP/1.1) don't meet;
/// * **every request header field** but those below: the same lines, byte by byte. An `Authorization`, `Cookie`,
///   `Accept-Encoding`, `Range` or unknown `X-User-Id` that differs keeps two requests apart without anyone having
///   thought of it;
/// * for any method but GET and HEAD, the bytes of the body and its trailers.
///
/// The order of lines of one name counts. That of different names counts too, although it has no meaning in HTTP: two
/// clients who write the same fields in another order just don't meet.
///
/// # What is left out
///
/// | left out | why |
/// | --- | --- |
/// | `connection`, `keep-alive`, `proxy-connection`, `te`, `trailer`, `transfer-encoding` | They describe the connection, not the request. |
/// | `traceparent`, `b3`, `x-b3-*`, `x-request-id`, `request-id`, `x-correlation-id`, `x-unique-id`, `amz-sdk-invocation-id`, `amz-sdk-request`, `cf-ray`, `elastic-apm-traceparent`, `fly-request-id`, `kong-request-id`, `newrelic`, `ot-tracer-sampled`, `ot-tracer-spanid`, `ot-tracer-traceid`, `sentry-trace`, `uber-trace-id`, `x-amz-cf-id`, `x-amzn-trace-id`, `x-azure-ref`, `x-cloud-trace-context`, `x-datadog-parent-id`, `x-datadog-sampling-priority`, `x-datadog-trace-id`, `x-ms-client-request-id`, `x-queue-start`, `x-request-start`, `x-timer`, `x-varnish`, `x-vercel-id` | They are ids and times of one request, set by tracers, CDNs and SDKs: no two requests have the same. |
/// | `via`, `x-forwarded-for`, `x-real-ip`, and a `forwarded` of which every line has the parameters `for` and `by` alone | They name the client and the proxies on the way. |
/// | `user-agent`, `sec-ch-*`, `sec-fetch-*`, `priority`, `referer`, `upgrade-insecure-requests` | The client describes itself. |
///
/// Everything else is in the key. That includes `x-forwarded-host`, `x-forwarded-proto`, `x-forwarded-user`,
/// `proxy-authorization`, and a `forwarded` with another parameter, such as `host` or `proto`, or one that cannot be read.
/// It includes `tracestate` and `baggage`, by which services route tenants and test traffic, and `dnt` and `sec-gpc`, on
/// which answers depend by law. Where a tracer writes an id of each request into `tracestate` or `baggage`, and your
/// service reads neither, [`ignore_header`](Self::ignore_header) leaves them out. The client's address as CDNs pass it on
/// (`cf-connecting-ip`, `true-client-ip`, ...) is in the key too;
/// [`client_address_headers`](Self::client_address_headers) lists these fields for
/// [`ignore_headers`](Self::ignore_headers).
///
/// Of a request whose body is in the key its framing is not: `content-length` and `expect` are left out as well.
///
/// A field of the last three rows, or one of [`ignore_header`](Self::ignore_header), is in the key all the same if the
/// request's own `Connection` names it: a client can put a field into its key in this way, and never take one out. A field
/// that is named there is not the same as one that is not, since a proxy behind this layer forwards the request without it.
/// (`upgrade` and `http2-settings` are the same, named or not: no proxy forwards them.)
///
/// The layer obeys a response's `Vary` all the same: if it names `user-agent`, browsers that differ get answers of their
/// own. It treats a 403 and a 451 as if their `Vary` named the client's description and address, so what your service
/// denies to one client it does not deny to another, and a redirect to the request's own `Referer` as if it named that.
///
/// <div class="warning">
///
/// **Your service must not answer by what the key leaves out, nor echo it**, unless its `Vary` says so. A stranger chooses
/// the values of these fields, and everybody who joins the stranger's call gets the answer to them. If your service does
/// one of the following, add the field to the key as the example does:
///
/// * It answers by the client's address, from the connection, from `x-forwarded-for` or from `forwarded`: a country, a
///   list of allowed networks.
/// * It answers by the user agent or its client hints: a page for mobile browsers.
/// * It answers by the `Referer`: a redirect to where the client came from, a check against hotlinks.
/// * It answers by `Sec-Fetch-*`. A fetch-metadata policy *below* this layer does not protect anything: a request that it
///   would refuse joins the call of one that it let through. Put the policy above the layer.
/// * It refuses a request by its age or its way: by `x-request-start` or `x-queue-start`, or by a `via` that shows a loop.
/// * It writes one of these into a page, a link or a field of the response.
/// * It answers by **an identity in the request's extensions** that a layer above has put there: no extension is in the
///   key. (An identity that was derived from a header field is, since the field is.)
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
/// Until 1.0 a minor version may change what is left out, with a line in the changelog.
///
/// # Comparison
///
/// Keys compare by method and a 128-bit keyed hash (HighwayHash) of all the above, whose secret is random and lives
/// as long as the process. Keys of different extractors therefore compare, and a key holds no header value.
#[derive(Clone, Default)]
#[must_use]
pub struct RequestKeyExtractor {
    lists: Arc<Lists>,
}

#[derive(Clone, Default)]
struct Lists {
    ignored: Names,
    /// Beside GET and HEAD.
    coalesced: Vec<Method>,
}

/// What is in the key of a request beside its head.
#[derive(Clone, Copy)]
struct Body<'a> {
    bytes: &'a [u8],
    trailers: Option<&'a HeaderMap>,
}

/// The key that [`RequestKeyExtractor`] makes of a request.
///
/// It shows and keeps no header value, only a hash of them all, nor a user or password of the URI.
#[derive(Clone)]
pub struct RequestKey {
    method: Method,
    target: Target,
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
        Arc::make_mut(&mut self.lists).ignored.insert(name);
        self
    }

    /// Leaves more fields out of the key, as [`ignore_header`](Self::ignore_header) does with each.
    pub fn ignore_headers(self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        names.into_iter().fold(self, Self::ignore_header)
    }

    /// The fields in which CDNs, clouds and ingress controllers pass on the client's address, for
    /// [`ignore_headers`](Self::ignore_headers).
    ///
    /// They are in the key unless you leave them out, so behind such a proxy no two clients share a call. Leave them out
    /// where your service does not answer by the client's address.
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
    /// The bytes of the body are then part of the key, so **a [`BufferBodyLayer`](crate::BufferBodyLayer) above** has to
    /// read them: a request without [`BodyBytes`] has no key. `QUERY`, `REPORT`, `SEARCH` and `PROPFIND` are made for
    /// this: they are safe ([RFC 9110 section 9.2.1]), so that nothing is lost if two are one call.
    ///
    /// A method that is opted in counts as safe: what answers it detaches no flight, as a successful write of any other
    /// method does with those of its URI. GET and HEAD are coalesced in any case, and never with a body.
    ///
    /// <div class="warning">
    ///
    /// **`coalesce(Method::POST)` is your promise that no POST below this layer changes anything.** Two equal orders
    /// in the same moment would be one order. Where some POSTs are writes, leave those out with [`and`](Self::and): a
    /// function that gives `None` for them.
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
        Ignored::new(&self.lists.ignored, None).place(name.as_str()) != Place::Key
            || !self.lists.coalesced.is_empty() && is_framing(name)
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

    /// The key of a request, whatever its method. `see` is shown each field line, and whether two requests of this key may
    /// differ in fields of that name.
    pub(crate) fn read(
        &self,
        request: &request::Parts,
        see: impl FnMut(&str, &HeaderValue, bool),
    ) -> RequestKey {
        // That `Connection` names fields is seldom so, and seen only when the first of them may have been left out.
        let mut writer = Writer::new();
        if self.write(request, None, &mut writer, see) {
            let named = Named::by(&request.headers);
            writer = Writer::new();
            self.write(request, Some(&named), &mut writer, |_, _, _| {});
        }
        RequestKey {
            method: request.method.clone(),
            target: Target::of(request),
            digest: writer.finish(),
        }
    }

    /// Writes the key of a request for other replicas: all parts of what [`read`](Self::read) hashes with this process's secret.
    #[cfg(feature = "redis")]
    pub(crate) fn write_shared(&self, request: &request::Parts, bytes: &mut KeyBytes) {
        let named = Named::by(&request.headers);
        let mut writer = Writer::to(bytes);
        self.write(request, Some(&named), &mut writer, |_, _, _| {});
        writer.end();
    }

    /// Whether a `Connection` names fields, which is then to be written with these.
    fn write<S: Sink>(
        &self,
        request: &request::Parts,
        named: Option<&Named<'_>>,
        writer: &mut Writer<S>,
        mut see: impl FnMut(&str, &HeaderValue, bool),
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
        let host = uri.authority().map(Host::of);
        match &host {
            Some(host) => host.write(writer),
            None => writer.optional(None),
        }
        let path = uri.path_and_query().map(|path| path.as_str().as_bytes());
        writer.optional(path);
        // Whether it comes here follows from the method, which comes first.
        let body = Body::of(request);
        if let Some(body) = body {
            body.write(writer);
        }

        let ignored = Ignored::new(&self.lists.ignored, named);
        let mut are_named = false;
        let mut addresses_alone = None;
        // The map gives the lines of one name together and in their order.
        for (header, value) in headers {
            let name = header.as_str();
            let mut place = ignored.place(name);
            if place == Place::Key && body.is_some() && is_framing(header) {
                place = Place::Nowhere;
            }
            see(name, value, place != Place::Key);
            if place == Place::Nowhere {
                are_named |= name == "connection" && names_fields(value);
                continue;
            }
            if place == Place::Forwarded
                && *addresses_alone.get_or_insert_with(|| forwarded::holds_addresses_alone(headers))
            {
                continue;
            }
            if place == Place::Named {
                writer.named();
            }
            let is_repeated = || {
                host.is_some_and(|host| host.is_repeated_by(value.as_bytes()))
                    && is_only(header, headers)
            };
            if *header != HOST {
                writer.field(name.as_bytes(), value.as_bytes());
            } else if place == Place::Named || !is_repeated() {
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
            .field("ignored", &self.lists.ignored.as_slice())
            .field("coalesced", &self.lists.coalesced)
            .finish_non_exhaustive()
    }
}

/// Whether a field that is there has one line.
fn is_only(name: &HeaderName, headers: &HeaderMap) -> bool {
    headers.len() == headers.keys_len() || headers.get_all(name).iter().nth(1).is_none()
}

/// The methods that are coalesced unless a key function opts others in.
pub(super) fn may_have_key(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Whether a field speaks of how a body is sent, and not of the body. `Transfer-Encoding` is in no key.
fn is_framing(name: &HeaderName) -> bool {
    *name == CONTENT_LENGTH || *name == EXPECT
}

#[cfg(feature = "redis")]
impl Sink for &mut KeyBytes {
    fn append(&mut self, piece: &[u8]) {
        self.raw(piece);
    }
}

// ===== impl Body =====

impl<'a> Body<'a> {
    /// `None` for GET and HEAD, which are not coalesced with a body.
    fn of(request: &'a request::Parts) -> Option<Self> {
        if may_have_key(&request.method) {
            return None;
        }
        let BodyBytes(bytes) = request.extensions.get()?;
        Some(Self {
            bytes,
            trailers: Trailers::of(request),
        })
    }

    fn write<S: Sink>(self, writer: &mut Writer<S>) {
        writer.part(self.bytes);
        for (name, value) in self.trailers.into_iter().flatten() {
            writer.field(name.as_str().as_bytes(), value.as_bytes());
        }
        // Ends the list of trailers.
        writer.optional(None);
    }
}

// ===== impl RequestKey =====

impl RequestKey {
    /// The method of the request.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The URI of the request in the form that the request had, without a user and password.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        self.target.uri()
    }
}

impl RequestKey {
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
