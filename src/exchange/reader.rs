//! A caller that reads the body through its flight.

use std::{
    fmt,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::seat::Seat;
use crate::{
    copy::{Cursor, Read},
    error::SharedError,
    group::Interest,
    observe,
};

/// Reads the tape from its first frame, and has the source pulled where it gets ahead.
pub(crate) struct Reader<K> {
    seat: Seat<K>,
    cursor: Cursor,
    leads: bool,
}

/// A reader whose key's type is not named.
pub(crate) trait ReadBody: Send + Sync + fmt::Debug {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SharedError>>>;

    fn is_end_stream(&self) -> bool;

    fn size_hint(&self) -> SizeHint;
}

// ===== impl Reader =====

impl<K> Reader<K> {
    pub(crate) fn new(seat: Seat<K>, leads: bool) -> Self {
        Self {
            seat,
            cursor: Cursor::default(),
            leads,
        }
    }

    fn read(&mut self) -> Read {
        let read = {
            let mut exchange = self.seat.flight().cargo.exchange.lock();
            exchange.tape.read(&mut self.cursor, self.leads)
        };
        observe::settle();
        read
    }
}

impl<K: Send + Sync + 'static> ReadBody for Reader<K> {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SharedError>>> {
        let mut polled = None;
        loop {
            match self.read() {
                Read::Frame(frame) => return Poll::Ready(Some(Ok(frame))),
                Read::End => return Poll::Ready(None),
                Read::Failed(error) => return Poll::Ready(Some(Err(error))),
                Read::Wait { asked } => match polled {
                    Some(Poll::Pending) => return Poll::Pending,
                    Some(Poll::Ready(())) => {
                        unreachable!("a flight with readers ends their tape first")
                    }
                    None if asked => self.seat.flight().wake_driver(),
                    None => {}
                },
            }
            // Then look once more: a frame may have come before the waker was left, or by this very poll.
            polled = Some(self.seat.poll(Interest::Progress, cx));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.seat
            .flight()
            .cargo
            .exchange
            .lock()
            .tape
            .is_end_for(&self.cursor)
    }

    fn size_hint(&self) -> SizeHint {
        self.seat
            .flight()
            .cargo
            .exchange
            .lock()
            .tape
            .size_hint_for(&self.cursor)
    }
}

impl<K> fmt::Debug for Reader<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("seat", &self.seat)
            .field("leads", &self.leads)
            .finish_non_exhaustive()
    }
}
