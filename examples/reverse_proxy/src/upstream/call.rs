//! A call: one request, and where that is safe a second try.

use std::{convert::Infallible, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderMap, Method, Request, Response, StatusCode, header::HOST, request, uri::PathAndQuery,
};
use http_body_util::{Either, Empty};
use hyper::body::{Body as _, Incoming};
use hyper_util::client::legacy::ResponseFuture;

use super::{
    Body, Pinned, RequestBody, Upstreams,
    body::UpstreamBody,
    failure::{Failure, Kind},
    tunnel::{self, Tunnel},
};
use crate::{
    headers,
    receive::{Refusal, line, refuse},
};

/// A request on its way to an upstream.
struct Call {
    attempt: Attempt,
    origin: usize,
    tunnel: Option<Tunnel>,
    /// `None` where it can't be sent twice: it has a body, or a connection of its own.
    again: Option<Box<Again>>,
    method: Method,
    path: Box<str>,
}

enum Attempt {
    Pooled(ResponseFuture),
    Pinned(Pin<Box<dyn Future<Output = Result<Response<Incoming>, Failure>> + Send>>),
}

/// What it takes to send a request without a body again.
struct Again {
    method: Method,
    path: Option<PathAndQuery>,
    headers: HeaderMap,
    /// The upstreams that are left, the next one last.
    others: Vec<usize>,
    /// Whether it was sent a second time to the same upstream.
    repeated: bool,
}

// ===== impl Upstreams =====

