//! The layer over a service that is ready, beside the bare service.
//!
//! ```text
//! cargo bench --bench layer                    # everything, half a minute
//! cargo bench --bench layer -- solo            # scenarios whose name holds the word
//! LAYER_TABLE=only cargo bench --bench layer   # the tables alone, without criterion
//! BENCH_JSON=FILE cargo bench --bench layer    # the tables also as JSON, which `benches/plot.py` draws
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
//! # Targets that are not met, and the profile that shows why
//!
//! 4 cores of an AMD EPYC, Rust 1.95, other builds running beside; `callgrind` (instructions, and by address those that are
//! locked) and `perf` on the loop of "solo" and of "bypassed".
//!
//! **Solo, at most 5 allocations over the bare service: 6.** Three are the `Role` in the response's extensions: the map, its
//! box, the value's box. Two are the flight and the work in it. The sixth is what the work and its
//! leader have in common, whose type the table can't name: the response on its way to the leader, and the request's
//! fields that a `Vary` may ask for.
//!
//! **Solo, at most 6 x `Group`'s: 9 to 10 x, 860 to 985 ns** (6.5 to 8 x with `method_and_uri`), by the build and the
//! process. `Group`'s own call took 118 to 141 ns when the target was set, and takes 87 to 105 now that its flights are
//! [solo](../src/group/solo.rs); the layer's are not. Of 9,600 instructions (12,910 at first):
//!
//! | instructions | for |
//! | --: | --- |
//! | 3,130 | the key: 12 fields looked at (1,600), those that count packed (610), HighwayHash (570), the target |
//! | 1,230 | a copy of the fields in which identical requests may differ, for `Vary` |
//! | 1,500 | the flight: entered, launched, polled, landed, dropped |
//! | 1,090 | the verdict: the response's fields in three passes, its length, its one frame |
//! | 800 | `Role`: inserted, dropped |
//! | 530 | the target's write stamps, the key's hash for the table |
//! | 450 | moves of the request, the response and the work between the layer's futures |
//!
//! The rest is below 250 each. 40 instructions are locked, at 5.5 ns; the flight itself has 14. The other 26: the counts of
//! `Shared` (2), of the gauges and the budget (4), of the flight (4), of the leader's desk (4) and of the URI (2), the
//! desk's lock (4), the exchange's (2), the gauges themselves (3), and one look whether the desk is still its maker's alone.
//! Without the key or without the copy for `Vary` the target would be met, and somebody given another's answer.
//!
//! **Bypassed, at most 100 ns and no allocation: 102 to 130 ns, 3 allocations.** All three are `Role`'s, which every
//! response has: 800 of the 1,650 instructions, some 70 ns. What is left is a counter, and the request and the response
//! moved apart and together again.
//!
//! Over axum's `Router` there are 11 allocations; three are those of any layer, and the body is boxed into axum's.

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
        poll_fn(|cx| service.poll_ready(cx)).await.ok();
        let mut call = Box::pin(service.call(request));
        poll_fn(|cx| {
            assert!(call.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        calls.push(call);
    }
    gate.add_permits(1);
    for call in calls.drain(..) {
        let Ok(response) = call.await else {
            panic!("the service does not fail");
        };
        let (head, body) = response.into_parts();
        let mut body = pin!(body);
        while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            black_box(&frame.ok());
        }
        black_box(&head);
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

fn main() {
    let tables = |filter: &str| {
        let mut results = Results::new("layer", &["axum", "tokio", "tower-resilience-coalesce"]);
        for mut counted in scenarios() {
            if counted.scenario.name.contains(filter) {
                print_table(&mut counted, &mut results);
            }
        }
        results.write();
    };
    let plain = || {
        let scenarios = scenarios().into_iter();
        scenarios.map(|counted| counted.scenario).collect()
    };
    rounds::run("LAYER_TABLE", tables, plain);
}
