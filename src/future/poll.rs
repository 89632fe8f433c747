//! A poll of a [`ResponseFuture`].

use std::{
    future::Future,
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
use crate::{
    body::ResponseBody,
    error::{BoxError, ShareError},
    exchange::{Again, Answer, FollowerBody, Next, Oneshot, Reader},
    flights::Shared,
    group::Interest,
    key::KeyExtractor,
    observe,
    role::Way,
    rules,
    service::Singleflight,
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
            let next = match this.state.as_mut().project() {
                StateProj::Own {
                    call,
                    way,
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
                            Ok(dress(shared, parts, ResponseBody::inner(body), *way))
                        }
                        Err(mut error) => {
                            if way.role() == crate::Role::Forwarded {
                                // As it would have been of a flight.
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
                    seat,
                    desk,
                    way,
                } => {
                    let part = seat.as_mut().expect("a leader has a seat");
                    let over = part.poll(Interest::Progress, cx);
                    let Some(answer) = desk.take() else {
                        assert!(
                            over.is_pending(),
                            "a flight answers its leader before it ends"
                        );
                        return Poll::Pending;
                    };
                    let seat = seat.take().expect("looked at just now");
                    let result = answer.map(|answer| match answer {
                        Answer::Untouched(response) => {
                            let (parts, body) = response.into_parts();
                            dress(shared.as_ref(), parts, ResponseBody::inner(body), *way)
                        }
                        Answer::Whole(parts, frame) => {
                            seat.leave_alone();
                            dress(shared.as_ref(), parts, ResponseBody::whole(frame), *way)
                        }
                        Answer::Shared(parts) => {
                            let body = ResponseBody::shared(Reader::new(seat));
                            dress(shared.as_ref(), parts, body, *way)
                        }
                    });
                    this.state.set(State::Done);
                    return Poll::Ready(result);
                }
                StateProj::Begin {
                    shared,
                    seat,
                    head,
                    again,
                } => {
                    observe::followed();
                    let seat = seat.take().expect("a follower that begins has a seat");
                    let reader = Reader::new(seat);
                    let body = FollowerBody::new(reader, Arc::clone(head), again.take());
                    let body = ResponseBody::shared(body);
                    let parts = response::Parts::clone(head);
                    let response = dress(shared.as_ref(), parts, body, Way::Followed);
                    this.state.set(State::Done);
                    return Poll::Ready(Ok(response));
                }
                StateProj::Wait {
                    waiter,
                    moves,
                    since,
                    deadline,
                    sleep,
                } => match waiter.poll_turn(cx).map(|next| since.ended(next)) {
                    Poll::Ready(Next::Begin(seat, head, service, request)) => {
                        let shared = waiter.shared();
                        let service = || Singleflight::new(service, Arc::clone(shared));
                        let again = seat.may_move_on().then(service);
                        let again = again.and_then(|again| Again::new(again, request, *moves));
                        State::begin(shared, seat, head, again)
                    }
                    Poll::Ready(Next::Lead(seat, desk)) => {
                        State::lead(waiter.shared(), seat, desk, Way::SentOn)
                    }
                    Poll::Ready(Next::Forward(service, request, refused_by)) => {
                        let after = refused_by.map_or(AfterResponse::Nothing, |flight| {
                            let fields = rules::RequestFields::of(request.headers());
                            AfterResponse::Unshareable(Unshareable {
                                hash: flight.cargo.hash,
                                method: request.method().clone(),
                                has_credentials: fields.credentials,
                            })
                        });
                        sent_on(waiter.shared(), service, request, after)
                    }
                    Poll::Ready(Next::Fail(error)) => {
                        this.state.set(State::Done);
                        return Poll::Ready(Err(error));
                    }
                    Poll::Pending => {
                        let Some(deadline) = *deadline else {
                            return Poll::Pending;
                        };
                        let sleep = sleep
                            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
                        ready!(sleep.as_mut().poll(cx));
                        match waiter.give_up() {
                            Some((service, request)) => since.ended(sent_on(
                                waiter.shared(),
                                service,
                                request,
                                AfterResponse::Nothing,
                            )),
                            // Decided in this very moment.
                            None => continue,
                        }
                    }
                },
                StateProj::Done => panic!("`ResponseFuture` polled after completion"),
            };
            this.state.set(next);
        }
    }
}

/// What every response gets on its way out.
fn dress<X, B>(
    shared: Option<&Arc<Shared<X>>>,
    mut parts: response::Parts,
    body: ResponseBody<B>,
    way: Way,
) -> Response<ResponseBody<B>>
where
    X: KeyExtractor,
{
    parts.extensions.insert(way.role());
    if let Some(cache_status) = shared.and_then(|shared| shared.settings.cache_status.as_ref()) {
        cache_status.append(&mut parts.headers, way.forward());
    }
    Response::from_parts(parts, body)
}

fn sent_on<S, X, ReqBody, ResBody>(
    shared: &Arc<Shared<X>>,
    service: S,
    request: Request<ReqBody>,
    after: AfterResponse,
) -> State<S, X, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
    X: KeyExtractor,
{
    State::own(shared, Oneshot::new(service, request), Way::SentOn, after)
}
