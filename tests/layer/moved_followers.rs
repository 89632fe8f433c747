//! A follower that is moved to its own variant's flight in the middle of its poll.

use std::{
    future::Future,
    hash::{Hash, Hasher},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Wake, Waker},
    thread,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::SizeHint;
use http_body_util::{BodyExt, Empty};
use tower::Service;
use tower_singleflight::{Role, SingleflightLayer};

use crate::support::{
    assert_idle,
    body::{self, Req, stack},
    role,
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
#[test]
fn a_follower_that_is_moved_in_the_middle_of_its_poll_does_not_go_back() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).build().unwrap();
    let entered = runtime.enter();

    let (moving, mover) = gate();
    // The first of the variant is moved by the first clone, and is to lead.
    let (clones, stops) = (Arc::new(AtomicUsize::new(0)), 2);
    let layer = SingleflightLayer::with_key(move |_| {
        Some(Key {
            clones: Arc::clone(&clones),
            stops,
            gate: Arc::clone(&moving),
        })
    });
    let (mut service, mut origin, handle) = stack(&layer);
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

    runtime.block_on(async {
        // The first that is polled leads.
        let [leader, first] = [leader, first].map(tokio::spawn);
        while origin.count() < 2 {
            tokio::task::yield_now().await;
        }
        let second = tokio::spawn(second);
        origin.call().answer(answer("br"));
        for (call, variant, part) in [
            (leader, "gzip", Role::Leader),
            (first, "br", Role::Forwarded),
            (second, "br", Role::Follower),
        ] {
            let response = call.await.unwrap().unwrap();
            assert_eq!(role(&response), part);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, Bytes::from(variant));
        }
    });
    assert_eq!(origin.count(), 2);
    assert_idle(&handle);
    drop(entered);
}
