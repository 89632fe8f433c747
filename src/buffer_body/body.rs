//! `BufferedBody`, and what a request's extensions hold of it.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, request};
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

use super::buffer::Buffer;
use crate::{body::poll_bytes, error::BoxError};

/// The complete body of a request, in the extensions of a request whose body [`BufferBody`](super::BufferBody) has read
/// to its end. See the [module docs](super).
///
/// Key functions and all services below can read it there.
///
/// It may be a slice of the connection's read buffer. If you keep it longer than the request, in a key for example,
/// copy or hash it.
///
/// # Example
///
/// ```
/// use http::{Method, request};
/// use tower_singleflight::{BodyBytes, SingleflightLayer};
///
/// // Identical searches are one call; any other POST is left alone.
/// let layer = SingleflightLayer::with_key(|request: &request::Parts| {
///     let BodyBytes(body) = request.extensions.get()?;
///     let is_search = request.method == Method::POST && request.uri.path() == "/search";
///     is_search.then(|| body.to_vec())
/// });
/// # let _ = layer;
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct BodyBytes(pub Bytes);

/// The trailers of a body that was read to its end, if it has any.
#[derive(Clone, Debug)]
pub(crate) struct Trailers(pub(super) HeaderMap);

/// A request's body with what [`BufferBody`](super::BufferBody) has read of it: the bytes that were read, in one frame,
/// then the rest of `B` as it comes. See the [module docs](super).
///
/// # Errors
///
/// Those of `B`, after the bytes that came before them.
#[pin_project]
pub struct BufferedBody<B> {
    #[pin]
    kind: Kind<B>,
}

#[pin_project(project = KindProj)]
enum Kind<B> {
    Untouched(#[pin] B),
    Read(Pin<Box<Buffer<B>>>),
}

// ===== impl BodyBytes =====

/// Shows no content, which may be secret.
impl fmt::Debug for BodyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyBytes")
            .field("len", &self.0.len())
            .finish_non_exhaustive()
    }
}

// ===== impl Trailers =====

impl Trailers {
    pub(crate) fn of(request: &request::Parts) -> Option<&HeaderMap> {
        request.extensions.get().map(|Self(trailers)| trailers)
    }
}

// ===== impl BufferedBody =====

impl<B> BufferedBody<B> {
    pub(super) fn untouched(body: B) -> Self {
        Self {
            kind: Kind::Untouched(body),
        }
    }

    pub(super) fn read(buffer: Pin<Box<Buffer<B>>>) -> Self {
        Self {
            kind: Kind::Read(buffer),
        }
    }
}

impl<B> Body for BufferedBody<B>
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
        match self.project().kind.project() {
            KindProj::Untouched(body) => poll_bytes(body, cx),
            KindProj::Read(buffer) => buffer.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Untouched(body) => body.is_end_stream(),
            Kind::Read(buffer) => buffer.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Untouched(body) => body.size_hint(),
            Kind::Read(buffer) => buffer.size_hint(),
        }
    }
}

/// A body of which nothing was read.
impl<B> Default for BufferedBody<B>
where
    B: Default,
{
    fn default() -> Self {
        Self::untouched(B::default())
    }
}

impl<B> fmt::Debug for BufferedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferedBody").finish_non_exhaustive()
    }
}
