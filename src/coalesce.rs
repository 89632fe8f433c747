//! What becomes of a request: it joins a flight, leads a new one, or is forwarded.

use std::{mem, sync::Arc};

use http::{Request, Response, request, response};
use http_body::Body;
use tokio::time::Instant;
use tower_service::Service;

#[cfg(feature = "redis")]
use crate::flight::Contender;
use crate::{
    audit::{Auditor, Original},
    flight::{
        Admitted, Again, Caller, Candidate, Follower, Identity, Inner, InnerBody, Lead, Leader,
        LeaderRequest, MAX_MOVES, Oneshot, Own, Work,
    },
    future::{AfterResponse, ResponseFuture, Unshareable, Write},
    key::KeyExtractor,
    observe::{CallerSpan, FlightTrace, Reason},
    role::Disposition,
    rules::{self, Bypass, Lines},
    service::Singleflight,
    shared::Event,
};

impl<S, X> Singleflight<S, X>
where
    X: KeyExtractor,
{
    /// A caller that has moved on `moves` times calls again.
    pub(crate) fn call_again<ReqBody, ResBody>(
        &mut self,
        request: Request<ReqBody>,
        moves: u8,
    ) -> ResponseFuture<S, X, ReqBody, ResBody>
    where
        S: Inner<ReqBody, ResBody>,
        ReqBody: Body + Send + 'static,
        ResBody: InnerBody,
    {
        if moves <= MAX_MOVES {
            return self.coalesce(request, moves);
        }
        let call = Oneshot::begin(&mut self.inner, request);
        let (disposition, after) = (Disposition::NotJoined, AfterResponse::Nothing);
        ResponseFuture::own(&self.shared, call, disposition, after)
    }

    pub(crate) fn count_forwarded(&self, caller: &CallerSpan, reason: Reason) {
        self.shared.flights.counters.forward(caller, reason);
    }

    /// Joins the flight that is for this request, leads a new one, or forwards the request.
    pub(crate) fn coalesce<ReqBody, ResBody>(
        &mut self,
        request: Request<ReqBody>,
        moves: u8,
    ) -> ResponseFuture<S, X, ReqBody, ResBody>
    where
        S: Inner<ReqBody, ResBody>,
        ReqBody: Body + Send + 'static,
        ResBody: InnerBody,
    {
        let (parts, body) = request.into_parts();
        let Identity {
            key,
            has_credentials,
            differing,
        } = match Identity::of(&self.shared, &parts, &body) {
            Ok(identity) => identity,
            Err(bypass) => return self.bypass(parts, body, bypass),
        };
        let flights = &self.shared.flights;
        let hash = flights.hash(&key);
        let now = Instant::now();
        if flights.unshareable.contains(hash, now) {
            let after = AfterResponse::Unshareable(Unshareable {
                hash,
                has_credentials,
            });
            let request = Request::from_parts(parts, body);
            return self.call_apart(request, Reason::Remembered, after);
        }
        let mut head = Some(parts);
        let number = flights.number();
        let candidate = Candidate::new(&self.shared, hash, key, &mut head, number, now);
        let entered = candidate.enter();
        let Some(parts) = head else {
            let Admitted::Waits(caller) = entered else {
                unreachable!("its head is where it waits");
            };
            #[cfg(feature = "redis")]
            flights.one_more(caller.flight(), number);
            return self.follow(caller, body, moves);
        };
        let request = Request::from_parts(parts, body);
        match entered {
            Admitted::Leads(lead, trace) => {
                flights.counters.count(Event::Led);
                let of = LeaderRequest {
                    hash,
                    method: request.method().clone(),
                    has_credentials,
                    fields: differing.copy(request.headers()),
                };
                let span = CallerSpan::current();
                self.lead(lead, of, trace, request, &span, Disposition::Led)
            }
            Admitted::Begins(caller, response) => self.begin(caller, response, request, moves),
            Admitted::Full => self.call_apart(request, Reason::Full, AfterResponse::Nothing),
            Admitted::Audits(original) => self.call_audited(request, differing, original),
            Admitted::Waits(_) => unreachable!("its head would be where it waits"),
        }
    }

    /// There is a flight whose head is there.
    fn begin<ReqBody, ResBody>(
        &self,
        caller: Caller<X::Key>,
        head: Arc<response::Parts>,
        request: Request<ReqBody>,
        moves: u8,
    ) -> ResponseFuture<S, X, ReqBody, ResBody>
    where
        S: Inner<ReqBody, ResBody>,
        ReqBody: Body + Send + 'static,
        ResBody: InnerBody,
    {
        self.join(&caller, &CallerSpan::current());
        let again = caller.may_move_on().then(|| self.clone());
        let again = again.and_then(|service| Again::new(service, request, moves));
        ResponseFuture::begin(&self.shared, caller, head, again)
    }

    /// There is a flight whose head is not there.
    fn follow<ReqBody, ResBody>(
        &mut self,
        caller: Caller<X::Key>,
        body: ReqBody,
        moves: u8,
    ) -> ResponseFuture<S, X, ReqBody, ResBody>
    where
        S: Inner<ReqBody, ResBody>,
    {
        let span = CallerSpan::current();
        self.join(&caller, &span);
        let own = Own {
            service: Self {
                inner: self.take_inner(),
                shared: Arc::clone(&self.shared),
            },
            body,
            span,
            moves,
        };
        ResponseFuture::follow(Follower { caller, own })
    }

    /// For the request's own call: this instance may be ready already, and hold a permit.
    fn take_inner(&mut self) -> S
    where
        S: Clone,
    {
        let clone = self.inner.clone();
        mem::replace(&mut self.inner, clone)
    }

    fn join(&self, caller: &Caller<X::Key>, span: &CallerSpan) {
        self.shared.flights.counters.count(Event::Joined);
        caller.flight().data.trace.joined(span);
        caller.promote();
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
        self.shared.flights.counters.count(Event::Bypassed(bypass));
        let disposition = match bypass {
            Bypass::Method => Disposition::Method,
            _ => Disposition::Bypassed,
        };
        let (default_key, method) = (self.shared.default_key(), &parts.method);
        let writes = default_key.is_some_and(|key| !rules::is_safe(method) && !key.opts_in(method));
        let after = match writes {
            true => AfterResponse::Write(Write::new(&parts)),
            false => AfterResponse::Nothing,
        };
        let call = Oneshot::begin(&mut self.inner, Request::from_parts(parts, body));
        ResponseFuture::own(&self.shared, call, disposition, after)
    }

    /// The request can't share a flight.
    fn call_apart<ReqBody, ResBody>(
        &mut self,
        request: Request<ReqBody>,
        reason: Reason,
        after: AfterResponse,
    ) -> ResponseFuture<S, X, ReqBody, ResBody>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    {
        self.count_forwarded(&CallerSpan::current(), reason);
        let call = Oneshot::begin(&mut self.inner, request);
        ResponseFuture::own(&self.shared, call, Disposition::NotJoined, after)
    }

    /// The request makes its own call; its response is compared with that of the flight that it would have joined.
    fn call_audited<ReqBody, ResBody>(
        &mut self,
        request: Request<ReqBody>,
        differing: Lines,
        original: Arc<Original>,
    ) -> ResponseFuture<S, X, ReqBody, ResBody>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    {
        let span = CallerSpan::current();
        self.count_forwarded(&span, Reason::Audit);
        let body = Arc::clone(&original);
        let fields = differing.copy(request.headers());
        let auditor = Auditor::new(original, &self.shared, &request, fields, span);
        let call = Oneshot::begin(&mut self.inner, request);
        // Only now, so that nothing delays the call.
        body.catch_up();
        let after = AfterResponse::Audit(auditor);
        ResponseFuture::own(&self.shared, call, Disposition::NotJoined, after)
    }

    /// A follower was moved to a flight that has no leader yet, and is polled first.
    pub(crate) fn lead_moved<ReqBody, ResBody>(
        &mut self,
        caller: Caller<X::Key>,
        request: Request<ReqBody>,
        span: &CallerSpan,
    ) -> ResponseFuture<S, X, ReqBody, ResBody>
    where
        S: Inner<ReqBody, ResBody>,
        ReqBody: Body + Send + 'static,
        ResBody: InnerBody,
    {
        let data = &caller.flight().data;
        let trace = data.trace.clone();
        let of = LeaderRequest {
            hash: data.hash,
            method: request.method().clone(),
            has_credentials: rules::has_credentials(request.headers()),
            fields: self.shared.differing(request.headers()),
        };
        let lead = Lead::Whole(caller);
        self.lead(lead, of, trace, request, span, Disposition::Forwarded)
    }

    fn lead<ReqBody, ResBody>(
        &mut self,
        mut lead: Lead<X::Key>,
        of: LeaderRequest,
        trace: FlightTrace,
        request: Request<ReqBody>,
        span: &CallerSpan,
        disposition: Disposition,
    ) -> ResponseFuture<S, X, ReqBody, ResBody>
    where
        S: Inner<ReqBody, ResBody>,
        ReqBody: Body + Send + 'static,
        ResBody: InnerBody,
    {
        if self.shared.settings.finish_abandoned {
            lead.make_whole().finish_abandoned();
        }
        #[cfg(feature = "redis")]
        if self.shared.flights.replicated().is_some() {
            lead.make_whole();
        }
        let flight = lead.caller().map(|caller| Arc::clone(caller.flight()));
        if let Some(caller) = lead.caller().filter(|caller| caller.flight().is_shared()) {
            // It waited for somebody to lead.
            caller.promote();
        }
        let mut leader = Leader::new(lead);
        leader.start(|| {
            trace.begin(span, &request);
            #[cfg(feature = "redis")]
            if let (Some(flight), Some(replicated)) = (&flight, self.shared.flights.replicated()) {
                let (parts, body) = request.into_parts();
                // It writes the key, which is user code.
                let contender =
                    trace.calling(|| Contender::new(&self.shared, replicated, flight, &parts));
                let request = Request::from_parts(parts, body);
                let call = Oneshot::new(self.take_inner(), request);
                let (flight, shared) = (Some(Arc::clone(flight)), Arc::clone(&self.shared));
                return Work::new(flight, trace, shared, of, call).contending(contender);
            }
            let call = trace.calling(|| Oneshot::begin(&mut self.inner, request));
            Work::new(flight, trace, Arc::clone(&self.shared), of, call)
        });
        ResponseFuture::lead(&self.shared, leader, disposition)
    }
}
