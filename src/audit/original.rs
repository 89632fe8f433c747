//! `Original`.

use std::{mem, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, response};

use super::{
    answer::{AuditedRequest, Head, ResponseSummary, request_fields},
    digest::BodyHasher,
};
use crate::{
    observe,
    rules::{self, Fields, Variant},
    shared::{Counters, Event},
    sync::Mutex,
};

/// The response of a flight, for its auditors. Made when the first one comes.
///
/// If it is dropped before it has ended, the flight's response is unknown.
pub(crate) struct Original {
    counters: Arc<Counters>,
    state: Mutex<OriginalState>,
}

struct OriginalState {
    /// The part of the body that was there when the first auditor came, to be hashed outside the flight's lock.
    unhashed: Vec<Bytes>,
    body: BodyHasher,
    trailers: HeaderMap,
    outcome: Option<Arc<OriginalOutcome>>,
    /// Auditors that have ended first (A2).
    waiting: Vec<AuditedRequest>,
}

/// Who may have a flight's response.
pub(crate) struct Recipients {
    pub(crate) variant: Option<Variant>,
    /// The fields of the leader's request in which others may differ.
    pub(crate) request: Fields,
}

enum OriginalOutcome {
    /// It is only for the leader.
    Private,
    /// `None` if it was incomplete.
    Shared(Recipients, Option<ResponseSummary>),
}

// ===== impl Original =====

impl Original {
    /// `data`, `trailers`: the body so far (A1).
    pub(crate) fn new(
        counters: Arc<Counters>,
        data: Vec<Bytes>,
        trailers: Option<HeaderMap>,
    ) -> Arc<Self> {
        Arc::new(Self {
            counters,
            state: Mutex::new(OriginalState {
                unhashed: data,
                body: BodyHasher::new(),
                trailers: trailers.unwrap_or_default(),
                outcome: None,
                waiting: Vec::new(),
            }),
        })
    }

    /// More of the body has arrived.
    pub(crate) fn receive(&self, data: &[u8], trailers: Option<HeaderMap>) {
        let mut state = self.state.lock();
        state.catch_up();
        state.body.append(data);
        state.trailers.extend(trailers.unwrap_or_default());
    }

    /// Hashes what was there when the first auditor came.
    pub(crate) fn catch_up(&self) {
        self.state.lock().catch_up();
    }

    /// The rules gave the response only to its leader.
    pub(crate) fn refuse(&self) {
        self.end(|_| OriginalOutcome::Private);
    }

    /// The response is incomplete.
    pub(crate) fn lose(&self, recipients: Recipients) {
        self.end(|_| OriginalOutcome::Shared(recipients, None));
    }

    /// The response is complete.
    pub(crate) fn finish(&self, head: &response::Parts, recipients: Recipients) {
        let head = Head::of(head);
        self.end(|state| {
            state.catch_up();
            if !rules::trailers_may_be_shared(&state.trailers) {
                return OriginalOutcome::Private;
            }
            let answer = ResponseSummary {
                head,
                body: state.body.finish(),
                trailers: Some(mem::take(&mut state.trailers)),
            };
            OriginalOutcome::Shared(recipients, Some(answer))
        });
    }

    fn end(&self, outcome: impl FnOnce(&mut OriginalState) -> OriginalOutcome) {
        let (outcome, waiting) = {
            let mut state = self.state.lock();
            let outcome = Arc::new(outcome(&mut state));
            state.unhashed = Vec::new();
            state.outcome = Some(Arc::clone(&outcome));
            (outcome, mem::take(&mut state.waiting))
        };
        for audited in waiting {
            self.conclude(&outcome, &audited);
        }
    }

    /// An auditor has ended.
    pub(super) fn audited(&self, audited: AuditedRequest) {
        let outcome = {
            let mut state = self.state.lock();
            let Some(outcome) = &state.outcome else {
                return state.waiting.push(audited);
            };
            Arc::clone(outcome)
        };
        self.conclude(&outcome, &audited);
    }

    fn conclude(&self, outcome: &OriginalOutcome, audited: &AuditedRequest) {
        let (recipients, original) = match outcome {
            OriginalOutcome::Shared(recipients, original) if recipients.hold(&audited.request) => {
                (recipients, original)
            }
            // A3
            _ => return,
        };
        let counters = &self.counters;
        let (Some(original), Some(answer)) = (original, &audited.answer) else {
            return counters.count(Event::AuditUnknown);
        };
        match original.difference(answer, &audited.ignored) {
            None => counters.count(Event::AuditSame),
            Some(difference) => {
                counters.count(Event::AuditDiffered(difference.what()));
                let request_fields = request_fields(&recipients.request, &audited.request);
                let AuditedRequest { span, path, .. } = audited;
                observe::differs(&counters.name, span, path, &difference, &request_fields);
            }
        }
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if state.outcome.is_none() {
            for _ in mem::take(&mut state.waiting) {
                self.counters.count(Event::AuditUnknown);
            }
        }
    }
}

// ===== impl OriginalState =====

impl OriginalState {
    fn catch_up(&mut self) {
        for data in mem::take(&mut self.unhashed) {
            self.body.append(&data);
        }
    }
}

// ===== impl Recipients =====

impl Recipients {
    /// Whether a request is one of them; these fields were kept of it.
    fn hold(&self, request: &Fields) -> bool {
        let variant = self.variant.as_ref();
        variant.is_none_or(|own| *own == Variant::of_fields(Arc::clone(own.names()), request))
    }
}
