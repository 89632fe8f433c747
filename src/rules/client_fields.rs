//! The request fields that describe a client or hold its address.

use http::{HeaderName, header};

/// Stands for every field whose name begins with it; no field is named so.
const fn family(prefix: &'static str) -> HeaderName {
    assert!(matches!(prefix.as_bytes(), [.., b'-']));
    HeaderName::from_static(prefix)
}

/// Those that the default key leaves out. A name that ends in `-` is a [family](super::vary).
pub(super) const CLIENT: [HeaderName; 7] = [
    header::USER_AGENT,
    header::REFERER,
    family("sec-fetch-"),
    family("sec-ch-"),
    header::FORWARDED,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-real-ip"),
];

/// The client's address as CDNs, clouds and ingress controllers pass it on. The default key holds them.
pub(crate) const CLIENT_ADDRESS: [HeaderName; 19] = [
    HeaderName::from_static("ali-cdn-real-ip"),
    HeaderName::from_static("cf-connecting-ip"),
    HeaderName::from_static("cf-connecting-ipv6"),
    HeaderName::from_static("cf-pseudo-ipv4"),
    HeaderName::from_static("cloudfront-viewer-address"),
    HeaderName::from_static("do-connecting-ip"),
    HeaderName::from_static("fastly-client-ip"),
    HeaderName::from_static("fly-client-ip"),
    HeaderName::from_static("incap-client-ip"),
    HeaderName::from_static("true-client-ip"),
    HeaderName::from_static("x-appengine-user-ip"),
    HeaderName::from_static("x-azure-clientip"),
    HeaderName::from_static("x-azure-socketip"),
    HeaderName::from_static("x-client-ip"),
    HeaderName::from_static("x-cluster-client-ip"),
    HeaderName::from_static("x-envoy-external-address"),
    HeaderName::from_static("x-nf-client-connection-ip"),
    HeaderName::from_static("x-original-forwarded-for"),
    HeaderName::from_static("x-vercel-forwarded-for"),
];
