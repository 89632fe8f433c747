//! Which requests always make their own call, whatever their key.

use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::{
    directives::{forbids, is_tchar, members, trim},
    request_field::RequestField,
};

/// The fields that identify the sender of a request. Keep in sync with [`RequestFields::note`].
pub(super) const CREDENTIALS: [HeaderName; 3] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];

/// Why a request bypassed the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bypass {
    /// `CONNECT`, or a method that the key function does not opt in.
    Method,
    /// A GET or HEAD with a body, or a body that can't be part of the key: it was not read, or has trailers that the
    /// key function can't see.
    Body,
    /// The connection may switch to another protocol.
    Upgrade,
    /// The client subscribes to a stream of events.
    EventStream,
    /// The client waits for an interim response of its own.
    Expect,
    /// `no-store` or `only-if-cached`.
    CacheControl,
    /// The key function returned `None`.
    NoKey,
    /// The layer is switched off.
    Disabled,
}

/// What these rules need to know about a request's fields, collected in one pass: a look-up by name costs as much as a
/// pass over a few fields.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RequestFields {
    /// `Connection: upgrade`.
    connection_upgrade: bool,
    /// `Upgrade` offers HTTP in another form, which a server may ignore: `h2c`, or TLS on the same connection.
    http_upgrade: bool,
    /// `Upgrade` offers another protocol, or something that can't be parsed.
    upgrade: bool,
    event_stream: bool,
    expect: bool,
    cache_control: bool,
    body: bool,
    pub(crate) credentials: bool,
}

/// Whether a method is safe (RFC 9110 section 9.2.1). Unknown methods are not.
pub(crate) fn is_safe(method: &Method) -> bool {
    matches!(
        method.as_str(),
        "GET" | "HEAD" | "OPTIONS" | "TRACE" | "QUERY" | "PROPFIND" | "REPORT" | "SEARCH"
    )
}

/// Whether a response to an unsafe method means that its target may have changed (RFC 9111 section 4.4).
pub(crate) fn invalidates(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection()
}

pub(crate) fn has_credentials(request: &HeaderMap) -> bool {
    request.keys().any(|name| CREDENTIALS.contains(name))
}

/// A member that is not a token may be a garbled `upgrade`, so it counts as one.
fn upgrades(connection: &HeaderValue) -> bool {
    members(connection).any(|option| {
        option.eq_ignore_ascii_case(b"upgrade") || !option.iter().all(|byte| is_tchar(*byte))
    })
}

/// Whether a line of `Upgrade` offers HTTP in another form, and nothing else.
fn offers_http(upgrade: &HeaderValue) -> bool {
    let is_http = |protocol: &[u8]| {
        let tls = protocol.split_at_checked(4);
        protocol.eq_ignore_ascii_case(b"h2c")
            || tls.is_some_and(|(tls, version)| {
                tls.eq_ignore_ascii_case(b"tls/")
                    && !version.is_empty()
                    && version.iter().all(|byte| is_tchar(*byte))
            })
    };
    let mut protocols = members(upgrade).peekable();
    protocols.peek().is_some() && protocols.all(is_http)
}

/// Whether an `Accept` names event streams, whatever their `q`.
fn accepts_event_stream(accept: &HeaderValue) -> bool {
    const EVENT_STREAM: &[u8] = b"text/event-stream";
    // Most have no hyphen, and `contains` is the fast one.
    accept.len() >= EVENT_STREAM.len()
        && accept.as_bytes().contains(&b'-')
        && members(accept).any(|range| {
            let essence = range.split(|byte| *byte == b';').next();
            essence.is_some_and(|it| trim(it).eq_ignore_ascii_case(EVENT_STREAM))
        })
}

// ===== impl RequestFields =====

