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
/// [`Layer::layer`] again and again (`axum::serve` for each connection), and all those services share their flights, as
/// they must for anything to be coalesced. Two values made by two calls of `new` share nothing. So **one value over
/// services that answer differently needs a key in which they differ**; simpler is one value for each: a router nested in
/// another sees the URI without its prefix, and two of them under one value would take each other's answers.
///
/// A setter changes the value it is called on. Called on a clone it leaves the original's settings as they were, and
/// the flights are still shared.
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

    /// A layer whose key is what `key` gives; `None` is for a request that must not be coalesced.
    ///
    /// This is a constructor, in the place of [`new`](Self::new): the key is part of the layer's type. The setters come after
    /// it.
    ///
    /// <div class="warning">
    ///
    /// Two duties come with it:
    ///
    /// * What two requests with the same key get is one response, so **the key must hold all that the answer depends
    ///   on**: the user, above all.
    /// * **A key for a POST coalesces POSTs**: two writes become one, and the request body of a follower is dropped
    ///   unread, unless a [`BufferBodyLayer`](crate::BufferBodyLayer) above has read it. Begin with
    ///   [`method_and_uri`](crate::method_and_uri) and `?`, which gives `None` for every method but GET and HEAD,
    ///   unless that is what you want.
    ///
    /// </div>
    ///
    /// Everything else that [`rules`](crate::rules) says holds: requests of different methods never share, a GET with a
    /// body is not coalesced, a response's `Vary` is obeyed. But writes no longer detach the flights of their URI,
    /// since nobody knows what a key of yours has to do with a URI: see [`Handle::forget`].
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
    /// The layer across replicas: of identical requests in flight, at whichever replica, one is forwarded.
    ///
    /// Each replica coalesces as it does without this; then one of the leaders makes the call, and the others get its response as
    /// soon as it is whole, with [`Role::Replica`](crate::Role::Replica) in its extensions. A leader waits for the store at most
    /// [`patience`](Replicas::patience), and not at all while it is known to be down. See
    /// [the guide](crate::guide::replicas) for what is given up.
    ///
    /// The replicas belong to the flights, so all clones of the layer have them. Set them before the first request, within a Tokio
    /// runtime that has its I/O and time drivers enabled, in which the connection then lives; or the first request's runtime is that.
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
    /// A layer with the keys of `extractor`, in the place of [`new`](SingleflightLayer::new): the default one with a longer list of fields to ignore, or a type of
    /// yours. For a closure [`with_key`](SingleflightLayer::with_key) is simpler: there the compiler knows its
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
    /// The name belongs to the flights, so all clones of the layer have it, whenever they were made. Set it before the first
    /// request: a gauge that was raised without a name is not lowered under one.
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
    /// If the layer has a name already, given to it or to a clone of it.
    pub fn name(self, name: impl Into<Arc<str>>) -> Self {
        self.shared.flights.counters.name.set(name.into());
        self
    }

    /// Which responses are shared, instead of [`rules::shareable`](crate::rules::shareable). `policy` sees the head, before
    /// anything is given to a follower.
    ///
    /// Some things hold whatever it says: `Vary` is obeyed, a 403 to a request with credentials is its leader's alone, and
    /// what answers a CONNECT or switches protocols is never shared.
    ///
    /// The layer remembers a key whose response is not shared for 60 seconds, or until it has one that may be: its requests
    /// do not wait for a head meanwhile, and so are not coalesced. (It remembers some thousands of keys; the oldest make
    /// room.) A status that speaks of one client, such as 400 or 429, does not count, whoever forbids to share it, unless a
    /// field of the response forbids it too: see [`rules`](crate::rules).
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
    /// A panic of `policy` is a panic of the call: it reaches all who share it.
    pub fn share_when<P>(self, policy: P) -> Self
    where
        P: Fn(&response::Parts) -> bool + Send + Sync + 'static,
    {
        self.set(|settings| settings.policy = Arc::new(policy))
    }

    /// The largest body, in bytes, that is kept whole for followers. Default: 2 MiB.
    ///
    /// Followers read a body as it comes, whatever its length. One that outgrows this goes on for those who have joined, and
    /// nobody joins it any more: of it, so many bytes are kept behind the source, and one frame more. The source is read as
    /// fast as the fastest of its readers asks, but no further than this ahead of the leader. A follower that falls behind
    /// by more than is kept, or that has to wait for the leader, calls again with its own request and goes on where it was,
    /// if the response is the same; else its body ends with an error.
    pub fn max_body(self, bytes: usize) -> Self {
        self.set(|settings| settings.limits.max_body = bytes)
    }

    /// How many bytes all copies of the layer may hold together, a hard bound. Default: 256 MiB.
    ///
    /// It counts the bytes of the bodies and, of a body in more than 1,024 frames, 80 more for the place of each further
    /// frame that is shorter than 512 bytes. A body in so many frames that 40 for each come to more than
    /// [`max_body`](Self::max_body) outgrows that.
    ///
    /// `Bytes` does not say what a frame was cut from. Frames under 4 KiB, but for a body's first, are copied together, so
    /// that they keep no more than their bytes; a larger one is shared as it came, with its buffer: from hyper's HTTP/1
    /// client up to twice its bytes.
    ///
    /// A buffer that nobody shares gives way to others. Where there is nothing left when a head arrives, followers make
    /// their own calls; where it runs out later, what there is bounds the body as [`max_body`](Self::max_body) does. What
    /// is held now is [`Stats::buffered_bytes`](crate::Stats::buffered_bytes).
    pub fn max_buffered(self, bytes: usize) -> Self {
        self.set(|settings| settings.limits.max_buffered = bytes)
    }

    /// How many callers a flight may have, its leader counted. One more makes its own call. Default: unlimited. With 1
    /// (or 0) there are no followers.
    pub fn max_waiters(self, n: usize) -> Self {
        self.set(|settings| settings.max_waiters = n)
    }

    /// How old a flight may be that is still joined. After that the next caller leads a new one, and those who have joined
    /// stay. Default: 30 seconds, from the call on.
    ///
    /// So a call that hangs costs newcomers no more than this. A time-out below the layer ends it for all.
    ///
    /// By Tokio's clock.
    pub fn max_age(self, age: Duration) -> Self {
        self.set(|settings| settings.max_age = age)
    }

    /// How long the body of a flight may give nothing until nobody joins it any more. After that the next caller leads a new
    /// flight, and those who have joined stay. Default: 1 second, from the last frame on, or from the head.
    ///
    /// So a transfer that has died costs its own callers and those who come within this time, and nobody else.
    ///
    /// By Tokio's clock.
    pub fn max_silence(self, silence: Duration) -> Self {
        self.set(|settings| settings.max_silence = silence)
    }

    /// How long a follower waits for its head before it makes its own call. Default: as long as it takes.
    ///
    /// By Tokio's clock, from the call on. It needs Tokio's timer where the response is awaited. The flight goes on for
    /// the others. It is no time-out of the request: for that put Tower's above the layer.
    pub fn wait_timeout(self, wait: Duration) -> Self {
        self.set(|settings| settings.wait_timeout = Some(wait))
    }

    /// Whether a call goes on to its end although every caller has left. Default: `false`, it is dropped at once.
    ///
    /// For calls that fill a cache ([recipe](crate::guide::cookbook#fill-a-cache-although-the-caller-leaves)). Requests
    /// that come meanwhile join. It needs a Tokio runtime where the request is made; without one the call is dropped
    /// all the same.
    pub fn finish_abandoned(self, yes: bool) -> Self {
        self.set(|settings| settings.finish_abandoned = yes)
    }

    /// Audits this share of the requests that could follow: each makes its own call, and its answer is compared with that of
    /// the flight that it would have joined. Default: 0, none. With 1 all are audited, and nothing is coalesced.
    ///
    /// So [`Stats`](crate::Stats) says, before anything is coalesced, how many calls would be saved (`audited`) and whether
    /// answers differ that should not (`audit_differed`). A share of 0.01 keeps watch in production. With the feature
    /// `tracing` a WARN event names what differed, and the request fields that the key may lack: see the
    /// [guide](crate::guide::observability#audits).
    ///
    /// Compared are the status, the fields, the body and the trailers. The fields `Date`, `Age`, `Via`, `Expires`,
    /// `Server-Timing` and `Cache-Status` may differ, and so may those of the connection, what `Connection` names, and the
    /// fields that the [default key](RequestKeyExtractor) leaves out, such as `X-Request-Id`.
    /// [`ignore_header`](RequestKeyExtractor::ignore_header) adds to these.
    ///
    /// Both callers get their answers as they come, and as they are. Bodies are not kept: their lengths and digests are
    /// compared. An audit counts when both answers have ended, and only if the audited request would have got the flight's:
    /// not where the rules or the policy forbid to share it, or where the two requests differ in a field of `Vary`. An audited request has the role
    /// [`Forwarded`](crate::Role::Forwarded).
    ///
    /// Not a number counts as 0; what is below 0 or above 1 counts as these. The share belongs to the flights, so all
    /// clones of the layer have it, and [`Handle::set_audit`] changes it at run time.
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
        let member = CacheStatus::new(name)
            .unwrap_or_else(|error| panic!("`cache_status({name:?})`: {error}"));
        self.set(|settings| settings.cache_status = Some(member))
    }

    /// The layer across replicas, as [`replicas`](SingleflightLayer::replicas), with a key of one's own. `write` writes what of a key is the
    /// same everywhere: two keys that are not equal must be written differently, and two that are must not.
    ///
    /// Over [`RequestKeyExtractor::and`] the layer writes the default key, and `write` what is added to it.
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
        let extractor = Arc::clone(&self.shared.extractor);
        let replicated = Replicated::new(client, extractor, write);
        self.shared.flights.set_replicated(replicated);
        self
    }

    /// A handle to the flights, for code that is not a request.
    #[must_use]
    pub fn handle(&self) -> Handle<X::Key> {
        Handle::new(Arc::clone(&self.shared.flights))
    }
}

impl<S, X: KeyExtractor> Layer<S> for SingleflightLayer<X> {
    type Service = Singleflight<S, X>;

    fn layer(&self, inner: S) -> Self::Service {
        Singleflight::with_shared(inner, Arc::clone(&self.shared))
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
    /// **It has flights of its own**: it and its clones share them, and nothing else does. For one service that is at hand,
    /// such as a client, this is enough. Where services are made again and again, as servers do for their connections, use
    /// a [`SingleflightLayer`], to which the flights belong; it also has the settings and the
    /// [handle](crate::SingleflightLayer::handle).
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
