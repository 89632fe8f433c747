//! `Singleflight`.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderName, Request, Response, request, response};
use http_body::Body;
use tokio::time::Instant;
use tower_service::Service;

use crate::{
    body::ResponseBody,
    error::{BoxError, ShareError},
    exchange::{
        Again, Desk, Joined, MOVES, Newcomer, Oneshot, Origin, OriginBody, Question, Seat, Waiter,
        Work,
    },
    flights::{Cargo, Event, Shared, Waiting},
    future::{ResponseFuture, Unshareable, Write},
    key::{KeyExtractor, MayDiffer},
    observe::{Asker, Reason},
    role::Way,
    rules::{self, Bypass, Variant},
    shared::Resource,
};

/// A service that coalesces identical requests in flight. Made by [`SingleflightLayer`](crate::SingleflightLayer); see the
/// [module docs](crate).
///
/// Of the inner service it asks that it is `Clone` (a `Buffer` makes any service so), that it, its future and its
/// bodies are `Send + 'static`, and that its error is one that several callers can have ([`ShareError`]). The
/// responses' bodies are [`ResponseBody`]s.
///
/// # Backpressure
///
/// It is always ready. Only who really calls the inner service claims its capacity, on an instance that was itself polled
/// ready: ten identical requests over a `ConcurrencyLimit` of one make one call, and nobody who waits for another's call
/// holds a permit. Load is shed by what stands above this layer or below it, not by its `poll_ready`.
pub struct Singleflight<S, X>
where
    // What is shared names the type of the extractor's keys.
    X: KeyExtractor,
{
    inner: S,
    shared: Arc<Shared<X>>,
}

// ===== impl Singleflight =====

impl<S, X: KeyExtractor> Singleflight<S, X> {
    pub(crate) fn new(inner: S, shared: Arc<Shared<X>>) -> Self {
        Self { inner, shared }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, to be changed. Calls of it are not coalesced.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service, without the layer.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, X, ReqBody, ResBody> Service<Request<ReqBody>> for Singleflight<S, X>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: ShareError + Send + Sync + 'static,
    ResBody: Body<Data: Send> + Send + 'static,
    ResBody::Error: Into<BoxError>,
    X: KeyExtractor,
    ReqBody: Body + Send + 'static,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, X, ReqBody, ResBody>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        self.coalesce(request, 0)
    }
}

