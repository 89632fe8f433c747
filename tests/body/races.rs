//! Interleavings, forced: by wakers and drops that do something, and by other threads.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use http_body::{Body, SizeHint};
use http_body_util::BodyExt;
use tokio::runtime::{Builder, Handle, Runtime};
use tower::{BoxError, Layer, Service, service_fn};
use tower_singleflight::{ResponseBody, Role, SingleflightLayer};

use crate::support::{
    assert_idle,
    body::{
        Layered, Mock, Polled, Req, assert_pending, data, frame, layer, lone_leader, now, ready,
        stack,
    },
    get, settle, tasks,
};

/// Runs `f` on a thread of its own, and fails rather than hangs if that waits for itself.
fn within_a_minute(f: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    let thread = thread::spawn(move || {
        f();
        done.send(()).unwrap();
    });
    match is_done.recv_timeout(Duration::from_secs(60)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it waits for itself"),
        _ => thread.join().unwrap(),
    }
}

/// An extension whose drop asks the layer again.
#[derive(Clone)]
struct AsksAgain(Arc<Mutex<Option<Layered>>>);

impl Drop for AsksAgain {
    fn drop(&mut self) {
        let service = self.0.lock().unwrap().clone();
        if let Some(mut service) = service {
            drop(service.call(get("/page")));
        }
    }
}

#[test]
fn a_head_whose_drop_asks_for_the_same_key_finds_no_lock_held() {
    for end in ["landed", "outgrown"] {
        within_a_minute(move || {
            let (mut service, mut origin, handle) = stack(&layer().max_body(8));
            let again = Arc::new(Mutex::new(None));
            let mut leader = service.call(get("/page"));
            assert_pending(&mut leader);
            let head = Response::builder().extension(AsksAgain(again.clone()));
            let feed = origin.call().begin_with(head, SizeHint::new());
            let (parts, mut leader) = now(&mut leader).into_parts();
            *again.lock().unwrap() = Some(service);
            match end {
                "landed" => {
                    feed.end();
                    assert_eq!(frame(&mut leader), Polled::End);
                }
                _ => {
                    feed.send("once upon a time");
                    assert_eq!(frame(&mut leader), data("once upon a time"));
                }
            }
            *again.lock().unwrap() = None;
            drop((parts, leader));
            assert_idle(&handle);
        });
    }
}

#[test]
fn a_head_that_was_for_followers_and_whose_drop_asks_for_the_same_key_finds_no_lock_held() {
    within_a_minute(|| {
        let (mut service, mut origin, handle) = stack(&layer());
        let again = Arc::new(Mutex::new(None));
        let mut leader = service.call(get("/page"));
        assert_pending(&mut leader);
        let head = Response::builder().extension(AsksAgain(again.clone()));
        let feed = origin.call().begin_with(head, SizeHint::with_exact(4));
        let (parts, mut leader) = now(&mut leader).into_parts();
        *again.lock().unwrap() = Some(service);
        feed.send("page");
        feed.end();
        assert_eq!(frame(&mut leader), data("page"));
        assert_eq!(frame(&mut leader), Polled::End);
        *again.lock().unwrap() = None;
        drop((parts, leader));
        assert_idle(&handle);
    });
}

/// Data whose drop asks the layer again.
struct Asking(Arc<Mutex<Option<Layered>>>, Vec<u8>);

impl AsRef<[u8]> for Asking {
    fn as_ref(&self) -> &[u8] {
        &self.1
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        drop(AsksAgain(self.0.clone()));
    }
}

