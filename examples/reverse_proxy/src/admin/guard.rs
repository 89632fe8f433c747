//! Whom the admin port answers. It asks for no password, and any page that the operator's browser has open can send
//! requests to it.
//!
//! 1. `Host` is an address, localhost or a name of `--admin-host`. A stranger's page that has its own name resolve to this
//!    machine (DNS rebinding) would else be of the same origin.
//! 2. A request that does something comes from this port's own page, or from no page: by `Origin`, which browsers send with
//!    each POST, also from pages without TLS.
//! 3. So does any other request, by `Sec-Fetch-Site`, which browsers send to addresses that they trust. Links to the page
//!    are let through.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::Admin;

pub(super) async fn guard(
    State(admin): State<Arc<Admin>>,
    request: Request,
    next: Next,
) -> Response {
    let host = request.uri().authority().cloned().or_else(|| {
        let host = only(request.headers(), header::HOST)?;
        Authority::try_from(host).ok()
    });
    let host = host.filter(|host| !host.as_str().contains('@'));
    let Some(host) = host else {
        return (StatusCode::BAD_REQUEST, "This request has no Host.\n").into_response();
    };
    if !is_own(&host, &admin.hosts) {
        let words =
            "This port answers to addresses and to localhost. Name others with --admin-host.\n";
        return (StatusCode::FORBIDDEN, words).into_response();
    }
    if comes_from_elsewhere(&request, &host) {
        let words = "This request comes from a page of another site.\n";
        return (StatusCode::FORBIDDEN, words).into_response();
    }
    next.run(request).await
}

fn is_own(host: &Authority, names: &[String]) -> bool {
    let name = host.host();
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || names.iter().any(|other| name.eq_ignore_ascii_case(other))
}

fn comes_from_elsewhere(request: &Request, host: &Authority) -> bool {
    let headers = request.headers();
    if !request.method().is_safe() && headers.contains_key(header::ORIGIN) {
        let origin = only(headers, header::ORIGIN).unwrap_or_default();
        let own = origin.split_once("://").map(|(_, authority)| authority);
        if own.is_none_or(|own| !own.eq_ignore_ascii_case(host.as_str())) {
            return true;
        }
    }
    match headers.get("sec-fetch-site").map(|site| site.as_bytes()) {
        None | Some(b"same-origin" | b"none") => false,
        Some(_) => request.uri().path() != "/",
    }
}

/// The value of a field that has one line.
fn only(headers: &HeaderMap, field: header::HeaderName) -> Option<&str> {
    let mut lines = headers.get_all(field).iter();
    let line = lines.next()?.to_str().ok()?;
    lines.next().is_none().then_some(line)
}
