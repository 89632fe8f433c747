//! What a flight's work and its leader have in common: the one thing in a flight that has the types of its service.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response, response};
use http_body::Frame;

use crate::{rules::Fields, sync::Mutex};

pub(crate) struct LeaderSlot<B, E> {
    /// Here, beside the response, it costs no allocation.
    pub(super) request: LeaderRequest,
    /// The leader's own response is left here for it.
    response: Mutex<Option<Result<LeaderResponse<B>, E>>>,
}

/// What must be known of the leader's request when its response comes.
pub(crate) struct LeaderRequest {
    pub(super) method: Method,
    pub(super) has_credentials: bool,
    /// Those in which an identical request may differ: for `Vary`.
    pub(super) fields: Fields,
}

/// What a leader gets.
pub(crate) enum LeaderResponse<B> {
    /// The response as it came; the flight has no further part in it.
    Untouched(Response<B>),
    /// The whole response; it ended before anybody joined.
    Whole(response::Parts, Option<Frame<Bytes>>),
    /// The head; the body is read through the flight.
    Shared(response::Parts),
}

// ===== impl LeaderSlot =====

impl<B, E> LeaderSlot<B, E> {
    pub(crate) fn new(method: Method, has_credentials: bool, fields: Fields) -> Arc<Self> {
        Arc::new(Self {
            request: LeaderRequest {
                method,
                has_credentials,
                fields,
            },
            response: Mutex::new(None),
        })
    }

    pub(crate) fn leave(&self, response: Result<LeaderResponse<B>, E>) {
        *self.response.lock() = Some(response);
    }

    pub(crate) fn take(&self) -> Option<Result<LeaderResponse<B>, E>> {
        self.response.lock().take()
    }
}
