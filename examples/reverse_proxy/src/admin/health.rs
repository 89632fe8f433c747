//! `GET /healthz`: whether the proxy takes requests.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use axum::{extract::State, http::StatusCode};

use super::Admin;

/// Whether the proxy waits for requests in flight, to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draining(Arc<AtomicBool>);

// ===== impl Draining =====

impl Draining {
    pub(crate) fn begin(&self) {
        self.0.store(true, Relaxed);
    }

    pub(super) fn has_begun(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// An upstream that is down is no reason to start this proxy anew, so it does not count.
pub(super) async fn health(State(admin): State<Arc<Admin>>) -> (StatusCode, &'static str) {
    if admin.draining.has_begun() {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "ending: requests in flight are being answered\n",
        )
    } else {
        (StatusCode::OK, "ok\n")
    }
}
