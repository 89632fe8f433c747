//! What a flight does across replicas: its leader contends for the call, and its work makes the call or takes another
//! replica's response.
//!
//! Nothing here is called under the lock of a shard or a flight.

use std::{
    any::Any,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::response;
use http_body::Frame;

use super::{
    contender::{ForOthers, Part, contend, own},
    context::WorkContext,
    head::ShareableHead,
    state::{Flight, Number, Stage, State},
    verdict,
};
use crate::{
    error::{BoxError, ShareError},
    group::caught,
    key::KeyExtractor,
    observe::Reason,
    replicas::{
        AloneReason, Answering, ContestOutcome, NotShared,
        http::{
            RemoteAnswer, RemoteBody, RemoteResponse, variant_name, variant_values, write_failure,
            write_response,
        },
    },
    rules::{self, Variant},
    shared::{Flights, Replicated},
};

/// What a flight does once it has an outcome.
pub(super) enum Elsewhere {
    Call,
    /// It takes another replica's response.
    Response(ShareableHead, RemoteBody),
    /// Another replica's call failed, and so does this flight.
    Failed,
}

/// Marks another replica's response in its extensions, until it gets its role.
#[derive(Clone, Copy)]
pub(crate) struct FromReplica;

/// A complete response, for other replicas.
pub(super) struct Whole {
    head: Arc<response::Parts>,
    variant: Option<Variant>,
    frames: Vec<Frame<Bytes>>,
}

// ===== impl Flights =====

impl<K> Flights<K> {
    /// The caller with this number has joined a flight.
    pub(crate) fn one_more(&self, flight: &Flight<K>, number: Number) {
        let Some(replicated) = self.replicated() else {
            return;
        };
        let entry = flight.data.state().contending.entry;
        if let Some(entry) = entry {
            replicated.client.one_more(entry, number.0);
        }
    }
}

// ===== impl State =====

impl<K> State<K> {
    /// The complete response, if it is all here and everybody may have it. Called when the source has ended.
    pub(super) fn whole(&self) -> Option<Whole> {
        let Stage::Shared(head) = &self.stage else {
            return None;
        };
        Some(Whole {
            frames: self.buffer.frames_for_all()?,
            head: Arc::clone(head),
            variant: self.variant.as_ref().map(own),
        })
    }
}

// ===== impl WorkContext =====

impl<X> WorkContext<X>
where
    X: KeyExtractor,
{
    /// Waits until it is settled who makes the call.
    pub(super) fn poll_elsewhere<B, E>(&self, cx: &mut Context<'_>) -> Poll<Elsewhere>
    where
        B: Send + 'static,
        E: ShareError + Send + Sync + 'static,
    {
        let Some(contender) = &self.contender else {
            return Poll::Ready(Elsewhere::Call);
        };
        loop {
            let outcome = match &mut *contender.part.borrow_mut() {
                Part::Waits(contest) => ready!(contest.poll_outcome(cx)),
                Part::Answered(outcome) => outcome.clone(),
                _ => return Poll::Ready(Elsewhere::Call),
            };
            // This flight makes its call, unless it can have another's response.
            let call = match contender.part.take() {
                Part::Waits(contest) => Part::Calls(contest),
                _ => Part::None,
            };
            let ContestOutcome::Answer { body, covered } = outcome else {
                contender.part.replace(call);
                if outcome == ContestOutcome::Alone(AloneReason::Told(NotShared::Unshareable)) {
                    // So there will be nothing to share here either.
                    let (_, taken) = verdict::close(self.flight());
                    self.conclude(taken);
                    verdict::dismiss(self.flight(), Stage::Refused(Reason::Unshareable));
                    self.flight().wake_callers();
                }
                return Poll::Ready(Elsewhere::Call);
            };
            match RemoteAnswer::read(&body) {
                Some(RemoteAnswer::Failure(text)) => {
                    if let Some(error) = error_of(text) {
                        drop(call);
                        self.end_for_covered(covered);
                        self.fail_all::<B, E>(None, error);
                        return Poll::Ready(Elsewhere::Failed);
                    }
                }
                Some(RemoteAnswer::Response(remote)) => {
                    if let Some(own) = self.other_variant(&remote) {
                        let is_variant = self.flight().data.state().variant.is_some();
                        if let (false, Some((_, values))) = (is_variant, remote.vary) {
                            drop(call);
                            let for_others = ForOthers {
                                body,
                                covered,
                                values,
                            };
                            contender.others.replace(Some(for_others));
                            self.move_others(&own, covered);
                            contender.others.take();
                            let replicated = self.replicated();
                            let name = variant_name(&replicated.client, contender.request, &own);
                            let contest = contend(&self.shared, replicated, self.flight(), name);
                            contender.part.replace(Part::Waits(contest));
                            continue;
                        }
                    } else if let Some(head) = self.head_of(remote.head, &remote.body) {
                        drop(call);
                        self.end_for_covered(covered);
                        return Poll::Ready(Elsewhere::Response(head, remote.body));
                    }
                }
                None => {}
            }
            contender.part.replace(call);
            return Poll::Ready(Elsewhere::Call);
        }
    }

    /// This request's own variant in the fields by which the response varies, if it differs.
    fn other_variant(&self, remote: &RemoteResponse) -> Option<Variant> {
        let (names, values) = remote.vary.as_ref()?;
        let own = Variant::of_fields(Arc::clone(names), &self.request.fields);
        let client = &self.replicated().client;
        (variant_values(client, &own) != *values).then_some(own)
    }

    fn replicated(&self) -> &Replicated<X::Key> {
        let replicated = self.shared.flights.replicated();
        replicated.expect("only then a flight contends")
    }

    /// `None` if the response may not be shared here, or there is no room for it.
    fn head_of(&self, mut parts: response::Parts, body: &RemoteBody) -> Option<ShareableHead> {
        let request = &self.request;
        if !rules::may_share(request.has_credentials, &parts) {
            return None;
        }
        parts.extensions.insert(FromReplica);
        let mut head = ShareableHead::new(&request.method, parts, body);
        self.reserve(&mut head).then_some(head)
    }

    /// The flight ends with an answer for the callers below this number. The others asked too late for it and form a
    /// new flight.
    fn end_for_covered(&self, covered: u64) {
        self.flight().detach();
        self.move_late(covered);
    }

    /// The call has failed: what other replicas get, to be sent once everybody here has it.
    pub(super) fn failure<E: 'static>(
        &self,
        error: &E,
    ) -> Option<(Answering, Result<Bytes, NotShared>)> {
        let answering = self.end_elsewhere()?;
        let error = (error as &dyn Any).downcast_ref::<BoxError>();
        // Formatting it is user code.
        let text = error.and_then(|error| caught(|| error.to_string()).ok());
        let limit = self.replicated().client.max_body();
        let answer = text.map_or(Err(NotShared::Failed), |text| write_failure(&text, limit));
        Some((answering, answer))
    }

    /// A caller has been moved to `flight`. If nobody leads that flight, and the answer covers all its callers, leaves
    /// the answer there.
    pub(super) fn hand_on(&self, flight: &Flight<X::Key>) {
        let Some(contender) = &self.contender else {
            return;
        };
        let others = contender.others.borrow();
        let Some(answer) = others.as_ref() else {
            return;
        };
        let client = &self.replicated().client;
        let variant = flight.data.state().variant.as_ref().map(own);
        let values = variant.map(|variant| variant_values(client, &variant));
        if values != Some(answer.values) {
            return;
        }
        let mut state = flight.data.state();
        let contending = &mut state.contending;
        if contending.asked <= answer.covered && matches!(state.stage, Stage::Uncalled) {
            state.contending.answer = Some((answer.body.clone(), answer.covered));
        }
    }

    /// The call has ended: nobody who asks at another replica from now on gets its response. Called before anybody can
    /// see the end. Returns what to answer, if followers at other replicas wait.
    pub(super) fn end_elsewhere(&self) -> Option<Answering> {
        match self.contender.as_ref()?.part.take() {
            Part::Waits(contest) | Part::Calls(contest) => contest.end(),
            Part::Ended(answering) => Some(answering),
            Part::Answered(_) | Part::None => None,
        }
    }

    /// As `end_elsewhere`, if the answer comes later.
    pub(super) fn end_elsewhere_soon(&self) {
        if let (Some(contender), Some(answering)) = (&self.contender, self.end_elsewhere()) {
            contender.part.replace(Part::Ended(answering));
        }
    }

    /// Followers at other replicas make their own calls.
    pub(super) fn refuse_elsewhere(&self, reason: Reason) {
        if let Some(answering) = self.end_elsewhere() {
            answering.answer(Err(match reason {
                Reason::TooLarge => NotShared::TooLarge,
                _ => NotShared::Unshareable,
            }));
        }
    }

    /// Followers at other replicas get the response, if it is complete.
    pub(super) fn answer_elsewhere(&self, answering: Answering, whole: Option<Whole>) {
        let client = &self.replicated().client;
        let written = whole.ok_or(NotShared::Failed).and_then(|whole| {
            let vary = whole.variant.as_ref();
            let vary = vary.map(|own| (&**own.names(), variant_values(client, own)));
            write_response(&whole.head, vary, &whole.frames, client.max_body())
        });
        answering.answer(written);
    }
}

/// Another replica's error, if the service's error type can be made from a text.
fn error_of<E: 'static>(text: String) -> Option<E> {
    let mut error = Some(BoxError::from(text));
    let error = (&mut error as &mut dyn Any).downcast_mut::<Option<E>>();
    error.and_then(Option::take)
}
