//! The layer over a service that is ready, beside the bare service.
//!
//! ```text
//! cargo bench -p benches --bench layer                    # everything, a minute
//! cargo bench -p benches --bench layer -- solo            # scenarios whose name holds the word
//! LAYER_TABLE=only cargo bench -p benches --bench layer   # the tables alone, without criterion
//! BENCH_JSON=FILE cargo bench -p benches --bench layer    # the tables also as JSON, which `benches/plot.py` draws
//! ```
//!
//! A request has 12 header fields, a response two and five bytes, which are read. First tables: the contestants take turns,
//! round by round, and what one costs over the bare service is the median of the rounds' differences. Allocations are
//! counted in the same calls. `Group` is there for scale. Then criterion's own measurements, one contestant after the other.
//!
//! `tower-resilience-coalesce` (0.14) is beside it where it can be: it clones whole responses, so it takes no body but one
//! that is `Clone` (`Full` here; neither axum's nor hyper's is). It looks at no field of a request or response and knows no
//! bypass, and its followers wake themselves until the leader has its answer (here they are not polled meanwhile). So
//! "solo" and "hot" under a bare key show what this layer's rules, copies and `Role` cost beside a table and a broadcast.
//!
//! "variants" are requests of one key to a service that answers with `Vary`. What one of N costs is to be the same for a
//! hundred and for 16,000 of them.

#![expect(
    clippy::disallowed_methods,
    reason = "what a bench reads is the real clock"
)]

#[expect(dead_code, reason = "who holds how many bytes is asked by `group`")]
mod counting;
mod polling;
mod results;
mod rounds;

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::{Future, poll_fn, ready},
    hint::black_box,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body;
use http_body_util::{Empty, Full};
use tokio::{
    runtime::{Builder, Runtime},
    sync::Semaphore,
};
use tower::{Layer, Service, service_fn, util::MapRequestLayer};
use tower_resilience_coalesce::CoalesceLayer;
use tower_singleflight::{Group, SingleflightLayer, method_and_uri};

use counting::counted;
use polling::{poll_to_end, waker};
use results::Results;
use rounds::{Scenario, TURN, median, median_of};

/// How many requests are made before the clock runs: so many are in the cache, as one that was just parsed is.
const BATCH: u64 = 32;

/// How many ask for one key at the same time.
const CALLERS: usize = 64;

/// What a browser sends.
const FIELDS: [(&str, &str); 12] = [
    ("host", "example.com"),
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    ),
    (
        "accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    ),
    ("accept-language", "en-US,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("referer", "https://example.com/articles"),
    (
        "cookie",
        "session=0123456789abcdef0123456789abcdef; theme=dark",
    ),
    ("upgrade-insecure-requests", "1"),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "same-origin"),
    ("x-request-id", "7b0a2c6e-1b7a-4f0e-9a77-0d6a4a3d9a01"),
];

const BARE: &str = "bare service";
const DEFAULT: &str = "tower-singleflight";
const METHOD_AND_URI: &str = "tower-singleflight, method_and_uri";
const COALESCE: &str = "tower-resilience-coalesce, method and URI";
const GROUP: &str = "Group, solo";
const KEYS: &str = "tower-singleflight, keys of their own";

fn request<B: Default>(method: &Method, number: u64) -> Request<B> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("/articles/{number}?page=2"));
    for (name, value) in FIELDS {
        request = request.header(name, value);
    }
    request.body(B::default()).expect("a request")
}

fn response() -> Response<Full<Bytes>> {
    Response::builder()
        .header("content-type", "text/plain")
        .header("content-length", "5")
        .body(Full::new(Bytes::from_static(b"hello")))
        .expect("a response")
}

/// What a contestant has allocated in its turns.
#[derive(Clone, Default)]
struct Tally(Rc<Cell<(u64, u64)>>);

