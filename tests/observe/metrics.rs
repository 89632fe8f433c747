//! The `metrics` feature: what is counted, and that every gauge comes back to nothing.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use http_body_util::BodyExt;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tower::{Layer, Service};
use tower_singleflight::SingleflightLayer;

use crate::support::{
    Origin, assert_idle,
    body::{self, assert_pending, body, data, frame, key, layer, now, stack},
    get, hush, poll_once, read, request, settle,
};

/// The sum of a metric's values with a label, since the last look: a snapshot takes what it shows.
fn value(snapshotter: &Snapshotter, name: &str, label: &str) -> f64 {
    let snapshot = snapshotter.snapshot().into_vec();
    let matching = snapshot.into_iter().filter(|(key, ..)| {
        let mut labels = key.key().labels();
        key.key().name() == name && (label.is_empty() || labels.any(|other| other.value() == label))
    });
    let values = matching.map(|(.., value)| match value {
        DebugValue::Counter(count) => count as f64,
        DebugValue::Gauge(gauge) => gauge.into_inner(),
        DebugValue::Histogram(values) => values.iter().map(|value| value.into_inner()).sum(),
    });
    values.sum()
}

#[tokio::test]
async fn requests_are_counted_by_role_and_reason() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let origin = Origin::page();
    let mut service = SingleflightLayer::new().layer(origin.clone());
    origin.admit(2);
    let (first, second) = (service.call(get("/")), service.call(get("/")));
    let _ = tokio::join!(first, second);
    let post = request("POST", "/", &[]);
    service.call(post).await.unwrap();
    let snapshot = snapshotter.snapshot().into_vec();
    let count = |label: &str| {
        let found = snapshot.iter().find(|(key, ..)| {
            key.key().name() == "singleflight_requests_total"
                && key.key().labels().any(|other| other.value() == label)
        });
        found.map(|(.., value)| matches!(value, DebugValue::Counter(1)))
    };
    assert_eq!(
        [
            count("leader"),
            count("follower"),
            count("bypassed"),
            count("method")
        ],
        [Some(true); 4]
    );
}

/// A gauge's way up and down, as the recorder saw it.
fn gauge_over(name: &str, steps: impl FnOnce(&dyn Fn())) -> Vec<f64> {
    gauge_with(name, |_, look| steps(look))
}

/// As `gauge_over`, for steps on threads that have yet to be told of the recorder.
fn gauge_with(name: &str, steps: impl FnOnce(&DebuggingRecorder, &dyn Fn())) -> Vec<f64> {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let seen = std::cell::RefCell::new(vec![0.0]);
    metrics::with_local_recorder(&recorder, || {
        steps(&recorder, &|| {
            let change = value(&snapshotter, name, "");
            let mut seen = seen.borrow_mut();
            let last = seen[seen.len() - 1];
            seen.push(last + change);
        });
    });
    seen.into_inner()
}

fn two_callers(look: &dyn Fn()) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let origin = Origin::page();
        let mut service = SingleflightLayer::new().layer(origin.clone());
        let (first, second) = (service.call(get("/")), service.call(get("/")));
        look();
        origin.admit(1);
        let (first, second) = tokio::join!(first, second);
        look();
        for response in [first, second] {
            response.unwrap().into_body().collect().await.unwrap();
        }
    });
    drop(runtime);
    look();
}

#[test]
fn the_gauge_of_waiters_rises_with_callers_and_falls_to_nothing() {
    assert_eq!(
        gauge_over("singleflight_waiters", two_callers),
        [0.0, 2.0, 2.0, 0.0]
    );
}

/// A recorder of one gauge, and the highest that it was.
struct Highest(Arc<(AtomicI64, AtomicI64)>);

impl metrics::GaugeFn for Highest {
    fn increment(&self, value: f64) {
        let now = self.0.0.fetch_add(value as i64, Ordering::SeqCst) + value as i64;
        self.0.1.fetch_max(now, Ordering::SeqCst);
    }
    fn decrement(&self, value: f64) {
        self.0.0.fetch_sub(value as i64, Ordering::SeqCst);
    }
    fn set(&self, _: f64) {}
}