#[test]
fn a_frame_whose_drop_asks_for_the_same_key_finds_no_lock_held() {
    // Small frames are copied together, and of the body that is within its limit nothing is given up before its end.
    let limits = [(4, 10), (4, 100), (4 << 10, 10 << 10), (4 << 10, 100 << 10)];
    let all = limits.map(|limits| [0, 1].map(|followers| (limits, followers)));
    for ((len, max_body), followers) in all.into_iter().flatten() {
        for (ends, leader_first) in [(true, true), (false, true), (false, false)] {
            within_a_minute(move || {
                let layer = layer().max_body(max_body);
                let (mut service, mut origin, handle) = stack(&layer);
                let again = Arc::new(Mutex::new(None));
                let (feed, mut leader) = lone_leader(&mut service, &mut origin, None);
                let follower = (followers > 0).then(|| service.call(get("/page")));
                *again.lock().unwrap() = Some(service);
                for _ in 0..8 {
                    feed.bytes(Bytes::from_owner(Asking(again.clone(), vec![1; len])));
                    assert_eq!(frame(&mut leader), Polled::Data(vec![1; len].into()));
                }
                if ends {
                    feed.end();
                    assert_eq!(frame(&mut leader), Polled::End);
                }
                if leader_first {
                    drop(leader);
                    drop(follower);
                } else {
                    drop(follower);
                    drop(leader);
                }
                assert!(feed.is_dropped());
                *again.lock().unwrap() = None;
                assert_idle(&handle);
            });
        }
    }
}

#[test]
fn a_frame_that_gives_way_to_another_flight_and_asks_for_its_own_key_finds_no_lock_held() {
    within_a_minute(|| {
        let (mut service, mut origin, handle) = stack(&layer().max_body(8).max_buffered(8));
        let again = Arc::new(Mutex::new(None));
        let (feed, mut leader) = lone_leader(&mut service, &mut origin, None);
        feed.bytes(Bytes::from_owner(Asking(again.clone(), b"page".to_vec())));
        assert_eq!(frame(&mut leader), data("page"));
        assert_eq!(handle.stats().buffered_bytes, 4);
        let mut others = [(); 2].map(|()| service.call(get("/other")));
        *again.lock().unwrap() = Some(service);
        let other = origin.call().begin_known(6);
        now(&mut others[0]);
        assert_eq!(origin.count(), 3, "the frame has gone, and has asked");
        drop((leader, others));
        assert!(feed.is_dropped() && other.is_dropped());
        assert_idle(&handle);
    });
}

/// Data whose drop leaves a flight.
struct Leaving(Arc<Mutex<Option<ResponseBody<Mock>>>>, Vec<u8>);

impl AsRef<[u8]> for Leaving {
    fn as_ref(&self) -> &[u8] {
        &self.1
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let body = self.0.lock().unwrap().take();
        drop(body);
    }
}

#[test]
fn a_frame_whose_drop_leaves_its_flight_finds_no_lock_held() {
    // Small frames are compacted, and large ones slide out of the window.
    for len in [100, 10_000] {
        within_a_minute(move || {
            let (mut service, mut origin, handle) = stack(&layer().max_body(15_000));
            let leaves = Arc::new(Mutex::new(None));
            let (feed, mut leader) = lone_leader(&mut service, &mut origin, None);
            let [first, second] = [(); 2].map(|()| service.call(get("/page")));
            let [first, second] = [first, second].map(|mut it| now(&mut it).into_body());
            *leaves.lock().unwrap() = Some(first);
            for number in 0..4 {
                feed.bytes(Bytes::from_owner(Leaving(
                    leaves.clone(),
                    vec![number; len],
                )));
                let Polled::Data(data) = frame(&mut leader) else {
                    panic!("a frame");
                };
                assert_eq!(data, vec![number; len]);
            }
            assert!(leaves.lock().unwrap().is_none());
            drop((leader, second));
            assert_idle(&handle);
        });
    }
}

#[test]
fn a_frame_that_was_kept_for_one_who_leaves_and_whose_drop_leaves_too_finds_no_lock_held() {
    within_a_minute(|| {
        let (mut service, mut origin, handle) = stack(&layer().max_body(15_000));
        let leaves = Arc::new(Mutex::new(None));
        let (feed, mut leader) = lone_leader(&mut service, &mut origin, None);
        let follower = now(&mut service.call(get("/page"))).into_body();
        for number in 0..4 {
            let data = Leaving(leaves.clone(), vec![number; 10_000]);
            feed.bytes(Bytes::from_owner(data));
            assert!(matches!(frame(&mut leader), Polled::Data(_)));
        }
        *leaves.lock().unwrap() = Some(leader);
        drop(follower);
        assert!(leaves.lock().unwrap().is_none() && feed.is_dropped());
        assert_idle(&handle);
    });
}

