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

struct OriginalOutcome {
    /// `None` if it is only for the leader.
    recipients: Option<Recipients>,
    /// `None` if it was incomplete.
    answer: Option<ResponseSummary>,
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
        let hashed = {
            let mut state = self.state.lock();
            let hashed = state.catch_up();
            state.body.append(data);
            state.trailers.extend(trailers.unwrap_or_default());
            hashed
        };
        drop(hashed);
    }

    /// Hashes what was there when the first auditor came.
    pub(crate) fn catch_up(&self) {
        let hashed = self.state.lock().catch_up();
        drop(hashed);
    }

    /// The response has ended. `recipients`: none if the rules gave it only to its leader. `head`: that of a complete
    /// one.
    pub(crate) fn end(&self, recipients: Option<Recipients>, head: Option<&response::Parts>) {
        let head = head.map(Head::of);
        let (outcome, waiting, hashed) = {
            let mut state = self.state.lock();
            let hashed = match head {
                Some(_) => state.catch_up(),
                None => mem::take(&mut state.unhashed),
            };
            let answer = head.map(|head| state.finish(head));
            let trailers = answer.as_ref().and_then(|answer| answer.trailers.as_ref());
            let is_shared = trailers.is_none_or(rules::trailers_may_be_shared);
            let recipients = recipients.filter(|_| is_shared);
            let outcome = Arc::new(OriginalOutcome { recipients, answer });
            state.outcome = Some(Arc::clone(&outcome));
            (outcome, mem::take(&mut state.waiting), hashed)
        };
        drop(hashed);
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
        let recipients = outcome.recipients.as_ref();
        // A3
        let Some(recipients) = recipients.filter(|it| it.hold(&audited.request)) else {
            return;
        };
        let counters = &self.counters;
        let (Some(original), Some(answer)) = (&outcome.answer, &audited.answer) else {
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
        // Without an outcome nobody has compared these.
        for _ in mem::take(&mut self.state.get_mut().waiting) {
            self.counters.count(Event::AuditUnknown);
        }
    }
}

// ===== impl OriginalState =====

impl OriginalState {
    /// Returns what it has hashed, to be dropped under no lock: it is the user's.
    fn catch_up(&mut self) -> Vec<Bytes> {
        let unhashed = mem::take(&mut self.unhashed);
        unhashed.iter().for_each(|data| self.body.append(data));
        unhashed
    }

    fn finish(&mut self, head: Head) -> ResponseSummary {
        ResponseSummary {
            head,
            body: self.body.finish(),
            trailers: Some(mem::take(&mut self.trailers)),
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

#[cfg(test)]
mod tests {
    use std::{
        sync::{OnceLock, Weak, mpsc},
        thread,
        time::Duration,
    };

    use super::*;

    #[test]
    fn what_was_there_when_the_first_auditor_came_is_hashed_before_what_comes_later() {
        let (head, ()) = http::Response::new(()).into_parts();
        for later in [&[][..], &[&b"b"[..], b"c"]] {
            let early = vec![Bytes::from_static(b"e"), Bytes::from_static(b"a")];
            let original = Original::new(Arc::new(Counters::new()), early, None);
            let mut body = BodyHasher::new();
            body.append(b"ea");
            for data in later {
                original.receive(data, None);
                body.append(data);
            }
            original.end(None, Some(&head));
            let state = original.state.lock();
            let answer = state.outcome.as_ref().and_then(|it| it.answer.as_ref());
            let answer = answer.expect("it is complete");
            assert!(answer.body.difference(&body.finish()).is_none());
        }
    }

    /// Data whose drop has another thread look at the original.
    struct Looks(Arc<OnceLock<Weak<Original>>>);

    impl AsRef<[u8]> for Looks {
        fn as_ref(&self) -> &[u8] {
            b"page"
        }
    }

    impl Drop for Looks {
        fn drop(&mut self) {
            let Some(original) = self.0.get().and_then(Weak::upgrade) else {
                return;
            };
            let (done, is_done) = mpsc::channel();
            thread::spawn(move || {
                original.catch_up();
                done.send(())
            });
            let is_done = is_done.recv_timeout(Duration::from_secs(20));
            assert!(is_done.is_ok(), "it is dropped under the lock");
        }
    }

    #[test]
    fn what_has_been_hashed_is_dropped_under_no_lock() {
        let (head, ()) = http::Response::new(()).into_parts();
        let ends: [&dyn Fn(&Original); 4] = [
            &|original| original.receive(b"more", None),
            &|original| original.catch_up(),
            &|original| original.end(None, Some(&head)),
            &|original| original.end(None, None),
        ];
        for end in ends {
            let place = Arc::<OnceLock<_>>::default();
            let data = Bytes::from_owner(Looks(Arc::clone(&place)));
            let original = Original::new(Arc::new(Counters::new()), vec![data], None);
            place.set(Arc::downgrade(&original)).expect("it is new");
            end(&original);
            assert!(original.state.lock().unhashed.is_empty());
        }
    }
}
