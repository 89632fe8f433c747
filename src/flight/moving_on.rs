//! A follower's body: it reads a flight's buffer, and calls again if that has nothing more for it.
//!
//! It skips as much of the new response's body as it has had of the old one, and continues from there if the two are
//! the same.

use std::{
    any::Any,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    HeaderName, Request,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG},
    response,
};
use http_body::{Body, Frame, SizeHint};
use tower_service::Service;

use super::{
    inner::{Inner, InnerBody},
    reader::{Next, ReadBody, Reader},
};
use crate::{
    body::ResponseBody,
    buffer::{Prefix, PrefixHasher},
    buffer_body::BodyBytes,
    error::{BoxError, SharedError},
    future::ResponseFuture,
    key::KeyExtractor,
    observe::{CallerSpan, Reason},
    service::Singleflight,
    sync::Mutex,
};

/// The fields in which the new response must equal the old one, beside the status and the bytes.
const SAME: [HeaderName; 5] = [
    ETAG,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    CONTENT_ENCODING,
];

/// How often a caller may move on to another flight. After that it makes its own call.
pub(crate) const MAX_MOVES: u8 = 1;

/// What a follower needs to call again.
pub(crate) struct Again<S, X, ReqBody>
where
    // What the service shares names the key's type.
    X: KeyExtractor,
{
    service: Singleflight<S, X>,
    request: Request<ReqBody>,
    /// How often it has moved on already.
    moves: u8,
}

/// The body of a follower that can call again. See the [module docs](self). The mutex is never contended; it only makes
/// the reader `Sync`, which a call need not be.
pub(crate) struct FollowerBody<S, X, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
    X: KeyExtractor,
{
    state: Mutex<State<S, X, ReqBody, ResBody>>,
}

enum State<S, X, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
    X: KeyExtractor,
{
    Reading {
        reader: Reader<X::Key>,
        head: Arc<response::Parts>,
        again: Again<S, X, ReqBody>,
    },
    Calling {
        call: Pin<Box<ResponseFuture<S, X, ReqBody, ResBody>>>,
        head: Arc<response::Parts>,
        had: Prefix,
        /// The bytes that the first head promised and that are still to come, here and below.
        left: Option<u64>,
    },
    GoingOn {
        body: Pin<Box<ResponseBody<ResBody>>>,
        left: Option<u64>,
        /// What is to be passed over first, and the hash of what was.
        passing: Option<(Prefix, PrefixHasher)>,
    },
    Done,
}

// ===== impl Again =====

impl<S, X, ReqBody> Again<S, X, ReqBody>
where
    X: KeyExtractor,
{
    /// `None` for a request whose body can't be sent again, because it would have to be read from the connection.
    pub(crate) fn new(
        service: Singleflight<S, X>,
        request: Request<ReqBody>,
        moves: u8,
    ) -> Option<Self>
    where
        ReqBody: Body,
    {
        let has_body = request.extensions().get::<BodyBytes>().is_some();
        (has_body || request.body().is_end_stream()).then_some(Self {
            service,
            request,
            moves,
        })
    }
}

// ===== impl FollowerBody =====

impl<S, X, ReqBody, ResBody> FollowerBody<S, X, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
    X: KeyExtractor,
{
    pub(crate) fn new(
        reader: Reader<X::Key>,
        head: Arc<response::Parts>,
        again: Again<S, X, ReqBody>,
    ) -> Self {
        Self {
            state: Mutex::new(State::Reading {
                reader,
                head,
                again,
            }),
        }
    }
}

