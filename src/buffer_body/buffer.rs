//! A body that has been read ahead in part or in full.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;
use tokio::sync::OwnedSemaphorePermit;

use super::budget::Budget;
use crate::{body::poll_bytes, error::BoxError};

/// Gives what was read ahead, in one frame, then `next`, then the rest of the body.
#[pin_project]
pub(super) struct Buffer<B> {
    #[pin]
    body: B,
    /// What was read, if it came in one frame.
    read: Bytes,
    /// Else a copy of its frames; empty when the reading has ended.
    joined: BytesMut,
    /// What came after it: a frame that found no room, the trailers, or the error.
    next: Option<Result<Frame<Bytes>, BoxError>>,
    /// The body must not be polled again.
    ended: bool,
    /// What all requests of the layer may read ahead, and this one's part of it.
    budget: Budget,
    reserved: Option<OwnedSemaphorePermit>,
}

/// How many frames one poll takes, so that a body that is always ready doesn't block its thread.
const FRAMES: usize = 32;

// ===== impl Buffer =====

impl<B> Buffer<B> {
    pub(super) fn new(body: B, budget: Budget) -> Self {
        Self {
            body,
            read: Bytes::new(),
            joined: BytesMut::new(),
            next: None,
            ended: false,
            budget,
            reserved: None,
        }
    }

    /// Ends the reading ahead. Returns what was read, and the trailers if the body has any.
    pub(super) fn freeze(self: Pin<&mut Self>) -> (&Bytes, Option<&HeaderMap>) {
        let this = self.project();
        if !this.joined.is_empty() {
            *this.read = mem::take(this.joined).freeze();
        }
        let next = this.next.as_ref().and_then(|next| next.as_ref().ok());
        (this.read, next.and_then(Frame::trailers_ref))
    }
}

impl<B> Buffer<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// Reads ahead up to `max` bytes, as long as the budget has room. Gives `true` at the body's end.
    pub(super) fn poll_fill(
        mut self: Pin<&mut Self>,
        max: usize,
        cx: &mut Context<'_>,
    ) -> Poll<bool> {
        for _ in 0..FRAMES {
            let this = self.as_mut().project();
            // A body of known length ends with its last byte, before the connection reports the end.
            let frame = if this.body.is_end_stream() {
                None
            } else {
                ready!(poll_bytes(this.body, cx))
            };
            match frame.map(|frame| frame.map(Frame::into_data)) {
                None => {
                    *this.ended = true;
                    return Poll::Ready(true);
                }
                Some(Ok(Ok(data))) => {
                    if let Err(data) = self.as_mut().keep(data, max) {
                        *self.project().next = Some(Ok(Frame::data(data)));
                        return Poll::Ready(false);
                    }
                }
                Some(Ok(Err(trailers))) => {
                    *this.next = Some(Ok(trailers));
                    return Poll::Ready(true);
                }
                Some(Err(error)) => {
                    *this.next = Some(Err(error));
                    *this.ended = true;
                    return Poll::Ready(false);
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Gives `data` back if there is no room for it.
    fn keep(self: Pin<&mut Self>, data: Bytes, max: usize) -> Result<(), Bytes> {
        let this = self.project();
        let kept = this.read.len().max(this.joined.len());
        if data.len() > max - kept {
            return Err(data);
        }
        match (this.reserved.as_mut(), this.budget.take(data.len())) {
            (_, None) => return Err(data),
            (Some(reserved), Some(more)) => reserved.merge(more),
            (None, more) => *this.reserved = more,
        }
        if kept == 0 {
            *this.read = data;
        } else {
            this.joined.extend_from_slice(&mem::take(this.read));
            this.joined.extend_from_slice(&data);
        }
        Ok(())
    }

    pub(super) fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        if !this.read.is_empty() {
            *this.reserved = None;
            return Poll::Ready(Some(Ok(Frame::data(mem::take(this.read)))));
        }
        if let Some(next) = this.next.take() {
            return Poll::Ready(Some(next));
        }
        if *this.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(poll_bytes(this.body, cx));
        *this.ended = frame.is_none();
        Poll::Ready(frame)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let given = self.read.is_empty() && self.next.is_none();
        given && (self.ended || self.body.is_end_stream())
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let read = self.read.len() as u64;
        match &self.next {
            None if self.ended => SizeHint::with_exact(read),
            None => plus(&self.body.size_hint(), read),
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) => plus(&self.body.size_hint(), read + data.len() as u64),
                // HTTP/1.1 has no trailers after a body whose length is known.
                None => plus(&SizeHint::new(), read),
            },
            Some(Err(_)) => plus(&SizeHint::new(), read),
        }
    }
}

fn plus(rest: &SizeHint, bytes: u64) -> SizeHint {
    let mut hint = SizeHint::new();
    hint.set_lower(rest.lower().saturating_add(bytes));
    if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(bytes)) {
        hint.set_upper(upper);
    }
    hint
}