/// A body whose every poll asks the layer again.
struct Curious {
    service: Box<dyn FnMut() + Send>,
    left: usize,
}

impl Body for Curious {
    type Data = Bytes;
    type Error = tower::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, tower::BoxError>>> {
        (self.service)();
        let frame = self.left.checked_sub(1).map(|left| {
            self.left = left;
            Ok(http_body::Frame::data(Bytes::from_static(b"page")))
        });
        Poll::Ready(frame)
    }
}

#[test]
fn a_body_that_asks_for_its_own_key_finds_no_lock_held() {
    within_a_minute(|| {
        let layer = layer();
        let handle = layer.handle();
        let of = layer.clone();
        let mut service = layer.layer(service_fn(move |_: Req| {
            let mut again = of.layer(service_fn(|_: Req| {
                std::future::pending::<Result<Response<Mock>, tower::BoxError>>()
            }));
            let body = Curious {
                // Joins the flight that is pulling, and leaves it.
                service: Box::new(move || drop(again.call(get("/page")))),
                left: 3,
            };
            std::future::ready(Ok::<_, tower::BoxError>(Response::new(body)))
        }));
        let mut leader = service.call(get("/page"));
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(response) = std::pin::pin!(&mut leader).poll(&mut cx) else {
            panic!("no response");
        };
        let mut body = response.unwrap().into_body();
        let mut read = 0;
        while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut cx) {
            read += frame.unwrap().into_data().unwrap().len();
        }
        assert_eq!(read, 12);
        assert_eq!(handle.stats().joined, 4);
        assert_idle(&handle);
    });
}

#[tokio::test]
async fn a_follower_that_joins_while_the_body_is_polled_for_the_first_time_gets_all_of_it() {
    let layer = layer();
    let handle = layer.handle();
    let (asked, mut joined) = tokio::sync::mpsc::unbounded_channel();
    let of = layer.clone();
    let mut service = layer.layer(service_fn(move |_: Req| {
        let mut again = of.layer(service_fn(|_: Req| {
            std::future::pending::<Result<Response<Mock>, tower::BoxError>>()
        }));
        let asked = asked.clone();
        let body = Curious {
            service: Box::new(move || drop(asked.send(again.call(get("/page"))))),
            left: 1,
        };
        std::future::ready(Ok::<_, tower::BoxError>(Response::new(
            http_body_util::Limited::new(body, 4),
        )))
    }));
    let leader = service.call(get("/page")).await.unwrap();
    let leading = tokio::spawn(leader.into_body().collect());
    let follower = joined.recv().await.unwrap().await.unwrap();
    let body = follower.into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "page");
    assert_eq!(leading.await.unwrap().unwrap().to_bytes(), "page");
    joined.close();
    while joined.recv().await.is_some() {}
    assert_idle(&handle);
}

/// Reads on as soon as it is woken, on the very thread that wakes it.
struct Reads {
    body: Mutex<Option<ResponseBody<Mock>>>,
    got: Mutex<Vec<Bytes>>,
    again: AtomicBool,
}

impl Wake for Reads {
    fn wake(self: Arc<Self>) {
        self.again.store(true, Ordering::SeqCst);
        // Else it is woken by its own poll, which looks again.
        if let Ok(mut body) = self.body.try_lock() {
            let waker = Waker::from(self.clone());
            while self.again.swap(false, Ordering::SeqCst) {
                let Some(body) = &mut *body else {
                    return;
                };
                let mut cx = Context::from_waker(&waker);
                while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut *body).poll_frame(&mut cx) {
                    self.got.lock().unwrap().push(frame.into_data().unwrap());
                }
            }
        }
    }
}

