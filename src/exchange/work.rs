//! What a flight does: one call of the inner service, the verdict on its head, and then its body.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::Request;
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
    buffer::PrefixHasher,
    error::SharedError,
    flights::{Flight, Shared},
    group::Wakers,
    key::KeyExtractor,
    observe::Fate,
};

/// So many frames are pulled in one poll.
const BURST: usize = 32;

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
    /// Follows a body that several share beyond its limit.
    hasher: Option<PrefixHasher>,
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
}

/// A frame, and what the source says after it.
pub(super) struct Pulled {
    pub(super) frame: Frame<Bytes>,
    pub(super) hint: http_body::SizeHint,
    pub(super) is_last: bool,
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
        call: Oneshot<S, ReqBody>,
    ) -> Self {
        Self {
            stage: Stage::Calling(call),
            brief: Brief {
                flight,
                shared,
                desk,
            },
            hasher: None,
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

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let (stage, brief) = (this.stage, &*this.brief);
        *this.fate = Fate::Panicked;
        let trace = &brief.flight.cargo.trace;
        let polled = trace.within(|| Self::advance(stage, brief, this.hasher, cx));
        *this.fate = match polled {
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
    fn advance(
        mut stage: Pin<&mut Stage<S, ReqBody, ResBody>>,
        brief: &Brief<X, ResBody, S::Error>,
        hasher: &mut Option<PrefixHasher>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        // Woken when this poll is over, in whatever way.
        let mut wakers = Wakers::default();
        let mut news = false;
        if let StageProj::Calling(call) = stage.as_mut().project() {
            let response = match ready!(call.poll(cx)) {
                Ok(response) => response,
                Err(error) => {
                    brief.fail(error);
                    return Poll::Ready(());
                }
            };
            let (head, body) = match brief.judge(response) {
                Verdict::Released => return Poll::Ready(()),
                Verdict::Shared(head, body) => (head, body),
            };
            stage.set(Stage::Body(body));
            let StageProj::Body(mut body) = stage.as_mut().project() else {
                unreachable!("set just now");
            };
            // Most bodies are there with their head. One that is, and that nobody waits for, needs no copy.
            let first = if head.is_at_hand() && !brief.flight.is_shared() {
                poll_body(body.as_mut(), cx)
            } else {
                Poll::Pending
            };
            match brief.open(head, first, hasher, &mut wakers) {
                Opened::Over => return Poll::Ready(()),
                Opened::Streams => news = true,
            }
        }
        let StageProj::Body(mut body) = stage.as_mut().project() else {
            unreachable!("the call has given its response");
        };
        // Readers are woken when the source has nothing more at the moment, not for each frame; nor does one that always
        // has more keep them, and the thread, for longer than a burst.
        let mut burst = 0;
        let over = loop {
            if !brief.may_pull() {
                break Poll::Pending;
            }
            burst += 1;
            if burst > BURST {
                break Poll::Pending;
            }
            match poll_body(body.as_mut(), cx) {
                Poll::Pending => {
                    brief.pause();
                    break Poll::Pending;
                }
                Poll::Ready(Some(Ok(pulled))) => {
                    news = true;
                    let is_last = pulled.is_last;
                    if brief.receive(pulled, hasher).is_break() {
                        break Poll::Ready(());
                    }
                    if is_last {
                        brief.land(None);
                        break Poll::Ready(());
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    brief.land(Some(error));
                    break Poll::Ready(());
                }
                Poll::Ready(None) => {
                    brief.land(None);
                    break Poll::Ready(());
                }
            }
        };
        if news && over.is_pending() {
            brief.touch();
            brief.flight.wake_progress();
        }
        // Whoever waits comes first.
        drop(wakers);
        if burst > BURST {
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
        self.brief.flight.cargo.trace.ended(self.fate);
    }
}

type PolledBody = Poll<Option<Result<Pulled, SharedError>>>;

fn poll_body<B: OriginBody>(mut body: Pin<&mut B>, cx: &mut Context<'_>) -> PolledBody {
    match ready!(body.as_mut().poll_frame(cx)) {
        Some(Ok(frame)) => Poll::Ready(Some(Ok(Pulled {
            hint: body.size_hint(),
            // Trailers are the end of a message: a server that has sent them asks for no more.
            is_last: frame.is_trailers() || body.is_end_stream(),
            frame: frame.map_data(|mut data| data.copy_to_bytes(data.remaining())),
        }))),
        Some(Err(error)) => Poll::Ready(Some(Err(SharedError::new(error)))),
        None => Poll::Ready(None),
    }
}
