//! The layer's future.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Method, Request, Response, response};
use http_body::Body;
use pin_project::{pin_project, pinned_drop};
use tokio::time::{Instant, Sleep};
use tower_service::Service;

use crate::{
    body::ResponseBody,
    error::{BoxError, ShareError},
    exchange::{Answer, Desk, Next, Oneshot, Reader, Seat, Waiter},
    flights::{Shared, Target},
    group::Interest,
    key::KeyExtractor,
    observe::{self, Wait},
    role::Way,
    rules,
};

/// The response of a [`Singleflight`](crate::Singleflight) service.
///
/// # Cancel safety
///
/// Dropping it leaves the flight and harms no other caller. The last caller's leaving drops the inner call and frees the
/// key at once, unless [`finish_abandoned`](crate::SingleflightLayer::finish_abandoned) is set.
///
/// # Panics
///
/// Polling it panics if the inner service did, and if it is polled again after it has given its response.
#[pin_project(PinnedDrop)]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct ResponseFuture<S, X, ReqBody, ResBody>
where
    // The states hold the service's future and its error, and the key's type.
    S: Service<Request<ReqBody>>,
    X: KeyExtractor,
{
    #[pin]
    state: State<S, X, ReqBody, ResBody>,
}

#[pin_project(project = StateProj)]
enum State<S, X, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
    X: KeyExtractor,
{
    /// A call of its own.
    Own {
        #[pin]
        call: Oneshot<S, ReqBody>,
        way: Way,
        /// What its response tells the layer.
        tells: Tells<X::Key>,
        /// `None` where nothing of it is asked: so many clones of one `Arc`, by all cores, are not for nothing.
        shared: Option<Arc<Shared<X>>>,
    },
    Lead {
        shared: Arc<Shared<X>>,
        seat: Option<Seat<X::Key>>,
        desk: Arc<Desk<ResBody, S::Error>>,
        way: Way,
    },
    Begin {
        shared: Arc<Shared<X>>,
        seat: Option<Seat<X::Key>>,
        head: Arc<response::Parts>,
    },
    Wait {
        waiter: Arc<Waiter<S, X, ReqBody, ResBody>>,
        since: Wait,
        deadline: Option<Instant>,
        /// Made when it is first needed.
        sleep: Option<Pin<Box<Sleep>>>,
    },
    Done,
}

enum Tells<K> {
    Nothing,
    /// Whether a key that is remembered as unshareable still is.
    Shareable(Known<K>),
    /// That a write has succeeded.
    Written(Target, Method),
}

/// A request whose key is remembered as unshareable.
pub(crate) struct Known<K> {
    pub(crate) hash: u64,
    pub(crate) key: K,
    pub(crate) method: Method,
    pub(crate) has_credentials: bool,
}

// ===== impl ResponseFuture =====

impl<S, X, ReqBody, ResBody> ResponseFuture<S, X, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
    X: KeyExtractor,
{
    pub(crate) fn bypassed(
        shared: &Arc<Shared<X>>,
        call: Oneshot<S, ReqBody>,
        way: Way,
        writes: Option<(Target, Method)>,
    ) -> Self {
        let asked = writes.is_some() || shared.settings.cache_status.is_some();
        let tells = match writes {
            Some((target, method)) => Tells::Written(target, method),
            None => Tells::Nothing,
        };
        let state = State::Own {
            call,
            way,
            tells,
            shared: asked.then(|| Arc::clone(shared)),
        };
        Self { state }
    }

    /// Could not join a flight. `known`: because its key is known to be unshareable.
    pub(crate) fn apart(
        shared: Arc<Shared<X>>,
        call: Oneshot<S, ReqBody>,
        known: Option<Known<X::Key>>,
    ) -> Self {
        let state = State::Own {
            call,
            way: Way::Apart,
            tells: known.map_or(Tells::Nothing, Tells::Shareable),
            shared: Some(shared),
        };
        Self { state }
    }

    pub(crate) fn lead(
        shared: Arc<Shared<X>>,
        seat: Seat<X::Key>,
        desk: Arc<Desk<ResBody, S::Error>>,
        way: Way,
    ) -> Self {
        let state = State::Lead {
            shared,
            seat: Some(seat),
            desk,
            way,
        };
        Self { state }
    }

    pub(crate) fn begin(
        shared: Arc<Shared<X>>,
        seat: Seat<X::Key>,
        head: Arc<response::Parts>,
    ) -> Self {
        let state = State::Begin {
            shared,
            seat: Some(seat),
            head,
        };
        Self { state }
    }

    pub(crate) fn wait(waiter: Arc<Waiter<S, X, ReqBody, ResBody>>) -> Self {
        // The clock is read only where somebody wants it.
        let timeout = waiter.shared().settings.wait_timeout;
        let deadline = timeout.and_then(|wait| Instant::now().checked_add(wait));
        let state = State::Wait {
            waiter,
            since: Wait::begin(),
            deadline,
            sleep: None,
        };
        Self { state }
    }
}

