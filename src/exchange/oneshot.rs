//! One call of the inner service.

use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use http::Request;
use pin_project::pin_project;
use tower_service::Service;

/// Claims the inner service's capacity and calls it, on an instance that was itself polled ready.
#[pin_project]
pub(crate) struct Oneshot<S, ReqBody>
where
    // The state holds the service's future.
    S: Service<Request<ReqBody>>,
{
    #[pin]
    state: State<S, S::Future, S::Error, ReqBody>,
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
    /// A call by an instance of its own.
    pub(crate) fn new(service: S, request: Request<ReqBody>) -> Self {
        Self {
            state: State::Readying(Some((service, request))),
        }
    }

    /// A call by `service`, at once if it is ready. An instance that is not moves into the future, and leaves a clone.
    pub(crate) fn begin(service: &mut S, request: Request<ReqBody>) -> Self
    where
        S: Clone,
    {
        // Nobody needs to be woken: an instance that is not ready is polled again where it goes.
        let state = match service.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => State::Calling(service.call(request)),
            Poll::Ready(Err(error)) => State::Failed(Some(error)),
            Poll::Pending => {
                let clone = service.clone();
                State::Readying(Some((mem::replace(service, clone), request)))
            }
        };
        Self { state }
    }
}

impl<S, ReqBody> Future for Oneshot<S, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
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
