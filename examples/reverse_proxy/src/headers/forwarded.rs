//! Who asks, and for which host: `X-Forwarded-*`, `X-Real-IP` and `Forwarded` (RFC 7239).
//!
//! These fields are there before the layer looks at a request, so an origin that answers by one of them and says so with
//! `Vary` is obeyed. Nothing of what a client claims in them is passed on but its list of addresses.

use std::net::{IpAddr, SocketAddr};

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{FORWARDED, HOST},
};

use super::lists::join;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// What the proxy itself says of a request. No client can have it removed by naming it in `Connection`.
pub(super) const OURS: [HeaderName; 5] = [
    FORWARDED,
    FORWARDED_FOR,
    FORWARDED_HOST,
    FORWARDED_PROTO,
    REAL_IP,
];

/// The other side of a client's connection, as its requests name it.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) address: HeaderValue,
    forwarded: HeaderValue,
    proto: HeaderValue,
}

// ===== impl Client =====

impl Client {
    pub(crate) fn new(peer: SocketAddr, secure: bool) -> Self {
        let address = peer.ip().to_canonical();
        let forwarded = match address {
            IpAddr::V4(address) => format!("for={address}"),
            IpAddr::V6(address) => format!("for=\"[{address}]\""),
        };
        let plain = |text| HeaderValue::try_from(text).expect("an address is plain text");
        Self {
            address: plain(address.to_string()),
            forwarded: plain(forwarded),
            proto: HeaderValue::from_static(if secure { "https" } else { "http" }),
        }
    }
}

/// Above the layer. `Forwarded` has the address alone there: the layer takes a field with anything else into the key, and
/// then no two clients would share a call.
pub(crate) fn put_forwarded(headers: &mut HeaderMap, client: &Client) {
    // The list grows at each proxy.
    join(headers, &FORWARDED_FOR, b", ", Some(&client.address));
    headers.insert(REAL_IP, client.address.clone());
    headers.insert(FORWARDED, client.forwarded.clone());
    headers.insert(FORWARDED_PROTO, client.proto.clone());
    match headers.get(HOST).cloned() {
        Some(host) => headers.insert(FORWARDED_HOST, host),
        None => headers.remove(FORWARDED_HOST),
    };
}

/// Below the layer. What it adds is in the key by other fields.
pub(crate) fn complete_forwarded(headers: &mut HeaderMap) {
    let Some(forwarded) = headers.get(FORWARDED) else {
        return;
    };
    let mut all = forwarded.as_bytes().to_vec();
    if let Some(host) = headers.get(FORWARDED_HOST) {
        // It was read as an authority, which has no quotes.
        all.extend_from_slice(b";host=\"");
        all.extend_from_slice(host.as_bytes());
        all.push(b'"');
    }
    if let Some(proto) = headers.get(FORWARDED_PROTO) {
        all.extend_from_slice(b";proto=");
        all.extend_from_slice(proto.as_bytes());
    }
    let all = HeaderValue::from_maybe_shared(bytes::Bytes::from(all));
    headers.insert(FORWARDED, all.expect("made of valid field values"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_ipv6_is_quoted() {
        let client = Client::new("[2001:db8::1]:80".parse().unwrap(), true);
        assert_eq!(client.forwarded, "for=\"[2001:db8::1]\"");
        let mapped = Client::new("[::ffff:192.0.2.1]:80".parse().unwrap(), false);
        assert_eq!(mapped.forwarded, "for=192.0.2.1");
    }
}
