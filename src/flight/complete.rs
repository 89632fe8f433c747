//! A follower's body that had ended before the follower began to read.

use std::sync::Arc;

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::{buffer::CompleteBody, observe, shared::Counters};

/// What the followers of one flight share of its body.
pub(crate) struct CompleteResponse {
    pub(super) body: CompleteBody,
    pub(super) counters: Arc<Counters>,
}

/// Reads it. It holds no flight any more, but still counts in [`Stats::waiters`](crate::Stats).
pub(crate) struct CompleteReader {
    /// `None` once it is dropped.
    response: Option<Arc<CompleteResponse>>,
    next: usize,
    left: u64,
}

// ===== impl CompleteReader =====

impl CompleteReader {
    /// For a caller that has been counted.
    pub(super) fn new(response: Arc<CompleteResponse>) -> Self {
        Self {
            left: response.body.len(),
            response: Some(response),
            next: 0,
        }
    }

    fn response(&self) -> &CompleteResponse {
        self.response.as_ref().expect("it is there until the drop")
    }

    pub(crate) fn next(&mut self) -> Option<Frame<Bytes>> {
        let frame = self.response().body.frame(self.next)?;
        self.next += 1;
        self.left -= frame.data_ref().map_or(0, |data| data.len() as u64);
        Some(frame)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.response().body.is_end(self.next)
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.response().body.size_hint(self.left)
    }
}

impl Drop for CompleteReader {
    fn drop(&mut self) {
        self.response().counters.leave(1);
        drop(self.response.take());
        observe::settle();
    }
}
