//! `dav-server` on axum: equal `REPORT`s and `PROPFIND`s share; and `QUERY`, which axum has no name for either.

use axum::{Router, body::Body, extract::Request, response::Response, routing};
use dav_server::{DavHandler, memfs::MemFs};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use tokio::task::JoinHandle;
use tower::ServiceExt;
use tower_singleflight::{
    BufferBodyLayer, Handle, RequestKey, RequestKeyExtractor, Role, SingleflightLayer, rules,
};

use crate::{
    gate::Gate,
    support::{assert_idle, role, settle},
};

const EVENT: &str = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:a\r\nBEGIN:VEVENT\r\nUID:1\r\nDTSTAMP:20260101T000000Z\r\n\
    DTSTART:20260102T000000Z\r\nSUMMARY:Launch\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n";

fn report(component: &str) -> String {
    format!(
        r#"<?xml version="1.0"?><C:calendar-query xmlns:D="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav">
        <D:prop><D:getetag/><C:calendar-data/></D:prop>
        <C:filter><C:comp-filter name="{component}"/></C:filter>
        </C:calendar-query>"#
    )
}

const PROPFIND: &str = r#"<?xml version="1.0"?><D:propfind xmlns:D="DAV:"><D:prop><D:getcontentlength/></D:prop></D:propfind>"#;

/// Methods that read wait at the gate.
struct World {
    gate: Gate,
    flights: Handle<RequestKey>,
    app: Router,
}

fn methods() -> [Method; 3] {
    ["QUERY", "REPORT", "PROPFIND"].map(|name| Method::from_bytes(name.as_bytes()).unwrap())
}

impl World {
    fn new<F>(handler: impl Fn(Request) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response> + Send,
    {
        let gate = Gate::closed();
        let gated = gate.clone();
        let handler = async move |request: Request| {
            if methods().contains(request.method()) {
                gated.run().await;
            }
            handler(request).await
        };
        let key = methods()
            .into_iter()
            .fold(RequestKeyExtractor::new(), RequestKeyExtractor::coalesce);
        let layer = SingleflightLayer::with_extractor(key)
            // `dav-server` forbids caches to keep what a PROPFIND lists. Nothing is kept here.
            .share_when(|response| {
                response.status == StatusCode::MULTI_STATUS || rules::shareable(response)
            });
        let flights = layer.handle();
        let app = Router::new()
            .fallback(routing::any(handler))
            .layer(layer)
            .layer(BufferBodyLayer::new(64 << 10));
        Self { gate, flights, app }
    }

    async fn ask(
        &self,
        method: &str,
        uri: &str,
        body: impl Into<Body>,
    ) -> JoinHandle<(Role, StatusCode, String)> {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("depth", "1");
        let call = self.app.clone().oneshot(request.body(body.into()).unwrap());
        let asked = tokio::spawn(async move {
            let response = call.await.unwrap();
            let (role, status) = (role(&response), response.status());
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (role, status, String::from_utf8(body.into()).unwrap())
        });
        settle().await;
        asked
    }
}

/// A server with one calendar and one event in it.
async fn calendar() -> World {
    let dav = DavHandler::builder()
        .filesystem(MemFs::new())
        .build_handler();
    let world = World::new(move |request| {
        let dav = dav.clone();
        async move { dav.handle(request).await.map(Body::new) }
    });
    for (method, uri, body) in [
        ("MKCALENDAR", "/calendars/work", ""),
        ("PUT", "/calendars/work/1.ics", EVENT),
    ] {
        let (role, status, _) = world.ask(method, uri, body).await.await.unwrap();
        assert_eq!(
            (role, status),
            (Role::Bypassed, StatusCode::CREATED),
            "{method}"
        );
    }
    world
}

use Role::{Follower, Leader};

#[tokio::test]
async fn equal_reports_share_and_different_ones_do_not() {
    let world = calendar().await;
    let mut asked = Vec::new();
    for component in ["VEVENT", "VTODO", "VEVENT"] {
        asked.push(
            world
                .ask("REPORT", "/calendars/work", report(component))
                .await,
        );
    }
    world.gate.open();
    for (asked, (role, found)) in
        asked
            .into_iter()
            .zip([(Leader, true), (Leader, false), (Follower, true)])
    {
        let got = asked.await.unwrap();
        assert_eq!((got.0, got.1), (role, StatusCode::MULTI_STATUS));
        assert_eq!(got.2.contains("SUMMARY:Launch"), found, "{}", got.2);
    }
    assert_eq!(world.gate.runs(), 2);
    assert_idle(&world.flights);
}

#[tokio::test]
async fn who_asks_after_a_put_joins_no_propfind_from_before_it() {
    let world = calendar().await;
    let uri = "/calendars/work/1.ics";
    let before = world.ask("PROPFIND", uri, PROPFIND).await;
    let with = world.ask("PROPFIND", uri, PROPFIND).await;
    assert_eq!(
        world.ask("PUT", uri, EVENT).await.await.unwrap().1,
        StatusCode::NO_CONTENT
    );
    let after = world.ask("PROPFIND", uri, PROPFIND).await;
    world.gate.open();
    for (asked, role) in [(before, Leader), (with, Follower), (after, Leader)] {
        let got = asked.await.unwrap();
        assert_eq!((got.0, got.1), (role, StatusCode::MULTI_STATUS));
        assert!(got.2.contains(&EVENT.len().to_string()), "{}", got.2);
    }
    assert_eq!(world.gate.runs(), 2);
    assert_idle(&world.flights);
}

#[tokio::test]
async fn equal_queries_share_and_different_ones_do_not() {
    let world = World::new(async |request: Request| Response::new(request.into_body()));
    let mut asked = Vec::new();
    for query in ["select a", "select b", "select a"] {
        asked.push(world.ask("QUERY", "/", query).await);
    }
    world.gate.open();
    for (asked, (role, answer)) in asked.into_iter().zip([
        (Leader, "select a"),
        (Leader, "select b"),
        (Follower, "select a"),
    ]) {
        assert_eq!(
            asked.await.unwrap(),
            (role, StatusCode::OK, answer.to_owned())
        );
    }
    assert_idle(&world.flights);
}
