//! `AuditedBody`.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::response;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

use super::auditor::Auditor;
use crate::{body::poll_bytes, error::BoxError};

/// The unchanged body of an audited request's response.
#[pin_project]
pub(crate) struct AuditedBody<B> {
    #[pin]
    body: B,
    auditor: Box<Auditor>,
}

// ===== impl AuditedBody =====

impl<B: Body> AuditedBody<B> {
    pub(crate) fn new(mut auditor: Box<Auditor>, head: &response::Parts, body: B) -> Self {
        auditor.begin(head, &body);
        Self { body, auditor }
    }
}

impl<B> Body for AuditedBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        let frame = ready!(poll_bytes(this.body.as_mut(), cx));
        let is_end = this.body.is_end_stream();
        this.auditor.receive(frame.as_ref(), is_end);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
