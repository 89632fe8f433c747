//! What a flight's work and its leader share: the only part of a flight with the service's types.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response, response};
use http_body::Frame;

use crate::{rules::Fields, sync::Mutex};

pub(crate) struct LeaderSlot<B, E> {
    /// Kept here, beside the response, to save an allocation.
    pub(super) request: LeaderRequest,
    /// Where the work leaves the leader's response.
    response: Mutex<Option<Result<LeaderResponse<B>, E>>>,
}

/// What we need of the leader's request when its response comes.
pub(crate) struct LeaderRequest {
    pub(super) method: Method,
    pub(super) has_credentials: bool,
    /// The fields in which an identical request may differ: for `Vary`.
    pub(super) fields: Fields,
}

/// What a leader gets.
pub(crate) enum LeaderResponse<B> {
    /// The unchanged response; the flight is over.
    Untouched(Response<B>),
    /// The complete response, which ended before anybody joined.
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
