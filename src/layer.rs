//! `SingleflightLayer`.

use std::{any::type_name, fmt, hash::Hash, sync::Arc, time::Duration};

use http::{request, response};
use tower_layer::Layer;

use crate::{
    cache_status::CacheStatus,
    handle::Handle,
    key::{KeyExtractor, RequestKeyExtractor},
    service::Singleflight,
    shared::{Flights, Settings, Shared},
};
#[cfg(feature = "redis")]
use crate::{
    replicas::{KeyBytes, ReplicaClient, Replicas},
    shared::Replicated,
};

/// Coalesces identical requests in flight onto one call of the inner service. See the [module docs](crate).
///
/// **The flights belong to the layer value and its clones, not to the services that it makes.** Servers call
/// [`Layer::layer`] again and again (`axum::serve` does for each connection), and all those services share the layer's
/// flights; otherwise nothing would be coalesced. Two calls of `new` share nothing. **If one value wraps services that
/// answer differently, their keys must differ.** It is simpler to make one value for each service: a nested router sees
/// the URI without its prefix, so two of them under one value would get each other's responses.
///
/// A setter changes only the value that you call it on. A clone keeps its own settings and still shares the flights.
///
/// ```
/// use axum::{Router, routing::get};
/// use tower_singleflight::SingleflightLayer;
///
/// let app: Router = Router::new()
///     .route("/", get(|| async { "one call, however many ask" }))
///     .layer(SingleflightLayer::new());
/// ```
#[must_use = "a layer does nothing until it is put around a service"]
pub struct SingleflightLayer<X = RequestKeyExtractor>
where
    // What is shared names the type of the extractor's keys.
    X: KeyExtractor,
{
    shared: Arc<Shared<X>>,
}

// ===== impl SingleflightLayer =====

impl SingleflightLayer {
    /// A layer with the default key, [`RequestKeyExtractor`]: method, target URI, and every header field but those that by
    /// convention carry neither identity nor representation.
    pub fn new() -> Self {
        Self::with_extractor(RequestKeyExtractor::new())
    }

    /// A layer with a key of your own. Return `None` for a request that must not be coalesced.
    ///
    /// Call this instead of [`new`](Self::new), because the key is part of the layer's type, and call the setters after
    /// it.
    ///
    /// <div class="warning">
    ///
    /// You are responsible for two things:
    ///
    /// * Two requests with the same key get one response, so **the key must hold everything that the response depends
    ///   on**, above all the user.
    /// * **A key for a POST coalesces POSTs**: two writes become one, and the request body of a follower is dropped
    ///   unread, unless a [`BufferBodyLayer`](crate::BufferBodyLayer) above has read it. Begin with
    ///   [`method_and_uri`](crate::method_and_uri) and `?`, which gives `None` for every method but GET and HEAD,
    ///   unless that is what you want.
    ///
    /// </div>
    ///
    /// All other [`rules`](crate::rules) still apply: requests with different methods never share, a GET with a body is
    /// not coalesced, and a response's `Vary` is obeyed. But writes no longer detach the flights of their URI, because
    /// the layer does not know how your key relates to a URI: see [`Handle::forget`].
    ///
    /// ```
    /// use tower_singleflight::{SingleflightLayer, method_and_uri};
    ///
    /// // One answer for each URI and language, whatever else the request says.
    /// let layer = SingleflightLayer::with_key(|request| {
    ///     let language = request.headers.get("accept-language").cloned();
    ///     Some((method_and_uri(request)?, language))
    /// });
    /// # let _ = layer;
    /// ```
    ///
    /// More keys are in the [cookbook](crate::guide::cookbook).
    ///
    /// # Panics
    ///
    /// A panic of `key` is its caller's alone.
    pub fn with_key<F, K>(key: F) -> SingleflightLayer<F>
    where
        F: Fn(&request::Parts) -> Option<K> + Send + Sync + 'static,
        K: Hash + Eq + Clone + Send + Sync + 'static,
    {
        SingleflightLayer::with_extractor(key)
    }
}

