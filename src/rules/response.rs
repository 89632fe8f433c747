//! Which responses go to more than one caller, and which of their fields.

use bytes::BytesMut;
use http::header::{CONNECTION, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, response};

use super::directives::{forbids, forbids_with_parameters, members, tokens, trim};
use super::vary;

/// Fields that belong to the connection and not to the message (RFC 9110 section 7.6.1).
const HOP_BY_HOP: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Whether a response may go to every caller that made the same request: the default policy.
///
/// It refuses
///
/// * interim responses (1xx, including 101);
/// * errors that concern one client or one request rather than the resource: 400, 401, 402, 406, 407, 408, 409, 411,
///   413, 415, 417, 419, 421, 422, 423, 424, 425, 426, 428, 429, 431, 440, 494 to 499, 505 and 511;
/// * `Set-Cookie`, `Set-Cookie2`, `Clear-Site-Data`, `WWW-Authenticate`, `Proxy-Authenticate`, `Authentication-Info`,
///   `Proxy-Authentication-Info` and `Optional-WWW-Authenticate`;
/// * `no-store`, `private` and `no-cache`, with or without an argument, in `Cache-Control`, in a field for certain
///   caches (`CDN-Cache-Control` and every other `*-Cache-Control`, `Surrogate-Control`), or such a field that cannot
///   be parsed;
/// * `X-Accel-Expires: 0`;
/// * `Vary: *`, or a `Vary` that cannot be parsed;
/// * `text/event-stream`, `multipart/x-mixed-replace` and every `application/grpc`.
///
/// Everything else is shared, including 5xx: an origin in trouble is spared the rush.
///
/// Whatever a policy returns, some responses are never shared, and others not with everybody: the
/// [module](crate::rules) lists those rules.
///
/// Until 1.0 a minor version may change this policy; the changelog will say so.
///
/// # Example
///
/// A policy that also shares `private` responses of one content type, because the key tells users apart:
///
/// ```
/// use http::{Response, header, response};
/// use tower_singleflight::rules;
///
/// fn policy(response: &response::Parts) -> bool {
///     let tile = response
///         .headers
///         .get(header::CONTENT_TYPE)
///         .is_some_and(|kind| kind == "image/webp");
///     tile || rules::shareable(response)
/// }
///
/// let (page, ()) = Response::builder()
///     .header("cache-control", "private")
///     .header("content-type", "text/html")
///     .body(())?
///     .into_parts();
/// assert!(!policy(&page));
///
/// let (tile, ()) = Response::builder()
///     .header("cache-control", "private")
///     .header("content-type", "image/webp")
///     .body(())?
///     .into_parts();
/// assert!(policy(&tile));
/// # Ok::<(), http::Error>(())
/// ```
#[must_use]
pub fn shareable(response: &response::Parts) -> bool {
    !response.status.is_informational()
        && !is_personal(response.status)
        && !has_forbidding_field(&response.headers)
}

/// Whether a response that was not shared suggests that the next one for its key won't be either. A response that
/// concerns one client says nothing about the key, unless one of its fields forbids sharing any response.
pub(crate) fn marks_key_unshareable(response: &response::Parts) -> bool {
    !is_of_one_client(response.status) || has_forbidding_field(&response.headers)
}

/// Whether a field says that a response is only for its caller.
fn has_forbidding_field(headers: &HeaderMap) -> bool {
    const DIRECTIVES: [&str; 3] = ["no-store", "private", "no-cache"];
    // One pass: each look-up by name costs as much.
    headers.iter().any(|(name, value)| match name.as_str() {
        name if is_for_one_client(name) => true,
        "cache-control" => forbids(value, &DIRECTIVES),
        "vary" => vary::is_everything(value),
        "content-type" => streams(value),
        "x-accel-expires" => trim(value.as_bytes()) == b"0",
        "surrogate-control" => forbids_with_parameters(value, &DIRECTIVES),
        // RFC 9213, and the CDNs' own names for it.
        name if name.ends_with("-cache-control") => forbids_with_parameters(value, &DIRECTIVES),
        _ => false,
    })
}

