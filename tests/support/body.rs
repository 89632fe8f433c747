//! An inner service whose every call the test answers, with bodies whose every frame it sends.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri, request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Empty;
use tokio::sync::{mpsc, oneshot};
use tower::{BoxError, Layer, Service};
use tower_singleflight::{
    Handle, KeyExtractor, ResponseBody, Singleflight, SingleflightLayer, future, method_and_uri,
};

use super::{get, poll_once, settle};

pub(crate) type Key = (Method, Uri);
pub(crate) type KeyOf = fn(&request::Parts) -> Option<Key>;
pub(crate) type Req = Request<Empty<Bytes>>;
pub(crate) type Copied = Response<ResponseBody<Mock>>;
pub(crate) type Layered<X = KeyOf> = Singleflight<ByHand, X>;
pub(crate) type Called<X = KeyOf> = future::ResponseFuture<ByHand, X, Empty<Bytes>, Mock>;

/// A layer whose key is the method and the URI.
pub(crate) fn layer() -> SingleflightLayer<KeyOf> {
    SingleflightLayer::with_extractor(method_and_uri as KeyOf)
}

pub(crate) fn key() -> Key {
    (Method::GET, Uri::from_static("/page"))
}

/// Data whose drop panics once it is armed.
pub(crate) fn bad_data(len: usize, armed: &Arc<AtomicBool>) -> Bytes {
    struct Bad(Vec<u8>, Arc<AtomicBool>);

    impl AsRef<[u8]> for Bad {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    impl Drop for Bad {
        fn drop(&mut self) {
            assert!(!self.1.swap(false, Ordering::SeqCst), "bad data");
        }
    }

    Bytes::from_owner(Bad(vec![0; len], Arc::clone(armed)))
}

/// The layer over an origin that the test answers.
pub(crate) fn stack<X: KeyExtractor>(
    layer: &SingleflightLayer<X>,
) -> (Layered<X>, Calls, Handle<X::Key>) {
    let (mocked, origin) = origin();
    (layer.layer(mocked), origin, layer.handle())
}

/// One who leads and has been polled, and one who follows and has not.
#[track_caller]
pub(crate) fn leader_and_follower<X: KeyExtractor>(service: &mut Layered<X>) -> [Called<X>; 2] {
    let mut leader = service.call(get("/page"));
    assert_pending(&mut leader);
    [leader, service.call(get("/page"))]
}

/// One who leads alone, and reads a body of this length, or of which nothing is known.
#[track_caller]
pub(crate) fn lone_leader<X: KeyExtractor>(
    service: &mut Layered<X>,
    origin: &mut Calls,
    len: Option<u64>,
) -> (Feed, ResponseBody<Mock>) {
    let mut leader = service.call(get("/page"));
    assert_pending(&mut leader);
    let feed = origin.call().begin_of(len);
    (feed, now(&mut leader).into_body())
}

// ===== the origin =====

/// An inner service whose every call is answered by hand.
#[derive(Clone)]
pub(crate) struct ByHand {
    calls: mpsc::UnboundedSender<Call>,
    count: Arc<AtomicUsize>,
}

/// The calls that an origin got, for a test to answer.
pub(crate) struct Calls {
    calls: mpsc::UnboundedReceiver<Call>,
    count: Arc<AtomicUsize>,
}

/// A call that waits for its answer.
pub(crate) struct Call {
    pub(crate) request: Req,
    reply: oneshot::Sender<Result<Response<Mock>, BoxError>>,
}

pub(crate) fn origin() -> (ByHand, Calls) {
    let (calls, received) = mpsc::unbounded_channel();
    let count = Arc::new(AtomicUsize::new(0));
    let origin = Calls {
        calls: received,
        count: count.clone(),
    };
    (ByHand { calls, count }, origin)
}

impl Service<Req> for ByHand {
    type Response = Response<Mock>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Mock>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let (reply, answer) = oneshot::channel();
        let _ = self.calls.send(Call { request, reply });
        // Last: one who has seen the count finds the call.
        self.count.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err("no answer".into())) })
    }
}

