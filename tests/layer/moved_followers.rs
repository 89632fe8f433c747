//! Followers that are moved to the flights of their own variants.

use std::{
    future::Future,
    hash::{Hash, Hasher},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, request};
use http_body::SizeHint;
use http_body_util::{BodyExt, Empty};
use tokio::task::JoinHandle;
use tower::Service;
use tower_singleflight::{Handle, Role, SingleflightLayer};

use crate::support::{
    Count, assert_idle,
    body::{self, Calls, Req, key, layer, now, stack},
    poll_once, poll_with, role, settle,
};

/// Stops who comes through, says so, and lets it go when it is told to.
struct Gate {
    came: mpsc::Sender<()>,
    may_go: Mutex<mpsc::Receiver<()>>,
}

/// The test's side of a gate.
struct Keeper {
    came: mpsc::Receiver<()>,
    may_go: mpsc::Sender<()>,
}

fn gate() -> (Arc<Gate>, Keeper) {
    let (came, has_come) = mpsc::channel();
    let (go, may_go) = mpsc::channel();
    let gate = Gate {
        came,
        may_go: Mutex::new(may_go),
    };
    let keeper = Keeper {
        came: has_come,
        may_go: go,
    };
    (Arc::new(gate), keeper)
}

impl Gate {
    fn pass(&self) {
        self.came.send(()).unwrap();
        self.may_go.lock().unwrap().recv().unwrap();
    }
}

impl Keeper {
    fn until_somebody_comes(&self) {
        self.came.recv().unwrap();
    }

    fn let_go(&self) {
        self.may_go.send(()).unwrap();
    }
}

/// A waker at whose drop is a gate.
struct Last(Arc<Gate>);