/// Whether a response may go to anybody but its caller, whatever the policy returns.
pub(crate) fn may_share(request_has_credentials: bool, response: &response::Parts) -> bool {
    // A 403 depends on the client's identity, and a user's key may leave out the fields that hold it.
    let refusal = response.status == StatusCode::FORBIDDEN && request_has_credentials;
    !response.status.is_informational()
        && !refusal
        && response
            .headers
            .iter()
            .all(|(name, value)| match name.as_str() {
                "vary" => !vary::is_everything(value),
                "transfer-encoding" => !has_coding(value),
                "trailer" => members(value)
                    .filter_map(|name| HeaderName::from_bytes(name).ok())
                    .all(|name| !is_for_one_client(name.as_str())),
                _ => true,
            })
}

/// The head of a follower's copy: everything but the hop-by-hop fields. `Trailer` stays, because the trailers do.
///
/// The values get bytes of their own: the originals are slices of the buffer into which the client read the head.
pub(crate) fn copy_head(response: &response::Parts) -> response::Parts {
    let mut copy = response.clone();
    let named = tokens(&response.headers, &CONNECTION);
    for name in named.filter_map(|name| HeaderName::from_bytes(name).ok()) {
        if !is_end_to_end(name.as_str()) {
            copy.headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        copy.headers.remove(name);
    }
    compact(&mut copy.headers);
    copy
}

/// Copies all values into one buffer.
fn compact(headers: &mut HeaderMap) {
    let mut block = BytesMut::with_capacity(headers.values().map(HeaderValue::len).sum());
    for value in headers.values_mut() {
        block.extend_from_slice(value.as_bytes());
        // A copy of a valid value is valid.
        if let Ok(mut copied) = HeaderValue::from_maybe_shared(block.split().freeze()) {
            copied.set_sensitive(value.is_sensitive());
            *value = copied;
        }
    }
}

/// Whether the bytes of the body are encoded for one connection. A copy has no `Transfer-Encoding` to say so.
fn has_coding(transfer_encoding: &HeaderValue) -> bool {
    members(transfer_encoding).any(|coding| {
        !coding.eq_ignore_ascii_case(b"chunked") && !coding.eq_ignore_ascii_case(b"identity")
    })
}

/// Whether trailers may go to every reader of a body. The policy does not see them.
pub(crate) fn trailers_may_be_shared(trailers: &HeaderMap) -> bool {
    trailers
        .keys()
        .all(|name| !is_for_one_client(name.as_str()))
}

/// Whether a response or trailer field is meant only for the client that asked.
fn is_for_one_client(name: &str) -> bool {
    matches!(
        name,
        "set-cookie"
            | "set-cookie2"
            | "www-authenticate"
            | "proxy-authenticate"
            | "authentication-info"
            | "proxy-authentication-info"
            | "optional-www-authenticate"
            | "clear-site-data"
    )
}

/// The statuses caused by one client or one request.
fn is_personal(status: StatusCode) -> bool {
    is_of_one_client(status) || matches!(status.as_u16(), 401 | 402 | 406 | 407 | 409 | 422..=424)
}

/// The personal statuses that say nothing about the key: they may be caused by anything about the client, such as its
/// request rate, a field that is too long, or the state of its connection. 419 and 440 mean an expired session; 494 to
/// 499 are nginx's.
fn is_of_one_client(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        400 | 408 | 411 | 413 | 415 | 417 | 419 | 421 | 425 | 426 | 428 | 429 | 431 | 440 | 494
            ..=499 | 505 | 511
    )
}

/// Whether the body is a conversation with one reader rather than a representation.
fn streams(content_type: &HeaderValue) -> bool {
    // Check each member, although this should not be a list: a garbled type that might be a stream counts as one.
    members(content_type).any(|kind| {
        let after = |essence: &[u8]| {
            let (start, rest) = kind.split_at_checked(essence.len())?;
            start.eq_ignore_ascii_case(essence).then_some(rest)
        };
        let is = |essence| after(essence).is_some_and(|rest| matches!(trim(rest), [] | [b';', ..]));
        is(b"text/event-stream")
            || is(b"multipart/x-mixed-replace")
            || after(b"application/grpc").is_some()
    })
}

