//! The `metrics` feature: what is counted, and that every gauge comes back to nothing.

use http_body_util::BodyExt;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tower::{Layer, Service};
use tower_singleflight::SingleflightLayer;

use crate::support::{Origin, get, request};

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

#[test]
fn requests_are_counted_by_role_and_reason() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let origin = Origin::page();
            let mut service = SingleflightLayer::new().layer(origin.clone());
            origin.admit(2);
            let (first, second) = (service.call(get("/")), service.call(get("/")));
            let _ = tokio::join!(first, second);
            let post = request("POST", "/", &[]);
            service.call(post).await.unwrap();
        });
    });
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
fn gauge_over(name: &str, mut steps: impl FnMut(&dyn Fn())) -> Vec<f64> {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let seen = std::cell::RefCell::new(vec![0.0]);
    metrics::with_local_recorder(&recorder, || {
        steps(&|| {
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
fn a_flights_callers_are_recorded_at_its_end() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let origin = Origin::page();
            origin.admit(1);
            let mut service = SingleflightLayer::new().layer(origin.clone());
            let calls = (0..5)
                .map(|_| tokio::spawn(service.call(get("/"))))
                .collect::<Vec<_>>();
            for call in calls {
                call.await.unwrap().unwrap();
            }
        });
    });
    assert_eq!(value(&snapshotter, "singleflight_callers", ""), 5.0);
}

#[test]
fn a_request_that_is_sent_on_counts_with_its_reason() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let origin = Origin::page_with("set-cookie", "a=b");
            origin.admit(2);
            let mut service = SingleflightLayer::new().layer(origin.clone());
            let (first, second) = (service.call(get("/")), service.call(get("/")));
            let _ = tokio::join!(first, second);
        });
    });
    assert_eq!(
        value(&snapshotter, "singleflight_requests_total", "unshareable"),
        1.0
    );
}

thread_local! {
    /// A call that the recorder makes while it is told of the buffered bytes, once.
    static ASKS: std::cell::RefCell<Option<Box<dyn FnOnce()>>> = const { std::cell::RefCell::new(None) };
}

/// Asks the layer for the very flight that it is told of.
struct Curious;

impl metrics::Recorder for Curious {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        if key.name() == "singleflight_buffered_bytes" {
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

#[test]
fn a_recorder_is_told_of_bytes_under_no_lock() {
    let layer = SingleflightLayer::new();
    let handle = layer.handle();
    let (sender, answered) = std::sync::mpsc::channel();
    // On a thread of its own: under the flight's lock the call would never come back.
    std::thread::spawn(move || {
        metrics::with_local_recorder(&Curious, || {
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