impl Upstreams {
    /// Below the layer. It never fails: what goes wrong upstream is a response, which all who share the call get.
    ///
    /// The request is made here and not in the future, which would be a kilobyte large if it held it.
    pub(crate) fn forward(
        self: &Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send + use<> {
        let call = self.begin(request);
        let upstreams = Arc::clone(self);
        async move {
            Ok(match call {
                Ok(call) => upstreams.finish(call).await,
                Err(refusal) => refusal.map(Either::Right),
            })
        }
    }

    fn begin(self: &Arc<Self>, mut request: Request<Incoming>) -> Result<Call, Refusal> {
        let tunnel = Tunnel::wanted(&mut request);
        let (mut parts, body) = request.into_parts();
        headers::to_upstream(&mut parts);
        headers::complete_forwarded(&mut parts.headers);
        if let Some(tunnel) = &tunnel {
            tunnel.ask(&mut parts.headers);
        }
        if !self.preserve_host {
            // Each upstream has its own.
            parts.headers.remove(HOST);
        }

        let target = parts
            .uri
            .path_and_query()
            .map_or("/", |target| target.as_str());
        let mut others = self.order(target);
        others.reverse();
        let mut origin = others.pop().expect("there is an upstream");
        let pinned = parts.extensions.remove::<Arc<Pinned>>();
        if let Some(pinned) = &pinned {
            origin = *pinned.origin.get_or_init(|| origin);
        }
        let bodiless = body.is_end_stream() && tunnel.is_none() && pinned.is_none();
        let again = bodiless.then(|| {
            Box::new(Again {
                method: parts.method.clone(),
                path: parts.uri.path_and_query().cloned(),
                headers: parts.headers.clone(),
                others,
                repeated: false,
            })
        });
        let (method, path) = (parts.method.clone(), parts.uri.path().into());
        let request = self.request(parts, Either::Left(body), origin)?;
        let attempt = match pinned {
            Some(pinned) => {
                self.observed.counters.calls.count();
                let connector = self.connector.clone();
                Attempt::Pinned(Box::pin(
                    async move { pinned.send(&connector, request).await },
                ))
            }
            None => self.send(request),
        };
        Ok(Call {
            attempt,
            origin,
            tunnel,
            again,
            method,
            path,
        })
    }

    /// Addresses a request to one of the upstreams.
    fn request(
        &self,
        mut parts: request::Parts,
        body: RequestBody,
        origin: usize,
    ) -> Result<Request<RequestBody>, Refusal> {
        let origin = &self.origins[origin];
        let bad = |_| {
            refuse(
                StatusCode::URI_TOO_LONG,
                "The target of this request is too long.\n",
            )
        };
        parts.uri = origin.target(parts.uri.path_and_query()).map_err(bad)?;
        if !parts.headers.contains_key(HOST) {
            parts.headers.insert(HOST, origin.host().clone());
        }
        Ok(Request::from_parts(parts, body))
    }

    fn send(&self, request: Request<RequestBody>) -> Attempt {
        self.observed.counters.calls.count();
        Attempt::Pooled(self.pool.request(request))
    }

    async fn finish(self: &Arc<Self>, mut call: Call) -> Response<Body> {
        let result = match tokio::time::timeout(self.timeout, self.attempts(&mut call)).await {
            Ok(result) => result,
            Err(_) => Err(Failure {
                kind: Kind::TooSlow,
                cause: format!("no response after {:?}", self.timeout),
            }),
        };
        let mut response = match result {
            Ok(response) => response,
            Err(failure) => return self.fail(&call, &failure),
        };
        if headers::is_coded(response.headers()) {
            return self.fail(&call, &Kind::UnaskedCoding.into());
        }
        let switched = match (response.status(), call.tunnel.take()) {
            (StatusCode::SWITCHING_PROTOCOLS, Some(tunnel)) => Some(tunnel.open(&mut response)),
            (StatusCode::SWITCHING_PROTOCOLS, None) => {
                return self.fail(&call, &Kind::UnaskedUpgrade.into());
            }
            _ => None,
        };
        self.observed.counters.answered.count();
        self.origins[call.origin].answered();
        let (mut parts, body) = response.into_parts();
        headers::to_client(&mut parts);
        if let Some(protocol) = switched {
            tunnel::announce(&mut parts.headers, protocol);
        }
        let body = UpstreamBody::new(body, self, call.origin, call.path);
        Response::from_parts(parts, Either::Left(body))
    }

    async fn attempts(&self, call: &mut Call) -> Result<Response<Incoming>, Failure> {
        loop {
            let failure = match call.attempt.result().await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            match self.again(call, &failure) {
                Some(attempt) => call.attempt = attempt,
                None => return Err(failure),
            }
        }
    }

    /// Another attempt, where the upstream can't have acted on the one that failed, or where it does not matter.
    fn again(&self, call: &mut Call, failure: &Failure) -> Option<Attempt> {
        if failure.kind == Kind::Unreachable {
            self.origins[call.origin].unreachable();
        }
        let again = call.again.as_mut()?;
        match failure.kind {
            Kind::Unreachable => {
                let next = again.others.pop()?;
                self.report(call.origin, &call.method, &call.path, failure);
                call.origin = next;
                let request = call.again.as_ref()?.request();
                Some(
                    self.send(
                        self.request(request, Either::Right(Empty::new()), next)
                            .ok()?,
                    ),
                )
            }
            // A new connection: what broke one that lay idle has as a rule broken all of them.
            Kind::BrokeUnanswered if again.method.is_safe() && !again.repeated => {
                again.repeated = true;
                let body = Either::Right(Empty::<Bytes>::new());
                let request = self.request(again.request(), body, call.origin).ok()?;
                self.observed.counters.calls.count();
                self.observed.counters.retries.count();
                tracing::debug!(
                    upstream = self.origins[call.origin].name(),
                    path = &*call.path,
                    cause = failure.cause,
                    "a connection that lay idle is broken: trying once more"
                );
                Some(Attempt::Pooled(self.fresh.request(request)))
            }
            _ => None,
        }
    }

    fn fail(&self, call: &Call, failure: &Failure) -> Response<Body> {
        self.observed.counters.failures.count();
        self.report(call.origin, &call.method, &call.path, failure);
        line(failure.kind.status(), failure.kind.words()).map(Either::Right)
    }

    /// One line for a failure, with its cause.
    fn report(&self, origin: usize, method: &Method, path: &str, failure: &Failure) {
        let origin = &self.origins[origin];
        if let Some(left_out) = origin.failed(&failure.cause) {
            tracing::warn!(
                upstream = origin.name(),
                %method,
                path,
                status = failure.kind.status().as_u16(),
                cause = failure.cause,
                left_out = (left_out > 0).then_some(left_out),
                "{}",
                failure.kind.words().trim_end_matches(['.', '\n'])
            );
        }
    }
}

// ===== impl Attempt =====

impl Attempt {
    async fn result(&mut self) -> Result<Response<Incoming>, Failure> {
        match self {
            Self::Pooled(response) => response.await.map_err(Failure::from),
            Self::Pinned(response) => response.await,
        }
    }
}

// ===== impl Again =====

impl Again {
    fn request(&self) -> request::Parts {
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = self.method.clone();
        parts.headers = self.headers.clone();
        if let Some(path) = &self.path {
            parts.uri = path.clone().into();
        }
        parts
    }
}