impl Tally {
    /// Runs what makes so many `calls`, and says how long it took.
    fn note(&self, calls: u64, code: impl FnOnce()) -> Duration {
        let (took, allocated) = counted(|| {
            let start = Instant::now();
            code();
            start.elapsed()
        });
        let (sum, of) = self.0.get();
        self.0.set((sum + allocated.calls, of + calls));
        took
    }

    fn per_call(&self) -> f64 {
        let (sum, of) = self.0.get();
        sum as f64 / of as f64
    }
}

/// A scenario whose contestants' allocations are counted as well.
struct Counted {
    scenario: Scenario,
    tallies: Vec<Tally>,
}

impl Counted {
    fn new(name: &str) -> Self {
        Self {
            scenario: Scenario::new(name),
            tallies: Vec::new(),
        }
    }

    fn with<T>(mut self, name: &'static str, timed: impl FnOnce(Tally) -> T) -> Self
    where
        T: FnMut(u64) -> Duration + 'static,
    {
        let tally = Tally::default();
        self.scenario = self.scenario.with(name, timed(tally.clone()));
        self.tallies.push(tally);
        self
    }
}

// ===== one caller =====

/// Calls, and reads the body; nothing here waits for anybody.
fn exchange<S, Req, B>(service: &mut S, request: Req, waker: &Waker)
where
    S: Service<Req, Response = Response<B>>,
    B: Body,
{
    let mut cx = Context::from_waker(waker);
    assert!(service.poll_ready(&mut cx).is_ready());
    let Poll::Ready(Ok(response)) = pin!(service.call(request)).poll(&mut cx) else {
        panic!("the service is ready");
    };
    let (head, body) = response.into_parts();
    let mut body = pin!(body);
    while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(&mut cx) {
        black_box(&frame.ok());
    }
    black_box(&head);
}

fn alone<S, ReqBody, B>(
    mut service: S,
    method: Method,
) -> impl FnOnce(Tally) -> Box<dyn FnMut(u64) -> Duration>
where
    S: Service<Request<ReqBody>, Response = Response<B>> + 'static,
    ReqBody: Default + 'static,
    B: Body,
{
    move |tally| {
        let (waker, mut number) = (waker(), 0);
        let mut requests: Vec<Request<ReqBody>> = Vec::new();
        Box::new(move |calls| {
            let mut sum = Duration::ZERO;
            let mut left = calls;
            while left > 0 {
                let batch = left.min(BATCH);
                requests.extend((0..batch).map(|turn| request(&method, number + turn)));
                number += batch;
                sum += tally.note(batch, || {
                    for request in requests.drain(..) {
                        exchange(&mut service, request, &waker);
                    }
                });
                left -= batch;
            }
            sum
        })
    }
}

fn group_alone(tally: Tally) -> impl FnMut(u64) -> Duration {
    let (group, waker, mut key) = (Group::new(), waker(), 0_u64);
    move |calls| {
        tally.note(calls, || {
            for _ in 0..calls {
                key += 1;
                let value = key;
                black_box(poll_to_end(group.run(key, move || ready(value)), &waker));
            }
        })
    }
}

fn origin<ReqBody>() -> impl Service<
    Request<ReqBody>,
    Response = Response<Full<Bytes>>,
    Error = Infallible,
    Future: Send + 'static,
> + Clone
+ Send
+ 'static
where
    ReqBody: Send + 'static,
{
    service_fn(|_: Request<ReqBody>| ready(Ok::<_, Infallible>(response())))
}

fn coalesced_key<B>(request: &Request<B>) -> (Method, http::Uri) {
    (request.method().clone(), request.uri().clone())
}

fn solo() -> Counted {
    let peer = CoalesceLayer::new(coalesced_key::<Empty<Bytes>>);
    Counted::new("solo")
        .with(BARE, alone(origin::<Empty<Bytes>>(), Method::GET))
        .with(GROUP, group_alone)
        .with(
            DEFAULT,
            alone(
                SingleflightLayer::new().layer(origin::<Empty<Bytes>>()),
                Method::GET,
            ),
        )
        .with(
            METHOD_AND_URI,
            alone(
                SingleflightLayer::with_key(method_and_uri).layer(origin::<Empty<Bytes>>()),
                Method::GET,
            ),
        )
        .with(
            COALESCE,
            alone(peer.layer(origin::<Empty<Bytes>>()), Method::GET),
        )
}

fn bypassed() -> Counted {
    let layered = || SingleflightLayer::new().layer(origin::<Empty<Bytes>>());
    let off = SingleflightLayer::new();
    off.handle().set_enabled(false);
    Counted::new("bypassed")
        .with(BARE, alone(origin::<Empty<Bytes>>(), Method::OPTIONS))
        .with(GROUP, group_alone)
        .with(
            "tower-singleflight, OPTIONS",
            alone(layered(), Method::OPTIONS),
        )
        .with(
            "tower-singleflight, POST that writes",
            alone(layered(), Method::POST),
        )
        .with(
            "tower-singleflight, switched off",
            alone(off.layer(origin::<Empty<Bytes>>()), Method::GET),
        )
}

/// What the same costs beside a framework's own work.
fn over_axum() -> Counted {
    let router = || {
        axum::Router::new().route(
            "/articles/{number}",
            axum::routing::get(|| async { "hello" }),
        )
    };
    let idle = router().layer(MapRequestLayer::new(|request| request));
    let layered = router().layer(SingleflightLayer::new());
    Counted::new("axum's Router, solo")
        .with(BARE, alone::<_, axum::body::Body, _>(router(), Method::GET))
        .with(GROUP, group_alone)
        .with(
            "a layer that does nothing",
            alone::<_, axum::body::Body, _>(idle, Method::GET),
        )
        .with(
            DEFAULT,
            alone::<_, axum::body::Body, _>(layered, Method::GET),
        )
}

// ===== many callers of one key =====

/// A service that answers when its gate is opened.
fn gated(
    gate: Arc<Semaphore>,
) -> impl Service<
    Request<Empty<Bytes>>,
    Response = Response<Full<Bytes>>,
    Error = Infallible,
    Future: Send + 'static,
> + Clone
+ Send
+ 'static {
    service_fn(move |_| {
        let gate = Arc::clone(&gate);
        async move {
            let _permit = gate.acquire().await;
            Ok(response())
        }
    })
}

