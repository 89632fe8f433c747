//! `Auditor`.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, response};
use http_body::{Body, Frame};

use super::{
    answer::{AuditedRequest, Head, IgnoredFields, ResponseSummary},
    digest::BodyHasher,
    original::Original,
};
use crate::{
    key::KeyExtractor,
    observe::CallerSpan,
    rules::{self, Fields},
    shared::Shared,
};

/// An audited request, from its call to the end of its body.
///
/// If it is dropped earlier, its response is unknown.
pub(crate) struct Auditor {
    original: Arc<Original>,
    method: Method,
    head: Option<Head>,
    expected: Option<u64>,
    body: BodyHasher,
    /// `None` once it has ended (A2).
    audited: Option<AuditedRequest>,
}

// ===== impl Auditor =====

impl Auditor {
    pub(crate) fn new<X: KeyExtractor, B>(
        original: Arc<Original>,
        shared: &Shared<X>,
        request: &Request<B>,
        fields: Fields,
        span: CallerSpan,
    ) -> Box<Self> {
        Box::new(Self {
            original,
            method: request.method().clone(),
            head: None,
            expected: None,
            body: BodyHasher::new(),
            audited: Some(AuditedRequest {
                path: request.uri().path().to_owned(),
                span,
                request: fields,
                ignored: IgnoredFields(shared.default_key().cloned().unwrap_or_default()),
                answer: None,
            }),
        })
    }

    /// The head has arrived.
    pub(crate) fn begin<B: Body>(&mut self, head: &response::Parts, body: &B) {
        self.expected = rules::expected(&self.method, head, &body.size_hint());
        self.head = Some(Head::of(head));
        if body.is_end_stream() {
            self.finish(Some(HeaderMap::new()));
        }
    }

    /// The body has produced this. `is_end`: it says that this is all.
    pub(crate) fn receive<E>(&mut self, given: Option<&Result<Frame<Bytes>, E>>, is_end: bool) {
        match given {
            Some(Ok(frame)) => {
                self.body.append(frame.data_ref().map_or(&[], |data| data));
                match frame.trailers_ref() {
                    Some(trailers) => self.finish(Some(trailers.clone())),
                    None if is_end => self.finish(Some(HeaderMap::new())),
                    None => {}
                }
            }
            Some(Err(_)) => self.end(None),
            None => self.finish(Some(HeaderMap::new())),
        }
    }

    fn finish(&mut self, trailers: Option<HeaderMap>) {
        let body = self.body.finish();
        let answer = self.head.take().map(|head| ResponseSummary {
            head,
            body,
            trailers,
        });
        self.end(answer);
    }

    fn end(&mut self, answer: Option<ResponseSummary>) {
        if let Some(mut audited) = self.audited.take() {
            audited.answer = answer;
            self.original.audited(audited);
        }
    }
}

impl Drop for Auditor {
    fn drop(&mut self) {
        // A server that knows the length does not poll for the end.
        if self.expected == Some(self.body.bytes()) {
            self.finish(None);
        } else {
            self.end(None);
        }
    }
}