impl Wake for Last {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Last {
    fn drop(&mut self) {
        self.0.pass();
    }
}

/// The one key of all requests. The clone of this number stops at the gate.
struct Key {
    clones: Arc<AtomicUsize>,
    stops: usize,
    gate: Arc<Gate>,
}

impl Clone for Key {
    fn clone(&self) -> Self {
        if self.clones.fetch_add(1, Ordering::SeqCst) + 1 == self.stops {
            self.gate.pass();
        }
        Self {
            clones: Arc::clone(&self.clones),
            stops: self.stops,
            gate: Arc::clone(&self.gate),
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// A layer whose clone of a key with this number, which is made to move a follower, stops at the gate.
fn layer_that_stops(
    stops: usize,
    gate: Arc<Gate>,
) -> SingleflightLayer<impl Fn(&request::Parts) -> Option<Key> + Send + Sync + 'static> {
    let clones = Arc::new(AtomicUsize::new(0));
    SingleflightLayer::with_key(move |_| {
        Some(Key {
            clones: Arc::clone(&clones),
            stops,
            gate: Arc::clone(&gate),
        })
    })
}

/// Polls on a thread of its own: a poll that goes round and round is to fail the test, not to hang it.
fn poll_apart<F>(future: F) -> F
where
    F: Future + Send + Unpin + 'static,
{
    poll_apart_with(future, Waker::noop().clone())
}

fn poll_apart_with<F>(mut future: F, waker: Waker) -> F
where
    F: Future + Send + Unpin + 'static,
{
    let (send, polled) = mpsc::channel();
    let runtime = tokio::runtime::Handle::current();
    thread::spawn(move || {
        let _entered = runtime.enter();
        let poll = poll_with(&mut future, &waker);
        let _ = send.send((poll.is_pending(), future));
    });
    let polled = polled.recv_timeout(Duration::from_secs(20));
    let (is_pending, future) = polled.expect("the poll comes back");
    assert!(is_pending, "it is not moved yet");
    future
}

/// Lets the last caller, for whom a second call is made, have its response.
async fn answers_second_call<F>(call: F, origin: &mut Calls)
where
    F: Future<Output = Result<body::Copied, tower::BoxError>> + Send + 'static,
{
    let call = read(call);
    until_called(origin, 2).await;
    origin.call().answer(answer("br"));
    assert_eq!(call.await.unwrap(), (Role::Forwarded, Bytes::from("br")));
}

async fn until_called(origin: &Calls, times: usize) {
    while origin.count() < times {
        tokio::task::yield_now().await;
    }
}

/// Reads a response in a task.
fn read<F>(call: F) -> JoinHandle<(Role, Bytes)>
where
    F: Future<Output = Result<body::Copied, tower::BoxError>> + Send + 'static,
{
    tokio::spawn(async {
        let response = call.await.unwrap();
        let role = role(&response);
        let body = response.into_body().collect().await.unwrap();
        (role, body.to_bytes())
    })
}

fn asks_for(variant: &'static str) -> Req {
    Request::get("/page")
        .header("x-variant", variant)
        .body(Empty::new())
        .unwrap()
}

fn answer(variant: &'static str) -> Response<body::Mock> {
    let body = body::ready(&[variant], SizeHint::with_exact(variant.len() as u64));
    Response::builder()
        .header("vary", "x-variant")
        .body(body)
        .unwrap()
}

/// The verdict moves the follower while it is polled, and the poll comes back before the follower is anywhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_follower_that_is_moved_in_the_middle_of_its_poll_does_not_go_back() {
    let (moving, mover) = gate();
    // The first of the variant is moved by the first clone, and is to lead.
    let (mut service, mut origin, handle) = stack(&layer_that_stops(2, moving));
    let leader = service.call(asks_for("gzip"));
    let first = service.call(asks_for("br"));
    let mut second = service.call(asks_for("br"));

    let (dropping, dropper) = gate();
    let last = Waker::from(Arc::new(Last(dropping)));
    let poll = Pin::new(&mut second).poll(&mut Context::from_waker(&last));
    assert!(poll.is_pending());
    drop(last);
    // The flight drops its waker in exchange for another: so the second stops in its poll.
    let second = thread::spawn(move || {
        let poll = Pin::new(&mut second).poll(&mut Context::from_waker(Waker::noop()));
        assert!(poll.is_pending());
        second
    });
    dropper.until_somebody_comes();
    origin.call().answer(answer("gzip"));
    mover.until_somebody_comes();
    dropper.let_go();
    let second = second.join().unwrap();
    mover.let_go();

    // The first that is polled leads.
    let [leader, first] = [leader, first].map(read);
    until_called(&origin, 2).await;
    let second = read(second);
    origin.call().answer(answer("br"));
    assert_eq!(leader.await.unwrap(), (Role::Leader, Bytes::from("gzip")));
    assert_eq!(first.await.unwrap(), (Role::Forwarded, Bytes::from("br")));
    assert_eq!(second.await.unwrap(), (Role::Follower, Bytes::from("br")));
    assert_eq!(origin.count(), 2);
    assert_idle(&handle);
}

/// Else the flight of its variant might end before the others are there, who would need one more call.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_follower_does_not_lead_its_variant_before_all_others_have_moved() {
    let (moving, mover) = gate();
    let (mut service, mut origin, handle) = stack(&layer_that_stops(2, moving));
    let leader = service.call(asks_for("gzip"));
    let first = service.call(asks_for("br"));
    let second = service.call(asks_for("br"));
    origin.call().answer(answer("gzip"));
    mover.until_somebody_comes();
    let first = poll_apart(first);
    assert_eq!(origin.count(), 1);
    mover.let_go();
    answers_second_call(first, &mut origin).await;
    drop((leader, second));
    assert_idle(&handle);
}

/// Its flight has no callers any more, so it is cancelled while the verdict moves them.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_follower_that_is_polled_while_it_moves_from_a_flight_that_is_cancelled_waits() {
    let (moving, mover) = gate();
    let (mut service, mut origin, handle) = stack(&layer_that_stops(1, moving));
    let leader = service.call(asks_for("gzip"));
    let follower = service.call(asks_for("br"));
    drop(leader);
    origin.call().answer(answer("gzip"));
    mover.until_somebody_comes();
    let woken = Count::new();
    let follower = poll_apart_with(follower, woken.waker());
    // There is no place for its waker.
    assert_eq!(woken.get(), 1);
    mover.let_go();
    answers_second_call(follower, &mut origin).await;
    assert_idle(&handle);
}

#[test]
fn a_follower_whose_time_is_up_while_it_moves_waits_until_it_has_moved() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).build().unwrap();
    let entered = runtime.enter();
    let (moving, mover) = gate();
    let layer = layer_that_stops(1, moving).wait_timeout(Duration::from_nanos(1));
    let (mut service, mut origin, handle) = stack(&layer);
    let leader = service.call(asks_for("gzip"));
    let follower = service.call(asks_for("br"));
    origin.call().answer(answer("gzip"));
    mover.until_somebody_comes();
    // While the worker stands at the gate, somebody else must watch the time.
    let mut clock = tokio::runtime::Builder::new_current_thread();
    let clock = clock.enable_time().build().unwrap();
    let timed = clock.enter();
    let follower = poll_apart(follower);
    clock.block_on(tokio::time::sleep(Duration::from_millis(2)));
    // Its time is up.
    let follower = poll_apart(follower);
    drop(timed);
    mover.let_go();
    runtime.block_on(answers_second_call(follower, &mut origin));
    drop(leader);
    assert_idle(&handle);
    drop(entered);
}