impl metrics::Recorder for Highest {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        match key.name() {
            "singleflight_waiters" => Gauge::from_arc(Arc::new(Self(Arc::clone(&self.0)))),
            _ => Gauge::noop(),
        }
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn a_leader_is_never_counted_twice_however_its_flight_is_touched() {
    let highest = Highest(Arc::default());
    metrics::with_local_recorder(&highest, || {
        // It streams its body, is forgotten and goes, or is forgotten and polled again.
        for (streams, forgotten) in [(true, false), (true, true), (false, true)] {
            let (mut service, mut origin, handle) = stack(&layer());
            let mut call = service.call(get("/page"));
            assert!(poll_once(&mut call).is_pending());
            if forgotten {
                assert!(handle.forget(&key()));
            }
            if streams {
                let _feed = origin.call().begin();
                assert!(poll_once(&mut call).is_ready());
            }
            drop(call);
            assert_idle(&handle);
        }
    });
    let (now, highest) = &*highest.0;
    assert_eq!(
        (now.load(Ordering::SeqCst), highest.load(Ordering::SeqCst)),
        (0, 1)
    );
}

#[test]
fn the_gauge_of_flights_falls_when_the_last_byte_has_come() {
    assert_eq!(
        gauge_over("singleflight_flights", two_callers),
        [0.0, 1.0, 0.0, 0.0]
    );
}

#[test]
fn the_gauge_of_buffered_bytes_falls_to_nothing() {
    assert_eq!(
        gauge_over("singleflight_buffered_bytes", two_callers),
        [0.0, 0.0, 4.0, 0.0]
    );
}

#[test]
fn the_gauge_of_buffered_bytes_is_what_the_handle_says_of_a_window() {
    let held = std::cell::RefCell::new(vec![0.0]);
    let seen = gauge_over("singleflight_buffered_bytes", |look| {
        let (mut service, mut calls, handle) = stack(&layer().max_body(9));
        let look = || {
            look();
            let bytes = handle.stats().buffered_bytes;
            held.borrow_mut().push(bytes as f64);
        };
        let mut leader = service.call(get("/page"));
        assert!(poll_once(&mut leader).is_pending());
        let feed = calls.call().begin();
        let mut leader = now(&mut leader).into_body();
        for _ in 0..8 {
            feed.send("page");
            assert_eq!(frame(&mut leader), data("page"));
            look();
        }
        drop(leader);
        look();
    });
    assert!(seen.contains(&8.0), "{seen:?}");
    assert_eq!(seen, held.into_inner());
}

#[test]
fn the_gauge_of_flights_falls_to_nothing_behind_a_call_that_panicked() {
    hush("a call that panics");
    let seen = gauge_over("singleflight_flights", |look| {
        let service = tower::service_fn(|_| -> std::future::Ready<Result<_, tower::BoxError>> {
            let none: Option<http::Response<body::Mock>> = None;
            std::future::ready(none.ok_or_else(|| panic!("a call that panics")))
        });
        let mut service = layer().layer(service);
        let call = std::panic::AssertUnwindSafe(|| poll_once(&mut service.call(get("/page"))));
        assert!(std::panic::catch_unwind(call).is_err());
        look();
    });
    assert_eq!(seen, [0.0, 0.0]);
}

#[cfg(feature = "redis")]
#[test]
fn the_gauge_of_flights_falls_to_nothing_behind_a_key_that_panics_when_it_is_written_for_replicas()
{
    hush("a key that panics");
    let seen = gauge_over("singleflight_flights", |look| {
        let replicas = tower_singleflight::Replicas::redis("redis://127.0.0.1:1").unwrap();
        let replicas = replicas.namespace("gauge").secret([7; 32]);
        let layer = layer().replicas_by(replicas, |_, _| panic!("a key that panics"));
        let (mut service, ..) = stack(&layer);
        let call = std::panic::AssertUnwindSafe(|| poll_once(&mut service.call(get("/page"))));
        assert!(std::panic::catch_unwind(call).is_err());
        assert_idle(&layer.handle());
        look();
    });
    assert_eq!(seen, [0.0, 0.0]);
}

/// One thread charges for a frame, and another gives it back.
#[test]
fn the_gauge_of_buffered_bytes_falls_to_nothing_behind_a_body_that_panicked() {
    hush("a body that panics");
    let seen = gauge_with("singleflight_buffered_bytes", |recorder, look| {
        let (mut service, mut calls, handle) = stack(&layer());
        let (mut leader, follower) = (service.call(get("/page")), service.call(get("/page")));
        let (feed, body) = body(http_body::SizeHint::new());
        feed.send("page");
        feed.panic("a body that panics");
        calls.call().answer(http::Response::new(body));
        let polled = std::thread::scope(|scope| {
            let poll =
                || metrics::with_local_recorder(recorder, || poll_once(&mut leader).is_ready());
            scope.spawn(poll).join()
        });
        assert!(polled.is_err(), "the leader gets the panic");
        look();
        drop((leader, follower));
        look();
        assert_idle(&handle);
    });
    assert_eq!(seen, [0.0, 4.0, 0.0]);
}

#[tokio::test]
async fn a_flights_callers_are_recorded_at_its_end() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let origin = Origin::page();
    origin.admit(1);
    let mut service = SingleflightLayer::new().layer(origin.clone());
    let calls = (0..5)
        .map(|_| tokio::spawn(service.call(get("/"))))
        .collect::<Vec<_>>();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(value(&snapshotter, "singleflight_callers", ""), 5.0);
}

