//! What is told of audits: which answers differ, and where. Never a value.

use http::{HeaderValue, Response};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tower::{Layer, Service};
use tower_singleflight::SingleflightLayer;
use tracing::Level;

use crate::{
    support::{Number, Origin, assert_idle, get, read, request},
    tracing::Capture,
};

type Answer = fn(http::response::Builder) -> Response<bytes::Bytes>;

/// Two answers of an origin, the second to an audited request, and the event `differs`.
async fn told(
    layer: SingleflightLayer,
    fields: [crate::support::Fields<'static>; 2],
    answers: [Answer; 2],
) -> Option<(Level, String)> {
    let capture = Capture::default();
    let _guard = capture.install();
    let origin = Origin::new(move |request| {
        let Number(call) = request.extensions.get().expect("a number");
        answers[call - 1](Response::builder())
    });
    let layer = layer.audit(1.0);
    let mut service = layer.layer(origin.clone());
    let [one, two] = fields.map(|fields| service.call(request("GET", "/page?query", fields)));
    origin.open();
    let (one, two) = tokio::join!(one, two);
    for response in [one, two] {
        read(response.unwrap()).await;
    }
    assert_idle(&layer.handle());
    assert_eq!(layer.handle().stats().audited, 1);
    capture.event("differs")
}

fn page(builder: http::response::Builder) -> Response<bytes::Bytes> {
    builder.body("page of ann".into()).expect("a response")
}

async fn differs(answer: Answer) -> String {
    let fields: crate::support::Fields<'_> = &[];
    let (level, fields) = told(SingleflightLayer::new(), [fields, fields], [page, answer])
        .await
        .expect("an event");
    assert_eq!(level, Level::WARN);
    assert!(
        fields.contains("layer=\"default\" path=\"/page\""),
        "{fields}"
    );
    assert!(!fields.contains("request_fields"), "{fields}");
    fields
}

#[tokio::test]
async fn equal_answers_are_no_event() {
    let fields: crate::support::Fields<'_> = &[];
    let told = told(SingleflightLayer::new(), [fields, fields], [page, page]);
    assert_eq!(told.await, None);
}

#[tokio::test]
async fn the_event_says_what_differs() {
    let status = differs(|head| page(head.status(404))).await;
    assert!(status.contains("what=\"status\""), "{status}");
    let fields = differs(|head| page(head.header("x-user", "bob").header("etag", "bob"))).await;
    assert!(
        fields.contains("what=\"fields\" fields=\"etag,x-user\""),
        "{fields}"
    );
    let body = differs(|head| head.body("page of bob".into()).unwrap()).await;
    assert!(
        body.contains("what=\"body\" body=\"length 11, within the first 10\""),
        "{body}"
    );
    let all = |head: http::response::Builder| {
        let head = head.status(404).header("x-user", "bob");
        head.body("page of a".into()).unwrap()
    };
    let all = differs(all).await;
    let expected = "what=\"status,fields,body\" fields=\"x-user\" \
                    body=\"lengths 11 and 9, within the first 10\"";
    assert!(all.contains(expected), "{all}");
}

#[tokio::test]
async fn the_event_names_the_request_fields_that_differed_and_shows_no_value() {
    const SECRET: &[u8] = b"secret";
    let ignored = tower_singleflight::RequestKeyExtractor::new()
        .ignore_headers([http::header::COOKIE, http::header::AUTHORIZATION]);
    let one: crate::support::Fields<'_> = &[
        ("cookie", SECRET),
        ("user-agent", SECRET),
        ("accept", SECRET),
    ];
    let two: crate::support::Fields<'_> = &[
        ("cookie", b"secret too"),
        ("user-agent", SECRET),
        ("accept", SECRET),
        ("authorization", SECRET),
    ];
    let answer: Answer = |head| {
        let head = head.header("x-user", HeaderValue::from_static("secret"));
        head.body("secret secret".into()).unwrap()
    };
    let layer = SingleflightLayer::with_extractor(ignored);
    let (_, fields) = told(layer, [one, two], [page, answer])
        .await
        .expect("an event");
    let expected = "request_fields=\"authorization,cookie\"";
    assert!(fields.contains(expected), "{fields}");
    for value in ["secret", "query", "ann"] {
        assert!(!fields.contains(value), "{fields}");
    }
}

#[tokio::test]
async fn the_event_is_in_the_span_in_which_the_audited_request_was_made() {
    let capture = Capture::default();
    let _guard = capture.install();
    let origin = Origin::counting();
    let layer = SingleflightLayer::new().audit(1.0);
    let mut service = layer.layer(origin.clone());
    let leader = service.call(get("/"));
    let audited = tracing::info_span!("audited").in_scope(|| service.call(get("/")));
    origin.open();
    let (leader, audited) = tokio::join!(leader, audited);
    read(audited.unwrap()).await;
    read(leader.unwrap()).await;
    assert_eq!(capture.spans_of("differs"), ["audited"]);
    let forwarded = capture.event("forwarded").expect("an event");
    assert!(forwarded.1.contains("reason=\"audit\""), "{forwarded:?}");
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn audits_are_counted_by_result_and_by_what_differed() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let origin = Origin::new(|request| match request.uri.path() {
        "/same" => Response::new("page".into()),
        _ => {
            let Number(call) = request.extensions.get().expect("a number");
            Response::new(call.to_string().into())
        }
    });
    let layer = SingleflightLayer::new().name("reports").audit(1.0);
    let mut service = layer.layer(origin.clone());
    origin.open();
    for (path, is_cut) in [("/same", false), ("/other", false), ("/same", true)] {
        let (one, two) = (service.call(get(path)), service.call(get(path)));
        read(one.await.unwrap()).await;
        match is_cut {
            true => drop(two),
            false => drop(read(two.await.unwrap()).await),
        }
    }
    assert_idle(&layer.handle());
    let mut seen: Vec<_> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .filter(|(key, ..)| key.key().name() == "singleflight_audits_total")
        .map(|(key, .., value)| {
            let labels = key.key().labels();
            let labels: Vec<_> = labels
                .map(|label| format!("{}={}", label.key(), label.value()))
                .collect();
            assert_eq!(value, DebugValue::Counter(1), "{labels:?}");
            labels.join(" ")
        })
        .collect();
    seen.sort();
    assert_eq!(
        seen,
        [
            "layer=reports result=differed what=body",
            "layer=reports result=same what=",
            "layer=reports result=unknown what=",
        ]
    );
}
