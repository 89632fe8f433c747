//! What a proxy changes in header fields, RFC 9110 sections 7.6.1 (hop by hop) and 7.6.3 (`Via`).

use http::{
    HeaderMap, HeaderName, HeaderValue, Uri, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, COOKIE, Entry, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
        TE, TRANSFER_ENCODING, UPGRADE, VIA,
    },
    request, response, uri,
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Of one connection alone, whether or not `Connection` names them. `Trailer` is not: it speaks of the trailers, which
/// are passed on. Credentials for a proxy end here, since to its clients this proxy is the origin.
const HOP_BY_HOP: [HeaderName; 7] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The same request in the form of HTTP/1.1, whichever way it came: the target without an authority, a `Host` field,
/// one `Cookie` field. So requests over HTTP/1.1 and h2c have one key.
pub(crate) fn normalise(parts: &mut request::Parts) {
    if let (Some(authority), Some(target)) = (parts.uri.authority(), parts.uri.path_and_query()) {
        // `Host` yields to the authority of the target (RFC 9112 section 3.2.2, RFC 9113 section 8.3.1).
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            parts.headers.insert(HOST, host);
        }
        parts.uri = Uri::from(target.clone());
    }
    if parts.version == Version::HTTP_2 {
        // HTTP/2 may split it; RFC 9113 section 8.2.3.
        join(&mut parts.headers, &COOKIE, b"; ", None);
    }
}

/// Makes of a client's request the upstream's. `client`: who asked.
pub(crate) fn to_upstream(parts: &mut request::Parts, client: &HeaderValue) {
    let headers = &mut parts.headers;
    let trailers = has_token(headers, &TE, "trailers");
    strip(headers);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    // The list grows at each proxy. The other two say what this one saw, whatever the client claims.
    join(headers, &FORWARDED_FOR, b", ", Some(client));
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    match headers.remove(HOST) {
        Some(host) => headers.insert(FORWARDED_HOST, host),
        None => headers.remove(FORWARDED_HOST),
    };
    headers.append(VIA, via(parts.version));
    parts.version = Version::HTTP_11;
}

/// Makes of the upstream's response the client's.
pub(crate) fn to_client(parts: &mut response::Parts) {
    if parts.headers.contains_key(TRANSFER_ENCODING) {
        // It overrides the length, and once it is gone nobody could know (RFC 9112 section 6.3).
        parts.headers.remove(CONTENT_LENGTH);
    }
    strip(&mut parts.headers);
    parts.headers.append(VIA, via(parts.version));
    parts.version = Version::HTTP_11;
}

/// Whether the body is coded for the connection in a way that nobody asked for, and that a client could not be told of.
pub(crate) fn is_coded(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(TRANSFER_ENCODING).iter();
    lines.any(|line| tokens(line).any(|coding| !coding.eq_ignore_ascii_case(b"chunked")))
}

/// Whether the comma list `field` holds `token`.
pub(crate) fn has_token(headers: &HeaderMap, field: &HeaderName, token: &str) -> bool {
    let mut lines = headers.get_all(field).iter();
    lines.any(|line| tokens(line).any(|member| member.eq_ignore_ascii_case(token.as_bytes())))
}

/// The target at the upstream: its authority, its path before the request's.
pub(crate) fn target(upstream: &Uri, request: &Uri) -> Result<Uri, http::Error> {
    let mut parts = uri::Parts::default();
    parts.scheme = upstream.scheme().cloned();
    parts.authority = upstream.authority().cloned();
    let prefix = upstream.path().trim_end_matches('/');
    parts.path_and_query = match request.path_and_query() {
        Some(path) if prefix.is_empty() || path == "*" => Some(path.clone()),
        Some(path) => Some(format!("{prefix}{path}").parse()?),
        None => None,
    };
    Ok(Uri::from_parts(parts)?)
}

fn strip(headers: &mut HeaderMap) {
    if let Entry::Occupied(connection) = headers.entry(CONNECTION) {
        let lines: Vec<HeaderValue> = connection.remove_entry_mult().1.collect();
        for name in lines.iter().flat_map(tokens) {
            headers.remove(HeaderName::from_bytes(name).unwrap_or(CONNECTION));
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

fn tokens(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let members = line.as_bytes().split(|&byte| byte == b',');
    members.map(<[u8]>::trim_ascii)
}

/// Makes one line of a field's lines and `more`.
fn join(headers: &mut HeaderMap, field: &HeaderName, by: &[u8], more: Option<&HeaderValue>) {
    let mut lines = headers.get_all(field).iter().chain(more);
    let one = match (lines.next(), lines.next()) {
        (Some(one), None) => one.clone(),
        (Some(first), Some(second)) => {
            let mut all = [first.as_bytes(), second.as_bytes()].join(by);
            for line in lines {
                all.extend_from_slice(by);
                all.extend_from_slice(line.as_bytes());
            }
            HeaderValue::from_maybe_shared(bytes::Bytes::from(all))
                .expect("made of valid field values")
        }
        (None, _) => return,
    };
    headers.insert(field, one);
}

fn via(received: Version) -> HeaderValue {
    HeaderValue::from_static(match received {
        Version::HTTP_10 => "1.0 singleflight",
        Version::HTTP_2 => "2 singleflight",
        _ => "1.1 singleflight",
    })
}
