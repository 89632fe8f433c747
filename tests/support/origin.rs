//! An inner service whose calls wait at a gate.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, request};
use http_body_util::Full;
use tokio::sync::{Semaphore, watch};
use tower::Service;

/// What an [`Origin`] answers to a request.
type Answers = Box<dyn Fn(&request::Parts) -> Response<Bytes> + Send + Sync>;

/// An inner service whose calls wait at a gate. Clones are the same origin.
#[derive(Clone)]
pub(crate) struct Origin {
    held: Arc<Held>,
}

struct Held {
    answers: Answers,
    gate: Semaphore,
    calls: AtomicUsize,
    inside: watch::Sender<usize>,
}

/// In the extensions of a request that an [`Origin`] was called with: which call it is, from 1 on.
#[derive(Clone, Copy)]
pub(crate) struct Number(pub(crate) usize);

/// A call that is inside, until it has answered or was dropped.
struct Inside(Arc<Held>);

pub(crate) type Call =
    Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send>>;

// ===== impl Origin =====

impl Origin {
    pub(crate) fn new(
        answers: impl Fn(&request::Parts) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        Self {
            held: Arc::new(Held {
                answers: Box::new(answers),
                gate: Semaphore::new(0),
                calls: AtomicUsize::new(0),
                inside: watch::Sender::new(0),
            }),
        }
    }

    /// Always the same page.
    pub(crate) fn page() -> Self {
        Self::new(|_| Response::new(Bytes::from_static(b"page")))
    }

    /// Always the same page, with this field.
    pub(crate) fn page_with(name: &'static str, value: &'static str) -> Self {
        Self::new(move |_| {
            let response = Response::builder().header(name, value);
            let body = Bytes::from_static(b"page");
            response.body(body).expect("a field")
        })
    }

    /// The body says which call it is of, from 1 on.
    pub(crate) fn counting() -> Self {
        Self::new(|request| {
            let Number(call) = request.extensions.get().expect("a numbered call");
            Response::new(Bytes::from(call.to_string()))
        })
    }

    /// Lets `n` calls go on.
    pub(crate) fn admit(&self, n: usize) {
        self.held.gate.add_permits(n);
    }

    /// Lets all calls go on, now and later.
    pub(crate) fn open(&self) {
        self.admit(Semaphore::MAX_PERMITS / 2);
    }

    /// How many calls there were.
    pub(crate) fn calls(&self) -> usize {
        self.held.calls.load(Ordering::SeqCst)
    }

    /// How many calls have not answered yet.
    pub(crate) fn inside(&self) -> usize {
        *self.held.inside.borrow()
    }

    /// Waits until so many calls are inside at the same time.
    pub(crate) async fn until_inside(&self, n: usize) {
        let mut inside = self.held.inside.subscribe();
        let seen = inside.wait_for(|inside| *inside == n).await;
        assert!(seen.is_ok());
    }
}

impl<B> Service<Request<B>> for Origin {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Call;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Call {
        let held = Arc::clone(&self.held);
        let (mut parts, _) = request.into_parts();
        let number = held.calls.fetch_add(1, Ordering::SeqCst) + 1;
        parts.extensions.insert(Number(number));
        held.inside.send_modify(|inside| *inside += 1);
        let inside = Inside(held);
        Box::pin(async move {
            let held = &inside.0;
            held.gate.acquire().await.expect("an open gate").forget();
            Ok((held.answers)(&parts).map(Full::new))
        })
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.inside.send_modify(|inside| *inside -= 1);
    }
}
