//! What a flight does: one call of the inner service, the verdict on its head, and then its body.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http::Request;
use http_body::Body;
use pin_project::{pin_project, pinned_drop};
use tower_service::Service;

use super::{
    call::Oneshot,
    caller::drop_unread,
    context::{Alone, PolledBody, Pulled, WorkContext},
    inner::{Inner, InnerBody},
    leader::LeaderRequest,
    state::Flight,
};
#[cfg(feature = "redis")]
use super::{contender::Contender, elsewhere::Elsewhere};
#[cfg(feature = "redis")]
use crate::replicas::http::RemoteBody;
use crate::{
    buffer::PrefixHasher,
    error::SharedError,
    group::{Drive, PolledBy, WorkEnd},
    key::KeyExtractor,
    observe::FlightTrace,
    shared::Shared,
};

/// The most frames to pull in one poll.
const MAX_FRAMES: usize = 32;

#[pin_project(PinnedDrop)]
pub(crate) struct Work<S, X, ReqBody, ResBody>
where
    // The parts hold the service's future and its error, and the key's type.
    S: Service<Request<ReqBody>>,
    X: KeyExtractor,
{
    #[pin]
    stage: Stage<S, ReqBody, ResBody>,
    context: WorkContext<X>,
    trace: FlightTrace,
    /// Hashes a body that several callers share beyond its limit.
    hasher: Option<PrefixHasher>,
    /// How the flight ends if this is dropped now.
    end: WorkEnd,
}

