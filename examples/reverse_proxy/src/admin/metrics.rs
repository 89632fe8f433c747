//! `GET /metrics`, in Prometheus' text format.

use std::{
    fmt::{Display, Write},
    sync::Arc,
};

use axum::{extract::State, http::header, response::IntoResponse};

use tower_singleflight::Stats;

use super::Admin;
use crate::replicas::Numbers;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const LAYER: &str = "layer=\"reverse_proxy\"";
/// Microseconds, each the end of a bucket of the latencies.
const ENDS: [u64; 15] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 10_000_000,
];

/// Families of metrics, one after the other.
struct Text(String);

pub(super) async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], admin.metrics())
}

// ===== impl Admin =====

impl Admin {
    fn metrics(&self) -> String {
        let (counters, stats) = (&self.observed.counters, self.flights.stats());
        let mut text = Text(String::with_capacity(8192));
        #[rustfmt::skip]
        let single = [
            ("reverse_proxy_requests_total", "Requests of clients.", counters.requests.get()),
            ("reverse_proxy_upstream_calls_total", "Requests that were sent upstream, second tries included.", counters.calls.get()),
            ("reverse_proxy_upstream_failures_total", "Upstream calls answered with 502 or 504.", counters.failures.get()),
            ("reverse_proxy_upstream_retries_total", "Second tries, after a connection that had been used before broke.", counters.retries.get()),
            ("reverse_proxy_upstream_broken_bodies_total", "Responses of the upstream whose body broke off.", counters.broken_bodies.get()),
            ("singleflight_joined_total", "Requests that joined another's flight.", stats.joined),
            ("singleflight_enabled", "Whether requests are coalesced.", u64::from(self.is_enabled())),
        ];
        for (name, help, value) in single {
            text.family(name, help);
            text.sample(name, "", value);
        }

        let name = "reverse_proxy_responses_total";
        text.family(
            name,
            "Responses to clients, by the hundreds of their status.",
        );
        for (class, count) in (1..).zip(&counters.responses) {
            text.sample(name, &format!("{{class=\"{class}xx\"}}"), count.get());
        }

        text.layer(&stats);
        if let Some(replicas) = Numbers::of(&stats) {
            text.replicas(&replicas);
        }

        let name = "reverse_proxy_upstream_failed_in_a_row";
        text.family(
            name,
            "Calls of this upstream that failed since one was answered.",
        );
        for origin in self.upstreams.origins() {
            // A URI has no character that must be escaped here.
            let label = format!("{{upstream=\"{}\"}}", origin.name());
            text.sample(name, &label, origin.failures().0);
        }

        let latency = self.observed.latency.snapshot();
        let name = "reverse_proxy_response_seconds";
        text.family(name, "Time until the head of a response.");
        for end in ENDS {
            let label = format!("_bucket{{le=\"{}\"}}", end as f64 / 1e6);
            text.sample(name, &label, latency.up_to(end));
        }
        text.sample(name, "_bucket{le=\"+Inf\"}", latency.count());
        text.sample(name, "_sum", latency.seconds());
        text.sample(name, "_count", latency.count());
        text.0
    }
}

// ===== impl Text =====

impl Text {
    fn family(&mut self, name: &str, help: &str) {
        let kind = match name {
            _ if name.ends_with("_total") => "counter",
            _ if name.ends_with("_seconds") => "histogram",
            _ => "gauge",
        };
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    /// By the names and labels of the library's feature `metrics`, so that its dashboard shows them.
    fn layer(&mut self, stats: &Stats) {
        let name = "singleflight_requests_total";
        self.family(name, "Requests, by what became of them.");
        for (role, count) in [
            ("leader", stats.led),
            ("follower", stats.followed),
            ("forwarded", stats.forwarded),
            ("bypassed", stats.bypassed),
        ] {
            self.sample(name, &format!("{{{LAYER},role=\"{role}\"}}"), count);
        }
        let name = "singleflight_audits_total";
        self.family(name, "Audited requests, by what came of it.");
        for (result, count) in [
            ("same", stats.audit_same),
            ("differed", stats.audit_differed),
            ("unknown", stats.audit_unknown),
        ] {
            self.sample(name, &format!("{{{LAYER},result=\"{result}\"}}"), count);
        }
        #[rustfmt::skip]
        let gauges = [
            ("singleflight_flights", "Flights that a new caller could join.", stats.in_flight),
            ("singleflight_waiters", "Callers that have not yet received their whole response.", stats.waiters),
            ("singleflight_buffered_bytes", "Bytes reserved for copies of bodies.", stats.buffered_bytes),
        ];
        for (name, help, value) in gauges {
            self.family(name, help);
            self.sample(name, &format!("{{{LAYER}}}"), value);
        }
    }

    fn replicas(&mut self, replicas: &Numbers) {
        #[rustfmt::skip]
        let single = [
            ("singleflight_replicas_led_total", "Flights that led for all replicas.", replicas.led),
            ("singleflight_replicas_followed_total", "Flights that got another replica's response.", replicas.followed),
            ("singleflight_replicas_takeovers_total", "Leads that were taken over from a replica that was gone.", replicas.takeovers),
            ("singleflight_replicas_store_up", "Whether the store is in use.", u64::from(replicas.is_up)),
        ];
        for (name, help, value) in single {
            self.family(name, help);
            self.sample(name, "", value);
        }
        let name = "singleflight_replicas_alone_total";
        self.family(name, "Flights that made their call for this replica alone.");
        for (reason, count) in replicas.alone {
            self.sample(name, &format!("{{reason=\"{reason}\"}}"), count);
        }
        if let Some(time) = replicas.round_trip {
            let name = "singleflight_replicas_round_trip";
            self.family(name, "Seconds that the store takes to answer, of late.");
            self.sample(name, "", time.as_secs_f64());
        }
    }

    fn sample(&mut self, name: &str, more: &str, value: impl Display) {
        self.line(format_args!("{name}{more} {value}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a string takes all that is written to it");
    }
}