/// Whether a field is for the recipient of the content, so that `Connection` can't remove it.
///
/// A sender must not name such a field (RFC 9110 section 7.6.1). If we obeyed, a wrong or hostile `Connection` could
/// change what the copy means, and only for followers: without `Content-Type` a browser guesses, without
/// `Content-Encoding` the bytes are noise, without `Content-Length` nobody notices a truncated body, without
/// `Cache-Control` or `Vary` a cache downstream gives the copy to strangers, without `Trailer` an HTTP/1.1 server sends
/// no trailers, and without a security policy a page runs what it must not.
fn is_end_to_end(name: &str) -> bool {
    const PREFIXES: [&str; 3] = ["content-", "access-control-", "cross-origin-"];
    const NAMES: [&str; 22] = [
        "accept-ranges",
        "age",
        "allow",
        "cache-control",
        "cdn-cache-control",
        "date",
        "etag",
        "expires",
        "last-modified",
        "link",
        "location",
        "permissions-policy",
        "pragma",
        "referrer-policy",
        "retry-after",
        "strict-transport-security",
        "surrogate-control",
        "trailer",
        "vary",
        "x-accel-expires",
        "x-content-type-options",
        "x-frame-options",
    ];
    is_for_one_client(name)
        || NAMES.contains(&name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use http::Version;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    type Fields<'a> = &'a [(&'a str, &'a [u8])];

    fn response(status: u16, fields: Fields<'_>) -> response::Parts {
        let mut response = http::Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        response.body(()).expect("a response").into_parts().0
    }

    #[test]
    fn the_status_decides_as_the_table_says() {
        let personal = [
            400, 401, 402, 406, 407, 408, 409, 411, 413, 415, 417, 419, 421, 422, 423, 424, 425,
            426, 428, 429, 431, 440, 494, 495, 496, 497, 498, 499, 505, 511,
        ];
        for status in 100..=999 {
            let expected = status >= 200 && !personal.contains(&status);
            assert_eq!(shareable(&response(status, &[])), expected, "{status}");
        }
    }

    #[test]
    fn a_field_that_speaks_to_one_client_forbids() {
        let rows: &[(&str, &[u8])] = &[
            ("set-cookie", b"a=b"),
            ("set-cookie", b""),
            ("www-authenticate", b"Basic"),
            ("proxy-authenticate", b"Basic"),
            ("authentication-info", b"nextnonce=\"x\""),
            ("proxy-authentication-info", b"nextnonce=\"x\""),
            ("optional-www-authenticate", b"Basic"),
            ("set-cookie2", b"a=b"),
            ("clear-site-data", b"\"cookies\""),
            ("cdn-cache-control", b"no-store"),
            ("cdn-cache-control", b"max-age=60, Private"),
            ("cdn-cache-control", b"no-cache;x"),
            ("cdn-cache-control", b"\xff"),
            ("cloudflare-cdn-cache-control", b"private"),
            ("surrogate-control", b"no-store"),
            ("surrogate-control", b"content=\"ESI/1.0\", no-store;edge"),
            ("surrogate-control", b"private"),
            ("surrogate-control", b"no-cache"),
            ("x-accel-expires", b"0"),
            ("x-accel-expires", b" 0 "),
            ("cache-control", b"no-store"),
            ("cache-control", b"Private"),
            ("cache-control", b"max-age=1, no-cache"),
            ("cache-control", b"private=\"x-user\""),
            ("cache-control", b"no-cache=\"set-cookie\""),
            ("cache-control", b"max-age=60;private"),
            ("cache-control", b"public, x=\"private"),
            ("cache-control", b"\xff"),
            ("vary", b"*"),
            ("vary", b"accept, *"),
            ("vary", b"accept encoding"),
            ("content-type", b"text/event-stream"),
            ("content-type", b"Text/Event-Stream ; charset=utf-8"),
            ("content-type", b"multipart/x-mixed-replace;boundary=x"),
            ("content-type", b"application/grpc"),
            ("content-type", b"application/grpc+proto"),
            ("content-type", b"application/grpc-web-text"),
            ("content-type", b"text/html, text/event-stream"),
        ];
        for (name, value) in rows {
            let value = *value;
            let row = [(*name, value)];
            assert!(
                !shareable(&response(200, &row)),
                "{name} {}",
                value.escape_ascii()
            );
        }
    }

    #[test]
    fn an_ordinary_response_is_shared() {
        let rows: &[Fields<'_>] = &[
            &[],
            &[("cache-control", b"max-age=60, public, must-revalidate")],
            &[("cache-control", b"x=\"private, no-store\"")],
            &[("cache-control", b"s-maxage=0")],
            &[("vary", b"accept-encoding, cookie"), ("vary", b"")],
            &[("content-type", b"text/html; x=text/event-stream")],
            &[("content-type", b"text/event-stream-not")],
            &[("content-type", b"application/json")],
            &[("pragma", b"no-cache"), ("expires", b"0")],
            &[("cdn-cache-control", b"max-age=60;a=1, public")],
            &[(
                "surrogate-control",
                b"max-age=3600+600;edge, content=\"ESI/1.0\"",
            )],
            &[("x-accel-expires", b"10"), ("x-accel-expires", b"@1000")],
            &[("x-accel-expires", b""), ("x-accel-expires", b"off")],
            &[("cache-controls", b"private")],
        ];
        for fields in rows {
            assert!(shareable(&response(200, fields)), "{fields:?}");
        }
    }

    #[test]
    fn forbidding_directives_are_found_in_any_line() {
        let fields: Fields<'_> = &[("cache-control", b"public"), ("cache-control", b"private")];
        assert!(!shareable(&response(200, fields)));
    }

    #[test]
    fn a_status_of_one_client_says_nothing_of_its_key_unless_a_field_forbids() {
        let of_one_client = [
            400, 408, 411, 413, 415, 417, 419, 421, 425, 426, 428, 429, 431, 440, 494, 495, 496,
            497, 498, 499, 505, 511,
        ];
        for status in 100..=999 {
            let is_of_one = of_one_client.contains(&status);
            assert_eq!(
                marks_key_unshareable(&response(status, &[])),
                !is_of_one,
                "{status}"
            );
            for field in [
                ("set-cookie", &b"a=b"[..]),
                ("cache-control", b"private"),
                ("vary", b"*"),
            ] {
                assert!(marks_key_unshareable(&response(status, &[field])));
            }
        }
    }

    #[test]
    fn some_responses_are_never_shared_whatever_the_policy_says() {
        for status in [100, 101, 103, 199] {
            assert!(!may_share(false, &response(status, &[])));
        }
        assert!(!may_share(false, &response(200, &[("vary", b"*")])));
        assert!(!may_share(false, &response(200, &[("vary", b"a b")])));
        assert!(!may_share(true, &response(403, &[])));
    }

    #[test]
    fn a_body_that_is_coded_for_its_connection_is_never_shared() {
        for coding in ["gzip", "gzip, chunked", "chunked, x", "Deflate;q=1"] {
            let row = [("transfer-encoding", coding.as_bytes())];
            assert!(!may_share(false, &response(200, &row)), "{coding}");
        }
        for coding in ["chunked", "Chunked", "identity", "chunked, chunked", ""] {
            let row = [("transfer-encoding", coding.as_bytes())];
            assert!(may_share(false, &response(200, &row)), "{coding}");
        }
    }

    #[test]
    fn trailers_for_one_client_are_not_shared_and_forbid_it_where_they_are_announced() {
        for (name, shared) in [
            ("Set-Cookie", false),
            ("Authentication-Info", false),
            ("x-sum", true),
        ] {
            let announced = format!("x-a, {name}");
            let row = [("trailer", announced.as_bytes())];
            assert_eq!(may_share(false, &response(200, &row)), shared);
            let mut trailers = HeaderMap::new();
            trailers.insert("x-a", HeaderValue::from_static("1"));
            trailers.insert(
                HeaderName::from_bytes(name.as_bytes()).expect("a name"),
                HeaderValue::from_static("1"),
            );
            assert_eq!(trailers_may_be_shared(&trailers), shared);
        }
    }

    #[test]
    fn what_only_the_default_policy_forbids_a_policy_may_allow() {
        assert!(may_share(false, &response(403, &[])));
        assert!(may_share(true, &response(200, &[])));
        assert!(may_share(true, &response(401, &[])));
        assert!(may_share(false, &response(200, &[("set-cookie", b"a=b")])));
        assert!(may_share(
            false,
            &response(200, &[("cache-control", b"private"), ("vary", b"cookie")])
        ));
    }

    #[test]
    fn a_copy_keeps_status_version_extensions_and_every_end_to_end_field() {
        let mut original = response(
            203,
            &[
                ("set-cookie", b"a"),
                ("set-cookie", b"b"),
                ("content-length", b"5"),
                ("trailer", b"x-sum"),
                ("x-raw", b"\xff"),
            ],
        );
        original.version = Version::HTTP_10;
        original.extensions.insert(7_u8);
        let copy = copy_head(&original);
        assert_eq!(copy.status, original.status);
        assert_eq!(copy.version, original.version);
        assert_eq!(copy.headers, original.headers);
        assert_eq!(copy.extensions.get(), Some(&7_u8));
    }

    #[test]
    fn a_copy_lacks_the_hop_by_hop_fields_and_those_that_connection_names() {
        let copy = copy_head(&response(
            200,
            &[
                ("connection", b"close, X-Hop,\"bad\""),
                ("connection", b"x-other"),
                ("keep-alive", b"timeout=5"),
                ("proxy-connection", b"close"),
                ("te", b"trailers"),
                ("transfer-encoding", b"chunked"),
                ("upgrade", b"h2c"),
                ("x-hop", b"1"),
                ("x-hop", b"2"),
                ("x-other", b"3"),
                ("x-end", b"4"),
            ],
        ));
        let names: Vec<_> = copy.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-end"]);
    }

    #[test]
    fn connection_cannot_take_a_field_that_the_content_needs() {
        for name in [
            "content-type",
            "content-length",
            "content-encoding",
            "content-security-policy",
            "access-control-allow-origin",
            "vary",
            "trailer",
            "cache-control",
            "etag",
            "set-cookie",
            "x-content-type-options",
        ] {
            let upper = name.to_ascii_uppercase();
            let original = response(200, &[("connection", upper.as_bytes()), (name, b"x")]);
            assert!(copy_head(&original).headers.contains_key(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn one_line_that_forbids_forbids_wherever_it_stands(
            status in select(vec![200_u16, 206, 304, 404, 500, 101, 429]),
            mut allowed in proptest::collection::vec(select(vec![
                ("cache-control", "public, max-age=1"), ("cache-control", "x=no-store"), ("vary", "accept, cookie"),
                ("content-type", "text/html"), ("content-type", "text/event-streams"), ("x-a", "no-store"),
                ("warning", "private"), ("accept", "*"), ("set-cookies", "a=b"),
            ]), 0..6),
            forbidden in proptest::option::of(select(vec![
                ("cache-control", "public, no-store"), ("cache-control", "PRIVATE"), ("cache-control", "no-cache=\"a, b\""),
                ("vary", "accept,*"), ("content-type", "text/event-stream; charset=utf-8"), ("set-cookie", "a=b"),
                ("content-type", "Multipart/X-Mixed-Replace ;boundary=x"), ("content-type", "application/grpc-web"),
                ("www-authenticate", "Basic"), ("proxy-authenticate", "Basic"), ("authentication-info", "a=b"),
            ])),
            at in any::<proptest::sample::Index>(),
        ) {
            if let Some(line) = forbidden {
                allowed.insert(at.index(allowed.len() + 1), line);
            }
            let lines: Vec<_> = allowed.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
            let head = response(status, &lines);
            let personal = matches!(status, 101 | 429);
            prop_assert_eq!(shareable(&head), !personal && forbidden.is_none());
            let varies = forbidden.is_some_and(|(name, _)| name == "vary");
            prop_assert_eq!(may_share(false, &head), status != 101 && !varies);
        }
    }
}
