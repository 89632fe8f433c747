//! Above the layer: what every request of a client passes, and every response to it.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{Either, Full};
use hyper::body::{Body, Incoming};
use pin_project_lite::pin_project;
use tower::{BoxError, Service};

use crate::{
    headers::Client,
    observe::{Exchange, Observed, ObservedBody},
    receive::{Refusal, receive},
    upstream::{Pinned, Upstreams},
};

type FrontBody<L, F> = ObservedBody<Either<L, Either<F, Full<Bytes>>>>;

/// The service of one client's connection.
#[derive(Clone, Debug)]
pub(crate) struct Front<L, F> {
    /// The layer around `forward`.
    layered: L,
    /// For requests that are no matter of the layer's; all of them where it is left out.
    forward: F,
    coalesce: bool,
    prefixed: bool,
    observed: Arc<Observed>,
    client: Arc<Client>,
    pinned: Arc<OnceLock<Arc<Pinned>>>,
}

/// What all connections have in common.
#[derive(Clone, Debug)]
pub(crate) struct Fronts<L, F> {
    pub(crate) layered: L,
    pub(crate) forward: F,
    pub(crate) coalesce: bool,
    pub(crate) observed: Arc<Observed>,
    pub(crate) upstreams: Arc<Upstreams>,
}

pin_project! {
    /// The response to a client.
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    #[derive(Debug)]
    pub(crate) struct FrontFuture<L, F> {
        #[pin]
        response: ResponseFuture<L, F>,
        exchange: Option<Exchange>,
    }
}

pin_project! {
    #[project = Projected]
    #[derive(Debug)]
    enum ResponseFuture<L, F> {
        Layered { #[pin] response: L },
        Forwarded { #[pin] response: F },
        Refused { refusal: Option<Refusal> },
    }
}

// ===== impl Fronts =====

impl<L, F> Fronts<L, F>
where
    L: Clone,
    F: Clone,
{
    pub(crate) fn of(&self, peer: SocketAddr, secure: bool) -> Front<L, F> {
        Front {
            layered: self.layered.clone(),
            forward: self.forward.clone(),
            coalesce: self.coalesce,
            prefixed: self.upstreams.prefixed(),
            observed: Arc::clone(&self.observed),
            client: Arc::new(Client::new(peer, secure)),
            pinned: Arc::default(),
        }
    }
}

// ===== impl Front =====

impl<L, F> Front<L, F> {
    /// A connection of the client's own, if it has one or now needs one.
    fn pinned(&self, request: &http::request::Parts) -> Option<Arc<Pinned>> {
        let wanted = Pinned::is_wanted(&request.headers);
        if request.version == Version::HTTP_2 {
            // Streams of one connection may be those of several users.
            return wanted.then(Arc::default);
        }
        if wanted {
            return Some(Arc::clone(self.pinned.get_or_init(Arc::default)));
        }
        self.pinned.get().cloned()
    }
}

impl<L, F, LB, FB> Service<Request<Incoming>> for Front<L, F>
where
    L: Service<Request<Incoming>, Response = Response<LB>, Error = Infallible>,
    F: Service<Request<Incoming>, Response = Response<FB>, Error = Infallible>,
    LB: Body<Data = Bytes, Error: Into<BoxError>>,
    FB: Body<Data = Bytes, Error: Into<BoxError>>,
{
    type Response = Response<FrontBody<LB, FB>>;
    type Error = Infallible;
    type Future = FrontFuture<L::Future, F::Future>;

    /// Both are always ready.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let exchange = Exchange::begin(&self.observed, &self.client, &parts);
        let response = match receive(&mut parts, &self.client, self.prefixed) {
            Ok(()) => {
                let pinned = self.pinned(&parts);
                // The layer sees all writes, so that they detach what was asked before.
                let coalesce = self.coalesce && !(pinned.is_some() && parts.method.is_safe());
                if let Some(pinned) = pinned {
                    parts.extensions.insert(pinned);
                }
                let request = Request::from_parts(parts, body);
                if coalesce {
                    ResponseFuture::Layered {
                        response: self.layered.call(request),
                    }
                } else {
                    ResponseFuture::Forwarded {
                        response: self.forward.call(request),
                    }
                }
            }
            Err(refusal) => ResponseFuture::Refused {
                refusal: Some(refusal),
            },
        };
        FrontFuture {
            response,
            exchange: Some(exchange),
        }
    }
}

// ===== impl FrontFuture =====

impl<L, F, LB, FB> Future for FrontFuture<L, F>
where
    L: Future<Output = Result<Response<LB>, Infallible>>,
    F: Future<Output = Result<Response<FB>, Infallible>>,
    LB: Body<Data = Bytes, Error: Into<BoxError>>,
    FB: Body<Data = Bytes, Error: Into<BoxError>>,
{
    type Output = Result<Response<FrontBody<LB, FB>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = match this.response.project() {
            Projected::Layered { response } => ready!(response.poll(cx))?.map(Either::Left),
            Projected::Forwarded { response } => {
                ready!(response.poll(cx))?.map(|body| Either::Right(Either::Left(body)))
            }
            Projected::Refused { refusal } => refusal
                .take()
                .expect("a response that is there is polled once")
                .map(|body| Either::Right(Either::Right(body))),
        };
        let mut exchange = this.exchange.take().expect("polled after completion");
        exchange.respond(&response);
        Poll::Ready(Ok(response.map(|body| ObservedBody::new(body, exchange))))
    }
}
