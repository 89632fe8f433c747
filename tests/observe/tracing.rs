//! The `tracing` feature: one span a flight, and events for what happens to each caller.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    future::Ready,
    sync::{Arc, LazyLock, Mutex},
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{Empty, Full};
use tower::{Layer, Service};
use tower_singleflight::{SingleflightLayer, method_and_uri};
use tracing::{
    Dispatch, Event, Instrument, Level, Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{layer::Context, prelude::*, registry::LookupSpan};

use crate::support::{Origin, assert_idle, get, request};

#[derive(Default)]
struct Log {
    /// Name, fields, parent.
    spans: HashMap<u64, (String, String, Option<u64>)>,
    /// Who follows from whom.
    follows: Vec<(u64, u64)>,
    /// Fields, and the span they are in.
    events: Vec<(String, Option<u64>)>,
    /// Of spans and events alike: target, level, fields.
    told: Vec<(&'static str, Level, String)>,
}

#[derive(Clone, Default)]
pub(crate) struct Capture(Arc<Mutex<Log>>);

#[derive(Default)]
struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        use fmt::Write;
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}

impl<S> tracing_subscriber::Layer<S> for Capture
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(
        &self,
        attributes: &span::Attributes<'_>,
        id: &span::Id,
        context: Context<'_, S>,
    ) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let parent = context
            .span(id)
            .and_then(|span| span.parent())
            .map(|span| span.id().into_u64());
        let metadata = attributes.metadata();
        let mut log = self.0.lock().unwrap();
        log.told
            .push((metadata.target(), *metadata.level(), fields.0.clone()));
        log.spans.insert(
            id.into_u64(),
            (metadata.name().to_owned(), fields.0, parent),
        );
    }

    fn on_follows_from(&self, id: &span::Id, from: &span::Id, _: Context<'_, S>) {
        self.0
            .lock()
            .unwrap()
            .follows
            .push((id.into_u64(), from.into_u64()));
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let span = context.event_span(event).map(|span| span.id().into_u64());
        let metadata = event.metadata();
        let mut log = self.0.lock().unwrap();
        log.told
            .push((metadata.target(), *metadata.level(), fields.0.clone()));
        log.events.push((fields.0, span));
    }
}

/// Keeps a second subscriber. With only one, `tracing` asks the thread that is first to reach an event whether anybody
/// wants it: a test without a subscriber would turn the event off for the test that has one.
pub(crate) fn heed_other_threads() {
    static SECOND: LazyLock<Dispatch> =
        LazyLock::new(|| Dispatch::new(tracing_subscriber::registry()));
    LazyLock::force(&SECOND);
}

impl Capture {
    pub(crate) fn install(&self) -> tracing::subscriber::DefaultGuard {
        heed_other_threads();
        tracing::subscriber::set_default(tracing_subscriber::registry().with(self.clone()))
    }

    pub(crate) fn span(&self, name: &str) -> Option<(u64, String, Option<u64>)> {
        let log = self.0.lock().unwrap();
        log.spans
            .iter()
            .find(|(_, (other, ..))| other == name)
            .map(|(id, (_, fields, parent))| (*id, fields.clone(), *parent))
    }

    /// Target, level and fields of the spans and events of this crate.
    pub(crate) fn told(&self) -> Vec<(&'static str, Level, String)> {
        let log = self.0.lock().unwrap();
        let ours = log
            .told
            .iter()
            .filter(|(target, ..)| target.starts_with("tower_singleflight"));
        ours.cloned().collect()
    }

    /// The level and the fields of the event with this message.
    pub(crate) fn event(&self, message: &str) -> Option<(Level, String)> {
        let message = format!("message={message} ");
        let mut told = self.told().into_iter();
        let found = told.find(|(.., fields)| fields.contains(&message))?;
        Some((found.1, found.2))
    }

    /// The names of the spans that such events are in.
    pub(crate) fn spans_of(&self, text: &str) -> Vec<String> {
        let log = self.0.lock().unwrap();
        let events = log
            .events
            .iter()
            .filter(|(fields, _)| fields.contains(text));
        events
            .map(|(_, span)| span.map_or(String::new(), |id| log.spans[&id].0.clone()))
            .collect()
    }

    pub(crate) fn has_event(&self, text: &str) -> bool {
        self.0
            .lock()
            .unwrap()
            .events
            .iter()
            .any(|(fields, _)| fields.contains(text))
    }
}

