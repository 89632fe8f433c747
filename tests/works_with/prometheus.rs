//! Prometheus' exporter: what it shows of the metrics, and that the dashboard asks for nothing else and leaves nothing out.

use std::collections::{BTreeMap, BTreeSet};

use ::tower::{Layer, Service};
use http_body_util::BodyExt;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusRecorder};
use serde_json::Value;
use tower_singleflight::{Group, SingleflightLayer};

use crate::support::{Origin, assert_idle, get};

/// The guide's "Buckets": the same lines.
fn recorder() -> Result<PrometheusRecorder, BuildError> {
    const SECONDS: [f64; 13] = [
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
    ];
    const CALLERS: [f64; 11] = [
        1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0,
    ];

    let guide = include_str!("../../src/guide/observability.md");
    for line in [format!("= {SECONDS:?};"), format!("= {CALLERS:?};")] {
        assert!(guide.contains(&line), "the guide has not {line}");
    }
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Prefix("singleflight_".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Full("singleflight_callers".to_owned()), &CALLERS)?
        .build_recorder();
    Ok(recorder)
}

/// What a scrape shows after two callers have shared a page, and two others a piece of work.
fn scrape() -> String {
    let recorder = recorder().unwrap();
    let prometheus = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let origin = Origin::page();
            let layer = SingleflightLayer::new().name("reports");
            let mut service = layer.layer(origin.clone());
            let (first, second) = (service.call(get("/")), service.call(get("/")));
            origin.admit(1);
            let (first, second) = tokio::join!(first, second);
            for response in [first, second] {
                response.unwrap().into_body().collect().await.unwrap();
            }
            assert_idle(&layer.handle());

            let group = Group::new().name("articles");
            let work = || async { 1 };
            let _ = tokio::join!(group.run("7", work), group.run("7", work));
            assert_eq!(group.in_flight(), 0);
        });
    });
    prometheus.render()
}

/// Each metric's kind and description.
fn families(scrape: &str) -> BTreeMap<&str, (&str, &str)> {
    let mut families = BTreeMap::<_, (&str, &str)>::new();
    for line in scrape.lines() {
        if let Some((name, help)) = line
            .strip_prefix("# HELP ")
            .and_then(|rest| rest.split_once(' '))
        {
            families.entry(name).or_default().1 = help;
        }
        if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            families.entry(name).or_default().0 = kind;
        }
    }
    families
}

#[test]
fn a_scrape_shows_every_metric_with_its_kind_and_description() {
    let scrape = scrape();
    let families = families(&scrape);
    assert_eq!(families.len(), 10, "{scrape}");
    for (name, (kind, help)) in families {
        let expected = match name {
            _ if name.ends_with("_total") => "counter",
            _ if name.ends_with("_seconds") || name.ends_with("_callers") => "histogram",
            _ => "gauge",
        };
        assert_eq!(kind, expected, "{name}");
        assert!(help.len() > 20, "{name}: {help:?}");
    }
    for line in [
        r#"singleflight_requests_total{layer="reports",role="follower",reason=""} 1"#,
        r#"singleflight_callers_bucket{layer="reports",le="2"} 1"#,
        r#"singleflight_flight_seconds_count{layer="reports"} 1"#,
        r#"singleflight_group_calls_total{group="articles",role="leader"} 1"#,
        r#"singleflight_group_flight_seconds_bucket{group="articles",le="30"} 1"#,
    ] {
        assert!(
            scrape.lines().any(|other| other == line),
            "{line}: {scrape}"
        );
    }
}

/// The names of metrics in all expressions and variables of the dashboard.
fn asked(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| match value {
            Value::String(text) if key == "expr" || key == "query" => {
                let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
                let words = text.split(|letter| !is_name(letter));
                let ours = words.filter(|word| word.starts_with("singleflight_"));
                names.extend(ours.map(str::to_owned));
            }
            value => asked(value, names),
        }),
        Value::Array(values) => values.iter().for_each(|value| asked(value, names)),
        _ => {}
    }
}

#[test]
fn the_dashboard_shows_every_metric_and_asks_for_no_other() {
    let dashboard = include_str!("../../examples/dashboards/tower-singleflight.json");
    let mut asked_for = BTreeSet::new();
    asked(&serde_json::from_str(dashboard).unwrap(), &mut asked_for);

    let scrape = scrape();
    let names: BTreeSet<_> = scrape
        .lines()
        .filter(|line| line.starts_with("singleflight_"))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    for name in &asked_for {
        assert!(names.contains(&**name), "{name} is no metric of the crate");
    }
    for (family, (kind, _)) in families(&scrape) {
        let ends: &[&str] = match kind {
            "histogram" => &["_bucket", "_sum"],
            _ => &[""],
        };
        let is_shown = ends
            .iter()
            .any(|end| asked_for.contains(&format!("{family}{end}")));
        assert!(is_shown, "the dashboard leaves out {family}");
    }
}
