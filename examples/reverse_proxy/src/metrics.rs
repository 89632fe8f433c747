//! `GET /metrics`, in Prometheus' text format.

use std::{fmt::Write, sync::atomic::Ordering};

use tower_singleflight::Stats;

use super::forward::Counters;

pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(crate) fn text(counters: &Counters, stats: &Stats, enabled: bool) -> String {
    let load = Ordering::Relaxed;
    #[rustfmt::skip]
    let metrics = [
        ("reverse_proxy_requests_total", "Requests of clients.", counters.requests.load(load)),
        ("reverse_proxy_upstream_calls_total", "Requests that were sent upstream.", counters.calls.load(load)),
        ("reverse_proxy_upstream_failures_total", "Upstream calls answered with 502 or 504.", counters.failures.load(load)),
        ("singleflight_led_total", "Requests that were forwarded and could be joined.", stats.led),
        ("singleflight_joined_total", "Requests that joined another's flight.", stats.joined),
        ("singleflight_forwarded_total", "Requests that made their own call after all.", stats.forwarded),
        ("singleflight_bypassed_total", "Requests that were never to be coalesced.", stats.bypassed),
        ("singleflight_in_flight", "Flights that a new caller could join.", stats.in_flight as u64),
        ("singleflight_waiters", "Callers that have not yet got all that they asked for.", stats.waiters as u64),
        ("singleflight_buffered_bytes", "Bytes set aside for copies of bodies.", stats.buffered_bytes as u64),
        ("singleflight_enabled", "Whether requests are coalesced.", u64::from(enabled)),
    ];
    let mut text = String::with_capacity(2048);
    for (name, help, value) in metrics {
        let kind = if name.ends_with("_total") {
            "counter"
        } else {
            "gauge"
        };
        writeln!(
            text,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
        )
        .expect("a string takes all that is written to it");
    }
    text
}