/// Calls, and polls once.
async fn begun<S, B>(service: &mut S, request: Request<Empty<Bytes>>) -> Pin<Box<S::Future>>
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>>,
{
    poll_fn(|cx| service.poll_ready(cx)).await.ok();
    let mut call = Box::pin(service.call(request));
    pending(&mut call).await;
    call
}

/// Polls once what is not ready yet.
async fn pending<F: Future + Unpin>(call: &mut F) {
    poll_fn(|cx| {
        assert!(Pin::new(&mut *call).poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

/// Reads the response to the end.
async fn finished<B: Body, E>(response: Result<Response<B>, E>) {
    let Ok(response) = response else {
        panic!("the service does not fail");
    };
    let (head, body) = response.into_parts();
    let mut body = pin!(body);
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        black_box(&frame.ok());
    }
    black_box(&head);
}

/// All ask before the gate opens; then each reads its response to the end.
async fn herd<S, B>(
    service: &mut S,
    requests: impl Iterator<Item = Request<Empty<Bytes>>>,
    gate: &Semaphore,
    calls: &mut Vec<Pin<Box<S::Future>>>,
) where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>>,
    B: Body,
{
    for request in requests {
        calls.push(begun(service, request).await);
    }
    gate.add_permits(1);
    for call in calls.drain(..) {
        finished(call.await).await;
    }
    gate.forget_permits(1);
}

fn together<S, B>(
    mut service: S,
    gate: Arc<Semaphore>,
) -> impl FnOnce(Tally) -> Box<dyn FnMut(u64) -> Duration>
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>> + 'static,
    B: Body,
{
    move |tally| {
        let runtime: Runtime = Builder::new_current_thread().build().expect("a runtime");
        let requests = RefCell::new(Vec::new());
        let mut calls = Vec::new();
        Box::new(move |callers| {
            let mut sum = Duration::ZERO;
            for _ in 0..callers.div_ceil(CALLERS as u64) {
                let mut requests = requests.borrow_mut();
                requests.extend((0..CALLERS).map(|_| request(&Method::GET, 0)));
                sum += tally.note(CALLERS as u64, || {
                    runtime.block_on(herd(&mut service, requests.drain(..), &gate, &mut calls));
                });
            }
            sum
        })
    }
}

fn hot() -> Counted {
    let gate = || Arc::new(Semaphore::new(0));
    let (bare, default, bare_key, peers) = (gate(), gate(), gate(), gate());
    let peer = CoalesceLayer::new(coalesced_key::<Empty<Bytes>>);
    let mut hot = Counted::new("hot, 64 callers of one key")
        .with(BARE, together(gated(bare.clone()), bare))
        .with(GROUP, group_alone)
        .with(
            DEFAULT,
            together(
                SingleflightLayer::new().layer(gated(default.clone())),
                default,
            ),
        )
        .with(
            METHOD_AND_URI,
            together(
                SingleflightLayer::with_key(method_and_uri).layer(gated(bare_key.clone())),
                bare_key,
            ),
        )
        .with(COALESCE, together(peer.layer(gated(peers.clone())), peers));
    hot.scenario = hot.scenario.turn(2 * TURN);
    hot
}

// ===== variants of one key =====

/// Requests of one key, which differ in a field that the response's `Vary` names; or of a key for each.
#[derive(Clone, Copy)]
enum Kind {
    Keys,
    Variants,
}

impl Kind {
    fn request(self, number: u64) -> Request<Empty<Bytes>> {
        match self {
            Self::Keys => request(&Method::GET, number),
            Self::Variants => {
                let mut request = request(&Method::GET, 0);
                let agent = format!("agent {number}").parse().expect("a value");
                request.headers_mut().insert("user-agent", agent);
                request
            }
        }
    }

    /// Each waits for a permit, and then for the gate.
    fn service(
        self,
        gate: Arc<Semaphore>,
    ) -> impl Service<
        Request<Empty<Bytes>>,
        Response = Response<Full<Bytes>>,
        Error = Infallible,
        Future: Send + 'static,
    > + Clone
    + Send
    + 'static {
        service_fn(move |_| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.expect("the gate stays").forget();
                let mut response = response();
                if let Self::Variants = self {
                    let vary = http::HeaderValue::from_static("user-agent");
                    response.headers_mut().insert("vary", vary);
                }
                Ok(response)
            }
        })
    }
}

