//! The future of [`BufferBody`](super::BufferBody).

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, request};
use http_body::Body;
use pin_project::pin_project;
use tokio::{runtime, time::Sleep};
use tower_service::Service;

use super::{
    body::{BodyBytes, BufferedBody, Trailers},
    buffer::Buffer,
    framing,
};
use crate::{error::BoxError, flight::Oneshot};

/// How long a request waits for its body: a client may wait for the response before it ends the body.
const PATIENCE: Duration = Duration::from_secs(1);

/// The response of [`BufferBody`](super::BufferBody).
#[pin_project]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct ResponseFuture<S, B>
where
    // The state holds the service's future.
    S: Service<Request<BufferedBody<B>>>,
{
    #[pin]
    state: State<S, B>,
}

#[pin_project(project = StateProj)]
enum State<S, B>
where
    S: Service<Request<BufferedBody<B>>>,
{
    Reading(Option<Reading<S, B>>),
    Calling(#[pin] Oneshot<S, BufferedBody<B>>),
}

/// A request whose body is being read.
pub(super) struct Reading<S, B> {
    pub(super) service: S,
    pub(super) parts: request::Parts,
    pub(super) buffer: Pin<Box<Buffer<B>>>,
    pub(super) max: usize,
    /// Made when the body is first waited for.
    pub(super) patience: Option<Pin<Box<Sleep>>>,
}

// ===== impl Reading =====

impl<S, B> Reading<S, B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// Whether the body was read to its end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if let Poll::Ready(is_complete) = self.buffer.as_mut().poll_fill(self.max, cx) {
            return Poll::Ready(is_complete);
        }
        if self.patience.is_none() && runtime::Handle::try_current().is_ok() {
            self.patience = Some(Box::pin(tokio::time::sleep(PATIENCE)));
        }
        match &mut self.patience {
            Some(patience) => patience.as_mut().poll(cx).map(|()| false),
            None => Poll::Pending,
        }
    }

    fn finish(mut self, is_complete: bool) -> (S, Request<BufferedBody<B>>) {
        let (bytes, trailers) = self.buffer.as_mut().freeze();
        if is_complete && framing::agrees(&self.parts.headers, bytes.len()) {
            self.parts.extensions.insert(BodyBytes(bytes.clone()));
            if let Some(trailers) = trailers {
                self.parts.extensions.insert(Trailers(trailers.clone()));
            }
        }
        let body = BufferedBody::read(self.buffer);
        (self.service, Request::from_parts(self.parts, body))
    }
}

// ===== impl ResponseFuture =====

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<BufferedBody<B>>>,
{
    pub(super) fn read(reading: Reading<S, B>) -> Self {
        Self {
            state: State::Reading(Some(reading)),
        }
    }

    pub(super) fn call(service: &mut S, request: Request<BufferedBody<B>>) -> Self
    where
        S: Clone,
    {
        Self {
            state: State::Calling(Oneshot::begin(service, request)),
        }
    }
}

impl<S, B> Future for ResponseFuture<S, B>
where
    S: Service<Request<BufferedBody<B>>>,
    B: Body,
    B::Error: Into<BoxError>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Calling(call) => return call.poll_call(cx),
                StateProj::Reading(reading) => {
                    let is_complete =
                        ready!(reading.as_mut().expect("the body is read once").poll(cx));
                    let reading = reading.take().expect("looked at just now");
                    let (service, request) = reading.finish(is_complete);
                    State::Calling(Oneshot::new(service, request))
                }
            };
            state.set(next);
        }
    }
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<BufferedBody<B>>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
