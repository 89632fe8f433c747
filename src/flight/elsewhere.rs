//! A flight's part across replicas: its leader contends for the call, and its work makes it, or has another replica's response.
//!
//! Nothing here is called under a lock of a shard or a flight, but for [`LocalFlight::join`], which takes both.

use std::{
    any::Any,
    mem,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{request, response};
use http_body::{Body, Frame};
use tokio::time::Instant;

use super::{
    context::WorkContext,
    state::{Flight, HttpFlight, Number, Stage, State},
    verdict::{self, Head},
};
use crate::{
    error::{BoxError, ShareError},
    group::{self, caught},
    key::KeyExtractor,
    observe,
    replicas::{
        Answering, Contest, Digest, LocalFlight, Reason, Refusal, RemoteSeat, Unjoined, Verdict,
        Why,
        http::{
            Answer, RemoteBody, Response as Remote, variant_name, variant_values, write_failure,
            write_response,
        },
    },
    rules::{self, Variant},
    shared::{Flights, Replicated, Shared},
    sync::Mutex,
};

/// What the work holds of the protocol.
pub(crate) struct Contender {
    /// The name of the request's flights.
    request: Digest,
    state: Mutex<Part>,
    /// While others are moved whom it is for.
    others: Mutex<Option<ForOthers>>,
}

/// An answer that is for requests of another variant than the leader's.
struct ForOthers {
    body: Bytes,
    covered: u64,
    values: Digest,
}

enum Part {
    /// It is not known yet who makes the call. Whether it contends for a variant of the request's flights.
    Waits {
        contest: Contest,
        is_variant: bool,
    },
    /// Another replica's answer, for the callers below this number, has come to the flight that they were in before.
    Answered(Bytes, u64),
    /// This replica makes the call.
    Calls(Contest),
    /// The call has ended, and followers elsewhere wait.
    Ended(Answering),
    None,
}

/// What a flight does, once that is known.
pub(super) enum Elsewhere {
    Call,
    /// Another replica's response is that of this flight.
    Response(Head, RemoteBody),
    /// Another replica's call has failed, and so has this flight.
    Failed,
}

/// In the extensions of another replica's response, until it has its role.
#[derive(Clone, Copy)]
pub(crate) struct FromReplica;

/// A whole response, as other replicas may have it.
pub(super) struct Whole {
    head: Arc<response::Parts>,
    variant: Option<Variant>,
    frames: Vec<Frame<Bytes>>,
}

/// As the protocol sees a flight. Weak: it is dropped under the protocol's lock.
struct Seen<K> {
    flight: Weak<Flight<K>>,
    flights: Weak<Flights<K>>,
    max_waiters: usize,
}

/// A follower elsewhere: a caller that does not read.
struct Seat<K> {
    caller: group::Caller<(), (), HttpFlight<K>>,
    _flights: Arc<Flights<K>>,
}

/// What is not to be dropped under a lock.
struct Spare<T>(T);

// ===== impl Contender =====

impl Contender {
    /// The leader contends for its flight.
    pub(crate) fn new<X: KeyExtractor>(
        shared: &Arc<Shared<X>>,
        replicated: &Replicated<X::Key>,
        flight: &Arc<Flight<X::Key>>,
        request: &request::Parts,
    ) -> Self {
        let name = replicated.name(request, &flight.data.key);
        let (variant, answer) = {
            let mut state = flight.data.state.lock();
            let variant = state.variant.as_ref().map(own);
            (variant, state.contending.answer.take())
        };
        let part = match answer {
            Some((body, covered)) => Part::Answered(body, covered),
            None => {
                let is_variant = variant.is_some();
                let contested =
                    variant.map_or(name, |own| variant_name(&replicated.site, name, &own));
                Part::Waits {
                    contest: contend(shared, replicated, flight, contested),
                    is_variant,
                }
            }
        };
        Self {
            request: name,
            state: Mutex::new(part),
            others: Mutex::new(None),
        }
    }

    fn take(&self) -> Part {
        mem::replace(&mut *self.state.lock(), Part::None)
    }

    fn put(&self, part: Part) {
        *self.state.lock() = part;
    }
}

fn own<T>((variant, _): &(Variant, T)) -> Variant {
    variant.clone()
}

fn contend<X: KeyExtractor>(
    shared: &Arc<Shared<X>>,
    replicated: &Replicated<X::Key>,
    flight: &Arc<Flight<X::Key>>,
    name: Digest,
) -> Contest {
    let seen = Arc::new(Seen {
        flight: Arc::downgrade(flight),
        flights: Arc::downgrade(&shared.flights),
        max_waiters: shared.settings.max_waiters,
    });
    let target = replicated.target(&flight.data.key);
    let asked = flight.data.state.lock().contending.asked;
    let contest = replicated.site.contend(name, Some(target), seen, asked);
    // Whoever joins from here on says so itself.
    let now = {
        let mut state = flight.data.state.lock();
        state.contending.entry = Some(contest.id());
        state.contending.asked
    };
    if now > asked {
        replicated.site.one_more(contest.id(), now - 1);
    }
    contest
}

// ===== impl Flights =====

impl<K> Flights<K> {
    /// The number of a request that asks now.
    #[inline]
    pub(crate) fn number(&self) -> Number {
        Number(
            self.replicated()
                .map_or(0, |replicated| replicated.site.number()),
        )
    }

    /// The caller of this number has joined a flight.
    pub(crate) fn one_more(&self, flight: &Flight<K>, number: Number) {
        let Some(replicated) = self.replicated() else {
            return;
        };
        let entry = flight.data.state.lock().contending.entry;
        if let Some(entry) = entry {
            replicated.site.one_more(entry, number.0);
        }
    }
}

// ===== impl State =====

impl<K> State<K> {
    /// The whole response, if it is here and everybody may have it. Asked when the source has ended.
    pub(super) fn whole(&self) -> Option<Whole> {
        let Stage::Shared(head) = &self.stage else {
            return None;
        };
        Some(Whole {
            frames: self.buffer.whole_frames()?,
            head: Arc::clone(head),
            variant: self.variant.as_ref().map(own),
        })
    }
}

// ===== impl WorkContext =====

impl<X, ResBody, E> WorkContext<X, ResBody, E>
where
    X: KeyExtractor,
    ResBody: Body,
    E: ShareError + Send + Sync + 'static,
{
    /// Waits until it is known who makes the call.
    pub(super) fn poll_elsewhere(&self, cx: &mut Context<'_>) -> Poll<Elsewhere> {
        let Some(contender) = &self.contender else {
            return Poll::Ready(Elsewhere::Call);
        };
        loop {
            let (mut contest, is_variant) = match contender.take() {
                Part::Waits {
                    contest,
                    is_variant,
                } => (contest, is_variant),
                Part::Answered(body, covered) => {
                    return Poll::Ready(self.take_answer(&body, covered));
                }
                other => {
                    contender.put(other);
                    return Poll::Ready(Elsewhere::Call);
                }
            };
            let Poll::Ready(verdict) = contest.poll_verdict(cx) else {
                contender.put(Part::Waits {
                    contest,
                    is_variant,
                });
                return Poll::Pending;
            };
            let (body, covered) = match verdict {
                Verdict::Lead => {
                    contender.put(Part::Calls(contest));
                    return Poll::Ready(Elsewhere::Call);
                }
                Verdict::Alone(why) => {
                    contender.put(Part::Calls(contest));
                    if why == Why::Told(Reason::Unshareable) {
                        // There will be nothing to share here either.
                        let (_, taken) = verdict::close(&self.flight);
                        self.conclude(taken);
                        let refused = Stage::Refused(observe::Reason::Unshareable);
                        verdict::dismiss(&self.flight, refused);
                        self.flight.wake_callers();
                    }
                    return Poll::Ready(Elsewhere::Call);
                }
                Verdict::Answer { body, covered } => (body, covered),
            };
            match Answer::read(&body) {
                Some(Answer::Failure(text)) => {
                    if let Some(error) = error_of(text) {
                        drop(contest);
                        self.end_for_covered(covered);
                        self.fail(error);
                        return Poll::Ready(Elsewhere::Failed);
                    }
                }
                Some(Answer::Response(remote)) => {
                    if let Some(own) = self.other_variant(&remote) {
                        if let (false, Some((_, values))) = (is_variant, remote.vary) {
                            drop(contest);
                            let for_others = ForOthers {
                                body,
                                covered,
                                values,
                            };
                            *contender.others.lock() = Some(for_others);
                            self.move_others(&own, covered);
                            *contender.others.lock() = None;
                            contender.put(self.contend_as(contender.request, &own));
                            continue;
                        }
                    } else if let Some(head) = self.head_of(remote.head, &remote.body) {
                        drop(contest);
                        self.end_for_covered(covered);
                        return Poll::Ready(Elsewhere::Response(head, remote.body));
                    }
                }
                None => {}
            }
            // It is none that this flight can have.
            contender.put(Part::Calls(contest));
            return Poll::Ready(Elsewhere::Call);
        }
    }

    /// An answer that has come for others in the flight that this one's callers were in.
    fn take_answer(&self, body: &Bytes, covered: u64) -> Elsewhere {
        if let Some(Answer::Response(remote)) = Answer::read(body)
            && self.other_variant(&remote).is_none()
            && let Some(head) = self.head_of(remote.head, &remote.body)
        {
            self.end_for_covered(covered);
            return Elsewhere::Response(head, remote.body);
        }
        Elsewhere::Call
    }

    /// What this flight's request is in the fields by which the response varies, if that is something else.
    fn other_variant(&self, remote: &Remote) -> Option<Variant> {
        let (names, values) = remote.vary.as_ref()?;
        let own = Variant::of_fields(Arc::clone(names), &self.slot.request.fields);
        let site = &self.replicated().site;
        (variant_values(site, &own) != *values).then_some(own)
    }

    fn contend_as(&self, request: Digest, own: &Variant) -> Part {
        let replicated = self.replicated();
        let name = variant_name(&replicated.site, request, own);
        Part::Waits {
            contest: contend(&self.shared, replicated, &self.flight, name),
            is_variant: true,
        }
    }

    fn replicated(&self) -> &Replicated<X::Key> {
        let replicated = self.shared.flights.replicated();
        replicated.expect("only then a flight contends")
    }

    /// `None` if the response may not be shared here, or there is no room for it.
    fn head_of(&self, mut parts: response::Parts, body: &RemoteBody) -> Option<Head> {
        let request = &self.slot.request;
        if !rules::may_share(&request.method, request.has_credentials, &parts) {
            return None;
        }
        parts.extensions.insert(FromReplica);
        self.head(parts, body).ok()
    }

    /// The flight ends with an answer for the callers below this number. The others have asked too late for it: they become a new
    /// flight.
    fn end_for_covered(&self, covered: u64) {
        self.flight.detach();
        self.move_late(covered);
    }
}

impl<X, ResBody, E> WorkContext<X, ResBody, E>
where
    X: KeyExtractor,
    E: 'static,
{
    /// The call has failed: what others get, to be given to them when everybody here has it.
    pub(super) fn failure(&self, error: &E) -> Option<(Answering, Result<Bytes, Reason>)> {
        let answering = self.end_elsewhere()?;
        let error = (error as &dyn Any).downcast_ref::<BoxError>();
        // To show it is the user's.
        let text = error.and_then(|error| caught(|| error.to_string()).ok());
        let limit = self.shared.flights.replicated()?.site.max_body();
        let answer = text.map_or(Err(Reason::Failed), |text| write_failure(&text, limit));
        Some((answering, answer))
    }
}

impl<X, ResBody, E> WorkContext<X, ResBody, E>
where
    X: KeyExtractor,
{
    /// A caller has been moved to `flight`. If nobody leads that, and there is an answer for all its callers, it is there.
    pub(super) fn hand_on(&self, flight: &Flight<X::Key>) {
        let Some(contender) = &self.contender else {
            return;
        };
        let others = contender.others.lock();
        let Some(answer) = others.as_ref() else {
            return;
        };
        let Some(replicated) = self.shared.flights.replicated() else {
            return;
        };
        let variant = flight.data.state.lock().variant.as_ref().map(own);
        let values = variant.map(|variant| variant_values(&replicated.site, &variant));
        if values != Some(answer.values) {
            return;
        }
        let mut state = flight.data.state.lock();
        let contending = &mut state.contending;
        if contending.asked <= answer.covered && matches!(state.stage, Stage::Unled) {
            state.contending.answer = Some((answer.body.clone(), answer.covered));
        }
    }

    /// The call has ended: whoever asks elsewhere from now on does not get its response. Comes before anybody can see the end. Gives
    /// what is to be answered, if followers elsewhere wait.
    pub(super) fn end_elsewhere(&self) -> Option<Answering> {
        match self.contender.as_ref()?.take() {
            Part::Waits { contest, .. } | Part::Calls(contest) => contest.end(),
            Part::Ended(answering) => Some(answering),
            Part::Answered(..) | Part::None => None,
        }
    }

    /// As `end_elsewhere`, where the answer comes later.
    pub(super) fn end_elsewhere_soon(&self) {
        if let (Some(contender), Some(answering)) = (&self.contender, self.end_elsewhere()) {
            contender.put(Part::Ended(answering));
        }
    }

    /// Followers elsewhere make calls of their own.
    pub(super) fn refuse_elsewhere(&self, reason: Reason) {
        if let Some(answering) = self.end_elsewhere() {
            answering.answer(Err(reason));
        }
    }

    /// Followers elsewhere get the response, if it is `whole`.
    pub(super) fn answer_elsewhere(&self, answering: Answering, whole: Option<Whole>) {
        let replicated = self.shared.flights.replicated();
        let replicated = replicated.expect("only then a flight contends");
        let written = whole.ok_or(Reason::Failed).and_then(|whole| {
            let vary = whole.variant.as_ref();
            let vary = vary.map(|own| (&**own.names(), variant_values(&replicated.site, own)));
            write_response(&whole.head, vary, &whole.frames, replicated.site.max_body())
        });
        answering.answer(written);
    }
}

/// Another replica's error, where the service's errors can be made of a text.
fn error_of<E: 'static>(text: String) -> Option<E> {
    let mut error = Some(BoxError::from(text));
    let error = (&mut error as &mut dyn Any).downcast_mut::<Option<E>>();
    error.and_then(Option::take)
}