impl Calls {
    /// The next call, which has been made already.
    pub(crate) fn call(&mut self) -> Call {
        self.calls.try_recv().expect("a call of the origin")
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

impl Call {
    pub(crate) fn answer(self, response: Response<Mock>) {
        let _ = self.reply.send(Ok(response));
    }

    pub(crate) fn fail(self, error: impl Into<BoxError>) {
        let _ = self.reply.send(Err(error.into()));
    }

    /// Whether the inner future has been dropped.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.reply.is_closed()
    }

    /// A head with a body of which nothing is known.
    pub(crate) fn begin(self) -> Feed {
        self.begin_of(None)
    }

    /// A head with a body of a known length.
    pub(crate) fn begin_known(self, len: u64) -> Feed {
        self.begin_of(Some(len))
    }

    /// A head with a body of this length, or of which nothing is known.
    pub(crate) fn begin_of(self, len: Option<u64>) -> Feed {
        let hint = len.map_or_else(SizeHint::new, SizeHint::with_exact);
        self.begin_with(Response::builder(), hint)
    }

    pub(crate) fn begin_with(self, head: http::response::Builder, hint: SizeHint) -> Feed {
        let (feed, body) = body(hint);
        self.answer(head.body(body).unwrap());
        feed
    }
}

// ===== the body =====

enum Item {
    Frame(Frame<Bytes>),
    Error(BoxError),
    Panic(&'static str),
    End,
}

#[derive(Default)]
struct Inner {
    items: VecDeque<Item>,
    waker: Option<Waker>,
}

struct Core {
    inner: Mutex<Inner>,
    hint: SizeHint,
    /// Bytes that were pulled.
    given: AtomicUsize,
    polls: AtomicUsize,
    pulled: AtomicUsize,
    dropped: AtomicBool,
    on_drop: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

/// A body that gives what its feed is told to.
pub(crate) struct Mock {
    core: Arc<Core>,
    over: bool,
}

pub(crate) struct Feed {
    core: Arc<Core>,
}

pub(crate) fn body(hint: SizeHint) -> (Feed, Mock) {
    let core = Arc::new(Core {
        inner: Mutex::default(),
        hint,
        given: AtomicUsize::new(0),
        polls: AtomicUsize::new(0),
        pulled: AtomicUsize::new(0),
        dropped: AtomicBool::new(false),
        on_drop: Mutex::default(),
    });
    let feed = Feed { core: core.clone() };
    (feed, Mock { core, over: false })
}

/// A body that is all there.
pub(crate) fn ready(parts: &[&'static str], hint: SizeHint) -> Mock {
    let (feed, body) = body(hint);
    for part in parts {
        feed.send(part);
    }
    feed.end();
    body
}

impl Mock {
    /// From now on it says that it is at its end.
    pub(crate) fn finish(&mut self) {
        self.over = true;
    }

    /// A body of one frame, which says nothing of its length.
    pub(crate) fn of(value: &http::HeaderValue) -> Self {
        let (feed, body) = body(SizeHint::new());
        feed.bytes(Bytes::copy_from_slice(value.as_bytes()));
        feed.end();
        body
    }
}

impl Feed {
    fn item(&self, item: Item) {
        let waker = {
            let mut inner = self.core.inner.lock().unwrap();
            inner.items.push_back(item);
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn send(&self, data: &'static str) {
        self.bytes(Bytes::from_static(data.as_bytes()));
    }

    /// Tells nobody: who polls finds it.
    pub(crate) fn send_quietly(&self, data: &'static str) {
        let mut inner = self.core.inner.lock().unwrap();
        let frame = Frame::data(Bytes::from_static(data.as_bytes()));
        inner.items.push_back(Item::Frame(frame));
        inner.waker = None;
    }

    pub(crate) fn bytes(&self, data: Bytes) {
        self.item(Item::Frame(Frame::data(data)));
    }

    pub(crate) fn trailers(&self, trailers: HeaderMap) {
        self.item(Item::Frame(Frame::trailers(trailers)));
    }

    pub(crate) fn fail(&self, error: impl Into<BoxError>) {
        self.item(Item::Error(error.into()));
    }

    pub(crate) fn panic(&self, message: &'static str) {
        self.item(Item::Panic(message));
    }

    pub(crate) fn end(&self) {
        self.item(Item::End);
    }

    /// How many frames were pulled.
    pub(crate) fn pulled(&self) -> usize {
        self.core.pulled.load(Ordering::SeqCst)
    }

    /// How often the body was polled.
    pub(crate) fn polls(&self) -> usize {
        self.core.polls.load(Ordering::SeqCst)
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.core.dropped.load(Ordering::SeqCst)
    }

    /// What the body does when it is dropped.
    pub(crate) fn on_drop(&self, act: impl FnOnce() + Send + 'static) {
        *self.core.on_drop.lock().unwrap() = Some(Box::new(act));
    }
}

impl Body for Mock {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.core.polls.fetch_add(1, Ordering::SeqCst);
        let item = {
            let mut inner = self.core.inner.lock().unwrap();
            match inner.items.pop_front() {
                Some(item) => item,
                None => {
                    inner.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        };
        match item {
            Item::Frame(frame) => {
                let len = frame.data_ref().map_or(0, Bytes::len);
                self.core.given.fetch_add(len, Ordering::SeqCst);
                self.core.pulled.fetch_add(1, Ordering::SeqCst);
                Poll::Ready(Some(Ok(frame)))
            }
            Item::Error(error) => Poll::Ready(Some(Err(error))),
            Item::Panic(message) => panic!("{message}"),
            Item::End => {
                self.over = true;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }

    fn size_hint(&self) -> SizeHint {
        let given = self.core.given.load(Ordering::SeqCst) as u64;
        match self.core.hint.exact() {
            Some(len) => SizeHint::with_exact(len.saturating_sub(given)),
            None => self.core.hint,
        }
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.core.dropped.store(true, Ordering::SeqCst);
        let act = self.core.on_drop.lock().unwrap().take();
        if let Some(act) = act {
            act();
        }
    }
}

// ===== looking =====

/// A frame's data, or what else the body gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Polled {
    Data(Bytes),
    Trailers(HeaderMap),
    Error(String),
    End,
    Pending,
}

pub(crate) fn data(text: &'static str) -> Polled {
    Polled::Data(Bytes::from_static(text.as_bytes()))
}

/// One poll of a body.
pub(crate) fn frame<B>(body: &mut ResponseBody<B>) -> Polled
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => Polled::Pending,
        Poll::Ready(None) => Polled::End,
        Poll::Ready(Some(Err(error))) => Polled::Error(error.to_string()),
        Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
            Ok(data) => Polled::Data(data),
            Err(frame) => Polled::Trailers(frame.into_trailers().expect("a kind of frame")),
        },
    }
}

/// What a body gives next. One that has nothing is polled once more, when everything else has come to rest.
pub(crate) async fn next<B>(body: &mut ResponseBody<B>) -> Polled
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    match frame(body) {
        Polled::Pending => {
            settle().await;
            frame(body)
        }
        polled => polled,
    }
}

/// A response that is there.
#[track_caller]
pub(crate) fn now<F, T>(future: &mut F) -> T
where
    F: Future<Output = Result<T, BoxError>> + Unpin,
{
    match poll_once(future) {
        Poll::Ready(response) => response.expect("a response"),
        Poll::Pending => panic!("the response is not there"),
    }
}

#[track_caller]
pub(crate) fn assert_pending<F: Future + Unpin>(future: &mut F) {
    assert!(poll_once(future).is_pending(), "the response is there");
}
