//! `ResponseBody`.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

use crate::{
    audit::AuditedBody,
    error::BoxError,
    flight::{CompleteReader, ReadBody},
};

/// The body of a response that has passed the layer: the inner service's body, or a copy of one that is shared.
///
/// # Errors
///
/// Those of the inner body. If several callers could share it, they get a [`SharedError`](crate::SharedError), which
/// leads to the original. A copy has three more: the source sent more or fewer bytes than it had announced; the
/// trailers set a cookie, or are otherwise for the leader only; or this caller read a body over
/// [`max_body`](crate::SingleflightLayer::max_body) at another pace than the rest, called again, and got a different
/// response. A body that did not arrive completely never ends as if it had.
///
/// # Cancel safety
///
/// No frame is lost when a poll is cancelled. Dropping the body leaves the flight, as dropping the
/// [`ResponseFuture`](crate::future::ResponseFuture) does.
///
/// # Panics
///
/// Polling it panics if the inner body panicked.
#[pin_project]
pub struct ResponseBody<B> {
    #[pin]
    kind: Kind<B>,
}

#[pin_project(project = KindProj)]
enum Kind<B> {
    /// As it came.
    Inner(#[pin] B),
    /// As it came. Boxed, so that other bodies are no larger for it.
    Audited(Pin<Box<AuditedBody<B>>>),
    /// The only frame; `None` at its end.
    OneFrame(Option<Frame<Bytes>>),
    /// A copy of one that has ended.
    Complete(CompleteReader),
    /// Through the flight.
    Shared(Box<dyn ReadBody>),
}

/// The next frame of a body, its data as [`Bytes`]: without a copy if it is of these already.
pub(crate) fn poll_bytes<B>(
    body: Pin<&mut B>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BoxError>>>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    body.poll_frame(cx)
        .map_ok(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))
        .map_err(Into::into)
}

// ===== impl ResponseBody =====

impl<B> ResponseBody<B> {
    pub(crate) fn inner(body: B) -> Self {
        Self {
            kind: Kind::Inner(body),
        }
    }

    pub(crate) fn audited(body: AuditedBody<B>) -> Self {
        Self {
            kind: Kind::Audited(Box::pin(body)),
        }
    }

    pub(crate) fn one_frame(frame: Option<Frame<Bytes>>) -> Self {
        Self {
            kind: Kind::OneFrame(frame),
        }
    }

    pub(crate) fn complete(reader: CompleteReader) -> Self {
        Self {
            kind: Kind::Complete(reader),
        }
    }

    pub(crate) fn shared(reader: impl ReadBody + 'static) -> Self {
        Self {
            kind: Kind::Shared(Box::new(reader)),
        }
    }
}

impl<B> Body for ResponseBody<B>
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
        let mut kind = self.project().kind;
        let last = match kind.as_mut().project() {
            KindProj::Inner(body) => return poll_bytes(body, cx),
            KindProj::Audited(body) => return body.as_mut().poll_frame(cx),
            KindProj::OneFrame(frame) => return Poll::Ready(frame.take().map(Ok)),
            KindProj::Complete(reader) => match reader.next() {
                Some(frame) => return Poll::Ready(Some(Ok(frame))),
                None => None,
            },
            KindProj::Shared(reader) => match ready!(reader.poll_frame(cx)) {
                Some(Ok(frame)) => return Poll::Ready(Some(Ok(frame))),
                Some(Err(error)) => Some(Err(error.into())),
                None => None,
            },
        };
        // A body that has ended frees what it holds at once.
        kind.set(Kind::OneFrame(None));
        Poll::Ready(last)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Inner(body) => body.is_end_stream(),
            Kind::Audited(body) => body.is_end_stream(),
            Kind::OneFrame(frame) => frame.is_none(),
            Kind::Complete(reader) => reader.is_end_stream(),
            Kind::Shared(reader) => reader.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Inner(body) => body.size_hint(),
            Kind::Audited(body) => body.size_hint(),
            Kind::OneFrame(frame) => {
                let data = frame.as_ref().and_then(Frame::data_ref);
                SizeHint::with_exact(data.map_or(0, |data| data.len() as u64))
            }
            Kind::Complete(reader) => reader.size_hint(),
            Kind::Shared(reader) => reader.size_hint(),
        }
    }
}

/// An empty body.
impl<B> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::one_frame(None)
    }
}

impl<B> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}
