//! Fields of one connection (RFC 9110 section 7.6.1) and `Via` (section 7.6.3).

use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, Entry, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
        TRANSFER_ENCODING, UPGRADE, VIA,
    },
    request, response,
};

use super::{
    forwarded::OURS,
    lists::{has_token, tokens},
};

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

/// Turns the head of a client's request into that of the upstream's.
pub(crate) fn to_upstream(parts: &mut request::Parts) {
    let headers = &mut parts.headers;
    let trailers = has_token(headers, &TE, "trailers");
    strip(headers);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    headers.append(VIA, via(parts.version));
    parts.version = Version::HTTP_11;
}

/// Turns the head of the upstream's response into the client's.
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

fn strip(headers: &mut HeaderMap) {
    if let Entry::Occupied(connection) = headers.entry(CONNECTION) {
        let lines: Vec<HeaderValue> = connection.remove_entry_mult().1.collect();
        for name in lines.iter().flat_map(tokens) {
            let name = HeaderName::from_bytes(name).unwrap_or(CONNECTION);
            if !OURS.contains(&name) {
                headers.remove(name);
            }
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

fn via(received: Version) -> HeaderValue {
    HeaderValue::from_static(match received {
        Version::HTTP_10 => "1.0 singleflight",
        Version::HTTP_2 => "2 singleflight",
        _ => "1.1 singleflight",
    })
}