/// One caller for gzip and ten for br: two calls, of eleven callers and of ten.
#[tokio::test]
async fn who_is_moved_to_the_flight_of_its_variant_is_recorded_as_its_caller() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let (service, mut calls, handle) = stack(&layer());
    let ask = |coding: &'static [u8]| {
        let request = request("GET", "/page", &[("accept-encoding", coding)]);
        tokio::spawn(service.clone().call(request))
    };
    let all: Vec<_> = std::iter::once(ask(b"gzip"))
        .chain((0..10).map(|_| ask(b"br")))
        .collect();
    settle().await;
    for _ in 0..2 {
        let head = http::Response::builder().header("vary", "accept-encoding");
        calls
            .call()
            .begin_with(head, http_body::SizeHint::new())
            .end();
        settle().await;
    }
    for response in all {
        response.await.unwrap().unwrap();
    }
    assert_idle(&handle);
    assert_eq!(value(&snapshotter, "singleflight_callers", ""), 21.0);
}

/// Two were moved to the flight of their variant, and one comes who leads it before they are polled.
#[tokio::test]
async fn who_leads_a_flight_that_waited_for_a_leader_is_recorded_with_those_who_waited() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let (mut service, mut origin, handle) = stack(&layer());
    let mut ask = |coding: &'static [u8]| {
        service.call(request("GET", "/page", &[("accept-encoding", coding)]))
    };
    let mut answer = || {
        let head = http::Response::builder().header("vary", "accept-encoding");
        let feed = origin.call().begin_with(head, http_body::SizeHint::new());
        feed.end();
    };
    let mut first = ask(b"gzip");
    assert_pending(&mut first);
    let moved = [ask(b"br"), ask(b"br")];
    answer();
    settle().await;
    let mut late = ask(b"br");
    assert_pending(&mut late);
    answer();
    settle().await;
    let [second, third] = moved;
    for mut call in [first, second, third, late] {
        read(now(&mut call)).await;
    }
    assert_idle(&handle);
    assert_eq!(value(&snapshotter, "singleflight_callers", ""), 6.0);
}

#[tokio::test]
async fn a_request_that_is_sent_on_counts_with_its_reason() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let origin = Origin::page_with("set-cookie", "a=b");
    origin.admit(2);
    let mut service = SingleflightLayer::new().layer(origin.clone());
    let (first, second) = (service.call(get("/")), service.call(get("/")));
    let _ = tokio::join!(first, second);
    assert_eq!(
        value(&snapshotter, "singleflight_requests_total", "unshareable"),
        1.0
    );
}

thread_local! {
    /// What the recorder does while it is told of a gauge, once.
    static ASKS: std::cell::RefCell<Option<Box<dyn FnOnce()>>> = const { std::cell::RefCell::new(None) };
}

