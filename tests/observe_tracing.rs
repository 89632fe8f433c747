//! The `tracing` feature: one span a flight, and events for what happens to each caller.
#![cfg(feature = "tracing")]

mod support;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex},
};

use http::{Request, Response, header};
use support::{Gated, get, page};
use tower::{Layer, Service};
use tower_singleflight::SingleflightLayer;
use tracing::{
    Event, Instrument, Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{layer::Context, prelude::*, registry::LookupSpan};

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
    let gated = Gated::new();
    gated.gate.add_permits(1);
    let mut service = SingleflightLayer::new().layer(gated.service(page));
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
    let gated = Gated::new();
    let mut service = SingleflightLayer::new().layer(gated.service(|| {
        tracing::info!("answers");
        page()
    }));
    let (leader, follower) = (
        tracing::info_span!("leader"),
        tracing::info_span!("follower"),
    );
    let first = leader.in_scope(|| service.call(get("/")));
    let second = follower.in_scope(|| service.call(get("/")));
    drop(leader);
    gated.gate.add_permits(1);
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
    let gated = Gated::new();
    let mut service = SingleflightLayer::new().layer(gated.service(|| {
        let mut response: Response<_> = page();
        response
            .headers_mut()
            .insert(header::SET_COOKIE, "a=b".parse().unwrap());
        response
    }));
    gated.gate.add_permits(3);
    let (first, second) = (service.call(get("/")), service.call(get("/")));
    let _ = tokio::join!(first, second);
    let post = Request::post("/")
        .body(http_body_util::Empty::new())
        .unwrap();
    service.call(post).await.unwrap();
    assert!(capture.has_event("reason=\"unshareable\""));
    assert!(capture.has_event("reason=\"method\""));
}

#[tokio::test]
async fn a_cancelled_flight_says_so() {
    let capture = Capture::default();
    let _guard = capture.install();
    let gated = Gated::new();
    let mut service = SingleflightLayer::new().layer(gated.service(page));
    let mut call = tokio_test::task::spawn(service.call(get("/")));
    assert!(call.poll().is_pending());
    drop(call);
    assert!(capture.has_event("cancelled"));
}

#[tokio::test]
async fn a_panicked_flight_says_so() {
    let capture = Capture::default();
    let _guard = capture.install();
    let gated = Gated::new();
    gated.gate.add_permits(1);
    let mut service = SingleflightLayer::new().layer(gated.service(|| panic!("boom")));
    let call = tokio::spawn(service.call(get("/")));
    assert!(call.await.unwrap_err().is_panic());
    assert!(capture.has_event("panicked"));
}