impl RequestFields {
    /// One more line.
    #[inline(always)]
    pub(crate) fn note(&mut self, field: RequestField, value: &HeaderValue) {
        match field {
            RequestField::Accept => self.event_stream |= accepts_event_stream(value),
            RequestField::Authorization
            | RequestField::Cookie
            | RequestField::ProxyAuthorization => self.credentials = true,
            RequestField::CacheControl => {
                // Browsers send this when somebody reloads a page.
                self.cache_control |= !matches!(value.as_bytes(), b"max-age=0" | b"no-cache")
                    && forbids(value, &["no-store", "only-if-cached"]);
            }
            RequestField::Connection => self.connection_upgrade |= upgrades(value),
            // Anything but a plain zero counts, whatever the body says: the inner service may trust the field.
            RequestField::ContentLength => {
                let digits = value.as_bytes();
                self.body |= digits.is_empty() || digits.iter().any(|byte| *byte != b'0');
            }
            RequestField::Expect => self.expect = true,
            RequestField::TransferEncoding => self.body = true,
            RequestField::Upgrade => match offers_http(value) {
                true => self.http_upgrade = true,
                false => self.upgrade = true,
            },
            _ => {}
        }
    }

    /// Whether the request has a body, or says so. `exact` is the `size_hint().exact()` of its body.
    pub(crate) fn has_body(&self, end_of_stream: bool, exact: Option<u64>) -> bool {
        self.body || !(end_of_stream || exact == Some(0))
    }

    /// Why the request must not be coalesced, whatever the key function returns; `None` if it may be.
    pub(crate) fn bypass(&self, method: &Method, has_body: bool) -> Option<Bypass> {
        if *method == Method::CONNECT {
            Some(Bypass::Method)
        } else if self.upgrade || self.connection_upgrade && !self.http_upgrade {
            Some(Bypass::Upgrade)
        } else if self.event_stream {
            Some(Bypass::EventStream)
        } else if self.expect {
            Some(Bypass::Expect)
        } else if self.cache_control {
            Some(Bypass::CacheControl)
        } else if has_body && matches!(*method, Method::GET | Method::HEAD) {
            Some(Bypass::Body)
        } else {
            None
        }
    }
}

// ===== impl Bypass =====

impl Bypass {
    /// The label of this reason in traces and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Body => "body",
            Self::Upgrade => "upgrade",
            Self::EventStream => "event_stream",
            Self::Expect => "expect",
            Self::CacheControl => "cache_control",
            Self::NoKey => "no_key",
            Self::Disabled => "disabled",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    type Fields<'a> = &'a [(&'a str, &'a [u8])];

    fn noted(fields: Fields<'_>) -> RequestFields {
        let mut request = http::Request::builder();
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        let mut noted = RequestFields::default();
        for (name, value) in request.headers() {
            noted.note(RequestField::of(name.as_str()), value);
        }
        assert_eq!(noted.credentials, has_credentials(request.headers()));
        noted
    }

    fn bypass(method: &str, fields: Fields<'_>, has_body: bool) -> Option<Bypass> {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        noted(fields).bypass(&method, has_body)
    }

