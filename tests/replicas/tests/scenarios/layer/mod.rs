//! A layer across four replicas. They lie in one process; each has a connection and a part in the protocol of its own.
//!
//! `.ci/run` runs these always, so a scenario that takes longer than a second belongs to `layer_long`.

pub(crate) mod bursts;
mod costs;
mod forgetting;
mod leaving;
mod refused;
mod secrecy;
mod store_fails;

use std::{
    collections::BTreeSet,
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use replicas_tests::Settings;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tower::{ServiceExt, util::BoxCloneSyncService};
use tower_layer::Layer;
use tower_singleflight::{
    Handle, KeyExtractor, ReplicaStats, RequestKey, RequestKeyExtractor, ResponseBody, Role,
    SingleflightLayer,
};

use crate::{LONG, ms};

type Service = BoxCloneSyncService<Request<String>, Response<ResponseBody<OriginBody>>, Infallible>;

/// What the origin says to a request, the so-manieth call.
pub(crate) type Says = fn(usize, &Request<String>) -> Response<Bytes>;

pub(crate) struct Fleet {
    pub(crate) nodes: Vec<Node>,
    pub(crate) origin: Arc<Origin>,
}

#[derive(Clone)]
pub(crate) struct Node {
    service: Service,
    pub(crate) handle: Handle<RequestKey>,
}

/// What all replicas call.
pub(crate) struct Origin {
    says: Says,
    takes: Takes,
    running: AtomicUsize,
    /// A call, and when its body was dropped, which is after its flight has ended.
    ended: Mutex<Vec<Option<Instant>>>,
}

/// How long a call takes.
pub(crate) enum Takes {
    Time(Duration),
    /// Until this is open.
    Gate(watch::Sender<bool>),
}

/// The body of one call.
pub(crate) struct OriginBody {
    data: Full<Bytes>,
    call: usize,
    origin: Arc<Origin>,
}

struct Running(Arc<Origin>);

/// A response that has been read.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) role: Role,
    pub(crate) head: response::Parts,
    pub(crate) body: Bytes,
    pub(crate) call: usize,
    pub(crate) asked: Instant,
    pub(crate) took: Duration,
}

// ===== impl Takes =====

impl Takes {
    pub(crate) fn gate() -> Self {
        Self::Gate(watch::Sender::new(false))
    }
}

// ===== impl Origin =====

impl Origin {
    pub(crate) fn new(takes: Takes, says: Says) -> Arc<Self> {
        Arc::new(Self {
            says,
            takes,
            running: AtomicUsize::new(0),
            ended: Mutex::default(),
        })
    }

    async fn call(self: Arc<Self>, request: Request<String>) -> Response<OriginBody> {
        let call = {
            let mut ended = self.ended.lock().expect("no panic");
            ended.push(None);
            ended.len() - 1
        };
        self.running.fetch_add(1, Ordering::SeqCst);
        let running = Running(Arc::clone(&self));
        match &self.takes {
            Takes::Time(Duration::ZERO) => {}
            Takes::Time(takes) => sleep(*takes).await,
            Takes::Gate(gate) => {
                let _ = gate.subscribe().wait_for(|is_open| *is_open).await;
            }
        }
        drop(running);
        let mut response = (self.says)(call, &request);
        response.headers_mut().insert("x-call", call.into());
        response.map(|data| OriginBody {
            data: data.into(),
            call,
            origin: self,
        })
    }

    pub(crate) fn calls(&self) -> usize {
        self.ended.lock().expect("no panic").len()
    }

    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    pub(crate) fn ended(&self, call: usize) -> Option<Instant> {
        self.ended.lock().expect("no panic")[call]
    }

    /// Ends the calls that wait for it, and lets later ones wait again.
    pub(crate) fn open(&self) {
        let Takes::Gate(gate) = &self.takes else {
            panic!("calls take a time");
        };
        gate.send_replace(true);
    }

    pub(crate) fn shut(&self) {
        let Takes::Gate(gate) = &self.takes else {
            panic!("calls take a time");
        };
        gate.send_replace(false);
    }

