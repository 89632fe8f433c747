//! The layer's metrics: names, kinds, units and descriptions.

use std::sync::Arc;

use metrics::SharedString;

use super::UNNAMED;
use crate::group::Name;

// Keep in sync with `guide/observability.md`.
crate::group::declare_metrics! {
    describe_counter REQUESTS "singleflight_requests_total" Count
        "Requests by role, and by the reason why they were forwarded or bypassed"
    describe_gauge FLIGHTS "singleflight_flights" Count
        "Calls of the inner service that others can share, or could, up to the end of the body"
    describe_gauge WAITERS "singleflight_waiters" Count
        "Callers that have not yet received their whole response, including leaders"
    describe_gauge BUFFERED_BYTES "singleflight_buffered_bytes" Bytes
        "Bytes reserved for copies of response bodies"
    describe_histogram WAIT_SECONDS "singleflight_wait_seconds" Seconds
        "How long a follower waited for its head, or to be forwarded"
    describe_histogram FLIGHT_SECONDS "singleflight_flight_seconds" Seconds
        "How long a flight lasted, from its call to the end of the body, or however it ended"
    describe_histogram CALLERS "singleflight_callers" Count
        "Callers that a flight has had, its leader included"
    describe_counter AUDITS "singleflight_audits_total" Count
        "Audited requests by result, and by what differed from the answer of the flight"
}

/// Records a value. `value` gets the label `layer`.
pub(super) fn of_layer(name: &Name, value: impl FnOnce(SharedString)) {
    recorded(|| {
        let name = name.get().map(Arc::clone);
        value(name.map_or(SharedString::const_str(UNNAMED), SharedString::from_shared));
    });
}
