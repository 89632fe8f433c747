//! What a flight does: one call of the inner service, the verdict on its head, and then its body.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{Method, Request};
use http_body::{Body, Frame};
use pin_project::{pin_project, pinned_drop};
use tower_service::Service;

use super::{
    desk::Desk,
    oneshot::Oneshot,
    origin::{Origin, OriginBody},
    verdict::{Opened, Verdict},
};
use crate::{
    error::SharedError,
    flights::{Flight, Shared},
    group::Wakers,
    key::KeyExtractor,
    observe::Fate,
    rules::{self, Fields},
};

#[pin_project(PinnedDrop)]
pub(crate) struct Work<S, X, ReqBody, ResBody>
where
    // The parts hold the service's future and its error, and the key's type.
    S: Service<Request<ReqBody>>,
    X: KeyExtractor,
{
    #[pin]
    stage: Stage<S, ReqBody, ResBody>,
    brief: Brief<X, ResBody, S::Error>,
    /// What it means if it is dropped now.
    fate: Fate,
}

#[pin_project(project = StageProj)]
enum Stage<S, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
{
    Calling(#[pin] Oneshot<S, ReqBody>),
    Body(#[pin] ResBody),
}

/// Whom the work is for.
pub(super) struct Brief<X: KeyExtractor, ResBody, E> {
    pub(super) flight: Arc<Flight<X::Key>>,
    pub(super) shared: Arc<Shared<X>>,
    pub(super) desk: Arc<Desk<ResBody, E>>,
    pub(super) asked: Asked,
}

/// What must be known of the leader's request when its response comes.
pub(crate) struct Asked {
    pub(super) method: Method,
    pub(super) has_credentials: bool,
    /// Those in which an identical request may differ: for `Vary`.
    pub(super) fields: Fields,
}

/// A frame, and what the source says after it.
pub(super) struct Pulled {
    pub(super) frame: Frame<Bytes>,
    pub(super) hint: http_body::SizeHint,
    pub(super) is_last: bool,
}

// ===== impl Asked =====

impl Asked {
    pub(crate) fn new<X: KeyExtractor, B>(shared: &Shared<X>, request: &Request<B>) -> Self {
        let headers = request.headers();
        Self {
            method: request.method().clone(),
            has_credentials: rules::has_credentials(headers),
            fields: Fields::of(headers, |name| shared.may_differ(name)),
        }
    }
}

// ===== impl Work =====

impl<S, X, ReqBody, ResBody> Work<S, X, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
    X: KeyExtractor,
{
    pub(crate) fn new(
        flight: Arc<Flight<X::Key>>,
        shared: Arc<Shared<X>>,
        desk: Arc<Desk<ResBody, S::Error>>,
        asked: Asked,
        call: Oneshot<S, ReqBody>,
    ) -> Self {
        Self {
            stage: Stage::Calling(call),
            brief: Brief {
                flight,
                shared,
                desk,
                asked,
            },
            fate: Fate::Cancelled,
        }
    }
}

impl<S, X, ReqBody, ResBody> Future for Work<S, X, ReqBody, ResBody>
where
    S: Origin<ReqBody, ResBody>,
    X: KeyExtractor,
    ReqBody: Send + 'static,
    ResBody: OriginBody,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        *self.as_mut().project().fate = Fate::Panicked;
        let flight = Arc::clone(&self.brief.flight);
        let polled = flight.cargo.trace.within(|| self.as_mut().advance(cx));
        *self.project().fate = match polled {
            Poll::Pending => Fate::Cancelled,
            Poll::Ready(()) => Fate::Landed,
        };
        polled
    }
}

impl<S, X, ReqBody, ResBody> Work<S, X, ReqBody, ResBody>
where
    S: Origin<ReqBody, ResBody>,
    X: KeyExtractor,
    ReqBody: Send + 'static,
    ResBody: OriginBody,
{
    fn advance(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        // Woken when this poll is over, in whatever way.
        let mut wakers = Wakers::default();
        let mut news = false;
        if let StageProj::Calling(call) = this.stage.as_mut().project() {
            let response = match ready!(call.poll(cx)) {
                Ok(response) => response,
                Err(error) => {
                    this.brief.fail(error);
                    return Poll::Ready(());
                }
            };
            let (head, body) = match this.brief.judge(response) {
                Verdict::Released => return Poll::Ready(()),
                Verdict::Shared(head, body) => (head, body),
            };
            this.stage.set(Stage::Body(body));
            let StageProj::Body(mut body) = this.stage.as_mut().project() else {
                unreachable!("set just now");
            };
            // Most bodies are there with their head. One that is, and that nobody waits for, needs no copy.
            let first = if head.is_at_hand() && !this.brief.flight.is_shared() {
                poll_body(body.as_mut(), cx)
            } else {
                Poll::Pending
            };
            match this.brief.open(head, first, &mut wakers) {
                Opened::Over => return Poll::Ready(()),
                Opened::Streams => news = true,
            }
        }
        let StageProj::Body(mut body) = this.stage.as_mut().project() else {
            unreachable!("the call has given its response");
        };
        // Readers are woken when the source has nothing more at the moment, not for each frame.
        let over = loop {
            if !this.brief.may_pull() {
                break Poll::Pending;
            }
            match poll_body(body.as_mut(), cx) {
                Poll::Pending => {
                    this.brief.pause();
                    break Poll::Pending;
                }
                Poll::Ready(Some(Ok(pulled))) => {
                    news = true;
                    let is_last = pulled.is_last;
                    if this.brief.receive(pulled).is_break() {
                        break Poll::Ready(());
                    }
                    if is_last {
                        this.brief.land(None);
                        break Poll::Ready(());
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    this.brief.land(Some(error));
                    break Poll::Ready(());
                }
                Poll::Ready(None) => {
                    this.brief.land(None);
                    break Poll::Ready(());
                }
            }
        };
        if news && over.is_pending() {
            this.brief.flight.wake_progress();
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
        self.brief.flight.cargo.trace.ended(self.fate);
    }
}

type PolledBody = Poll<Option<Result<Pulled, SharedError>>>;

fn poll_body<B: OriginBody>(mut body: Pin<&mut B>, cx: &mut Context<'_>) -> PolledBody {
    match ready!(body.as_mut().poll_frame(cx)) {
        Some(Ok(frame)) => Poll::Ready(Some(Ok(Pulled {
            frame: frame.map_data(|mut data| data.copy_to_bytes(data.remaining())),
            hint: body.size_hint(),
            is_last: body.is_end_stream(),
        }))),
        Some(Err(error)) => Poll::Ready(Some(Err(SharedError::new(error)))),
        None => Poll::Ready(None),
    }
}