/// Turns to the layer for the very flight that it is told of. It listens to the gauge of this name.
struct Curious(&'static str);

impl metrics::Recorder for Curious {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        if key.name() == self.0 {
            if let Some(ask) = ASKS.with(|asks| asks.borrow_mut().take()) {
                ask();
            }
        }
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// The first of a variant's flight leaves without having led it, and while it does another begins to.
#[tokio::test]
async fn who_leads_while_the_first_of_its_flight_leaves_reads_the_whole_body() {
    use std::{cell::RefCell, rc::Rc};
    let recorder = Curious("singleflight_waiters");
    let _recording = metrics::set_default_local_recorder(&recorder);
    let (mut service, mut calls, handle) = stack(&layer());
    let mut ask = |coding| service.call(request("GET", "/page", &[("accept-encoding", coding)]));
    let gzip = ask(b"gzip".as_slice());
    let (first, second) = (ask(b"br"), Rc::new(RefCell::new(ask(b"br"))));
    let varies = http::Response::builder().header("vary", "accept-encoding");
    let _gzip = calls.call().begin_with(varies, http_body::SizeHint::new());
    settle().await;
    let leads = Rc::clone(&second);
    ASKS.set(Some(Box::new(move || {
        crate::support::body::assert_pending(&mut *leads.borrow_mut());
    })));
    drop(first);
    assert!(ASKS.take().is_none(), "it was never told");
    let feed = calls.call().begin_known(4);
    feed.send("page");
    feed.end();
    let second = Rc::into_inner(second).unwrap().into_inner();
    let response = second.await.unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "page");
    drop(gzip);
    assert_idle(&handle);
}

#[test]
fn a_recorder_is_told_of_bytes_under_no_lock() {
    let layer = SingleflightLayer::new();
    let handle = layer.handle();
    let (sender, answered) = std::sync::mpsc::channel();
    // On a thread of its own: under the flight's lock the call would never come back.
    std::thread::spawn(move || {
        metrics::with_local_recorder(&Curious("singleflight_buffered_bytes"), || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            runtime.block_on(async {
                let origin = Origin::page();
                let mut service = layer.layer(origin.clone());
                let (first, second) = (service.call(get("/")), service.call(get("/")));
                let mut again = service.clone();
                ASKS.set(Some(Box::new(move || drop(again.call(get("/"))))));
                origin.admit(2);
                let _ = tokio::join!(first, second);
            });
        });
        assert!(ASKS.take().is_none(), "it was never told");
        sender.send(()).unwrap();
    });
    let answered = answered.recv_timeout(std::time::Duration::from_secs(20));
    answered.expect("the recorder is called under a lock");
    assert_eq!(
        (
            handle.stats().led + handle.stats().joined,
            handle.in_flight()
        ),
        (3, 0)
    );
}

/// The labels and the value of a metric, for each of its series.
fn series(recorder: &Snapshotter, name: &str) -> Vec<(Vec<(String, String)>, DebugValue)> {
    let snapshot = recorder.snapshot().into_vec();
    let matching = snapshot
        .into_iter()
        .filter(|(key, ..)| key.key().name() == name);
    let labels = |key: &Key| {
        let labels = key.labels();
        let mut labels: Vec<_> = labels
            .map(|label| (label.key().to_owned(), label.value().to_owned()))
            .collect();
        labels.sort();
        labels
    };
    let mut series: Vec<_> = matching
        .map(|(key, .., value)| (labels(key.key()), value))
        .collect();
    series.sort_by(|a, b| a.0.cmp(&b.0));
    series
}

/// Two callers of each of two layers, and an audit, the bodies read to their ends.
fn two_layers(one: SingleflightLayer, two: SingleflightLayer) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        for layer in [one, two] {
            let origin = Origin::page();
            let mut service = layer.layer(origin.clone());
            let (first, second) = (service.call(get("/")), service.call(get("/")));
            origin.admit(1);
            let (first, second) = tokio::join!(first, second);
            for response in [first, second] {
                response.unwrap().into_body().collect().await.unwrap();
            }
            let post = request("POST", "/", &[]);
            origin.admit(1);
            service.call(post).await.unwrap();
            layer.handle().set_audit(1.0);
            let (first, audited) = (service.call(get("/")), service.call(get("/")));
            origin.admit(2);
            let (first, audited) = tokio::join!(first, audited);
            for response in [first, audited] {
                response.unwrap().into_body().collect().await.unwrap();
            }
            layer.handle().set_audit(0.0);
            assert_eq!(layer.handle().in_flight(), 0);
        }
    });
}