/// What every response gets on its way out.
fn dress<X, B>(
    shared: Option<&Shared<X>>,
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

impl<X: KeyExtractor> Shared<X> {
    /// A response that came to this caller alone tells the layer what its key, or its method, is about.
    fn hear(&self, tells: &Tells<X::Key>, response: &response::Parts) {
        match tells {
            Tells::Nothing => {}
            Tells::Written(target, method) => {
                if rules::invalidates(method, response.status) {
                    self.flights.stamps.write(*target);
                }
            }
            Tells::Shareable(known) => {
                if rules::may_share(&known.method, known.has_credentials, response)
                    && (self.settings.policy)(response)
                {
                    self.flights.memory.clear(known.hash, &known.key);
                }
            }
        }
    }
}

impl<S, X, ReqBody, ResBody> Future for ResponseFuture<S, X, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: ShareError + Send + Sync + 'static,
    ResBody: Body<Data: Send> + Send + 'static,
    ResBody::Error: Into<BoxError>,
    X: KeyExtractor,
    ReqBody: Send + 'static,
{
    type Output = Result<Response<ResponseBody<ResBody>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Own {
                    call,
                    way,
                    tells,
                    shared,
                } => {
                    let response = ready!(call.poll(cx));
                    let shared = shared.as_deref();
                    let result = match response {
                        Ok(response) => {
                            let (parts, body) = response.into_parts();
                            if let Some(shared) = shared {
                                shared.hear(tells, &parts);
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
                            dress(Some(shared), parts, ResponseBody::inner(body), *way)
                        }
                        Answer::Whole(parts, frame) => {
                            seat.leave_alone();
                            dress(Some(shared), parts, ResponseBody::whole(frame), *way)
                        }
                        Answer::Shared(parts) => {
                            let body = ResponseBody::shared(Reader::new(seat, true));
                            dress(Some(shared), parts, body, *way)
                        }
                    });
                    this.state.set(State::Done);
                    return Poll::Ready(result);
                }
                StateProj::Begin { shared, seat, head } => {
                    observe::followed();
                    let seat = seat.take().expect("a follower that begins has a seat");
                    let body = ResponseBody::shared(Reader::new(seat, false));
                    let parts = response::Parts::clone(head);
                    let response = dress(Some(shared), parts, body, Way::Followed);
                    this.state.set(State::Done);
                    return Poll::Ready(Ok(response));
                }
                StateProj::Wait {
                    waiter,
                    since,
                    deadline,
                    sleep,
                } => match waiter.poll_turn(cx).map(|next| since.ended(next)) {
                    Poll::Ready(Next::Begin(seat, head)) => State::Begin {
                        shared: Arc::clone(waiter.shared()),
                        seat: Some(seat),
                        head,
                    },
                    Poll::Ready(Next::Lead(seat, desk)) => State::Lead {
                        shared: Arc::clone(waiter.shared()),
                        seat: Some(seat),
                        desk,
                        way: Way::SentOn,
                    },
                    Poll::Ready(Next::Forward(service, request, refused_by)) => {
                        let tells = refused_by.map_or(Tells::Nothing, |flight| {
                            Tells::Shareable(Known {
                                hash: flight.cargo.hash,
                                key: flight.cargo.key.clone(),
                                method: request.method().clone(),
                                has_credentials: rules::Said::by(request.headers()).credentials,
                            })
                        });
                        sent_on(waiter.shared(), service, request, tells)
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
                                Tells::Nothing,
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

fn sent_on<S, X, ReqBody, ResBody>(
    shared: &Arc<Shared<X>>,
    service: S,
    request: Request<ReqBody>,
    tells: Tells<X::Key>,
) -> State<S, X, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
    X: KeyExtractor,
{
    State::Own {
        call: Oneshot::new(service, request),
        way: Way::SentOn,
        tells,
        shared: Some(Arc::clone(shared)),
    }
}

#[pinned_drop]
impl<S, X, ReqBody, ResBody> PinnedDrop for ResponseFuture<S, X, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
    X: KeyExtractor,
{
    fn drop(self: Pin<&mut Self>) {
        if let StateProj::Wait { waiter, .. } = self.project().state.project() {
            waiter.leave();
        }
    }
}

impl<S, X, ReqBody, ResBody> fmt::Debug for ResponseFuture<S, X, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
    X: KeyExtractor,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Own { .. } => "Own",
            State::Lead { .. } => "Lead",
            State::Begin { .. } => "Begin",
            State::Wait { .. } => "Wait",
            State::Done => "Done",
        };
        f.debug_struct("ResponseFuture")
            .field("state", &state)
            .finish_non_exhaustive()
    }
}
