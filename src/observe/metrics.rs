//! The layer's metrics: names, kinds, units and descriptions.

use std::{cell::Cell, sync::Arc};

use metrics::{SharedString, Unit};

use super::UNNAMED;
use crate::group::{Description, Kind, Name, record};

pub(super) const REQUESTS: &str = "singleflight_requests_total";
pub(super) const FLIGHTS: &str = "singleflight_flights";
pub(super) const WAITERS: &str = "singleflight_waiters";
pub(super) const BUFFERED_BYTES: &str = "singleflight_buffered_bytes";
pub(super) const WAIT_SECONDS: &str = "singleflight_wait_seconds";
pub(super) const FLIGHT_SECONDS: &str = "singleflight_flight_seconds";
pub(super) const CALLERS: &str = "singleflight_callers";
pub(super) const AUDITS: &str = "singleflight_audits_total";

/// Keep in sync with `guide/observability.md`.
const ALL: [Description; 8] = [
    Description {
        name: REQUESTS,
        kind: Kind::Counter,
        unit: Unit::Count,
        help: "Requests by role, and by the reason why they were forwarded or bypassed",
    },
    Description {
        name: FLIGHTS,
        kind: Kind::Gauge,
        unit: Unit::Count,
        help: "Calls of the inner service that others can share, or could, up to the end of the body",
    },
    Description {
        name: WAITERS,
        kind: Kind::Gauge,
        unit: Unit::Count,
        help: "Callers that have not yet received their whole response, including leaders",
    },
    Description {
        name: BUFFERED_BYTES,
        kind: Kind::Gauge,
        unit: Unit::Bytes,
        help: "Bytes reserved for copies of response bodies",
    },
    Description {
        name: WAIT_SECONDS,
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        help: "How long a follower waited for its head, or to be forwarded",
    },
    Description {
        name: FLIGHT_SECONDS,
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        help: "How long a flight lasted, from its call to the end of the body, or however it ended",
    },
    Description {
        name: CALLERS,
        kind: Kind::Histogram,
        unit: Unit::Count,
        help: "Callers that a flight has had, its leader included",
    },
    Description {
        name: AUDITS,
        kind: Kind::Counter,
        unit: Unit::Count,
        help: "Audited requests by result, and by what differed from the answer of the flight",
    },
];

thread_local! {
    /// The recorder that last got the descriptions.
    static RECORDER: Cell<usize> = const { Cell::new(0) };
}

/// Records a value. `value` gets the label `layer`.
pub(super) fn of_layer(name: &Name, value: impl FnOnce(SharedString)) {
    record(&ALL, &RECORDER, || {
        let name = name.get().map(Arc::clone);
        value(name.map_or(SharedString::const_str(UNNAMED), SharedString::from_shared));
    });
}
