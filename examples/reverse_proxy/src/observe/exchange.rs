//! A client's request from its arrival to the end of its response.

use std::sync::Arc;

use http::{Method, Response, StatusCode, uri::PathAndQuery};
use tokio::time::Instant;
use tower_singleflight::Role;

use super::Observed;
use crate::headers::Client;

/// Counts a request out, and logs it where that is asked for: at the end of the response, or when the client leaves.
#[derive(Debug)]
pub(crate) struct Exchange {
    observed: Arc<Observed>,
    began: Instant,
    /// Let go with the head: it is a part of the buffer that the request was read into.
    target: Option<PathAndQuery>,
    line: Option<Box<AccessLine>>,
}

#[derive(Debug)]
struct AccessLine {
    client: Arc<Client>,
    method: Method,
    path: String,
    began: Instant,
    /// The response's, once it has begun.
    head: Option<(StatusCode, Option<Role>)>,
    bytes: u64,
    whole: bool,
}

// ===== impl Exchange =====

impl Exchange {
    pub(crate) fn begin(
        observed: &Arc<Observed>,
        client: &Arc<Client>,
        request: &http::request::Parts,
    ) -> Self {
        observed.counters.requests.count();
        let began = Instant::now();
        let hot = observed.hot_paths.is_some();
        Self {
            observed: Arc::clone(observed),
            began,
            target: request.uri.path_and_query().filter(|_| hot).cloned(),
            line: observed.access_log.then(|| {
                Box::new(AccessLine {
                    client: Arc::clone(client),
                    method: request.method.clone(),
                    path: request.uri.path().to_owned(),
                    began,
                    head: None,
                    bytes: 0,
                    whole: false,
                })
            }),
        }
    }

    /// The response has begun.
    pub(crate) fn respond<B>(&mut self, response: &Response<B>) {
        let role = response.extensions().get::<Role>();
        self.observed.latency.record(self.began.elapsed());
        self.observed.counters.respond(response.status());
        if let (Some(paths), Some(target)) = (&self.observed.hot_paths, self.target.take()) {
            let called = [Role::Leader, Role::Forwarded, Role::Bypassed];
            paths.count(
                target.path(),
                role.is_some_and(|role| !called.contains(role)),
            );
        }
        if let Some(line) = &mut self.line {
            line.head = Some((response.status(), role.copied()));
        }
    }

    /// A frame of the body is on its way.
    pub(crate) fn send(&mut self, bytes: usize) {
        if let Some(line) = &mut self.line {
            line.bytes += bytes as u64;
        }
    }

    /// The body has ended as it should.
    pub(crate) fn end(&mut self) {
        if let Some(line) = &mut self.line {
            line.whole = true;
        }
    }
}

// ===== impl AccessLine =====

impl Drop for AccessLine {
    fn drop(&mut self) {
        let client = self.client.address.to_str().unwrap_or_default();
        let (status, role) = match self.head {
            Some((status, role)) => (status.as_u16(), role),
            // As nginx has it: the client left before there was a response.
            None => (499, None),
        };
        let role = role.map(|role| format!("{role:?}").to_ascii_lowercase());
        tracing::info!(
            target: "access",
            client,
            method = %self.method,
            path = self.path,
            status,
            bytes = self.bytes,
            // To the microsecond.
            ms = (self.began.elapsed().as_secs_f64() * 1e6).round() / 1e3,
            role = role.as_deref().unwrap_or("none"),
            whole = self.whole,
        );
    }
}
