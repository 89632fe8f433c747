//! The `tracing` feature: one span a flight, and events for what happens to each caller.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex},
};

use http::{Response, header};
use tower::{Layer, Service};
use tower_singleflight::{SingleflightLayer, method_and_uri};
use tracing::{
    Event, Instrument, Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{layer::Context, prelude::*, registry::LookupSpan};

use crate::support::{Origin, get, request};

#[derive(Default)]
struct Log {
    /// Name, fields, parent.
    spans: HashMap<u64, (String, String, Option<u64>)>,
    /// Who follows from whom.
    follows: Vec<(u64, u64)>,
    /// Fields, and the span they are in.
    events: Vec<(String, Option<u64>)>,
}

#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Log>>);

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
        let name = attributes.metadata().name().to_owned();
        self.0
            .lock()
            .unwrap()
            .spans
            .insert(id.into_u64(), (name, fields.0, parent));
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
        self.0.lock().unwrap().events.push((fields.0, span));
    }
}

impl Capture {
    fn install(&self) -> tracing::subscriber::DefaultGuard {
        tracing::subscriber::set_default(tracing_subscriber::registry().with(self.clone()))
    }

    fn span(&self, name: &str) -> Option<(u64, String, Option<u64>)> {
        let log = self.0.lock().unwrap();
        log.spans
            .iter()
            .find(|(_, (other, ..))| other == name)
            .map(|(id, (_, fields, parent))| (*id, fields.clone(), *parent))
    }

    /// The names of the spans that such events are in.
    fn spans_of(&self, text: &str) -> Vec<String> {
        let log = self.0.lock().unwrap();
        let events = log
            .events
            .iter()
            .filter(|(fields, _)| fields.contains(text));
        events
            .map(|(_, span)| span.map_or(String::new(), |id| log.spans[&id].0.clone()))
            .collect()
    }

    fn has_event(&self, text: &str) -> bool {
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