#[cfg(feature = "redis")]
impl SingleflightLayer<RequestKeyExtractor> {
    /// Coalesces across replicas: when identical requests are in flight at several replicas, one of them is forwarded.
    ///
    /// Each replica coalesces its own requests as before. One of the replicas' leaders then makes the call, and the
    /// others get its response once it is complete, with [`Role::Replica`](crate::Role::Replica) in its extensions. A
    /// leader waits for the store at most [`patience`](Replicas::patience), and not at all while it is known to be
    /// down. See [the guide](crate::guide::replicas) for what is given up.
    ///
    /// All clones of the layer use the same replicas. Set them before the first request. The connection to the store
    /// lives in the Tokio runtime in which you call this, or else in that of the first request; its I/O and time
    /// drivers must be enabled.
    ///
    /// ```no_run
    /// use tower_singleflight::{Replicas, SingleflightLayer};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let replicas = Replicas::redis("redis://cache:6379")?
    ///     .namespace("shop-web/2026-11-26.3")
    ///     .secret(std::env::var("SINGLEFLIGHT_SECRET")?);
    /// let layer = SingleflightLayer::new().replicas(replicas);
    /// # let _ = layer;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If `replicas` has no namespace or no secret, or if the layer has its replicas already, given to it or to a clone of it.
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    pub fn replicas(self, replicas: Replicas) -> Self {
        self.replicas_by(replicas, |_, _| ())
    }
}

impl<X: KeyExtractor> SingleflightLayer<X> {
    /// A layer with the keys of `extractor`: the default extractor with more fields to ignore, or a type of your own.
    /// For a closure [`with_key`](SingleflightLayer::with_key) is simpler, because the compiler then infers its
    /// argument's type.
    ///
    /// ```
    /// use http::HeaderName;
    /// use tower_singleflight::{RequestKeyExtractor, SingleflightLayer};
    ///
    /// let ignored = HeaderName::from_static("x-client-version");
    /// let layer = SingleflightLayer::with_extractor(RequestKeyExtractor::new().ignore_header(ignored));
    /// # let _ = layer;
    /// ```
    pub fn with_extractor(extractor: X) -> Self {
        Self {
            shared: Arc::new(Shared {
                extractor: Arc::new(extractor),
                settings: Settings::default(),
                flights: Arc::new(Flights::new::<X>()),
            }),
        }
    }

