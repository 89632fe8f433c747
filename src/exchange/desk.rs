//! Where the leader's own response is left for it: the one typed thing in a flight whose table can't name types.

use bytes::Bytes;
use http::{Response, response};
use http_body::Frame;

use crate::sync::Mutex;

pub(crate) struct Desk<B, E> {
    answer: Mutex<Option<Result<Answer<B>, E>>>,
}

/// What a leader gets.
pub(crate) enum Answer<B> {
    /// The response as it came; the flight has no further part in it.
    Untouched(Response<B>),
    /// The whole response; it ended before anybody joined.
    Whole(response::Parts, Option<Frame<Bytes>>),
    /// The head; the body is read through the flight.
    Shared(response::Parts),
}

// ===== impl Desk =====

impl<B, E> Desk<B, E> {
    pub(crate) fn new() -> Self {
        Self {
            answer: Mutex::new(None),
        }
    }

    pub(crate) fn leave(&self, answer: Result<Answer<B>, E>) {
        *self.answer.lock() = Some(answer);
    }

    pub(crate) fn take(&self) -> Option<Result<Answer<B>, E>> {
        self.answer.lock().take()
    }
}
