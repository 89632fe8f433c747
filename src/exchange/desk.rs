//! What a flight's work and its leader have in common: the one typed thing in a flight whose table can't name types.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, response};
use http_body::Frame;

use crate::{
    flights::Shared,
    key::{KeyExtractor, MayDiffer},
    rules::Fields,
    sync::Mutex,
};

pub(crate) struct Desk<B, E> {
    /// Here, beside the answer, it costs no allocation.
    pub(super) asked: Asked,
    /// The leader's own response is left here for it.
    answer: Mutex<Option<Result<Answer<B>, E>>>,
}

/// What must be known of the leader's request when its response comes.
pub(crate) struct Asked {
    pub(super) method: Method,
    pub(super) has_credentials: bool,
    /// Those in which an identical request may differ: for `Vary`.
    pub(super) fields: Fields,
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
    pub(crate) fn new<X: KeyExtractor, ReqBody>(
        shared: &Shared<X>,
        request: &Request<ReqBody>,
        has_credentials: bool,
        mut may_differ: MayDiffer,
    ) -> Arc<Self> {
        let mut desk = Arc::new(Self {
            asked: Asked {
                method: request.method().clone(),
                has_credentials,
                fields: Fields::default(),
            },
            answer: Mutex::new(None),
        });
        // Filled where it stays: it is large.
        let asked = &mut Arc::get_mut(&mut desk).expect("made just now").asked;
        asked.fields.keep(request.headers(), |name| {
            may_differ.pop().unwrap_or_else(|| shared.may_differ(name))
        });
        desk
    }

    pub(crate) fn leave(&self, answer: Result<Answer<B>, E>) {
        *self.answer.lock() = Some(answer);
    }

    pub(crate) fn take(&self) -> Option<Result<Answer<B>, E>> {
        self.answer.lock().take()
    }
}