impl<S, X> Singleflight<S, X>
where
    X: KeyExtractor,
{
    /// A caller that has moved on so often calls once more.
    pub(crate) fn call_again<ReqBody, ResBody>(
        &mut self,
        request: Request<ReqBody>,
        moves: u8,
    ) -> ResponseFuture<S, X, ReqBody, ResBody>
    where
        S: Origin<ReqBody, ResBody>,
        ReqBody: Body + Send + 'static,
        ResBody: OriginBody,
    {
        if moves <= MOVES {
            return self.coalesce(request, moves);
        }
        let call = Oneshot::begin(&mut self.inner, request);
        ResponseFuture::apart(&self.shared, call, None)
    }

    pub(crate) fn count_forwarded(&self, caller: &Asker, reason: Reason) {
        self.shared.flights.gauges.forward(caller, reason);
    }

    /// Joins the flight that is for this request, leads a new one, or forwards the request.
    fn coalesce<ReqBody, ResBody>(
        &mut self,
        request: Request<ReqBody>,
        moves: u8,
    ) -> ResponseFuture<S, X, ReqBody, ResBody>
    where
        S: Origin<ReqBody, ResBody>,
        ReqBody: Body + Send + 'static,
        ResBody: OriginBody,
    {
        let (parts, body) = request.into_parts();
        let Question {
            key,
            has_credentials,
            may_differ,
        } = match Question::of(&self.shared, &parts, &body) {
            Ok(question) => question,
            Err(bypass) => return self.bypass(parts, body, bypass),
        };
        let flights = &self.shared.flights;
        let hash = flights.table.hash(&key);
        let now = Instant::now();
        if flights.unshareable.contains(hash, now) {
            flights.gauges.forward(&Asker::here(), Reason::Remembered);
            let unshareable = Unshareable {
                hash,
                method: parts.method.clone(),
                has_credentials,
            };
            let call = Oneshot::begin(&mut self.inner, Request::from_parts(parts, body));
            return ResponseFuture::apart(&self.shared, call, Some(unshareable));
        }
        let watches_writes = self.shared.default_key().is_some();
        let target = watches_writes.then(|| Resource::of(&parts).target());
        let cargo = Cargo::new(&self.shared, hash, key, parts.method.clone(), target, now);
        let newcomer = Newcomer {
            flights,
            now,
            max_waiters: self.shared.settings.max_waiters,
            differs: |variant: &Variant| !variant.matches(&parts.headers),
        };
        match newcomer.enter(cargo, None) {
            Joined::Led(seat, names) => {
                let request = Request::from_parts(parts, body);
                self.lead(seat, names, request, has_credentials, may_differ)
            }
            Joined::Begins(seat, head) => {
                self.begin(seat, head, Request::from_parts(parts, body), moves)
            }
            Joined::Waits(_) => unreachable!("nobody was given to wait"),
            Joined::Full => self.crowded(Request::from_parts(parts, body)),
            Joined::Unprepared(cargo) => {
                let request = Request::from_parts(parts, body);
                self.follow(cargo, request, has_credentials, may_differ, moves, now)
            }
        }
    }

    /// There is a flight whose head is there.
    fn begin<ReqBody, ResBody>(
        &self,
        seat: Seat<X::Key>,
        head: Arc<response::Parts>,
        request: Request<ReqBody>,
        moves: u8,
    ) -> ResponseFuture<S, X, ReqBody, ResBody>
    where
        S: Origin<ReqBody, ResBody>,
        ReqBody: Body + Send + 'static,
        ResBody: OriginBody,
    {
        self.shared.flights.gauges.count(Event::Joined);
        seat.board(&Asker::here());
        let again = seat.may_move_on().then(|| self.clone());
        let again = again.and_then(|service| Again::new(service, request, moves));
        ResponseFuture::begin(&self.shared, seat, head, again)
    }

    fn bypass<ReqBody, ResBody>(
        &mut self,
        parts: request::Parts,
        body: ReqBody,
        bypass: Bypass,
    ) -> ResponseFuture<S, X, ReqBody, ResBody>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    {
        self.shared.flights.gauges.count(Event::Bypassed(bypass));
        let way = match bypass {
            Bypass::Method => Way::Method,
            _ => Way::Bypassed,
        };
        let (default_key, method) = (self.shared.default_key(), &parts.method);
        let writes = default_key.is_some_and(|key| !rules::is_safe(method) && !key.opts_in(method));
        let write = writes.then(|| Write::new(&parts));
        let call = Oneshot::begin(&mut self.inner, Request::from_parts(parts, body));
        ResponseFuture::bypassed(&self.shared, call, way, write)
    }

    /// The flight has all the callers that it may have.
    fn crowded<ReqBody, ResBody>(
        &mut self,
        request: Request<ReqBody>,
    ) -> ResponseFuture<S, X, ReqBody, ResBody>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    {
        self.shared
            .flights
            .gauges
            .forward(&Asker::here(), Reason::Full);
        let call = Oneshot::begin(&mut self.inner, request);
        ResponseFuture::apart(&self.shared, call, None)
    }

    fn lead<ReqBody, ResBody>(
        &mut self,
        mut seat: Seat<X::Key>,
        names: Option<Arc<[HeaderName]>>,
        request: Request<ReqBody>,
        has_credentials: bool,
        may_differ: MayDiffer,
    ) -> ResponseFuture<S, X, ReqBody, ResBody>
    where
        S: Origin<ReqBody, ResBody>,
        ReqBody: Body + Send + 'static,
        ResBody: OriginBody,
    {
        self.shared.flights.gauges.count(Event::Led);
        if let Some(names) = names {
            seat.set_variant(Variant::new(names, request.headers()));
        }
        if self.shared.settings.finish_abandoned {
            seat.finish_abandoned();
        }
        let desk = Desk::new(&self.shared, &request, has_credentials, may_differ);
        let flight = Arc::clone(seat.flight());
        seat.start(|| {
            let trace = &flight.cargo.trace;
            trace.begin(&Asker::here(), &request);
            let call = trace.calling(|| Oneshot::begin(&mut self.inner, request));
            Work::new(flight, Arc::clone(&self.shared), Arc::clone(&desk), call)
        });
        ResponseFuture::lead(&self.shared, seat, desk, Way::Led)
    }

    /// There is a flight whose head is not there: this request waits for it, or leads if that has ended meanwhile.
    fn follow<ReqBody, ResBody>(
        &mut self,
        cargo: Cargo<X::Key>,
        request: Request<ReqBody>,
        has_credentials: bool,
        may_differ: MayDiffer,
        moves: u8,
        now: Instant,
    ) -> ResponseFuture<S, X, ReqBody, ResBody>
    where
        S: Origin<ReqBody, ResBody>,
        ReqBody: Body + Send + 'static,
        ResBody: OriginBody,
    {
        // The flight must be able to reach the request from the moment in which it counts this caller.
        let clone = self.inner.clone();
        let service = std::mem::replace(&mut self.inner, clone);
        let waiter = Arc::new(Waiter::new(Arc::clone(&self.shared), service, request));
        let newcomer = Newcomer {
            flights: &self.shared.flights,
            now,
            max_waiters: self.shared.settings.max_waiters,
            differs: |variant: &Variant| waiter.differs(variant),
        };
        let linked: Arc<dyn Waiting<X::Key>> = waiter.clone();
        let joined = newcomer.enter(cargo, Some(&linked));
        if let Joined::Waits(seat) = joined {
            self.shared.flights.gauges.count(Event::Joined);
            seat.board(waiter.asker());
            waiter.sit(seat);
            return ResponseFuture::wait(waiter, moves);
        }
        let (service, request) = waiter
            .take_prospect()
            .expect("nobody else has seen this waiter");
        self.inner = service;
        match joined {
            Joined::Led(seat, names) => {
                self.lead(seat, names, request, has_credentials, may_differ)
            }
            Joined::Begins(seat, head) => self.begin(seat, head, request, moves),
            Joined::Full | Joined::Unprepared(_) | Joined::Waits(_) => self.crowded(request),
        }
    }
}

impl<S: Clone, X: KeyExtractor> Clone for Singleflight<S, X> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<S: fmt::Debug, X: KeyExtractor> fmt::Debug for Singleflight<S, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Singleflight")
            .field("inner", &self.inner)
            .field("settings", &self.shared.settings)
            .finish_non_exhaustive()
    }
}
