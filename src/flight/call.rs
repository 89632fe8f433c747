//! One call of the inner service.

use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use http::{Method, Request, Response};
use http_body::Body;
use pin_project::pin_project;
use tower_service::Service;

use crate::rules;

/// Claims the inner service's capacity and calls it, on an instance that was itself polled ready.
///
/// Every response of the inner service passes through here, so this is where its `Content-Length` is corrected.
#[pin_project]
pub(crate) struct Oneshot<S, ReqBody>
where
    // The state holds the service's future.
    S: Service<Request<ReqBody>>,
{
    #[pin]
    state: State<S, S::Future, S::Error, ReqBody>,
    is_head: bool,
}

#[pin_project(project = StateProj)]
enum State<S, F, E, ReqBody> {
    Readying(Option<(S, Request<ReqBody>)>),
    Calling(#[pin] F),
    Failed(Option<E>),
}

// ===== impl Oneshot =====

impl<S, ReqBody> Oneshot<S, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    /// A call by an instance that it owns.
    pub(crate) fn new(service: S, request: Request<ReqBody>) -> Self {
        Self {
            is_head: request.method() == Method::HEAD,
            state: State::Readying(Some((service, request))),
        }
    }

    /// A call by `service`, at once if it is ready. Otherwise the instance moves into the future and leaves a clone
    /// behind.
    pub(crate) fn begin(service: &mut S, request: Request<ReqBody>) -> Self
    where
        S: Clone,
    {
        let is_head = request.method() == Method::HEAD;
        // A no-op waker will do: an instance that is not ready is polled again in the future.
        let state = match service.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => State::Calling(service.call(request)),
            Poll::Ready(Err(error)) => State::Failed(Some(error)),
            Poll::Pending => {
                let clone = service.clone();
                State::Readying(Some((mem::replace(service, clone), request)))
            }
        };
        Self { state, is_head }
    }

    /// As `poll`, with the response unchanged.
    pub(crate) fn poll_call(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<S::Response, S::Error>> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Calling(call) => return call.poll(cx),
                StateProj::Failed(error) => {
                    return Poll::Ready(Err(error.take().expect("polled after completion")));
                }
                StateProj::Readying(waiting) => {
                    let (service, _) = waiting.as_mut().expect("polled after completion");
                    ready!(service.poll_ready(cx))?;
                    let (mut service, request) = waiting.take().expect("looked at just now");
                    State::Calling(service.call(request))
                }
            };
            state.set(next);
        }
    }
}

impl<S, ReqBody, ResBody> Future for Oneshot<S, ReqBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body,
{
    type Output = Result<Response<ResBody>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let is_head = self.is_head;
        let response = ready!(self.poll_call(cx))?;
        Poll::Ready(Ok(rules::correct_length(is_head, response)))
    }
}
