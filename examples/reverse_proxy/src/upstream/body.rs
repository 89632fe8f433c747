//! The body of an upstream's response.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};
use tower::BoxError;

use super::{Upstreams, failure::chain_of};

/// Passes everything on; logs it where it breaks off, and breaks it off where the upstream is silent for too long.
#[derive(Debug)]
pub(crate) struct UpstreamBody {
    inner: Incoming,
    upstreams: Arc<Upstreams>,
    origin: usize,
    path: Box<str>,
    /// There while the upstream is silent, if there is a limit to that.
    silence: Option<Pin<Box<Sleep>>>,
}

// ===== impl UpstreamBody =====

impl UpstreamBody {
    pub(super) fn new(
        inner: Incoming,
        upstreams: &Arc<Upstreams>,
        origin: usize,
        path: Box<str>,
    ) -> Self {
        Self {
            inner,
            upstreams: Arc::clone(upstreams),
            origin,
            path,
            silence: None,
        }
    }

    /// Ready once the upstream has been silent for too long. The time runs from the first of the polls that found it so.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        let Some(limit) = self.upstreams.body_timeout else {
            return Poll::Pending;
        };
        let silence = self.silence.get_or_insert_with(|| Box::pin(sleep(limit)));
        silence.as_mut().poll(cx).map(|()| limit)
    }

    fn broke(&self, error: BoxError) -> BoxError {
        self.upstreams.observed.counters.broken_bodies.count();
        tracing::warn!(
            upstream = self.upstreams.origins[self.origin].name(),
            path = &*self.path,
            cause = chain_of(&error),
            "the body of a response broke off"
        );
        error
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let frame = match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let limit = ready!(this.poll_silence(cx));
                let error = format!("silent for {limit:?}");
                return Poll::Ready(Some(Err(this.broke(error.into()))));
            }
        };
        this.silence = None;
        let frame = frame.map(|frame| frame.map_err(|error| this.broke(error.into())));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