    pub(crate) async fn calls_reach(&self, calls: usize) {
        let deadline = Instant::now() + LONG;
        while self.calls() < calls {
            assert!(
                Instant::now() < deadline,
                "{} calls of {calls}",
                self.calls()
            );
            sleep(ms(1)).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

// ===== impl OriginBody =====

impl Body for OriginBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.data).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.data.size_hint()
    }
}

impl Drop for OriginBody {
    fn drop(&mut self) {
        let mut ended = self.origin.ended.lock().expect("no panic");
        ended[self.call] = Some(Instant::now());
    }
}

// ===== impl Fleet =====

impl Fleet {
    /// Four replicas whose store is in use.
    pub(crate) async fn start(settings: &Settings, takes: Takes, says: Says) -> Self {
        let fleet = Self::launch(settings, takes, says);
        fleet.all_up_within(LONG).await;
        fleet
    }

    pub(crate) fn launch(settings: &Settings, takes: Takes, says: Says) -> Self {
        Self::of(&[Some(settings); 4], takes, says)
    }

    /// Four layers that know nothing of each other.
    pub(crate) fn local(takes: Takes, says: Says) -> Self {
        Self::of(&[None; 4], takes, says)
    }

    pub(crate) fn of(settings: &[Option<&Settings>], takes: Takes, says: Says) -> Self {
        let origin = Origin::new(takes, says);
        let nodes = settings
            .iter()
            .map(|settings| Node::new(*settings, &origin));
        Self {
            nodes: nodes.collect(),
            origin,
        }
    }

    pub(crate) async fn all_up_within(&self, time: Duration) {
        let deadline = Instant::now() + time;
        for node in &self.nodes {
            while !node.stats().is_up {
                assert!(
                    Instant::now() < deadline,
                    "the store is not in use after {time:?}"
                );
                sleep(ms(2)).await;
            }
        }
    }

    /// Requests at all replicas, `each` at each of them.
    pub(crate) fn ask(&self, each: usize, request: fn(usize) -> Request<String>) -> Asked {
        let nodes = self.nodes.iter().cycle();
        let asked = (0..each * self.nodes.len()).zip(nodes);
        Asked(
            asked
                .map(|(caller, node)| node.ask(request(caller)))
                .collect(),
        )
    }

    pub(crate) async fn burst(
        &self,
        each: usize,
        request: fn(usize) -> Request<String>,
    ) -> Vec<Got> {
        self.ask(each, request).got().await
    }

    /// As `burst`, with a gate that opens when all of them have joined one flight, and the leader has been told of them.
    pub(crate) async fn gated(
        &self,
        each: usize,
        request: fn(usize) -> Request<String>,
    ) -> Vec<Got> {
        let asked = self.ask(each, request);
        // A replica that follows is a caller of the flight that it follows.
        let all = self.nodes.len() * (each + 1) - 1;
        self.waiters_reach(&key_of(request(0)), all).await;
        // The last callers of each replica are announced within some milliseconds.
        sleep(ms(200)).await;
        self.origin.open();
        let got = asked.got().await;
        self.origin.shut();
        got
    }

    /// Waits until the flights have so many callers, a replica that follows counted where it does.
    pub(crate) async fn waiters_reach(&self, key: &RequestKey, all: usize) {
        let deadline = Instant::now() + LONG;
        loop {
            let waiters = self.nodes.iter().map(|node| node.handle.waiters(key));
            let waiters: usize = waiters.sum();
            if waiters == all {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{waiters} of {all} wait: {:?}",
                self.stats()
            );
            sleep(ms(2)).await;
        }
    }

    pub(crate) fn stats(&self) -> Vec<ReplicaStats> {
        self.nodes.iter().map(Node::stats).collect()
    }

    pub(crate) fn calls(&self) -> usize {
        self.origin.calls()
    }

    pub(crate) fn nothing_is_left(&self) {
        assert_eq!(self.origin.running(), 0);
        for node in &self.nodes {
            let stats = node.handle.stats();
            assert_eq!(
                (stats.in_flight, stats.waiters, stats.buffered_bytes),
                (0, 0, 0)
            );
        }
    }
}

// ===== impl Node =====

