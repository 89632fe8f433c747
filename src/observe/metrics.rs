//! The layer's metrics: names, kinds, units and descriptions.

use std::{cell::Cell, sync::Arc};

use metrics::{SharedString, Unit, describe_counter, describe_gauge, describe_histogram};

use super::UNNAMED;
use crate::group::{Name, record};

pub(super) const REQUESTS: &str = "singleflight_requests_total";
pub(super) const FLIGHTS: &str = "singleflight_flights";
pub(super) const WAITERS: &str = "singleflight_waiters";
pub(super) const BUFFERED_BYTES: &str = "singleflight_buffered_bytes";
pub(super) const WAIT_SECONDS: &str = "singleflight_wait_seconds";
pub(super) const FLIGHT_SECONDS: &str = "singleflight_flight_seconds";
pub(super) const CALLERS: &str = "singleflight_callers";
pub(super) const AUDITS: &str = "singleflight_audits_total";

/// Keep in sync with `guide/observability.md`.
fn describe() {
    describe_counter!(
        REQUESTS,
        Unit::Count,
        "Requests by role, and by the reason why they were forwarded or bypassed"
    );
    describe_gauge!(
        FLIGHTS,
        Unit::Count,
        "Calls of the inner service that others can share, or could, up to the end of the body"
    );
    describe_gauge!(
        WAITERS,
        Unit::Count,
        "Callers that have not yet received their whole response, including leaders"
    );
    describe_gauge!(
        BUFFERED_BYTES,
        Unit::Bytes,
        "Bytes reserved for copies of response bodies"
    );
    describe_histogram!(
        WAIT_SECONDS,
        Unit::Seconds,
        "How long a follower waited for its head, or to be forwarded"
    );
    describe_histogram!(
        FLIGHT_SECONDS,
        Unit::Seconds,
        "How long a flight lasted, from its call to the end of the body, or however it ended"
    );
    describe_histogram!(
        CALLERS,
        Unit::Count,
        "Callers that a flight has had, its leader included"
    );
    describe_counter!(
        AUDITS,
        Unit::Count,
        "Audited requests by result, and by what differed from the answer of the flight"
    );
}

thread_local! {
    /// The recorder that last got the descriptions.
    static RECORDER: Cell<usize> = const { Cell::new(0) };
}

/// Records a value. `value` gets the label `layer`.
pub(super) fn of_layer(name: &Name, value: impl FnOnce(SharedString)) {
    record(describe, &RECORDER, || {
        let name = name.get().map(Arc::clone);
        value(name.map_or(SharedString::const_str(UNNAMED), SharedString::from_shared));
    });
}