// ===== impl Seen =====

impl<K> LocalFlight for Seen<K>
where
    K: Send + Sync + 'static,
{
    fn join(&self) -> Result<Arc<dyn RemoteSeat>, Unjoined<Arc<dyn RemoteSeat>>> {
        let flight = self.flight.upgrade().ok_or(Refusal::Gone)?;
        let Some(flights) = self.flights.upgrade() else {
            return Err(unjoined(Refusal::Gone, flight));
        };
        let now = Instant::now();
        if flights.unshareable.contains(flight.data.hash, now) {
            let why = Refusal::Alone(Reason::Unshareable);
            return Err(unjoined(why, (flight, flights)));
        }
        let joined = flight.join_if(|flight| {
            let data = &flight.data;
            if !flights.is_enabled() || !flights.is_fresh(data, now) {
                return Err(Refusal::Gone);
            }
            let mut state = data.state.lock();
            if state.is_closed || state.is_silent(now, data.max_silence) {
                return Err(Refusal::Gone);
            }
            if flight.callers() >= self.max_waiters {
                return Err(Refusal::Alone(Reason::Full));
            }
            state.is_joined = true;
            Ok(())
        });
        match joined {
            Ok(caller) => Ok(Arc::new(Seat {
                caller,
                _flights: flights,
            })),
            Err(why) => Err(unjoined(why.unwrap_or(Refusal::Gone), (flight, flights))),
        }
    }

    fn detach(&self) {
        if let Some(flight) = self.flight.upgrade() {
            flight.detach();
        }
    }
}

fn unjoined<T: Send + Sync + 'static>(why: Refusal, spare: T) -> Unjoined<Arc<dyn RemoteSeat>> {
    Unjoined {
        why,
        spare: Some(Arc::new(Spare(spare))),
    }
}

// ===== impl Seat =====

impl<K> RemoteSeat for Seat<K>
where
    K: Send + Sync + 'static,
{
    fn start(&self) {
        self.caller.promote();
    }
}

impl<T: Send + Sync> RemoteSeat for Spare<T> {
    fn start(&self) {}
}