#[test]
fn every_metric_says_which_layer_it_is_of() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        two_layers(
            SingleflightLayer::new().name("reports"),
            SingleflightLayer::new(),
        );
    });
    let snapshot = snapshotter.snapshot().into_vec();
    let mut seen: Vec<_> = snapshot
        .iter()
        .map(|(key, ..)| {
            let mut labels = key.key().labels();
            let layer = labels.find(|label| label.key() == "layer");
            let layer = layer.map(|label| label.value().to_owned());
            (key.key().name().to_owned(), layer.expect("a layer"))
        })
        .collect();
    seen.sort();
    seen.dedup();
    let all = [
        "singleflight_audits_total",
        "singleflight_buffered_bytes",
        "singleflight_callers",
        "singleflight_flight_seconds",
        "singleflight_flights",
        "singleflight_requests_total",
        "singleflight_wait_seconds",
        "singleflight_waiters",
    ];
    let expected: Vec<_> = all
        .iter()
        .flat_map(|name| ["default", "reports"].map(|layer| ((*name).to_owned(), layer.to_owned())))
        .collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn bytes_are_given_back_under_the_name_of_the_layer_that_took_them() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let (one, two) = (
        SingleflightLayer::new().name("one"),
        SingleflightLayer::new().name("two"),
    );
    let _recording = metrics::set_default_local_recorder(&recorder);
    let origin = Origin::page();
    origin.admit(2);
    let mut bodies = Vec::new();
    for layer in [&one, &two] {
        let mut service = layer.layer(origin.clone());
        let (first, second) = (service.call(get("/")), service.call(get("/")));
        let (first, second) = tokio::join!(first, second);
        bodies.extend([first.unwrap(), second.unwrap()]);
    }
    let held = series(&snapshotter, "singleflight_buffered_bytes");
    let gauge = |name: &str, bytes: f64| {
        (
            vec![("layer".to_owned(), name.to_owned())],
            DebugValue::Gauge(bytes.into()),
        )
    };
    assert_eq!(held, [gauge("one", 4.0), gauge("two", 4.0)]);
    // Both are given back on this thread, mixed.
    drop(bodies);
    let held = series(&snapshotter, "singleflight_buffered_bytes");
    let all = held.iter().map(|(_, value)| match value {
        DebugValue::Gauge(bytes) => bytes.into_inner(),
        other => panic!("{other:?} is no gauge"),
    });
    assert_eq!(all.collect::<Vec<_>>(), [-4.0, -4.0]);
    assert_eq!((one.handle().in_flight(), two.handle().in_flight()), (0, 0));
}

/// The guide has a row for a metric of this name and unit.
pub(crate) fn assert_documented(name: &str, unit: Unit) {
    let guide = include_str!("../../src/guide/observability.md");
    let kind = match name.rsplit('_').next() {
        Some("total") => "counter",
        Some("seconds" | "callers") => "histogram",
        _ => "gauge",
    };
    let row = format!("| `{name}` | {kind} | {} |", unit.as_str());
    assert!(guide.contains(&row), "the guide has no {row}");
}

/// Every recorder learns once what the metrics are: one that is installed late, or for a thread alone, too.
#[test]
fn every_metric_is_described_with_its_unit() {
    for _ in 0..2 {
        let recorder = Box::new(DebuggingRecorder::new());
        let snapshotter = recorder.snapshotter();
        metrics::with_local_recorder(&*recorder, || {
            two_layers(SingleflightLayer::new(), SingleflightLayer::new());
        });
        let snapshot = snapshotter.snapshot().into_vec();
        let mut seen = std::collections::BTreeSet::new();
        for (key, unit, help, _) in snapshot {
            let name = key.key().name().to_owned();
            let expected = match name.rsplit('_').next() {
                Some("seconds") => Unit::Seconds,
                Some("bytes") => Unit::Bytes,
                _ => Unit::Count,
            };
            assert_eq!(unit, Some(expected), "{name}");
            assert!(help.is_some_and(|help| help.len() > 20), "{name}");
            assert_documented(&name, expected);
            seen.insert(name);
        }
        assert_eq!(seen.len(), 8, "{seen:?}");
        // Kept, so that the next one lies elsewhere.
        Box::leak(recorder);
    }
}

#[tokio::test(start_paused = true)]
async fn a_flight_counts_for_as_long_as_it_lasts() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let origin = Origin::page();
    let mut service = SingleflightLayer::new().layer(origin.clone());
    let call = service.call(get("/"));
    tokio::time::advance(std::time::Duration::from_millis(1500)).await;
    origin.admit(1);
    call.await.unwrap();
    assert_eq!(value(&snapshotter, "singleflight_flight_seconds", ""), 1.5);
}

/// Counts how often it is told what a metric is.
#[derive(Default)]
struct Described(std::cell::RefCell<std::collections::BTreeMap<String, usize>>);

impl Described {
    fn count(&self, name: &KeyName) {
        let mut counts = self.0.borrow_mut();
        *counts.entry(name.as_str().to_owned()).or_default() += 1;
    }
}

impl metrics::Recorder for Described {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.count(&name);
    }
    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.count(&name);
    }
    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.count(&name);
    }
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn a_recorder_is_told_once_what_a_metric_is_however_many_layers_and_requests_there_are() {
    let recorder = Described::default();
    metrics::with_local_recorder(&recorder, || {
        for _ in 0..3 {
            two_layers(
                SingleflightLayer::new().name("reports"),
                SingleflightLayer::new(),
            );
        }
    });
    let counts = recorder.0.into_inner();
    assert_eq!(counts.len(), 8, "{counts:?}");
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
}