#[tokio::test]
async fn a_flight_has_one_span_which_is_a_child_of_its_leaders_and_shows_no_header() {
    let capture = Capture::default();
    let _guard = capture.install();
    let origin = Origin::page();
    origin.admit(1);
    let mut service = SingleflightLayer::new().layer(origin.clone());
    let leader = tracing::info_span!("leader");
    let mut request = get("/path?query");
    request
        .headers_mut()
        .insert(header::COOKIE, "secret".parse().unwrap());
    let call = leader.in_scope(|| service.call(request));
    call.instrument(leader.clone()).await.unwrap();
    let (_, fields, parent) = capture.span("singleflight").unwrap();
    assert_eq!(parent, Some(capture.span("leader").unwrap().0));
    assert!(
        fields.contains("method=GET") && fields.contains("/path"),
        "{fields}"
    );
    assert!(!fields.contains("secret"), "{fields}");
}

#[tokio::test]
async fn a_followers_span_follows_from_the_flights_and_the_call_runs_inside_the_leaders() {
    let capture = Capture::default();
    let _guard = capture.install();
    let origin = Origin::new(|_| {
        tracing::info!("answers");
        Response::new("page".into())
    });
    let mut service = SingleflightLayer::new().layer(origin.clone());
    let (leader, follower) = (
        tracing::info_span!("leader"),
        tracing::info_span!("follower"),
    );
    let first = leader.in_scope(|| service.call(get("/")));
    let second = follower.in_scope(|| service.call(get("/")));
    drop(leader);
    origin.admit(1);
    drop(first);
    second.await.unwrap();
    let flight = capture.span("singleflight").unwrap().0;
    let follower = capture.span("follower").unwrap().0;
    let log = capture.0.lock().unwrap();
    assert_eq!(log.follows, [(follower, flight)]);
    let answers = log
        .events
        .iter()
        .find(|(fields, _)| fields.contains("answers"))
        .unwrap();
    assert_eq!(answers.1, Some(flight));
}

#[tokio::test]
async fn bypassed_and_forwarded_requests_say_why() {
    let capture = Capture::default();
    let _guard = capture.install();
    let origin = Origin::page_with("set-cookie", "a=b");
    let mut service = SingleflightLayer::new().layer(origin.clone());
    origin.admit(3);
    let (first, second) = (service.call(get("/")), service.call(get("/")));
    let _ = tokio::join!(first, second);
    let post = request("POST", "/", &[]);
    service.call(post).await.unwrap();
    assert!(capture.has_event("reason=\"unshareable\""));
    assert!(capture.has_event("reason=\"method\""));
}

#[tokio::test]
async fn what_becomes_of_a_follower_is_told_in_the_span_that_it_called_in() {
    let capture = Capture::default();
    let _guard = capture.install();
    let origin = Origin::page_with("set-cookie", "a=b");
    let layer = SingleflightLayer::new();
    let mut service = layer.layer(origin.clone());
    let (leader, follower) = (
        tracing::info_span!("leader"),
        tracing::info_span!("follower"),
    );
    let first = leader.in_scope(|| service.call(get("/")));
    let second = follower.in_scope(|| service.call(get("/")));
    origin.admit(2);
    // Both are polled in no span, and the flight's task decides.
    let _ = tokio::join!(first, second);
    assert_eq!(capture.spans_of("joined"), ["follower"]);
    assert_eq!(capture.spans_of("forwarded"), ["follower"]);
    assert_eq!(layer.handle().in_flight(), 0);
}

#[tokio::test]
async fn the_flight_of_a_variant_is_part_of_its_own_leaders_request() {
    let capture = Capture::default();
    let _guard = capture.install();
    let origin = Origin::page_with("vary", "accept-encoding");
    let layer = SingleflightLayer::with_key(method_and_uri);
    let mut service = layer.layer(origin.clone());
    let mut ask = |name: &'static str, coding: &'static str| {
        let mut request = get("/");
        let coding = header::HeaderValue::from_static(coding);
        request
            .headers_mut()
            .insert(header::ACCEPT_ENCODING, coding);
        let caller = tracing::info_span!("caller", name);
        caller.in_scope(|| service.call(request))
    };
    let (first, second, third) = (ask("a", "gzip"), ask("b", "br"), ask("c", "br"));
    origin.admit(2);
    let _ = tokio::join!(first, second, third);
    assert_eq!(layer.handle().in_flight(), 0);

    let log = capture.0.lock().unwrap();
    let caller = |id: u64| log.spans[&id].1.clone();
    let flights = log
        .spans
        .iter()
        .filter(|(_, span)| span.0 == "singleflight");
    let mut leaders: Vec<_> = flights.map(|(_, span)| caller(span.2.unwrap())).collect();
    leaders.sort();
    assert_eq!(leaders, ["name=\"a\" ", "name=\"b\" "]);
    // Both followed the first flight, and the last one then that of its variant.
    let follows: Vec<_> = log
        .follows
        .iter()
        .map(|(follower, flight)| (caller(*follower), caller(log.spans[flight].2.unwrap())))
        .collect();
    let pair = |follower: &str, leader: &str| {
        (
            format!("name=\"{follower}\" "),
            format!("name=\"{leader}\" "),
        )
    };
    assert!(
        follows.starts_with(&[pair("b", "a"), pair("c", "a")]),
        "{follows:?}"
    );
    assert!(
        follows[2..].iter().all(|link| *link == pair("c", "b")),
        "{follows:?}"
    );
}

