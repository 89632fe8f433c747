//! What the tests of the layer have in common: an inner service that a test holds in its hand, and callers.
#![allow(dead_code, reason = "not every test needs all of it")]

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
use http::{Request, Response, request, response};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Full};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
};
use tower::{BoxError, Service};
use tower_singleflight::{Handle, ResponseBody, Role};

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

// ===== callers =====

/// What a caller got.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) role: Role,
    pub(crate) head: response::Parts,
    pub(crate) body: Bytes,
}

/// The values of all lines of a response field.
pub(crate) fn lines(head: &response::Parts, name: &str) -> Vec<String> {
    let lines = head.headers.get_all(name).iter();
    lines
        .map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned())
        .collect()
}

pub(crate) async fn read<B>(response: Response<ResponseBody<B>>) -> Got
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let (head, body) = response.into_parts();
    let role = *head.extensions.get().expect("every response has a role");
    let body = body.collect().await.expect("a whole body").to_bytes();
    Got { role, head, body }
}

/// Calls now, so that callers join in the order of the program; reads to the end in a task.
pub(crate) fn ask<S, Q, B>(service: &S, request: Request<Q>) -> JoinHandle<Got>
where
    S: Service<Request<Q>, Response = Response<ResponseBody<B>>, Error = Infallible> + Clone,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let call = service.clone().call(request);
    tokio::spawn(async move {
        let Ok(response) = call.await;
        read(response).await
    })
}

pub(crate) async fn all(asked: impl IntoIterator<Item = JoinHandle<Got>>) -> Vec<Got> {
    let mut got = Vec::new();
    for one in asked {
        got.push(one.await.expect("a caller that does not panic"));
    }
    got
}

pub(crate) fn roles(got: &[Got]) -> Vec<Role> {
    got.iter().map(|got| got.role).collect()
}

pub(crate) fn count(got: &[Got], role: Role) -> usize {
    got.iter().filter(|got| got.role == role).count()
}

pub(crate) type Fields<'a> = &'a [(&'a str, &'a [u8])];

pub(crate) fn request(method: &str, uri: &str, fields: Fields<'_>) -> Request<Empty<Bytes>> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Empty::new()).expect("a request")
}

pub(crate) fn get(uri: &str) -> Request<Empty<Bytes>> {
    request("GET", uri, &[])
}

/// Lets every task that is woken run, on a runtime of one thread.
pub(crate) async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Nothing is left in the table, nobody counted, nothing held.
#[track_caller]
pub(crate) fn assert_idle<K>(handle: &Handle<K>) {
    let stats = handle.stats();
    assert_eq!(
        (stats.in_flight, stats.waiters, stats.buffered_bytes),
        (0, 0, 0),
        "{stats:?}"
    );
}