/// `others` requests wait, and then their responses come: what each costs from there on.
fn answered(kind: Kind, others: u64) -> impl FnMut(u64) -> Duration {
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    move |calls| {
        let mut sum = Duration::ZERO;
        let rounds = calls.div_ceil(others);
        for _ in 0..rounds {
            let gate = Arc::new(Semaphore::new(0));
            let mut service = SingleflightLayer::new().layer(kind.service(gate.clone()));
            runtime.block_on(async {
                let mut waiting = Vec::new();
                for number in 0..others {
                    waiting.push(begun(&mut service, kind.request(number)).await);
                }
                let start = Instant::now();
                gate.add_permits(Semaphore::MAX_PERMITS / 2);
                for call in waiting {
                    finished(call.await).await;
                }
                sum += start.elapsed();
            });
        }
        // In proportion, where `others` does not divide `calls` evenly.
        sum.mul_f64(calls as f64 / (rounds * others) as f64)
    }
}

/// `others` callers have flights of their own, by their keys or by their variants: what a newcomer costs that has one of
/// its own too, and leaves.
fn newcomer(kind: Kind, others: u64) -> impl FnMut(u64) -> Duration {
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let gate = Arc::new(Semaphore::new(0));
    let mut service = SingleflightLayer::new().layer(kind.service(gate.clone()));
    let (mut held, mut number) = (None, others);
    move |calls| {
        runtime.block_on(async {
            if held.is_none() {
                let mut waiting = Vec::new();
                for number in 0..others {
                    waiting.push(begun(&mut service, kind.request(number)).await);
                }
                // The first response says by what it varies.
                gate.add_permits(1);
                let first = waiting.swap_remove(0).await;
                for call in &mut waiting {
                    pending(call).await;
                }
                held = Some((first, waiting));
            }
            let start = Instant::now();
            for _ in 0..calls {
                number += 1;
                drop(begun(&mut service, kind.request(number)).await);
            }
            start.elapsed()
        })
    }
}