impl Node {
    fn new(settings: Option<&Settings>, origin: &Arc<Origin>) -> Self {
        let mut layer = SingleflightLayer::new();
        if let Some(settings) = settings {
            layer = layer.replicas(settings.replicas());
        }
        let origin = Arc::clone(origin);
        let inner = tower::service_fn(move |request| {
            let origin = Arc::clone(&origin);
            async move { Ok(origin.call(request).await) }
        });
        Self {
            service: BoxCloneSyncService::new(layer.layer(inner)),
            handle: layer.handle(),
        }
    }

    pub(crate) fn ask(&self, request: Request<String>) -> JoinHandle<Got> {
        let service = self.service.clone();
        tokio::spawn(async move {
            let asked = Instant::now();
            let response = service.oneshot(request).await.expect("infallible");
            let (head, body) = response.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            let took = asked.elapsed();
            let call = head.headers["x-call"].to_str().expect("a number");
            Got {
                role: *head.extensions.get().expect("a role"),
                call: call.parse().expect("a number"),
                head,
                body,
                asked,
                took,
            }
        })
    }

    pub(crate) fn stats(&self) -> ReplicaStats {
        self.handle.stats().replicas.expect("it has some")
    }
}

// ===== requests and responses =====

/// Callers that wait. They leave when this is dropped.
pub(crate) struct Asked(Vec<JoinHandle<Got>>);

impl Asked {
    pub(crate) async fn got(mut self) -> Vec<Got> {
        let mut all = Vec::new();
        for asked in self.0.drain(..) {
            let got = tokio::time::timeout(LONG, asked).await;
            all.push(got.expect("nobody hangs").expect("no panic"));
        }
        all
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

pub(crate) fn get(_: usize) -> Request<String> {
    at("/page")
}

pub(crate) fn at(path: &str) -> Request<String> {
    Request::get(format!("http://host{path}"))
        .body(String::new())
        .expect("a request")
}

/// A request of one of two user agents, both of which are at each replica; at half of them the other one asks first.
pub(crate) fn with_agent(caller: usize) -> Request<String> {
    let mut request = get(caller);
    let agent = HeaderValue::from_static(["one", "two"][(caller / 4 + caller) % 2]);
    request.headers_mut().insert("user-agent", agent);
    request
}

pub(crate) fn key_of(request: Request<String>) -> RequestKey {
    let (parts, _) = request.into_parts();
    RequestKeyExtractor::new().extract(&parts).expect("a key")
}

/// A page of 100 kB, which goes by the store.
pub(crate) fn page(call: usize, _: &Request<String>) -> Response<Bytes> {
    Response::new(vec![call as u8; 100_000].into())
}

pub(crate) fn short(call: usize, _: &Request<String>) -> Response<Bytes> {
    Response::new(call.to_string().into())
}

/// A response that varies by the user agent, and says which.
pub(crate) fn by_agent(_: usize, request: &Request<String>) -> Response<Bytes> {
    let agent = &request.headers()["user-agent"];
    let mut response = Response::new(Bytes::copy_from_slice(agent.as_bytes()));
    let vary = HeaderValue::from_static("user-agent");
    response.headers_mut().insert("vary", vary);
    response
}

pub(crate) fn count(all: &[Got], role: Role) -> usize {
    all.iter().filter(|got| got.role == role).count()
}

/// How many calls those made whose responses these are.
pub(crate) fn made(all: &[Got]) -> usize {
    all.iter()
        .map(|got| got.call)
        .collect::<BTreeSet<_>>()
        .len()
}

/// The time within which that many of a hundred have their response.
pub(crate) fn percentile(all: &[Got], of_hundred: usize) -> Duration {
    let mut times: Vec<_> = all.iter().map(|got| got.took).collect();
    times.sort();
    times[(times.len() * of_hundred / 100).min(times.len() - 1)]
}

pub(crate) fn slowest(all: &[Got]) -> Duration {
    percentile(all, 100)
}

/// One line of what was measured, shown with `--nocapture`.
pub(crate) fn show(what: &str, all: &[Got]) {
    eprintln!(
        "{what}: {} requests, {} calls, p50 {:?}, p99 {:?}, slowest {:?}",
        all.len(),
        made(all),
        percentile(all, 50),
        percentile(all, 99),
        slowest(all)
    );
}