    fn has_body(fields: Fields<'_>, end_of_stream: bool, exact: Option<u64>) -> bool {
        noted(fields).has_body(end_of_stream, exact)
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
            ("POST", &[("upgrade", b"h3")], Bypass::Upgrade),
            ("GET", &[("upgrade", b"h2c, websocket")], Bypass::Upgrade),
            (
                "GET",
                &[("upgrade", b"h2c"), ("upgrade", b"websocket")],
                Bypass::Upgrade,
            ),
            (
                "GET",
                &[("upgrade", b"websocket"), ("upgrade", b"h2c")],
                Bypass::Upgrade,
            ),
            (
                "GET",
                &[("connection", b"upgrade"), ("upgrade", b" ,")],
                Bypass::Upgrade,
            ),
            ("GET", &[("upgrade", b"h2c/1")], Bypass::Upgrade),
            ("GET", &[("upgrade", b"tls")], Bypass::Upgrade),
            ("GET", &[("upgrade", b"TLS/")], Bypass::Upgrade),
            ("GET", &[("upgrade", b"TLS/1.2 x")], Bypass::Upgrade),
            (
                "GET",
                &[("accept", b"text/event-stream")],
                Bypass::EventStream,
            ),
            (
                "GET",
                &[("accept", b"text/html, Text/Event-Stream ;q=0,*/*")],
                Bypass::EventStream,
            ),
            (
                "GET",
                &[("accept", b"*/*"), ("accept", b"text/event-stream;q=0.1")],
                Bypass::EventStream,
            ),
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
                bypass(method, fields, false),
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
            &[("accept", b"text/html, text/event-streams, x/text-event")],
            &[("accept", b"*/*, text/*; x=text/event-stream")],
        ] {
            assert_eq!(bypass("GET", fields, false), None, "{fields:?}");
        }
    }

    #[test]
    fn an_offer_of_http_by_other_means_is_no_reason() {
        let java = &b"AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA"[..];
        for fields in [
            &[("upgrade", &b"h2c"[..])][..],
            &[
                ("connection", b"Upgrade, HTTP2-Settings"),
                ("upgrade", b"h2c"),
                ("http2-settings", java),
            ],
            &[("connection", b"upgrade"), ("upgrade", b"H2C, TLS/1.2")],
            &[("connection", b"upgrade"), ("upgrade", b"tls/1.0")],
            &[("upgrade", b"h2c"), ("upgrade", b", TLS/1.3")],
        ] {
            assert_eq!(bypass("GET", fields, false), None, "{fields:?}");
        }
    }

    #[test]
    fn a_body_counts_for_get_and_head_alone() {
        assert_eq!(bypass("GET", &[], true), Some(Bypass::Body));
        assert_eq!(bypass("HEAD", &[], true), Some(Bypass::Body));
        assert_eq!(bypass("POST", &[], true), None);
        assert_eq!(bypass("QUERY", &[], true), None);
    }

    #[test]
    fn a_body_is_seen_in_the_stream_the_hint_or_the_fields() {
        assert!(!has_body(&[], true, Some(0)));
        assert!(!has_body(&[], false, Some(0)));
        assert!(!has_body(&[], true, None));
        assert!(!has_body(&[("content-length", b"0")], true, Some(0)));

        assert!(has_body(&[], false, None));
        assert!(has_body(&[], false, Some(1)));
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
            assert!(has_body(fields, true, Some(0)), "{fields:?}");
        }
    }

    #[test]
    fn credentials_are_authorization_cookie_and_proxy_authorization() {
        for name in ["authorization", "cookie", "proxy-authorization"] {
            assert!(noted(&[(name, b"")]).credentials);
        }
        assert!(!noted(&[("x-user", b"a")]).credentials);
    }

    #[test]
    fn the_safe_methods_are_those_whose_definition_says_so() {
        let is_safe =
            |method: &str| is_safe(&Method::from_bytes(method.as_bytes()).expect("a method"));
        for method in [
            "GET", "HEAD", "OPTIONS", "TRACE", "QUERY", "PROPFIND", "REPORT", "SEARCH",
        ] {
            assert!(is_safe(method), "{method}");
        }
        for method in [
            "POST",
            "PUT",
            "DELETE",
            "PATCH",
            "CONNECT",
            "PROPPATCH",
            "LOCK",
            "BREW",
            "get",
        ] {
            assert!(!is_safe(method), "{method}");
        }
    }

    #[test]
    fn success_and_redirection_invalidate() {
        for status in 100..=999 {
            let expected = (200..400).contains(&status);
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(invalidates(status), expected, "{status}");
        }
    }

    #[cfg(any(feature = "tracing", feature = "metrics"))]
    #[test]
    fn every_reason_has_a_label_of_its_own() {
        let all = [
            Bypass::Method,
            Bypass::Body,
            Bypass::Upgrade,
            Bypass::EventStream,
            Bypass::Expect,
            Bypass::CacheControl,
            Bypass::NoKey,
            Bypass::Disabled,
        ];
        let labels: std::collections::HashSet<_> =
            all.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(labels.len(), all.len());
    }

    // ===== the one pass against a look-up for each rule =====

    fn members_of<'a>(fields: &'a [(&str, &str)], name: &str) -> Vec<&'a str> {
        let lines = fields.iter().filter(|(other, _)| *other == name);
        lines
            .flat_map(|(_, line)| line.split(','))
            .map(str::trim)
            .collect()
    }

    fn has(fields: &[(&str, &str)], names: &[&str]) -> bool {
        fields.iter().any(|(name, _)| names.contains(name))
    }

    fn looked_up(fields: &[(&str, &str)], has_body: bool) -> Option<Bypass> {
        let holds = |field, wanted: &[&str]| {
            let members = members_of(fields, field);
            members
                .iter()
                .any(|member| wanted.contains(&member.to_lowercase().as_str()))
        };
        let offers = members_of(fields, "upgrade");
        let http = |offer: &&str| matches!(offer.to_lowercase().as_str(), "" | "h2c" | "tls/1.2");
        let ignorable = offers.iter().all(http)
            && fields.iter().all(|(name, line)| {
                *name != "upgrade" || !line.trim_matches([' ', ',']).is_empty()
            });
        let upgrades = match has(fields, &["upgrade"]) {
            true => !ignorable,
            false => holds("connection", &["upgrade"]),
        };
        let accepted = members_of(fields, "accept");
        let types = |range: &&str| {
            range
                .split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .to_lowercase()
        };
        if upgrades {
            Some(Bypass::Upgrade)
        } else if accepted
            .iter()
            .any(|range| types(range) == "text/event-stream")
        {
            Some(Bypass::EventStream)
        } else if has(fields, &["expect"]) {
            Some(Bypass::Expect)
        } else if holds("cache-control", &["no-store", "only-if-cached"]) {
            Some(Bypass::CacheControl)
        } else if has_body {
            Some(Bypass::Body)
        } else {
            None
        }
    }

    fn field() -> impl Strategy<Value = (&'static str, &'static str)> {
        // Some are as long as one that counts.
        let plain = vec![
            "refresh",
            "user-agent",
            "x-some-header",
            "x-fourteen-oct",
            "x-seventeen-octet",
            "x-nineteen-octets-x",
        ];
        let counts = vec![
            "cookie",
            "authorization",
            "proxy-authorization",
            "expect",
            "transfer-encoding",
        ];
        prop_oneof![
            3 => (select(plain), select(vec!["", "upgrade", "no-store", "1"])),
            1 => (select(counts), select(vec!["", "a"])),
            1 => (
                Just("connection"),
                select(vec!["", "close", "te, Upgrade", "UPGRADE,close", "upgrades", "x-upgrade"]),
            ),
            1 => (
                Just("cache-control"),
                select(vec!["no-cache", "max-age=0", "a, No-Store", "ONLY-IF-CACHED ,b", "no-stores", "x=no-store"]),
            ),
            1 => (
                Just("upgrade"),
                select(vec!["", "h2c", "H2C , TLS/1.2", "websocket", "h2c,websocket", " ,", "tls/1.2,"]),
            ),
            1 => (
                Just("accept"),
                select(vec!["*/*", "text/event-stream", "a/b-c, TEXT/event-stream;q=0", "text/event-streams", "a/b; text/event-stream"]),
            ),
            1 => (Just("content-length"), select(vec!["0", "000", "", "1", "0a"])),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn one_pass_says_what_a_look_up_for_each_rule_says(
            fields in proptest::collection::vec(field(), 0..7),
            end_of_stream: bool,
            exact in proptest::option::of(0..2_u64),
        ) {
            let lines: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
            let noted = noted(&lines);
            let lengths = fields.iter().filter(|(name, _)| *name == "content-length");
            let stated = lengths.clone().any(|(_, value)| !matches!(*value, "0" | "000"));
            let has_body = stated
                || has(&fields, &["transfer-encoding"])
                || !(end_of_stream || exact == Some(0));
            prop_assert_eq!(noted.has_body(end_of_stream, exact), has_body);
            prop_assert_eq!(noted.bypass(&Method::GET, has_body), looked_up(&fields, has_body));
            let credentials = has(&fields, &["cookie", "authorization", "proxy-authorization"]);
            prop_assert_eq!(noted.credentials, credentials);
        }
    }
}
