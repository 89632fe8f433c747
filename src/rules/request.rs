//! Which requests make their own call, whatever their key.

use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, StatusCode, request};

use super::directives::{forbids, is_tchar, tokens};

/// Why a request was passed to the inner service as if the layer were not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bypass {
    /// `CONNECT`, or a method that the key function does not opt in.
    Method,
    /// A GET or HEAD that brings a body.
    Body,
    /// The connection may become something else than HTTP.
    Upgrade,
    /// The client waits for an interim answer that is its own.
    Expect,
    /// `no-store` or `only-if-cached`.
    CacheControl,
    /// The key function returned `None`.
    NoKey,
    /// The layer is switched off.
    Disabled,
}

/// Why this request must not be coalesced whatever the key function says; `None` if nothing forbids it.
pub(crate) fn bypass(request: &request::Parts, has_body: bool) -> Option<Bypass> {
    let headers = &request.headers;
    if request.method == Method::CONNECT {
        Some(Bypass::Method)
    } else if headers.contains_key(UPGRADE) || connection_upgrades(headers) {
        Some(Bypass::Upgrade)
    } else if headers.contains_key(EXPECT) {
        Some(Bypass::Expect)
    } else if forbids(headers, &CACHE_CONTROL, &["no-store", "only-if-cached"]) {
        Some(Bypass::CacheControl)
    } else if has_body && matches!(request.method, Method::GET | Method::HEAD) {
        Some(Bypass::Body)
    } else {
        None
    }
}

/// Whether a request brings a body, or says that it does.
///
/// `size_hint_exact` is the `size_hint().exact()` of its body. A `Content-Length` that is not a plain zero counts,
/// although the body says that it is empty: an inner service may believe the field.
pub(crate) fn has_body(
    headers: &HeaderMap,
    end_of_stream: bool,
    size_hint_exact: Option<u64>,
) -> bool {
    let empty = end_of_stream || size_hint_exact == Some(0);
    let is_zero = |value: &[u8]| !value.is_empty() && value.iter().all(|byte| *byte == b'0');
    !empty
        || headers.contains_key(TRANSFER_ENCODING)
        || headers
            .get_all(CONTENT_LENGTH)
            .iter()
            .any(|value| !is_zero(value.as_bytes()))
}

/// Whether a method is safe (RFC 9110 section 9.2.1). One that we don't know is not.
pub(crate) fn is_safe(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE
    )
}

/// Whether this answer says that the state of its target may have changed (RFC 9111 section 4.4).
pub(crate) fn invalidates(method: &Method, status: StatusCode) -> bool {
    !is_safe(method) && (status.is_success() || status.is_redirection())
}

/// A member that is no token may be a garbled `upgrade`, so it counts as one.
fn connection_upgrades(headers: &HeaderMap) -> bool {
    tokens(headers, &CONNECTION).any(|option| {
        option.eq_ignore_ascii_case(b"upgrade") || !option.iter().all(|byte| is_tchar(*byte))
    })
}

// ===== impl Bypass =====

#[cfg(any(feature = "tracing", feature = "metrics"))]
impl Bypass {
    /// The label of this reason in traces and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Body => "body",
            Self::Upgrade => "upgrade",
            Self::Expect => "expect",
            Self::CacheControl => "cache_control",
            Self::NoKey => "no_key",
            Self::Disabled => "disabled",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Fields<'a> = &'a [(&'a str, &'a [u8])];