    fn set(self, set: impl FnOnce(&mut Settings)) -> Self {
        let mut shared = Arc::unwrap_or_clone(self.shared);
        set(&mut shared.settings);
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The name of the layer: the label `layer` of its [metrics](crate#observability), and a field of its span and events.
    /// Default: `default`. Name each layer of a process differently, or their numbers are added up.
    ///
    /// All clones of the layer have the name, even those made earlier. Set it before the first request: a gauge that
    /// went up without a name would not go down under one.
    ///
    /// ```
    /// use tower_singleflight::SingleflightLayer;
    ///
    /// let reports = SingleflightLayer::new().name("reports");
    /// let avatars = SingleflightLayer::new().name("avatars");
    /// # let _ = (reports, avatars);
    /// ```
    ///
    /// # Panics
    ///
    /// If the layer or a clone of it already has a name.
    pub fn name(self, name: impl Into<Arc<str>>) -> Self {
        self.shared.flights.counters.name.set(name.into());
        self
    }

    /// Decides which responses are shared, instead of [`rules::shareable`](crate::rules::shareable). `policy` sees the
    /// head before any follower gets it.
    ///
    /// Some rules apply whatever it returns: `Vary` is obeyed, a 403 for a request with credentials goes to its leader
    /// only, and a response to CONNECT or one that switches protocols is never shared.
    ///
    /// When a response may not be shared, the layer remembers its key for 60 seconds, or until a response for that key
    /// may be shared. Meanwhile requests with that key don't wait for a head, so they are not coalesced. (It remembers
    /// a few thousand keys and drops the oldest first.) A status that concerns one client, such as 400 or 429, is not
    /// remembered, unless a field of the response forbids sharing too: see [`rules`](crate::rules).
    ///
    /// ```
    /// use tower_singleflight::{SingleflightLayer, rules};
    ///
    /// // An origin in trouble is asked again by everybody.
    /// let layer = SingleflightLayer::new()
    ///     .share_when(|response| rules::shareable(response) && !response.status.is_server_error());
    /// # let _ = layer;
    /// ```
    ///
    /// # Panics
    ///
    /// A panic of `policy` counts as a panic of the call and reaches every caller of the flight.
    pub fn share_when<P>(self, policy: P) -> Self
    where
        P: Fn(&response::Parts) -> bool + Send + Sync + 'static,
    {
        self.set(|settings| settings.policy = Arc::new(policy))
    }

    /// The largest body, in bytes, that is kept whole for followers. Default: 2 MiB.
    ///
    /// Followers read a body as it arrives, whatever its length. When a body outgrows this limit, nobody can join it
    /// any more; those who have joined read on. The layer then keeps only the most recent bytes: this many, and one
    /// more frame. It reads the source as fast as the fastest reader asks, but no further ahead of the leader than this
    /// limit. A follower that falls behind what is kept, or that has to wait for the leader, calls again with its own
    /// request and continues where it was if the new response is the same; otherwise its body ends with an error.
    pub fn max_body(self, bytes: usize) -> Self {
        self.set(|settings| settings.limits.max_body = bytes)
    }

    /// How many bytes all copies of bodies may hold together; a hard limit. Default: 256 MiB.
    ///
    /// This counts the bytes of the bodies. In a body of more than 1,024 frames, each further frame shorter than 512
    /// bytes counts 80 bytes more. A body with so many frames that 40 bytes for each exceed
    /// [`max_body`](Self::max_body) outgrows that limit.
    ///
    /// `Bytes` does not say how large the buffer behind a frame is. So frames under 4 KiB, except a body's first, are
    /// copied together and hold only their own bytes. A larger frame is shared with its buffer; with hyper's HTTP/1
    /// client that is up to twice its bytes.
    ///
    /// A buffer that nobody shares gives way to others. If nothing is left when a head arrives, followers make their
    /// own calls. If it runs out later, the body is limited to what there is, as by [`max_body`](Self::max_body).
    /// [`Stats::buffered_bytes`](crate::Stats::buffered_bytes) says how much is held now.
    pub fn max_buffered(self, bytes: usize) -> Self {
        self.set(|settings| settings.limits.max_buffered = bytes)
    }

    /// How many callers a flight may have, its leader counted. One more makes its own call. Default: unlimited. With 1
    /// (or 0) there are no followers.
    pub fn max_waiters(self, n: usize) -> Self {
        self.set(|settings| settings.max_waiters = n)
    }

    /// How old a flight may be for a caller to join it. After that the next caller leads a new flight, and those who
    /// have joined stay. Default: 30 seconds, counted from the call.
    ///
    /// So a call that hangs delays newcomers no longer than this. A timeout below the layer ends it for every caller.
    ///
    /// By Tokio's clock.
    pub fn max_age(self, age: Duration) -> Self {
        self.set(|settings| settings.max_age = age)
    }

    /// How long the body of a flight may be silent before nobody joins it any more. After that the next caller leads a
    /// new flight, and those who have joined stay. Default: 1 second, counted from the last frame or from the head.
    ///
    /// So a dead transfer affects its own callers and those who come within this time, and nobody else.
    ///
    /// By Tokio's clock.
    pub fn max_silence(self, silence: Duration) -> Self {
        self.set(|settings| settings.max_silence = silence)
    }

    /// How long a follower waits for its head before it makes its own call. Default: as long as it takes.
    ///
    /// Measured by Tokio's clock from the call. The task that awaits the response needs Tokio's timer. The flight goes
    /// on for the others. This is not a timeout of the request: for that, put Tower's `Timeout` above the layer.
    pub fn wait_timeout(self, wait: Duration) -> Self {
        self.set(|settings| settings.wait_timeout = Some(wait))
    }

    /// Whether a call runs to its end after every caller has left. Default: `false`, the call is dropped at once.
    ///
    /// For calls that fill a cache ([recipe](crate::guide::cookbook#fill-a-cache-although-the-caller-leaves)). Requests
    /// that come meanwhile join it. This needs a Tokio runtime where the request is made; without one the call is
    /// dropped anyway.
    pub fn finish_abandoned(self, yes: bool) -> Self {
        self.set(|settings| settings.finish_abandoned = yes)
    }

    /// Audits this share of the requests that could follow: each makes its own call, and its response is compared with
    /// that of the flight that it would have joined. Default: 0, none. With 1 all are audited and nothing is coalesced.
    ///
    /// So before anything is coalesced, [`Stats`](crate::Stats) says how many calls would be saved (`audited`) and how
    /// many responses differ (`audit_differed`). Keep a share of 0.01 in production to stay informed. With the feature
    /// `tracing`, a WARN event names what differed and the request fields that may be missing from the key: see the
    /// [guide](crate::guide::observability#audits).
    ///
    /// The audit compares the status, the header fields, the body and the trailers. The fields `Date`, `Age`, `Via`,
    /// `Expires`, `Server-Timing` and `Cache-Status` may differ, and so may those of the connection, what `Connection`
    /// names, and the fields that the [default key](RequestKeyExtractor) leaves out, such as `X-Request-Id`.
    /// [`ignore_header`](RequestKeyExtractor::ignore_header) adds more.
    ///
    /// Both callers get their responses unchanged and without delay. Bodies are not kept: only their lengths and
    /// digests are compared. An audit counts once both responses have ended, and only if the audited request would have
    /// got the flight's response: not if the rules or the policy forbid sharing it, or if the two requests differ in a
    /// field that `Vary` names. An audited request has the role [`Forwarded`](crate::Role::Forwarded).
    ///
    /// NaN counts as 0; a value below 0 or above 1 is clamped. All clones of the layer have the same share, and
    /// [`Handle::set_audit`] changes it at run time.
    ///
    /// ```
    /// use tower_singleflight::SingleflightLayer;
    ///
    /// let layer = SingleflightLayer::new().audit(1.0);
    /// # let _ = layer;
    /// ```
    pub fn audit(self, share: f64) -> Self {
        self.shared.flights.audit.set(share);
        self
    }

    /// Appends a `Cache-Status` member ([RFC 9211]) of this name to every response. Default: off.
    ///
    /// | request | member |
    /// | --- | --- |
    /// | led a flight | `name; fwd=miss` |
    /// | got the copy of another's response | `name; fwd=miss; collapsed` |
    /// | had joined, and made its own call | `name; fwd=miss; collapsed=?0` |
    /// | could not join, and made its own call | `name; fwd=miss` |
    /// | had a method that is not coalesced | `name; fwd=method` |
    /// | was not to be coalesced for another reason | `name; fwd=bypass` |
    /// | got another replica's response (feature `redis`) | `name; fwd=miss; collapsed; detail=replica` |
    ///
    /// # Panics
    ///
    /// If `name` can be neither a token nor a string of a structured field: if it is empty, or not printable ASCII.
    ///
    /// [RFC 9211]: https://www.rfc-editor.org/rfc/rfc9211
    pub fn cache_status(self, name: &str) -> Self {
        let member = CacheStatus::new(name);
        assert!(
            member.is_some(),
            "`cache_status({name:?})`: the name of a cache must be printable ASCII and not empty"
        );
        self.set(|settings| settings.cache_status = member)
    }

    /// Coalesces across replicas as [`replicas`](SingleflightLayer::replicas) does, with a key of your own. `write`
    /// writes the parts of a key that are the same at every replica. Equal keys must be written alike, and different
    /// keys differently.
    ///
    /// With [`RequestKeyExtractor::and`], the layer writes the default key, and `write` adds your part.
    ///
    /// ```no_run
    /// use tower_singleflight::{Replicas, SingleflightLayer, method_and_uri};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let replicas = Replicas::redis("redis://cache:6379")?
    ///     .namespace("shop-web/2026-11-26.3/tiles")
    ///     .secret(std::env::var("SINGLEFLIGHT_SECRET")?);
    /// let layer = SingleflightLayer::with_key(method_and_uri).replicas_by(replicas, |(method, uri), bytes| {
    ///     bytes.part(method.as_str().as_bytes());
    ///     bytes.part(uri.to_string().as_bytes());
    /// });
    /// # let _ = layer;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If `replicas` has no namespace or no secret, or if the layer has its replicas already, given to it or to a clone of it. A
    /// panic of `write` is a panic of the call.
    #[cfg(feature = "redis")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    pub fn replicas_by<F>(self, replicas: Replicas, write: F) -> Self
    where
        F: Fn(&X::Key, &mut KeyBytes) + Send + Sync + 'static,
    {
        self.across(replicas.open("layer"), write)
    }

    #[cfg(feature = "redis")]
    pub(crate) fn across<F>(self, client: ReplicaClient, write: F) -> Self
    where
        F: Fn(&X::Key, &mut KeyBytes) + Send + Sync + 'static,
    {
        let replicated = Replicated::new(client, &*self.shared.extractor, write);
        self.shared.flights.set_replicated(replicated);
        self
    }

    /// A handle to the flights, for code outside of requests.
    #[must_use]
    pub fn handle(&self) -> Handle<X::Key> {
        Handle::new(Arc::clone(&self.shared.flights))
    }
}

impl<S, X: KeyExtractor> Layer<S> for SingleflightLayer<X> {
    type Service = Singleflight<S, X>;

    fn layer(&self, inner: S) -> Self::Service {
        let shared = Arc::clone(&self.shared);
        Singleflight { inner, shared }
    }
}

/// The same flights and settings.
impl<X: KeyExtractor> Clone for SingleflightLayer<X> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl Default for SingleflightLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<X: KeyExtractor> fmt::Debug for SingleflightLayer<X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleflightLayer")
            .field("name", &self.shared.flights.counters.name.get())
            .field("extractor", &format_args!("{}", type_name::<X>()))
            .field("settings", &self.shared.settings)
            .field("in_flight", &self.shared.flights.table.len())
            .finish()
    }
}