fn variants() -> Vec<Scenario> {
    let of = |others| {
        [
            Scenario::new(format!("variants, each of {others} that wait"))
                .with(KEYS, answered(Kind::Keys, others))
                .with(DEFAULT, answered(Kind::Variants, others)),
            Scenario::new(format!("variants, a newcomer beside {others}"))
                .with(KEYS, newcomer(Kind::Keys, others))
                .with(DEFAULT, newcomer(Kind::Variants, others)),
        ]
    };
    [100, 1_600, 16_000].into_iter().flat_map(of).collect()
}

// ===== the tables =====

fn scenarios() -> Vec<Counted> {
    vec![solo(), bypassed(), hot(), over_axum()]
}

/// The bare service comes first, `Group` second.
fn print_table(counted: &mut Counted, results: &mut Results) {
    println!("\n## {}\n", counted.scenario.name);
    println!(
        "| contestant | ns per call | allocations per call | ns over bare | allocations over bare | x Group, solo |"
    );
    println!("| --- | --: | --: | --: | --: | --: |");
    let times = counted.scenario.take_turns();
    let bare = counted.tallies[0].per_call();
    for (index, (name, _)) in counted.scenario.contestants.iter().enumerate() {
        let (own, allocations) = (&times[index], counted.tallies[index].per_call());
        let scenario = &counted.scenario.name;
        results.timed(scenario, name, own, &times[0]);
        let what = format!("allocations per call, {scenario}");
        results.counted(name, &[(&what, allocations)]);
        print!("| {name} | {:.0} | {allocations:.2} ", median(own.clone()),);
        if *name == BARE || *name == GROUP {
            println!("| | | |");
            continue;
        }
        let over: Vec<_> = own
            .iter()
            .zip(&times[0])
            .map(|(own, bare)| own - bare)
            .collect();
        println!(
            "| {:.0} | {:.2} | {:.1} |",
            median(over.clone()),
            allocations - bare,
            median_of(&over, &times[1], |over, group| over / group),
        );
    }
}

fn print_variants(scenario: &mut Scenario, results: &mut Results) {
    println!("\n## {}\n", scenario.name);
    println!("| contestant | ns per call | x keys of their own |");
    println!("| --- | --: | --: |");
    let times = scenario.take_turns();
    for ((name, _), own) in scenario.contestants.iter().zip(&times) {
        results.timed(&scenario.name, name, own, &times[0]);
        let ratio = median_of(own, &times[0], |own, keys| own / keys);
        println!("| {name} | {:.0} | {ratio:.2} |", median(own.clone()));
    }
}

fn main() {
    let tables = |filter: &str| {
        let mut results = Results::new("layer", &["axum", "tokio", "tower-resilience-coalesce"]);
        for mut counted in scenarios() {
            if counted.scenario.name.contains(filter) {
                print_table(&mut counted, &mut results);
            }
        }
        for mut scenario in variants() {
            if scenario.name.contains(filter) {
                print_variants(&mut scenario, &mut results);
            }
        }
        results.write();
    };
    let plain = || {
        let counted = scenarios().into_iter().map(|counted| counted.scenario);
        counted.chain(variants()).collect()
    };
    rounds::run("LAYER_TABLE", tables, plain);
}
