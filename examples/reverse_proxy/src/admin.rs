//! The operator's port: a live page, numbers, and two things to do.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Query, Request, State},
    http::{StatusCode, Uri, header},
    middleware::{self, Next},
    response::{
        Html, IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
    routing::{get, post},
};
use futures_util::{Stream, stream};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    time::{Instant, MissedTickBehavior, interval},
};
use tower_singleflight::{Handle, RequestKey};

use super::{cli::Cli, forward::Upstream, metrics};

const PAGE: &str = include_str!("page.html");
/// The page can neither load anything from elsewhere nor be framed.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
    connect-src 'self'; img-src data:; frame-ancestors 'none'";
/// Flights are often shorter than the time between two events, so that an event has the peaks of many looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(25);
const LOOKS_PER_EVENT: u32 = 10;

type Arguments = Query<HashMap<String, String>>;
type Refusal = (StatusCode, &'static str);

/// What the operator sees and does.
pub(crate) struct Admin {
    flights: Handle<RequestKey>,
    upstream: Arc<Upstream>,
    target: String,
    /// `false` if the proxy was started without the layer.
    layer: bool,
    started: Instant,
}

// ===== impl Admin =====

impl Admin {
    pub(crate) fn new(cli: &Cli, flights: Handle<RequestKey>, upstream: Arc<Upstream>) -> Self {
        Self {
            flights,
            upstream,
            target: cli.upstream.to_string(),
            layer: !cli.no_coalesce,
            started: Instant::now(),
        }
    }

    /// Never ends but by an error.
    pub(crate) async fn serve(self, listener: Option<TcpListener>) -> io::Result<()> {
        let Some(listener) = listener else {
            return std::future::pending().await;
        };
        let router = Router::new()
            .route("/", get(page))
            .route("/events", get(events))
            .route("/stats", get(stats))
            .route("/metrics", get(prometheus))
            .route("/forget", post(forget))
            .route("/enabled", post(enabled))
            .layer(middleware::from_fn(same_site))
            .with_state(Arc::new(self));
        axum::serve(listener, router).await
    }

    fn is_enabled(&self) -> bool {
        self.layer && self.flights.is_enabled()
    }

    fn snapshot(&self) -> Value {
        let counters = self.upstream.counters();
        // Calls first: a request that comes meanwhile must not look like a call without a request.
        let calls = counters.calls.load(Ordering::Relaxed);
        let stats = self.flights.stats();
        json!({
            "uptime_ms": u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "upstream": self.target,
            "layer": self.layer,
            "enabled": self.is_enabled(),
            "requests": counters.requests.load(Ordering::Relaxed),
            "upstream_calls": calls,
            "upstream_failures": counters.failures.load(Ordering::Relaxed),
            "led": stats.led,
            "joined": stats.joined,
            "forwarded": stats.forwarded,
            "bypassed": stats.bypassed,
            "in_flight": stats.in_flight,
            "waiters": stats.waiters,
            "buffered_bytes": stats.buffered_bytes,
        })
    }
}

async fn page() -> impl IntoResponse {
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(PAGE))
}

async fn stats(State(admin): State<Arc<Admin>>) -> Json<Value> {
    Json(admin.snapshot())
}

async fn events(
    State(admin): State<Arc<Admin>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut ticks = interval(BETWEEN_LOOKS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let events = stream::unfold((admin, ticks), |(admin, mut ticks)| async {
        let (mut in_flight, mut waiters, mut buffered_bytes) = (0, 0, 0);
        for _ in 0..LOOKS_PER_EVENT {
            ticks.tick().await;
            let stats = admin.flights.stats();
            in_flight = in_flight.max(stats.in_flight);
            waiters = waiters.max(stats.waiters);
            buffered_bytes = buffered_bytes.max(stats.buffered_bytes);
        }
        let mut event = admin.snapshot();
        event["peak"] = json!({
            "in_flight": in_flight,
            "waiters": waiters,
            "buffered_bytes": buffered_bytes,
        });
        let event = Event::default().data(event.to_string());
        Some((Ok(event), (admin, ticks)))
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}

async fn prometheus(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let (counters, stats) = (admin.upstream.counters(), admin.flights.stats());
    let text = metrics::text(counters, &stats, admin.is_enabled());
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text)
}

/// Whoever asks for `uri` from now on gets an answer that was made from now on.
async fn forget(
    State(admin): State<Arc<Admin>>,
    Query(arguments): Arguments,
) -> Result<Json<Value>, Refusal> {
    let refusal = (StatusCode::BAD_REQUEST, "expected ?uri=/path\n");
    let uri: Uri = match arguments.get("uri").map(|uri| uri.parse()) {
        Some(Ok(uri)) => uri,
        _ => return Err(refusal),
    };
    // Keys have the path alone, and no two of them are for different upstreams.
    let path = uri.path_and_query().ok_or(refusal)?;
    let forgotten = admin
        .flights
        .forget_if(|key| key.uri().path_and_query() == Some(path));
    Ok(Json(json!({ "forgotten": forgotten })))
}

async fn enabled(
    State(admin): State<Arc<Admin>>,
    Query(arguments): Arguments,
) -> Result<Json<Value>, Refusal> {
    let on = match arguments.get("on").map(String::as_str) {
        Some("true" | "on" | "1") => true,
        Some("false" | "off" | "0") => false,
        _ => return Err((StatusCode::BAD_REQUEST, "expected ?on=true or ?on=false\n")),
    };
    if !admin.layer {
        return Err((StatusCode::CONFLICT, "started with --no-coalesce\n"));
    }
    admin.flights.set_enabled(on);
    Ok(Json(json!({ "enabled": on })))
}

/// A page of another site that the operator's browser has open must not press these buttons.
async fn same_site(request: Request, next: Next) -> Response {
    match request
        .headers()
        .get("sec-fetch-site")
        .map(|s| s.as_bytes())
    {
        None | Some(b"same-origin" | b"none") => next.run(request).await,
        Some(_) if request.uri().path() == "/" => next.run(request).await,
        Some(_) => StatusCode::FORBIDDEN.into_response(),
    }
}
