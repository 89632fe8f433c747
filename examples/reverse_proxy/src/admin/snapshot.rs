//! All numbers at one time, as JSON.

use std::{collections::HashMap, sync::Arc};

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::Admin;
use crate::{observe::Histogram, replicas::Numbers};

/// So many of the hottest paths are shown.
const HOT: usize = 10;

pub(super) async fn stats(State(admin): State<Arc<Admin>>) -> Json<Value> {
    let latency = admin.observed.latency.snapshot();
    Json(admin.snapshot(&latency))
}

// ===== impl Admin =====

impl Admin {
    pub(super) fn is_enabled(&self) -> bool {
        self.layer && self.flights.is_enabled()
    }

    /// `latency`: of the requests that are to be spoken of.
    pub(super) fn snapshot(&self, latency: &Histogram) -> Value {
        let counters = &self.observed.counters;
        // Calls first: a request that comes meanwhile must not look like a call without a request.
        let calls = counters.calls.get();
        let stats = self.flights.stats();
        let upstreams = self.upstreams.origins().iter().map(|origin| {
            let (failed_in_a_row, cause) = origin.failures();
            json!({ "url": origin.name(), "failed_in_a_row": failed_in_a_row, "cause": cause })
        });
        let hot = self.observed.hot_paths.as_ref();
        let hot = hot.map_or_else(Vec::new, |paths| paths.top(HOT));
        let hot = hot
            .iter()
            .map(|hot| json!({ "path": hot.path, "requests": hot.requests, "saved": hot.saved }));
        let replicas = Numbers::of(&stats).map(|numbers| {
            let alone = numbers.alone.iter().copied().collect::<HashMap<_, _>>();
            json!({
                "is_up": numbers.is_up,
                "round_trip_ms": numbers.round_trip.map(|time| time.as_secs_f64() * 1e3),
                "led": numbers.led,
                "followed": numbers.followed,
                "takeovers": numbers.takeovers,
                "alone": alone,
            })
        });
        json!({
            "uptime_ms": u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "upstreams": upstreams.collect::<Vec<_>>(),
            "layer": self.layer,
            "enabled": self.is_enabled(),
            "draining": self.draining.has_begun(),
            "requests": counters.requests.get(),
            "errors": counters.errors(),
            "upstream_calls": calls,
            "upstream_answers": counters.answered.get(),
            "upstream_failures": counters.failures.get(),
            "upstream_retries": counters.retries.get(),
            "broken_bodies": counters.broken_bodies.get(),
            "led": stats.led,
            "joined": stats.joined,
            "followed": stats.followed,
            "forwarded": stats.forwarded,
            "bypassed": stats.bypassed,
            "audit": self.audit,
            "audited": stats.audited,
            "audit_same": stats.audit_same,
            "audit_differed": stats.audit_differed,
            "audit_unknown": stats.audit_unknown,
            "replicas": replicas,
            "in_flight": stats.in_flight,
            "waiters": stats.waiters,
            "buffered_bytes": stats.buffered_bytes,
            "latency_ms": { "p50": latency.quantile(0.5), "p99": latency.quantile(0.99) },
            "hot": hot.collect::<Vec<_>>(),
        })
    }
}
