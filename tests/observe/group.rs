//! What a named `Group` tells, and that one without a name tells nothing.

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tower_singleflight::Group;
use tracing::Level;

use super::tracing::Capture;

fn run<F: Future<Output = ()>>(work: impl FnOnce() -> F) -> (Capture, Snapshotter) {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let capture = Capture::default();
    let _guard = capture.install();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(work());
    });
    (capture, snapshotter)
}

/// Name, labels in the order of their names, and a number.
fn values(snapshotter: &Snapshotter) -> Vec<String> {
    let snapshot = snapshotter.snapshot().into_vec();
    let mut values: Vec<_> = snapshot
        .into_iter()
        .map(|(key, unit, help, value)| {
            assert!(help.is_some(), "{key:?} has no description");
            super::metrics::assert_documented(key.key().name(), unit.expect("a unit"));
            let mut labels: Vec<_> = key
                .key()
                .labels()
                .map(|label| format!("{}={}", label.key(), label.value()))
                .collect();
            labels.sort();
            let value = match value {
                DebugValue::Counter(count) => count.to_string(),
                DebugValue::Gauge(gauge) => gauge.to_string(),
                DebugValue::Histogram(values) => format!("{} values", values.len()),
            };
            let name = key.key().name();
            format!("{name} {labels:?} {value}")
        })
        .collect();
    values.sort();
    values
}

#[test]
fn a_named_group_counts_its_callers_and_flights_and_has_a_span_for_each() {
    let group: Group<&str, u32> = Group::new().name("articles");
    let clone = group.clone();
    let (capture, snapshotter) = run(|| async {
        let work = || async {
            tracing::info!(target: "tower_singleflight::test", "works");
            tokio::task::yield_now().await;
            1
        };
        let (first, second) = (group.run("secret", work), clone.run("secret", work));
        let (first, second) = tokio::join!(first, second);
        assert!(first.led && !second.led);
        assert_eq!(group.spawn("8", work).await.value, 1);
    });
    let values = values(&snapshotter);
    let starts = [
        "singleflight_group_calls_total",
        "singleflight_group_calls_total",
        "singleflight_group_flight_seconds",
        "singleflight_group_flights",
    ];
    assert_eq!(values.len(), starts.len(), "{values:?}");
    for (value, start) in values.iter().zip(starts) {
        assert!(value.starts_with(start), "{value}");
        assert!(
            value.contains("group") && value.contains("articles"),
            "{value}"
        );
    }
    assert!(
        values[0].contains("follower") && values[0].ends_with(" 1"),
        "{values:?}"
    );
    assert!(
        values[1].contains("leader") && values[1].ends_with(" 2"),
        "{values:?}"
    );
    assert!(values[2].ends_with(" 2 values"), "{values:?}");
    assert!(values[3].ends_with(" 0"), "{values:?}");

    let told = capture.told();
    let ours: Vec<_> = told
        .iter()
        .filter(|(target, ..)| *target == "tower_singleflight::Group")
        .collect();
    // Two spans, two endings, one that joined; and the work told of itself twice.
    assert_eq!((ours.len(), told.len()), (5, 7), "{told:?}");
    for (_, _, fields) in ours {
        assert!(fields.contains("group=\"articles\" "), "{fields}");
        assert!(!fields.contains("secret"), "a key is shown: {fields}");
    }
    assert_eq!(capture.spans_of("works"), ["singleflight"; 2]);
    let (level, fields) = capture.event("landed").unwrap();
    assert_eq!(level, Level::DEBUG);
    assert!(fields.contains("duration="), "{fields}");
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn a_named_group_says_whether_a_flight_was_cancelled_or_panicked() {
    let group: Group<&str, u32> = Group::new().name("articles");
    let (capture, snapshotter) = run(|| async {
        let mut left = tokio_test::task::spawn(group.run("a", std::future::pending));
        assert!(left.poll().is_pending());
        drop(left);
        let call = group.run("b", || async { panic!("boom") });
        assert!(tokio::spawn(call).await.unwrap_err().is_panic());
        let call = std::panic::AssertUnwindSafe(|| {
            drop(group.run("c", || -> std::future::Ready<u32> { panic!("at once") }));
        });
        assert!(std::panic::catch_unwind(call).is_err());
    });
    let ends: Vec<_> = capture
        .told()
        .into_iter()
        .filter(|(.., fields)| fields.contains("duration="))
        .map(|(_, level, fields)| (level, fields.contains("panicked")))
        .collect();
    assert_eq!(
        ends,
        [
            (Level::DEBUG, false),
            (Level::ERROR, true),
            (Level::ERROR, true)
        ]
    );
    assert!(capture.event("cancelled").is_some());
    let values = values(&snapshotter);
    let flights = values.iter().find(|value| value.contains("group_flights"));
    assert!(
        flights.is_some_and(|value| value.ends_with(" 0")),
        "{values:?}"
    );
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn a_group_without_a_name_tells_nothing() {
    let group: Group<&str, u32> = Group::new();
    let (capture, snapshotter) = run(|| async {
        let work = || async { 1 };
        let _ = tokio::join!(group.run("7", work), group.run("7", work));
        group.spawn("8", work).await;
    });
    assert_eq!(values(&snapshotter), [""; 0]);
    assert_eq!(capture.told(), []);
    assert_eq!(group.in_flight(), 0);
}
