//! A poll of a [`ResponseFuture`].

use std::{
    future::Future,
    ops::ControlFlow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response, response};
use http_body::Body;
use tower_service::Service;

use super::{
    after_response::{AfterResponse, Unshareable},
    response::{ResponseFuture, State, StateProj},
};
#[cfg(feature = "redis")]
use crate::flight::FromReplica;
use crate::{
    audit::AuditedBody,
    body::ResponseBody,
    error::{BoxError, ShareError},
    flight::{Again, Caller, Decision, Follower, FollowerBody, Inner, InnerBody, Oneshot, Reader},
    key::KeyExtractor,
    observe::Reason,
    role::Disposition,
    rules,
    shared::{Event, Shared},
};

impl<S, X, ReqBody, ResBody> Future for ResponseFuture<S, X, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: ShareError + Send + Sync + 'static,
    ResBody: Body<Data: Send> + Send + 'static,
    ResBody::Error: Into<BoxError>,
    X: KeyExtractor,
    ReqBody: Body + Send + 'static,
{
    type Output = Result<Response<ResponseBody<ResBody>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Own {
                    call,
                    disposition,
                    after,
                    shared,
                } => {
                    let response = ready!(call.poll(cx));
                    let shared = shared.as_ref();
                    let result = match response {
                        Ok(response) => {
                            let (parts, body) = response.into_parts();
                            if let Some(shared) = shared {
                                shared.conclude(after, &parts);
                            }
                            let body = match after.take_auditor() {
                                Some(auditor) => {
                                    ResponseBody::audited(AuditedBody::new(auditor, &parts, body))
                                }
                                None => ResponseBody::inner(body),
                            };
                            Ok(dress(shared, parts, body, *disposition))
                        }
                        Err(mut error) => {
                            if disposition.role() == crate::Role::Forwarded {
                                // As it would be after a flight.
                                drop(error.share());
                            }
                            Err(error)
                        }
                    };
                    this.state.set(State::Done);
                    return Poll::Ready(result);
                }
                StateProj::Lead {
                    shared,
                    leader,
                    disposition,
                } => {
                    let response = ready!(leader.poll(cx));
                    let result = response
                        .map(|(parts, body)| dress(shared.as_ref(), parts, body, *disposition));
                    this.state.set(State::Done);
                    return Poll::Ready(result);
                }
                StateProj::Begin {
                    shared,
                    caller,
                    head,
                    again,
                } => {
                    let caller = caller.take().expect("a follower that begins has a caller");
                    let head = Arc::clone(head);
                    let response = begin(shared.as_ref(), caller, head, again.take());
                    this.state.set(State::Done);
                    return Poll::Ready(Ok(response));
                }
                StateProj::Follow {
                    follower,
                    since,
                    deadline,
                    sleep,
                } => {
                    let waiting = follower.as_mut().expect("a follower until its head comes");
                    let decision = match (waiting.poll(cx), *deadline) {
                        (Poll::Ready(decision), _) => decision,
                        (Poll::Pending, None) => return Poll::Pending,
                        (Poll::Pending, Some(deadline)) => {
                            let sleep = sleep.get_or_insert_with(|| {
                                Box::pin(tokio::time::sleep_until(deadline))
                            });
                            ready!(sleep.as_mut().poll(cx));
                            match waiting.caller.give_up() {
                                Some(head) => Decision::Forward(head, Reason::Timeout),
                                // A decision has just been made, or it is being moved.
                                None => ready!(waiting.poll(cx)),
                            }
                        }
                    };
                    since.ended();
                    let follower = follower.take().expect("looked at just now");
                    match decided(follower, decision) {
                        ControlFlow::Continue(next) => this.state.set(next.state),
                        ControlFlow::Break(result) => {
                            this.state.set(State::Done);
                            return Poll::Ready(result);
                        }
                    }
                }
                StateProj::Done => panic!("`ResponseFuture` polled after completion"),
            }
        }
    }
}