/// In a request's extensions. Panics when it is dropped, once it is armed.
#[derive(Clone)]
struct Bomb(Arc<AtomicBool>);

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0.swap(false, Ordering::SeqCst) {
            std::panic::resume_unwind(Box::new("a request that panics when it is dropped"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_follower_that_leaves_while_it_moves_and_panics_with_that_keeps_nobody_from_moving() {
    let (moving, mover) = gate();
    let (mut service, mut origin, handle) = stack(&layer_that_stops(1, moving));
    let leader = service.call(asks_for("gzip"));
    let armed = Arc::new(AtomicBool::new(false));
    let mut request = asks_for("br");
    request.extensions_mut().insert(Bomb(Arc::clone(&armed)));
    let leaves = service.call(request);
    let follower = service.call(asks_for("br"));
    origin.call().answer(answer("gzip"));
    mover.until_somebody_comes();
    // Its request is in the verdict's hands.
    drop(leaves);
    armed.store(true, Ordering::SeqCst);
    mover.let_go();
    let got = read(leader).await.unwrap();
    assert_eq!(got, (Role::Leader, Bytes::from("gzip")));
    assert!(!armed.load(Ordering::SeqCst), "it has panicked");
    answers_second_call(follower, &mut origin).await;
    assert_idle(&handle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn one_who_joins_in_the_place_of_a_follower_that_has_left_while_it_moved_stays() {
    let (moving, mover) = gate();
    let (mut service, mut origin, handle) = stack(&layer_that_stops(1, moving));
    let leader = service.call(asks_for("gzip"));
    let leaves = service.call(asks_for("br"));
    origin.call().answer(answer("gzip"));
    mover.until_somebody_comes();
    drop(leaves);
    let newcomer = service.call(asks_for("gzip"));
    mover.let_go();
    for (call, role) in [(leader, Role::Leader), (newcomer, Role::Follower)] {
        assert_eq!(read(call).await.unwrap(), (role, Bytes::from("gzip")));
    }
    assert_eq!(origin.count(), 1);
    assert_idle(&handle);
}

#[tokio::test]
async fn a_follower_that_is_moved_to_the_flight_of_a_parked_leader_gets_its_response() {
    for audit in [0.0, 1.0] {
        is_moved_to_the_flight_of_a_parked_leader(audit).await;
    }
}

/// Whoever is moved is not audited.
async fn is_moved_to_the_flight_of_a_parked_leader(audit: f64) {
    let (mut service, mut origin, handle) = stack(&layer());
    let leader = service.call(asks_for("gzip"));
    let moved = service.call(asks_for("br"));
    let gzip = origin.call();
    assert!(handle.forget(&key()));
    let mut parked = service.call(asks_for("br"));
    assert!(poll_once(&mut parked).is_pending());
    let head = Response::builder().header("vary", "x-variant");
    let feed = origin.call().begin_with(head, SizeHint::new());
    let parked = now(&mut parked);
    handle.set_audit(audit);
    gzip.answer(answer("gzip"));
    let (leader, moved) = (read(leader), read(moved));
    settle().await;
    feed.send("br");
    feed.end();
    settle().await;
    assert!(moved.is_finished(), "it waits for its leader");
    assert_eq!(moved.await.unwrap(), (Role::Follower, Bytes::from("br")));
    assert_eq!(leader.await.unwrap(), (Role::Leader, Bytes::from("gzip")));
    assert_eq!(origin.count(), 2);
    drop(parked);
    assert_idle(&handle);
}

#[tokio::test]
async fn a_follower_that_was_moved_gets_the_response_of_one_who_leads_it_and_is_parked() {
    let (mut service, mut origin, handle) = stack(&layer());
    let leader = read(service.call(asks_for("gzip")));
    let moved = service.call(asks_for("br"));
    origin.call().answer(answer("gzip"));
    settle().await;
    assert_eq!(leader.await.unwrap(), (Role::Leader, Bytes::from("gzip")));
    let parked = service.call(asks_for("br"));
    let moved = read(moved);
    origin.call().answer(answer("br"));
    settle().await;
    assert!(moved.is_finished(), "it waits for its leader");
    assert_eq!(moved.await.unwrap(), (Role::Follower, Bytes::from("br")));
    assert_eq!(origin.count(), 2);
    drop(parked);
    assert_idle(&handle);
}

#[tokio::test]
async fn of_two_who_were_moved_the_second_leads_if_the_first_has_left() {
    let (mut service, mut origin, handle) = stack(&layer());
    let leader = read(service.call(asks_for("gzip")));
    let first = service.call(asks_for("br"));
    let second = service.call(asks_for("br"));
    origin.call().answer(answer("gzip"));
    settle().await;
    drop(first);
    let second = read(second);
    settle().await;
    origin.call().answer(answer("br"));
    assert_eq!(leader.await.unwrap(), (Role::Leader, Bytes::from("gzip")));
    assert_eq!(second.await.unwrap(), (Role::Forwarded, Bytes::from("br")));
    assert_eq!(origin.count(), 2);
    assert_idle(&handle);
}

/// Without a runtime the follower polls the flight that it is moved out of, and then the other.
#[test]
fn a_follower_that_is_moved_by_its_own_poll_is_woken_by_the_flight_in_which_it_then_is() {
    let (mut service, mut origin, handle) = stack(&layer());
    let leader = service.call(asks_for("gzip"));
    let mut moved = service.call(asks_for("br"));
    assert!(handle.forget(&key()));
    let parked = service.call(asks_for("br"));
    origin.call().answer(answer("gzip"));
    let woken = Count::new();
    assert!(poll_with(&mut moved, &woken.waker()).is_pending());
    woken.take();
    origin.call().answer(answer("br"));
    assert_eq!(woken.get(), 1);
    assert_eq!(role(&now(&mut moved)), Role::Follower);
    drop((leader, parked, moved));
    assert_idle(&handle);
}

#[tokio::test]
async fn whoever_is_moved_or_leads_the_moved_is_not_audited() {
    let (mut service, mut origin, handle) = stack(&layer());
    let leader = read(service.call(asks_for("gzip")));
    let moved = [(); 2].map(|()| service.call(asks_for("br")));
    handle.set_audit(1.0);
    origin.call().answer(answer("gzip"));
    settle().await;
    let newcomer = service.call(asks_for("br"));
    origin.call().answer(answer("br"));
    let moved = moved.map(read);
    for moved in moved {
        assert_eq!(moved.await.unwrap(), (Role::Follower, Bytes::from("br")));
    }
    assert_eq!(read(newcomer).await.unwrap().0, Role::Leader);
    assert_eq!(leader.await.unwrap().0, Role::Leader);
    assert_eq!((origin.count(), handle.stats().audited), (2, 0));
    assert_idle(&handle);
}

/// In a request's extensions. Asks the layer how it is when it is dropped.
#[derive(Clone)]
struct Asks(Handle<Key>);

impl Drop for Asks {
    fn drop(&mut self) {
        let _ = self.0.in_flight();
    }
}

#[test]
fn the_request_of_one_who_has_left_while_it_moved_is_dropped_under_no_lock() {
    let (done, is_done) = mpsc::channel();
    // A deadlock is to fail the test, not to hang it.
    thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).build().unwrap();
        let _entered = runtime.enter();
        let (moving, mover) = gate();
        let (mut service, mut origin, handle) = stack(&layer_that_stops(1, moving));
        let leader = service.call(asks_for("gzip"));
        let mut request = asks_for("br");
        request.extensions_mut().insert(Asks(handle.clone()));
        let leaves = service.call(request);
        origin.call().answer(answer("gzip"));
        mover.until_somebody_comes();
        drop(leaves);
        mover.let_go();
        let response = runtime.block_on(leader).unwrap();
        assert_eq!(role(&response), Role::Leader);
        drop(response);
        assert_idle(&handle);
        done.send(()).unwrap();
    });
    assert_eq!(is_done.recv_timeout(Duration::from_secs(20)), Ok(()));
}

#[tokio::test]
async fn who_leads_those_who_were_moved_reads_on_alone_when_they_have_left() {
    let (mut service, mut origin, handle) = stack(&layer().max_body(4));
    let leader = service.call(asks_for("gzip"));
    let moved = service.call(asks_for("br"));
    origin.call().answer(answer("gzip"));
    settle().await;
    let mut leads = service.call(asks_for("br"));
    let head = Response::builder().header("vary", "x-variant");
    let feed = origin.call().begin_with(head, SizeHint::new());
    settle().await;
    let mut body = now(&mut leads).into_body();
    drop((leader, moved));
    feed.send("a large page");
    settle().await;
    for page in ["a large page", "and more"] {
        let frame = poll_once(&mut body.frame());
        let Poll::Ready(Some(Ok(frame))) = frame else {
            panic!("{frame:?}")
        };
        assert_eq!(frame.into_data().unwrap(), page);
        feed.send("and more");
    }
    drop(body);
    assert!(feed.is_dropped());
    assert_idle(&handle);
}
