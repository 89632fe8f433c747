//! `Singleflight`.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::{
    body::ResponseBody,
    error::{BoxError, ShareError},
    future::ResponseFuture,
    key::{KeyExtractor, RequestKeyExtractor},
    shared::Shared,
};

/// A service that coalesces identical requests in flight. Made by [`SingleflightLayer`](crate::SingleflightLayer); see the
/// [module docs](crate).
///
/// The inner service must be `Clone` (a `Buffer` makes any service so); the service, its future and its bodies must be
/// `Send + 'static`; and its error must be one that several callers can have ([`ShareError`]). The responses' bodies
/// are [`ResponseBody`]s.
///
/// # Backpressure
///
/// The service is always ready. Only a request that really calls the inner service claims its capacity, on an instance
/// that was itself polled ready: ten identical requests over a `ConcurrencyLimit` of one make one call, and followers
/// hold no permit. Layers above or below this one may shed load; its own `poll_ready` never does.
pub struct Singleflight<S, X = RequestKeyExtractor>
where
    // The shared state depends on the type of the extractor's keys.
    X: KeyExtractor,
{
    pub(crate) inner: S,
    pub(crate) shared: Arc<Shared<X>>,
}

// ===== impl Singleflight =====

impl<S, X: KeyExtractor> Singleflight<S, X> {
    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// A mutable reference to the inner service. Calls to it are not coalesced.
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