impl<S, X, ReqBody, ResBody> State<S, X, ReqBody, ResBody>
where
    S: Inner<ReqBody, ResBody>,
    X: KeyExtractor,
    ReqBody: Body + Send + 'static,
    ResBody: InnerBody,
{
    /// Leaves the flight, and calls again like any new request.
    fn move_on(&mut self) {
        let State::Reading {
            reader,
            head,
            again,
        } = mem::replace(self, Self::Done)
        else {
            unreachable!("only who reads a flight's buffer moves on");
        };
        let (had, left) = (reader.had(), reader.size_hint().exact());
        drop(reader);
        let Again {
            mut service,
            request,
            moves,
        } = again;
        service.count_forwarded(&CallerSpan::current(), Reason::MovedOn);
        let call = service.call_again(request, moves + 1);
        *self = Self::Calling {
            call: Box::pin(call),
            head,
            had,
            left,
        };
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SharedError>>> {
        loop {
            match self {
                Self::Reading { reader, .. } => match ready!(reader.poll_next(cx)) {
                    Next::Frame(frame) => return Poll::Ready(Some(Ok(frame))),
                    Next::End => return Poll::Ready(None),
                    Next::Failed(error) => return Poll::Ready(Some(Err(error))),
                    Next::MoveOn => self.move_on(),
                },
                Self::Calling {
                    call,
                    head,
                    had,
                    left,
                } => {
                    let response = ready!(call.as_mut().poll(cx)).map_err(shared)?;
                    let (parts, body) = response.into_parts();
                    if !is_same(head, &parts) {
                        return changed();
                    }
                    let passing = (had.bytes > 0).then(|| (*had, PrefixHasher::new()));
                    *self = Self::GoingOn {
                        body: Box::pin(body),
                        left: *left,
                        passing,
                    };
                }
                Self::GoingOn {
                    body,
                    left,
                    passing,
                } => {
                    let frame = ready!(body.as_mut().poll_frame(cx)).transpose();
                    let mut frame = frame.map_err(SharedError::new)?;
                    if let Some((had, hasher)) = passing {
                        // The end, or trailers, although this reader has had more bytes.
                        let Some(mut data) = frame.and_then(|frame| frame.into_data().ok()) else {
                            return changed();
                        };
                        let missing = had.bytes - hasher.bytes();
                        let passed = usize::try_from(missing)
                            .map_or(data.len(), |missing| missing.min(data.len()));
                        hasher.append(&data.split_to(passed));
                        if hasher.bytes() < had.bytes {
                            continue;
                        }
                        if hasher.prefix() != *had {
                            return changed();
                        }
                        *passing = None;
                        if data.is_empty() {
                            continue;
                        }
                        frame = Some(Frame::data(data));
                    }
                    let is_kept = match &frame {
                        Some(frame) => keeps_to(left, frame.data_ref().map_or(0, Bytes::len)),
                        None => left.is_none_or(|left| left == 0),
                    };
                    if !is_kept {
                        return changed();
                    }
                    return Poll::Ready(frame.map(Ok));
                }
                Self::Done => panic!("a body polled after its end"),
            }
        }
    }
}

impl<S, X, ReqBody, ResBody> ReadBody for FollowerBody<S, X, ReqBody, ResBody>
where
    S: Inner<ReqBody, ResBody>,
    X: KeyExtractor,
    ReqBody: Body + Send + 'static,
    ResBody: InnerBody,
{
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SharedError>>> {
        self.state.get_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        match &*self.state.lock() {
            State::Reading { reader, .. } => reader.is_end_stream(),
            State::Calling { .. } => false,
            State::GoingOn {
                body,
                left,
                passing,
            } => left.unwrap_or(0) == 0 && passing.is_none() && body.is_end_stream(),
            State::Done => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &*self.state.lock() {
            State::Reading { reader, .. } => reader.size_hint(),
            State::GoingOn {
                left,
                body,
                passing: None,
            } => left.map_or_else(|| body.size_hint(), SizeHint::with_exact),
            State::Calling { left, .. } | State::GoingOn { left, .. } => {
                left.map_or_else(SizeHint::new, SizeHint::with_exact)
            }
            State::Done => SizeHint::with_exact(0),
        }
    }
}

/// Whether a response may continue another: the bytes are compared as they arrive.
fn is_same(old: &response::Parts, new: &response::Parts) -> bool {
    old.status == new.status
        && SAME.iter().all(|name| {
            let (old, new) = (old.headers.get_all(name), new.headers.get_all(name));
            old.iter().eq(new.iter())
        })
}

/// Counts `len` more bytes, and returns whether so many were promised.
fn keeps_to(left: &mut Option<u64>, len: usize) -> bool {
    left.as_mut().is_none_or(|left| {
        let less = left.checked_sub(len as u64);
        *left = less.unwrap_or(0);
        less.is_some()
    })
}

/// The body ends: the new response does not continue the old one.
fn changed<T>() -> Poll<Option<Result<T, SharedError>>> {
    const CHANGED: &str = "the response changed while its body was read too slowly";
    Poll::Ready(Some(Err(SharedError::new(CHANGED))))
}

/// The error of a call, as a body's error.
fn shared<E: 'static>(error: E) -> SharedError {
    let mut error = Some(error);
    let any: &mut dyn Any = &mut error;
    if let Some(Some(error)) = any.downcast_mut::<Option<BoxError>>().map(Option::take) {
        return SharedError::new(error);
    }
    if let Some(Some(error)) = any.downcast_mut::<Option<SharedError>>().map(Option::take) {
        return error;
    }
    SharedError::new("the call that was to go on with a response failed")
}