#[tokio::test]
async fn a_cancelled_flight_says_so() {
    let capture = Capture::default();
    let _guard = capture.install();
    let origin = Origin::page();
    let mut service = SingleflightLayer::new().layer(origin);
    let mut call = tokio_test::task::spawn(service.call(get("/")));
    assert!(call.poll().is_pending());
    drop(call);
    assert!(capture.has_event("cancelled"));
}

#[tokio::test]
async fn a_panicked_flight_says_so() {
    let capture = Capture::default();
    let _guard = capture.install();
    let origin = Origin::new(|_| panic!("boom"));
    origin.admit(1);
    let mut service = SingleflightLayer::new().layer(origin.clone());
    let call = tokio::spawn(service.call(get("/")));
    assert!(call.await.unwrap_err().is_panic());
    assert!(capture.has_event("panicked"));
}

#[tokio::test]
async fn a_flight_whose_service_panics_when_it_is_called_says_so() {
    let capture = Capture::default();
    let _guard = capture.install();
    let panics = |_: Request<Empty<Bytes>>| -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
        panic!("boom")
    };
    let layer = SingleflightLayer::new();
    let mut service = layer.layer(tower::service_fn(panics));
    let call = tokio::spawn(async move { service.call(get("/")).await });
    assert!(call.await.unwrap_err().is_panic());
    assert!(capture.has_event("panicked"));
    assert_idle(&layer.handle());
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_lands_says_how_many_callers_it_had_and_how_long_it_took() {
    let capture = Capture::default();
    let _guard = capture.install();
    let origin = Origin::page();
    let layer = SingleflightLayer::new();
    let mut service = layer.layer(origin.clone());
    let (first, second) = (service.call(get("/")), service.call(get("/")));
    tokio::time::advance(std::time::Duration::from_secs(2)).await;
    origin.admit(1);
    let _ = tokio::join!(first, second);
    let (level, fields) = capture.event("landed").unwrap();
    assert_eq!(level, Level::DEBUG);
    assert!(fields.contains("callers=2 "), "{fields}");
    assert!(fields.contains("duration=2s "), "{fields}");
    assert_eq!(capture.spans_of("landed"), ["singleflight"]);
    assert_eq!(layer.handle().in_flight(), 0);
}

#[tokio::test]
async fn the_span_and_every_event_have_a_public_path_as_target_and_the_name_of_their_layer() {
    let capture = Capture::default();
    let _guard = capture.install();
    let origin = Origin::page_with("set-cookie", "a=b");
    let layer = SingleflightLayer::new().name("reports");
    let mut service = layer.clone().layer(origin.clone());
    origin.admit(3);
    // Led, landed, joined, forwarded.
    let (first, second) = (service.call(get("/")), service.call(get("/")));
    let _ = tokio::join!(first, second);
    // Bypassed.
    service.call(request("POST", "/", &[])).await.unwrap();
    // Cancelled.
    drop(service.call(get("/other")));
    let told = capture.told();
    for message in ["joined", "forwarded", "landed", "bypassed", "cancelled"] {
        assert!(capture.event(message).is_some(), "{message}: {told:?}");
    }
    for (target, _, fields) in &told {
        assert_eq!(*target, "tower_singleflight::Singleflight", "{fields}");
        assert!(fields.contains("layer=\"reports\" "), "{fields}");
    }
    assert_eq!(layer.handle().in_flight(), 0);
}

#[tokio::test]
async fn a_layer_without_a_name_is_the_default_one() {
    let capture = Capture::default();
    let _guard = capture.install();
    let origin = Origin::page();
    origin.admit(1);
    let mut service = SingleflightLayer::new().layer(origin.clone());
    service.call(get("/")).await.unwrap();
    let (_, fields, _) = capture.span("singleflight").unwrap();
    assert!(fields.contains("layer=\"default\" "), "{fields}");
}