/// Without a runtime, in a window, the source is pulled by whoever is polled. Here a follower asks for more while the
/// leader is pulling, at the moment in which it has just decided that nobody does; and the leader is not polled again.
#[test]
fn a_reader_that_asks_while_another_pulls_is_heard() {
    let (mut service, mut origin, handle) = stack(&layer().max_body(4));
    let (feed, mut leader) = lone_leader(&mut service, &mut origin, None);
    let follower = Arc::new(Reads {
        body: Mutex::new(Some(now(&mut service.call(get("/page"))).into_body())),
        got: Mutex::default(),
        again: AtomicBool::new(false),
    });
    // Outgrown at once, so nothing is pulled ahead any more.
    feed.send("abcabc");
    assert_eq!(frame(&mut leader), data("abcabc"));
    follower.clone().wake();
    assert_eq!((handle.in_flight(), feed.pulled()), (0, 1));

    // The leader pulls; that wakes the follower, who reads and asks; the leader puts the work back only then.
    feed.send_quietly("def");
    assert_eq!(frame(&mut leader), data("def"));
    assert_eq!(*follower.got.lock().unwrap(), ["abcabc", "def"]);
    feed.send("ghi");
    assert_eq!(*follower.got.lock().unwrap(), ["abcabc", "def", "ghi"]);
    drop((leader, follower.body.lock().unwrap().take()));
    assert_idle(&handle);
}

/// The verdict of one flight moves followers to another, which may decide for them before they have sat down there.
#[test]
fn a_follower_that_is_moved_to_a_flight_that_decides_at_once_reads_that_flight() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for _ in 0..2_000 {
            let layer = SingleflightLayer::with_key(tower_singleflight::method_and_uri);
            let handle = layer.handle();
            let service = layer.layer(service_fn(|request: Req| async move {
                let coding = request.headers()["accept-encoding"].clone();
                if coding == "gzip" {
                    tokio::task::yield_now().await;
                }
                let body = Mock::of(&coding);
                let head = Response::builder()
                    .header("vary", "accept-encoding")
                    .header("content-encoding", coding);
                Ok::<_, tower::BoxError>(head.body(body).unwrap())
            }));
            let mut requests = Vec::new();
            for coding in ["gzip", "br", "br", "br", "zstd", "zstd"] {
                let mut request = get("/page");
                let headers = request.headers_mut();
                headers.insert("accept-encoding", coding.parse().unwrap());
                let call = service.clone().call(request);
                requests.push(tokio::spawn(async move {
                    let response = call.await.unwrap();
                    assert_eq!(response.headers()["content-encoding"], coding);
                    let body = response.into_body().collect().await.unwrap().to_bytes();
                    assert_eq!(body, coding);
                }));
            }
            for request in requests {
                request.await.unwrap();
            }
            assert_idle(&handle);
        }
    });
}

/// A key whose clone panics on demand.
#[derive(PartialEq, Eq, Hash)]
struct Fragile;

static BREAKS: AtomicBool = AtomicBool::new(false);

impl Clone for Fragile {
    fn clone(&self) -> Self {
        assert!(!BREAKS.load(Ordering::SeqCst), "cloned");
        Self
    }
}

#[tokio::test]
async fn a_key_that_panics_while_a_follower_is_moved_leaves_nobody_waiting() {
    let layer = SingleflightLayer::with_key(|_: &http::request::Parts| Some(Fragile));
    let (mut service, mut origin, handle) = stack(&layer);
    let coded = |coding: &'static str| {
        let mut request = get("/page");
        let headers = request.headers_mut();
        headers.insert("accept-encoding", coding.parse().unwrap());
        request
    };
    let leader = tokio::spawn(service.call(coded("gzip")));
    settle().await;
    let moved = tokio::spawn(service.call(coded("br")));
    let other = tokio::spawn(service.call(coded("br")));
    settle().await;
    assert_eq!(handle.stats().waiters, 3);
    let head = Response::builder().header("vary", "accept-encoding");
    BREAKS.store(true, Ordering::SeqCst);
    let feed = origin.call().begin_with(head, SizeHint::new());
    settle().await;
    BREAKS.store(false, Ordering::SeqCst);
    feed.send("page");
    feed.end();
    let leader = leader.await.unwrap().unwrap();
    let page = leader.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(page, "page");
    // Those who could not be moved make their own calls.
    assert_eq!(origin.count(), 3);
    for own in [moved, other] {
        let answer = Response::new(ready(&["own"], SizeHint::new()));
        origin.call().answer(answer);
        assert!(own.await.unwrap().is_ok());
    }
    assert_idle(&handle);
}

