//! `BufferBody`.

use std::task::{Context, Poll};

use http::{Method, Request};
use http_body::Body;
use tower_service::Service;

use super::{
    body::{BodyBytes, BufferedBody},
    budget::Budget,
    buffer::Buffer,
    framing,
    future::{Reading, ResponseFuture},
};
use crate::error::BoxError;

/// A service that reads the bodies of requests before it calls the inner one. Made by
/// [`BufferBodyLayer`](super::BufferBodyLayer); see the [module docs](super).
#[derive(Clone, Debug)]
pub struct BufferBody<S> {
    inner: S,
    max: usize,
    budget: Budget,
}

// ===== impl BufferBody =====

impl<S> BufferBody<S> {
    pub(super) fn new(inner: S, max: usize, budget: Budget) -> Self {
        Self { inner, max, budget }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// A mutable reference to the inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service, without the layer.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B> Service<Request<B>> for BufferBody<S>
where
    S: Service<Request<BufferedBody<B>>> + Clone,
    B: Body,
    B::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let is_empty = request.body().is_end_stream();
        // Their keys never hold a body.
        if matches!(*request.method(), Method::GET | Method::HEAD)
            && (is_empty || request.body().size_hint().exact() == Some(0))
        {
            return ResponseFuture::call(&mut self.inner, request.map(BufferedBody::untouched));
        }
        let (mut parts, body) = request.into_parts();
        // Another layer may have left what it read of another body.
        parts.extensions.remove::<BodyBytes>();
        parts.extensions.remove::<super::Trailers>();
        let may_be_read = framing::may_be_read(&parts, &body.size_hint(), self.max);
        if may_be_read && is_empty && framing::agrees(&parts.headers, 0) {
            parts.extensions.insert(BodyBytes::default());
        }
        if is_empty || !may_be_read {
            let body = BufferedBody::untouched(body);
            return ResponseFuture::call(&mut self.inner, Request::from_parts(parts, body));
        }
        ResponseFuture::read(Reading {
            service: self.inner.clone(),
            parts,
            buffer: Box::pin(Buffer::new(body, self.budget.clone())),
            max: self.max,
            patience: None,
        })
    }
}
