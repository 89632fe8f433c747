//! The request fields that by convention carry neither identity nor representation.

use http::header::CONNECTION;
use http::{HeaderMap, HeaderName};

use crate::rules::tokens;

/// Fields of the connection over which a request came. `Proxy-Authorization` is none of them: it says who asks.
///
/// A list by length, as the next one: the length alone sorts out most names.
fn is_hop_by_hop(name: &[u8]) -> bool {
    match name.len() {
        2 => name == b"te",
        7 => name == b"trailer" || name == b"upgrade",
        10 => name == b"connection" || name == b"keep-alive",
        16 => name == b"proxy-connection",
        17 => name == b"transfer-encoding",
        _ => false,
    }
}

/// Trace and request ids, the proxies on the way, and the client's description of itself.
///
/// Keep in sync with the table in the documentation of `RequestKeyExtractor`.
fn is_conventional(name: &[u8]) -> bool {
    match name.len() {
        2 => name == b"b3",
        3 => name == b"via" || name == b"dnt",
        7 => name == b"baggage" || name == b"referer" || name == b"sec-gpc",
        8 => name == b"priority",
        9 => name == b"forwarded" || name == b"x-real-ip",
        10 => name == b"user-agent" || name == b"tracestate",
        11 => name == b"traceparent",
        12 => name == b"x-request-id",
        15 => name == b"x-forwarded-for" || name == b"x-amzn-trace-id",
        16 => name == b"x-correlation-id",
        21 => name == b"x-cloud-trace-context",
        25 => name == b"upgrade-insecure-requests",
        _ => false,
    }
}

/// The families among those: `sec-ch-*`, `sec-fetch-*`, `x-b3-*`.
fn is_of_a_family(name: &[u8]) -> bool {
    match name.first() {
        Some(b's') => name.starts_with(b"sec-ch-") || name.starts_with(b"sec-fetch-"),
        Some(b'x') => name.starts_with(b"x-b3-"),
        _ => false,
    }
}

/// What one request's key leaves out.
#[derive(Debug)]
pub(super) struct Ignored<'a> {
    /// Sorted.
    user: &'a [HeaderName],
    /// The request, if its `Connection` names fields.
    named_by: Option<&'a HeaderMap>,
}

// ===== impl Ignored =====

impl<'a> Ignored<'a> {
    /// `user` is sorted by [`HeaderName::as_str`].
    pub(super) fn new(user: &'a [HeaderName], request: &'a HeaderMap) -> Self {
        let idle = |option: &[u8]| {
            option.eq_ignore_ascii_case(b"keep-alive") || option.eq_ignore_ascii_case(b"close")
        };
        let names = request.contains_key(CONNECTION) && !tokens(request, &CONNECTION).all(idle);
        Self {
            user,
            named_by: names.then_some(request),
        }
    }

    /// Whether the field `name` is left out.
    ///
    /// A field that the request's own `Connection` names is in the key in any case: what a client writes there may put
    /// a field into its key, never take one out. Only the fixed hop-by-hop fields stay out; they are named there as a
    /// matter of course (`Connection: keep-alive`).
    pub(super) fn contains(&self, name: &HeaderName) -> bool {
        let bytes = name.as_str().as_bytes();
        if is_hop_by_hop(bytes) {
            return true;
        }
        let listed = is_conventional(bytes) || is_of_a_family(bytes) || self.is_users(name);
        listed && !self.is_named(bytes)
    }

    fn is_users(&self, name: &HeaderName) -> bool {
        !self.user.is_empty() && search(self.user, name).is_ok()
    }

    fn is_named(&self, name: &[u8]) -> bool {
        self.named_by.is_some_and(|request| {
            tokens(request, &CONNECTION).any(|option| option.eq_ignore_ascii_case(name))
        })
    }
}

/// Where `name` is in a sorted list, or belongs in it.
pub(super) fn search(sorted: &[HeaderName], name: &HeaderName) -> Result<usize, usize> {
    sorted.binary_search_by(|other| other.as_str().cmp(name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOP_BY_HOP: [&str; 7] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];

    const CONVENTIONAL: [&str; 29] = [
        "b3",
        "baggage",
        "dnt",
        "forwarded",
        "priority",
        "referer",
        "sec-ch-ua",
        "sec-ch-ua-mobile",
        "sec-ch-viewport-width",
        "sec-fetch-dest",
        "sec-fetch-mode",
        "sec-fetch-site",
        "sec-fetch-user",
        "sec-gpc",
        "traceparent",
        "tracestate",
        "upgrade-insecure-requests",
        "user-agent",
        "via",
        "x-amzn-trace-id",
        "x-b3-flags",
        "x-b3-parentspanid",
        "x-b3-sampled",
        "x-b3-spanid",
        "x-b3-traceid",
        "x-cloud-trace-context",
        "x-correlation-id",
        "x-forwarded-for",
        "x-real-ip",
    ];

    fn contains(user: &[&str], connection: &[&str], name: &str) -> bool {
        let parse = |name: &str| name.parse::<HeaderName>().expect("a name");
        let mut user: Vec<_> = user.iter().map(|name| parse(name)).collect();
        user.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        let line = |line: &&str| (CONNECTION, line.parse().expect("a value"));
        let request = connection.iter().map(line).collect();
        Ignored::new(&user, &request).contains(&parse(name))
    }

    #[test]
    fn every_field_of_the_list_is_left_out() {
        for name in HOP_BY_HOP
            .iter()
            .chain(&CONVENTIONAL)
            .chain(&["x-request-id"])
        {
            assert!(contains(&[], &[], name), "{name}");
        }
    }

    #[test]
    fn every_other_field_is_in_the_key() {
        for name in [
            "accept",
            "authorization",
            "b33",
            "cookie",
            "host",
            "proxy-authorization",
            "range",
            "sec-chx",
            "sec-websocket-key",
            "user-agents",
            "x-b3",
            "x-client-ip",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-forwarded-user",
            "x-request-idx",
            "x-user-id",
        ] {
            assert!(!contains(&[], &[], name), "{name}");
        }
    }

    #[test]
    fn the_user_may_add_names() {
        let user = ["x-noise", "accept-language", "a"];
        for name in user {
            assert!(contains(&user, &[], name), "{name}");
        }
        assert!(!contains(&user, &[], "x-user-id"));
        assert!(contains(&user, &[], "via"));
    }

    #[test]
    fn connection_puts_a_listed_field_into_the_key() {
        for name in CONVENTIONAL {
            let upper = name.to_ascii_uppercase();
            assert!(!contains(&[], &["close", &format!("te, {upper}")], name));
            assert!(contains(&[], &["close", "x-other"], name));
        }
        assert!(!contains(&["x-noise"], &["X-Noise"], "x-noise"));
    }

    #[test]
    fn connection_takes_no_field_out() {
        assert!(!contains(&[], &["x-user-id"], "x-user-id"));
        assert!(!contains(&[], &["close, authorization"], "authorization"));
    }

    #[test]
    fn the_fixed_hop_by_hop_fields_are_left_out_although_connection_names_them() {
        for name in HOP_BY_HOP {
            assert!(contains(&[], &[name], name), "{name}");
        }
    }
}