/// A mebibyte, byte by byte without a pause until somebody is known to have joined, and the rest at once.
struct Hurried {
    joined: Arc<AtomicBool>,
    begun: Arc<AtomicBool>,
    left: usize,
}

impl Body for Hurried {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        self.begun.store(true, Ordering::Release);
        let len = match self.joined.load(Ordering::Acquire) {
            true => self.left,
            false => self.left.min(1),
        };
        self.left -= len;
        let frame = http_body::Frame::data(Bytes::from_static(&[b'x'; 1 << 20]).slice(..len));
        Poll::Ready((len > 0).then_some(Ok(frame)))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}

/// No code of a user's runs between the task's two looks, at the callers and at whether they share, so no gate can hold
/// them apart: only many rounds find one that joins in between. Such a task pauses, and nobody wakes it.
#[test]
fn one_who_joins_a_kept_flight_while_its_task_looks_who_is_there_is_not_overlooked() {
    let rounds = || {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).build().unwrap();
        let _entered = runtime.enter();
        for round in 0..100 {
            let (joined, begun) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
            let flags = (joined.clone(), begun.clone());
            let layer = layer().finish_abandoned(true);
            let handle = layer.handle();
            let mut service = layer.layer(service_fn(move |_: Req| {
                let (joined, begun) = flags.clone();
                let left = 1 << 20;
                let body = Hurried {
                    joined,
                    begun,
                    left,
                };
                std::future::ready(Ok::<_, BoxError>(Response::new(body)))
            }));
            drop(service.call(get("/page")));
            while !begun.load(Ordering::Acquire) {
                thread::yield_now();
            }
            for _ in 0..round % 64 {
                std::hint::spin_loop();
            }
            let follower = service.call(get("/page"));
            joined.store(true, Ordering::Release);
            runtime.block_on(async {
                let body = follower.await.unwrap().into_body();
                assert_eq!(body.collect().await.unwrap().to_bytes().len(), 1 << 20);
            });
            assert_idle(&handle);
        }
    };
    // A hundred at a time, since a machine that is busy takes a minute for all.
    for _ in 0..30 {
        within_a_minute(rounds);
    }
}

/// Lets the tasks of `runtime` run while it is polled outside.
struct Lets {
    runtime: Arc<Runtime>,
    pending: bool,
}

impl Body for Lets {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        if Handle::try_current().is_err() {
            self.runtime.block_on(settle());
        }
        match std::mem::take(&mut self.pending) {
            true => Poll::Pending,
            false => Poll::Ready(None),
        }
    }
}

/// Outside Tokio a follower drives a call that is to be finished without callers, and is moved to its variant. It was
/// the last one, so a task takes over, which finds the work in the follower's hands.
#[test]
fn a_task_that_takes_over_from_a_follower_that_is_moved_goes_on_when_that_has_polled() {
    for pending in [true, false] {
        let runtime = Builder::new_current_thread().build().unwrap();
        let runtime = Arc::new(runtime);
        let layer = layer().finish_abandoned(true);
        let handle = layer.handle();
        let within = Arc::clone(&runtime);
        let mut service = layer.layer(service_fn(move |_: Req| {
            let runtime = Arc::clone(&within);
            let response = Response::builder().header("vary", "accept-encoding");
            let response = response.body(Lets { runtime, pending }).unwrap();
            std::future::ready(Ok::<_, BoxError>(response))
        }));
        let coded = |coding: &'static str| {
            let mut request = get("/page");
            let headers = request.headers_mut();
            headers.insert("accept-encoding", coding.parse().unwrap());
            request
        };
        let mut leads = service.clone();
        // In a task, so that its runtime is known once it is polled, and it never is.
        let leads = async move { [leads.call(coded("gzip"))] };
        let leader = runtime.block_on(async { tokio::spawn(leads).await.unwrap() });
        let mut follower = service.call(coded("br"));
        drop(leader);
        let own = now(&mut follower);
        assert_eq!(own.extensions().get(), Some(&Role::Forwarded));
        let left = runtime.block_on(async {
            settle().await;
            tasks()
        });
        assert_eq!((left, handle.in_flight()), (0, 1));
        drop(own);
        assert_idle(&handle);
    }
}
