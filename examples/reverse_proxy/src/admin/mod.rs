//! The operator's port: a live page, numbers, and a few things to do.

mod actions;
mod events;
mod guard;
mod health;
mod metrics;
mod page;
mod snapshot;

use std::sync::Arc;

use axum::{
    Router, middleware,
    routing::{get, post},
};
use tokio::{net::TcpListener, sync::Semaphore, time::Instant};
use tower_singleflight::{Handle, RequestKey};

pub(crate) use self::health::Draining;
use crate::{cli::Cli, observe::Observed, server::Server, upstream::Upstreams};

/// Each open page has a stream of events, which takes a look at the layer forty times a second.
const STREAMS: usize = 16;

/// What the operator sees and does.
pub(crate) struct Admin {
    flights: Handle<RequestKey>,
    upstreams: Arc<Upstreams>,
    observed: Arc<Observed>,
    /// `false` if the proxy was started without the layer.
    layer: bool,
    /// The share of requests that is audited.
    audit: f64,
    hosts: Vec<String>,
    streams: Arc<Semaphore>,
    draining: Draining,
    started: Instant,
    drain: std::time::Duration,
}

// ===== impl Admin =====

impl Admin {
    pub(crate) fn new(
        cli: &Cli,
        flights: Handle<RequestKey>,
        upstreams: &Arc<Upstreams>,
        observed: &Arc<Observed>,
    ) -> Self {
        Self {
            flights,
            upstreams: Arc::clone(upstreams),
            observed: Arc::clone(observed),
            layer: !cli.no_coalesce,
            audit: cli.audit,
            hosts: cli.admin_host.clone(),
            streams: Arc::new(Semaphore::new(STREAMS)),
            draining: Draining::default(),
            started: Instant::now(),
            drain: cli.drain_timeout,
        }
    }

    pub(crate) fn draining(&self) -> Draining {
        self.draining.clone()
    }

    /// Never ends.
    pub(crate) async fn serve(self, listener: Option<TcpListener>) {
        let Some(listener) = listener else {
            return std::future::pending().await;
        };
        let drain = self.drain;
        let admin = Arc::new(self);
        let guard = middleware::from_fn_with_state(Arc::clone(&admin), guard::guard);
        let router = Router::new()
            .merge(page::routes())
            .route("/events", get(events::events))
            .route("/stats", get(snapshot::stats))
            .route("/metrics", get(metrics::metrics))
            .route("/forget", post(actions::forget))
            .route("/enabled", post(actions::enabled))
            .layer(guard)
            // Load balancers ask for it by whatever name.
            .route("/healthz", get(health::health))
            .with_state(admin);
        let server = Server {
            listener,
            tls: None,
            drain,
        };
        server
            .serve(|_, _| router.clone(), std::future::pending())
            .await;
    }
}