    fn request(method: &str, fields: Fields<'_>) -> request::Parts {
        let mut request = http::Request::builder().method(method).uri("/");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn headers(fields: Fields<'_>) -> HeaderMap {
        request("GET", fields).headers
    }

    #[test]
    fn every_reason_is_found() {
        let rows: &[(&str, Fields<'_>, Bypass)] = &[
            ("CONNECT", &[], Bypass::Method),
            ("GET", &[("upgrade", b"websocket")], Bypass::Upgrade),
            ("GET", &[("upgrade", b"")], Bypass::Upgrade),
            ("GET", &[("connection", b"upgrade")], Bypass::Upgrade),
            ("GET", &[("connection", b"close, UpGrade")], Bypass::Upgrade),
            (
                "GET",
                &[("connection", b"close"), ("connection", b" upgrade ")],
                Bypass::Upgrade,
            ),
            ("GET", &[("connection", b"upgrade;x")], Bypass::Upgrade),
            ("GET", &[("connection", b"\xff")], Bypass::Upgrade),
            ("POST", &[("upgrade", b"h2c")], Bypass::Upgrade),
            ("GET", &[("expect", b"100-continue")], Bypass::Expect),
            ("GET", &[("expect", b"")], Bypass::Expect),
            (
                "GET",
                &[("cache-control", b"no-store")],
                Bypass::CacheControl,
            ),
            (
                "HEAD",
                &[("cache-control", b"max-stale, Only-If-Cached")],
                Bypass::CacheControl,
            ),
            (
                "GET",
                &[
                    ("cache-control", b"max-age=0"),
                    ("cache-control", b"no-store"),
                ],
                Bypass::CacheControl,
            ),
            (
                "GET",
                &[("cache-control", b"no-cache no-store")],
                Bypass::CacheControl,
            ),
        ];
        for (method, fields, reason) in rows {
            assert_eq!(
                bypass(&request(method, fields), false),
                Some(*reason),
                "{method} {fields:?}"
            );
        }
    }

    #[test]
    fn a_plain_request_and_a_reload_are_coalesced() {
        for fields in [
            &[][..],
            &[("cache-control", &b"no-cache"[..])],
            &[("cache-control", b"max-age=0"), ("pragma", b"no-cache")],
            &[("cache-control", b"ext=\"no-store\"")],
            &[("connection", b"keep-alive, TE"), ("te", b"trailers")],
            &[("authorization", b"Basic eDp5"), ("cookie", b"a=b")],
            &[("range", b"bytes=0-1"), ("if-none-match", b"\"x\"")],
        ] {
            assert_eq!(bypass(&request("GET", fields), false), None, "{fields:?}");
        }
    }

    #[test]
    fn a_body_counts_for_get_and_head_alone() {
        assert_eq!(bypass(&request("GET", &[]), true), Some(Bypass::Body));
        assert_eq!(bypass(&request("HEAD", &[]), true), Some(Bypass::Body));
        assert_eq!(bypass(&request("POST", &[]), true), None);
        assert_eq!(bypass(&request("QUERY", &[]), true), None);
    }

    #[test]
    fn a_body_is_seen_in_the_stream_the_hint_or_the_fields() {
        assert!(!has_body(&headers(&[]), true, Some(0)));
        assert!(!has_body(&headers(&[]), false, Some(0)));
        assert!(!has_body(&headers(&[]), true, None));
        assert!(!has_body(
            &headers(&[("content-length", b"0")]),
            true,
            Some(0)
        ));

        assert!(has_body(&headers(&[]), false, None));
        assert!(has_body(&headers(&[]), false, Some(1)));
        for fields in [
            &[("content-length", &b"1"[..])][..],
            &[("content-length", b"10")],
            &[("content-length", b"")],
            &[("content-length", b"-0")],
            &[("content-length", b"0, 0")],
            &[("content-length", b"99999999999999999999")],
            &[("content-length", b"0"), ("content-length", b"5")],
            &[("transfer-encoding", b"chunked")],
        ] {
            assert!(has_body(&headers(fields), true, Some(0)), "{fields:?}");
        }
    }

    #[test]
    fn a_successful_answer_to_an_unsafe_method_invalidates() {
        for method in ["POST", "PUT", "DELETE", "PATCH", "BREW", "get"] {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            assert!(!is_safe(&method));
            assert!(invalidates(&method, StatusCode::NO_CONTENT));
            assert!(invalidates(&method, StatusCode::SEE_OTHER));
            assert!(!invalidates(&method, StatusCode::CONTINUE));
            assert!(!invalidates(&method, StatusCode::NOT_FOUND));
            assert!(!invalidates(&method, StatusCode::BAD_GATEWAY));
        }
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE] {
            assert!(is_safe(&method));
            assert!(!invalidates(&method, StatusCode::OK));
        }
    }

    #[cfg(any(feature = "tracing", feature = "metrics"))]
    #[test]
    fn every_reason_has_a_label_of_its_own() {
        let all = [
            Bypass::Method,
            Bypass::Body,
            Bypass::Upgrade,
            Bypass::Expect,
            Bypass::CacheControl,
            Bypass::NoKey,
            Bypass::Disabled,
        ];
        let labels: std::collections::HashSet<_> =
            all.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(labels.len(), all.len());
    }
}