// ===== impl Singleflight =====

// Here, since they make a layer.
impl<S> Singleflight<S> {
    /// The service around `inner`, with the default key and settings.
    ///
    /// **It has flights of its own**, which only it and its clones share. That is enough for a single service, such as
    /// a client. Servers make a new service for each connection: there, use a [`SingleflightLayer`], which owns the
    /// flights. It also has the settings and the [handle](crate::SingleflightLayer::handle).
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use http::{Request, Response};
    /// use tower::{ServiceExt, service_fn};
    /// use tower_singleflight::{Role, Singleflight};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let report = service_fn(|_: Request<String>| async {
    ///     tokio::task::yield_now().await; // slow
    ///     Ok::<_, Infallible>(Response::new("the report".to_owned()))
    /// });
    /// let service = Singleflight::new(report);
    ///
    /// let ask = || service.clone().oneshot(Request::default());
    /// let (_first, second) = tokio::join!(ask(), ask());
    /// assert_eq!(second.unwrap().extensions().get(), Some(&Role::Follower));
    /// # }
    /// ```
    pub fn new(inner: S) -> Self {
        SingleflightLayer::new().layer(inner)
    }
}

impl Singleflight<()> {
    /// A layer with the default key: the same as [`SingleflightLayer::new`].
    pub fn layer() -> SingleflightLayer {
        SingleflightLayer::new()
    }
}
