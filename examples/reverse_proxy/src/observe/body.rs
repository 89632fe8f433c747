//! The body of a response to a client.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::Exchange;

pin_project! {
    /// Passes everything on, and keeps the [`Exchange`] until the end.
    #[derive(Debug)]
    pub(crate) struct ObservedBody<B> {
        #[pin]
        inner: B,
        exchange: Exchange,
    }
}

// ===== impl ObservedBody =====

impl<B> ObservedBody<B>
where
    B: Body,
{
    pub(crate) fn new(inner: B, mut exchange: Exchange) -> Self {
        if inner.is_end_stream() {
            exchange.end();
        }
        Self { inner, exchange }
    }
}

impl<B> Body for ObservedBody<B>
where
    B: Body<Data = Bytes>,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.inner.as_mut().poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                this.exchange.send(frame.data_ref().map_or(0, Bytes::len));
                // A server does not ask again where it knows that this was all.
                if this.inner.is_end_stream() || this.inner.size_hint().exact() == Some(0) {
                    this.exchange.end();
                }
            }
            Some(Err(_)) => {}
            None => this.exchange.end(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