#[pin_project(project = StageProj)]
enum Stage<S, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
{
    Calling(#[pin] Oneshot<S, ReqBody>),
    Body(#[pin] ResBody),
    #[cfg(feature = "redis")]
    Remote(RemoteBody),
}

// ===== impl Work =====

impl<S, X, ReqBody, ResBody> Work<S, X, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
    X: KeyExtractor,
{
    /// `flight`: if it is whole.
    pub(crate) fn new(
        flight: Option<Arc<Flight<X::Key>>>,
        trace: FlightTrace,
        shared: Arc<Shared<X>>,
        request: LeaderRequest,
        call: Oneshot<S, ReqBody>,
    ) -> Self {
        Self {
            stage: Stage::Calling(call),
            context: WorkContext {
                flight,
                shared,
                request,
                #[cfg(feature = "redis")]
                contender: None,
            },
            trace,
            hasher: None,
            end: WorkEnd::Cancelled,
        }
    }

    /// Work that makes its call only if no other replica does.
    #[cfg(feature = "redis")]
    pub(crate) fn contending(mut self, contender: Contender) -> Self {
        self.context.contender = Some(Box::new(contender));
        self
    }
}

impl<S, X, ReqBody, ResBody> Drive for Work<S, X, ReqBody, ResBody>
where
    S: Inner<ReqBody, ResBody>,
    X: KeyExtractor,
    ReqBody: Send + 'static,
    ResBody: InnerBody,
{
    type Output = ();

    fn drive(self: Pin<&mut Self>, cx: &mut Context<'_>, by: PolledBy<'_>) -> Poll<()> {
        const KNOWN: &str = "whoever polls it belongs to its flight";
        let this = self.project();
        let (stage, context) = (this.stage, this.context);
        let leader = match by {
            PolledBy::Solo(leader) => Some(leader.downcast_mut().expect(KNOWN)),
            PolledBy::Whole(flight) => {
                if context.flight.is_none() {
                    let flight: &Arc<_> = flight.downcast_ref().expect(KNOWN);
                    context.flight = Some(Arc::clone(flight));
                }
                None
            }
        };
        *this.end = WorkEnd::Panicked;
        let polled = this
            .trace
            .within(|| Self::advance(stage, context, this.hasher, leader, cx));
        *this.end = match polled {
            Poll::Pending => WorkEnd::Cancelled,
            Poll::Ready(()) => WorkEnd::Complete,
        };
        polled
    }
}

impl<S, X, ReqBody, ResBody> Work<S, X, ReqBody, ResBody>
where
    S: Inner<ReqBody, ResBody>,
    X: KeyExtractor,
    ReqBody: Send + 'static,
    ResBody: InnerBody,
{
    fn advance(
        mut stage: Pin<&mut Stage<S, ReqBody, ResBody>>,
        context: &mut WorkContext<X>,
        hasher: &mut Option<PrefixHasher>,
        mut leader: Alone<'_, X::Key, ResBody, S::Error>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let mut news = false;
        let mut opening = None;
        let mut first = Poll::Pending;
        #[cfg(feature = "redis")]
        if let StageProj::Calling(_) = stage.as_mut().project() {
            match ready!(context.poll_elsewhere::<ResBody, S::Error>(cx)) {
                Elsewhere::Call => {}
                Elsewhere::Response(head, body) => {
                    stage.set(Stage::Remote(body));
                    opening = Some(head);
                }
                Elsewhere::Failed => return Poll::Ready(()),
            }
        }
        if let StageProj::Calling(call) = stage.as_mut().project() {
            let response = match ready!(call.poll(cx)) {
                Ok(response) => response,
                Err(error) => {
                    context.fail(leader, error);
                    return Poll::Ready(());
                }
            };
            let Some((head, body)) = context.judge(&mut leader, response) else {
                return Poll::Ready(());
            };
            stage.set(Stage::Body(body));
            opening = Some(head);
        }
        if let Some(head) = opening {
            // Most bodies come with their head. If nobody waits, such a body needs no copy.
            let is_shared = context.flight.as_ref().is_some_and(|it| it.is_shared());
            if head.is_at_hand() && !is_shared {
                first = stage.as_mut().poll_body(cx);
            }
            match context.open(leader, head, first) {
                Some(polled) => first = polled,
                None => return Poll::Ready(()),
            }
            news = true;
        }
        // Wake readers when the source is pending, not for each frame. Interrupt a source that is always ready after a
        // burst, so that readers and other tasks get their turn.
        let mut burst = 0;
        let over = loop {
            let mut polled = mem::replace(&mut first, Poll::Pending);
            if polled.is_pending() {
                if !context.may_pull() {
                    break Poll::Pending;
                }
                burst += 1;
                if burst > MAX_FRAMES {
                    break Poll::Pending;
                }
                polled = stage.as_mut().poll_body(cx);
            }
            let failure = match polled {
                Poll::Pending => {
                    context.pause();
                    break Poll::Pending;
                }
                Poll::Ready(Some(Ok(pulled))) => {
                    news = true;
                    let is_last = pulled.is_last;
                    context.receive(pulled, hasher);
                    if !is_last {
                        continue;
                    }
                    None
                }
                Poll::Ready(Some(Err(error))) => Some(error),
                Poll::Ready(None) => None,
            };
            context.land(failure);
            break Poll::Ready(());
        };
        if news && over.is_pending() {
            context.touch();
            context.flight().wake_callers();
        }
        if burst > MAX_FRAMES {
            cx.waker().wake_by_ref();
        }
        over
    }
}

#[pinned_drop]
impl<S, X, ReqBody, ResBody> PinnedDrop for Work<S, X, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
    X: KeyExtractor,
{
    fn drop(self: Pin<&mut Self>) {
        let flight = self.context.flight.as_ref();
        if flight.is_some() && self.end != WorkEnd::Complete {
            self.context.lose();
        }
        self.trace.ended(self.end);
        if let Some(flight) = flight.filter(|flight| flight.is_shared()) {
            drop_unread(flight);
        }
    }
}

// ===== impl Stage =====

impl<S, ReqBody, ResBody> Stage<S, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
    ResBody: InnerBody,
{
    fn poll_body(self: Pin<&mut Self>, cx: &mut Context<'_>) -> PolledBody {
        match self.project() {
            StageProj::Calling(_) => unreachable!("the call has given its response"),
            StageProj::Body(body) => poll_body(body, cx),
            #[cfg(feature = "redis")]
            StageProj::Remote(body) => poll_body(Pin::new(body), cx),
        }
    }
}

fn poll_body<B: InnerBody>(mut body: Pin<&mut B>, cx: &mut Context<'_>) -> PolledBody {
    match ready!(body.as_mut().poll_frame(cx)) {
        Some(Ok(frame)) => Poll::Ready(Some(Ok(Pulled {
            hint: body.size_hint(),
            // Trailers end a message: a server that has sent them does not poll again.
            is_last: frame.is_trailers() || body.is_end_stream(),
            frame: frame.map_data(|mut data| data.copy_to_bytes(data.remaining())),
        }))),
        Some(Err(error)) => Poll::Ready(Some(Err(SharedError::new(error)))),
        None => Poll::Ready(None),
    }
}
