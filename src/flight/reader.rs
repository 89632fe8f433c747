//! A caller that reads the body through its flight.

use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::caller::Caller;
use crate::{
    buffer::{Prefix, Read},
    error::SharedError,
    group::Wakers,
    observe,
};

/// A reader that is further behind than this yields after so many bytes while the body streams: others may still wait
/// for their first bytes.
const BURST: usize = 64 << 10;

/// The error of a follower that fell behind in a body over `max_body` and can't call again, because its request is gone.
const FELL_BEHIND: &str = "this copy of a body larger than `max_body` was read too slowly";

/// Reads the buffer from its first frame, and has the source pulled when it reaches the end.
pub(crate) struct Reader<K> {
    caller: Caller<K>,
    /// Whether it has yielded to the reader that sets the pace.
    yielded: bool,
    /// The bytes read since it last waited.
    burst: usize,
}

/// A reader, without its types.
pub(crate) trait ReadBody: Send + Sync {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SharedError>>>;

    fn is_end_stream(&self) -> bool;

    fn size_hint(&self) -> SizeHint;
}

/// What comes next for a reader.
pub(super) enum Next {
    Frame(Frame<Bytes>),
    End,
    Failed(SharedError),
    /// The flight has nothing more for it, although the body goes on.
    MoveOn,
}

// ===== impl Reader =====

impl<K> Reader<K> {
    pub(crate) fn new(caller: Caller<K>) -> Self {
        Self {
            caller,
            yielded: false,
            burst: 0,
        }
    }

    /// What it has had so far.
    pub(super) fn had(&self) -> Prefix {
        let state = self.caller.flight().data.state();
        state.buffer.had(self.caller.place())
    }

    /// `None`: yield to others.
    fn read(&mut self) -> Option<Read> {
        let read = {
            let mut state = self.caller.flight().data.state();
            if self.burst >= BURST && state.buffer.is_behind(self.caller.place(), BURST as u64) {
                return None;
            }
            state.buffer.read(self.caller.place())
        };
        observe::settle();
        Some(read)
    }
}

impl<K: Send + Sync + 'static> Reader<K> {
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let mut polled = None;
        loop {
            let Some(read) = self.read() else {
                self.burst = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            };
            let (asked, paced) = match read {
                Read::Frame(frame) => {
                    self.yielded = false;
                    self.burst += frame.data_ref().map_or(0, Bytes::len);
                    return Poll::Ready(Next::Frame(frame));
                }
                Read::End => return Poll::Ready(Next::End),
                Read::Failed(error) => return Poll::Ready(Next::Failed(error)),
                Read::FellBehind => return Poll::Ready(Next::MoveOn),
                Read::Wait { asked, paced } => (asked, paced),
            };
            self.burst = 0;
            match polled {
                // On the second pass: the reader that set the pace has left, and this one takes its place.
                _ if asked => self.caller.flight().wake_driver(),
                None => {}
                Some(Poll::Pending) if !paced => return Poll::Pending,
                Some(Poll::Pending) if self.yielded => return Poll::Ready(Next::MoveOn),
                Some(Poll::Pending) => {
                    self.yielded = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Poll::Ready(())) => {
                    unreachable!("a flight with readers ends their buffer first")
                }
            }
            // Check again: a frame may have come before the waker was stored, or by this very poll.
            polled = Some(self.caller.poll(cx));
        }
    }
}

impl<K: Send + Sync + 'static> ReadBody for Reader<K> {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SharedError>>> {
        self.poll_next(cx).map(|next| match next {
            Next::Frame(frame) => Some(Ok(frame)),
            Next::End => None,
            Next::Failed(error) => Some(Err(error)),
            Next::MoveOn => Some(Err(SharedError::new(FELL_BEHIND))),
        })
    }

    fn is_end_stream(&self) -> bool {
        let state = self.caller.flight().data.state();
        state.buffer.is_end_for(self.caller.place())
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.caller.flight().data.state();
        state.buffer.size_hint_for(self.caller.place())
    }
}

impl<K> Drop for Reader<K> {
    /// Wake a caller that has waited, even if it finds the end by itself before its flight wakes it. hyper's server
    /// (1.12) polls a body twice in one poll, and goes on after the end, or closes the connection, in the next poll.
    fn drop(&mut self) {
        Wakers::one(self.caller.take_waker()).wake();
    }
}
