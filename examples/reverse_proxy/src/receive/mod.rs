//! A client's request before the layer sees it: refused, answered here, or brought into one form.

mod host;
mod max_forwards;
mod refusal;
mod target;

use http::{HeaderValue, Method, StatusCode, Uri, Version, header, request};

pub(crate) use self::refusal::{Refusal, line, refuse};
use crate::headers::{self, Client};

/// What every request must keep to. `prefixed`: the upstream has a prefix that no path may leave.
///
/// # Errors
///
/// The response to a request that is not forwarded.
pub(crate) fn receive(
    parts: &mut request::Parts,
    client: &Client,
    prefixed: bool,
) -> Result<(), Refusal> {
    if parts.method == Method::CONNECT {
        return Err(refuse(
            StatusCode::NOT_IMPLEMENTED,
            "This is a reverse proxy: it opens no tunnels by CONNECT.\n",
        ));
    }
    host::check(parts)?;
    normalise(parts);
    if prefixed && target::leaves_its_root(parts.uri.path()) {
        return Err(refuse(
            StatusCode::BAD_REQUEST,
            "The path of this request leaves the part of the upstream that is served here.\n",
        ));
    }
    max_forwards::count(parts)?;
    headers::put_forwarded(&mut parts.headers, client);
    Ok(())
}

/// The same request in the form of HTTP/1.1, whichever way it came: the target without an authority, a `Host` field,
/// one `Cookie` field. So requests over HTTP/1.1 and HTTP/2 have one key.
fn normalise(parts: &mut request::Parts) {
    if let (Some(authority), Some(target)) = (parts.uri.authority(), parts.uri.path_and_query()) {
        // `Host` yields to the authority of the target (RFC 9112 section 3.2.2, RFC 9113 section 8.3.1).
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            parts.headers.insert(header::HOST, host);
        }
        parts.uri = Uri::from(target.clone());
    }
    if parts.version == Version::HTTP_2 {
        // HTTP/2 may split it; RFC 9113 section 8.2.3.
        headers::join(&mut parts.headers, &header::COOKIE, b"; ", None);
    }
}