/// A follower's response, which begins with this head.
fn begin<S, X, ReqBody, ResBody>(
    shared: Option<&Arc<Shared<X>>>,
    caller: Caller<X::Key>,
    head: Arc<response::Parts>,
    again: Option<Again<S, X, ReqBody>>,
) -> Response<ResponseBody<ResBody>>
where
    S: Inner<ReqBody, ResBody>,
    X: KeyExtractor,
    ReqBody: Body + Send + 'static,
    ResBody: InnerBody,
{
    caller.flight().data.counters.count(Event::Followed);
    let reader = Reader::new(caller);
    let parts = response::Parts::clone(&head);
    let body = match again {
        Some(again) => ResponseBody::shared(FollowerBody::new(reader, head, again)),
        None => ResponseBody::shared(reader),
    };
    dress(shared, parts, body, Disposition::Followed)
}

/// What every response gets on its way out.
fn dress<X, B>(
    shared: Option<&Arc<Shared<X>>>,
    mut parts: response::Parts,
    body: ResponseBody<B>,
    disposition: Disposition,
) -> Response<ResponseBody<B>>
where
    X: KeyExtractor,
{
    #[cfg(feature = "redis")]
    let disposition = match shared.and_then(|shared| shared.flights.replicated()) {
        Some(_) if parts.extensions.remove::<FromReplica>().is_some() => Disposition::Replica,
        _ => disposition,
    };
    parts.extensions.insert(disposition.role());
    if let Some(cache_status) = shared.and_then(|shared| shared.settings.cache_status.as_ref()) {
        cache_status.append(&mut parts.headers, disposition);
    }
    Response::from_parts(parts, body)
}

/// How a follower goes on, or what its future returns.
type Next<S, X, ReqBody, ResBody> = ControlFlow<
    Result<Response<ResponseBody<ResBody>>, <S as Service<Request<ReqBody>>>::Error>,
    ResponseFuture<S, X, ReqBody, ResBody>,
>;

/// Carries out a follower's decision.
fn decided<S, X, ReqBody, ResBody>(
    follower: Follower<S, X, ReqBody>,
    decision: Decision<X::Key>,
) -> Next<S, X, ReqBody, ResBody>
where
    S: Inner<ReqBody, ResBody>,
    X: KeyExtractor,
    ReqBody: Body + Send + 'static,
    ResBody: InnerBody,
{
    let Follower { caller, own } = follower;
    let (head, reason) = match decision {
        Decision::Begin(head, response) => {
            let shared = own.service.shared.if_needed(&AfterResponse::Nothing);
            let request = Request::from_parts(*head, own.body);
            let again = match caller.may_move_on() {
                true => Again::new(own.service, request, own.moves),
                false => None,
            };
            let response = begin(shared.as_ref(), caller, response, again);
            return ControlFlow::Break(Ok(response));
        }
        Decision::Complete(_head, response, body) => {
            let shared = own.service.shared.if_needed(&AfterResponse::Nothing);
            caller.flight().data.counters.count(Event::Followed);
            let parts = response::Parts::clone(&response);
            let body = ResponseBody::complete(body);
            let response = dress(shared.as_ref(), parts, body, Disposition::Followed);
            return ControlFlow::Break(Ok(response));
        }
        Decision::Lead(head) => {
            #[cfg(feature = "redis")]
            let reason = match caller.flight().data.state().variant {
                Some(_) => Reason::Vary,
                None => Reason::Late,
            };
            #[cfg(not(feature = "redis"))]
            let reason = Reason::Vary;
            let (mut service, request, span) = own.forward(head, reason);
            return ControlFlow::Continue(service.lead_moved(caller, request, &span));
        }
        Decision::Move(_) => unreachable!("a follower that is moved waits elsewhere"),
        Decision::Fail(head, error) => match error.downcast() {
            Ok(error) => return ControlFlow::Break(Err(*error)),
            // One layer wraps services with different error types.
            Err(_) => (head, Reason::ErrorType),
        },
        Decision::Forward(head, reason) => (head, reason),
    };
    let hash = caller.flight().data.hash;
    drop(caller);
    let (service, request, _) = own.forward(head, reason);
    let after = match reason {
        Reason::Unshareable => AfterResponse::Unshareable(Unshareable {
            hash,
            has_credentials: rules::has_credentials(request.headers()),
        }),
        _ => AfterResponse::Nothing,
    };
    let (inner, shared) = (service.inner, service.shared);
    let call = Oneshot::new(inner, request);
    let disposition = Disposition::Forwarded;
    ControlFlow::Continue(ResponseFuture::own(&shared, call, disposition, after))
}
