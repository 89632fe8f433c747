//! The request fields that the default key leaves out: those that a user adds, beside the list in [`RequestField`].

use http::HeaderName;

use super::named::{Named, holds};
use crate::rules::RequestField;

/// The names that a user has added.
#[derive(Clone, Debug, Default)]
pub(super) struct Ignored {
    /// Each once.
    names: Vec<HeaderName>,
    /// A bit for each length that occurs, the last for all longer ones: most look-ups end here.
    lengths: u64,
}

/// How the key treats a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    Key,
    /// The key, as one that the request's own `Connection` names.
    Named,
    /// The key, unless [its lines hold addresses alone](super::forwarded).
    Forwarded,
    /// Nowhere: a trace or request id, the proxies on the way, the client's description of itself, or a name that the
    /// user has added.
    Ignored,
    /// Nowhere: a field that describes the connection. `Proxy-Authorization` is not one: it identifies the client.
    HopByHop,
}

// ===== impl Treatment =====

impl Treatment {
    pub(super) fn is_in_key(self) -> bool {
        !matches!(self, Self::Ignored | Self::HopByHop)
    }
}

// ===== impl Ignored =====

impl Ignored {
    pub(super) fn insert(&mut self, name: HeaderName) {
        if !self.contains(name.as_str()) {
            self.lengths |= Self::bit(name.as_str());
            self.names.push(name);
        }
    }

    pub(super) fn names(&self) -> &[HeaderName] {
        &self.names
    }

    #[inline]
    fn contains(&self, name: &str) -> bool {
        self.lengths & Self::bit(name) != 0 && self.names.iter().any(|it| it.as_str() == name)
    }

    fn bit(name: &str) -> u64 {
        1 << name.len().min(63)
    }

    /// How the key treats this field, of this name. `named`: what the request's `Connection` names, if it [names
    /// anything](super::named::names_fields).
    ///
    /// A field that the request's own `Connection` names is always in the key: a client may add a field to its key that
    /// way, but never remove one. Only the fixed hop-by-hop fields stay out; `Connection` names them routinely
    /// (`Connection: keep-alive`).
    #[inline(always)]
    pub(super) fn treatment(
        &self,
        field: RequestField,
        name: &str,
        named: Option<&Named>,
    ) -> Treatment {
        use RequestField::{Connection, Conventional, Forwarded, HopByHop, TransferEncoding};
        match field {
            HopByHop | Connection | TransferEncoding => Treatment::HopByHop,
            _ if named.is_some_and(|named| holds(named, name)) => Treatment::Named,
            Conventional => Treatment::Ignored,
            _ if self.contains(name) => Treatment::Ignored,
            Forwarded => Treatment::Forwarded,
            _ => Treatment::Key,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::CONNECTION;

    use super::*;
    use crate::key::named::{named_by, names_fields};

    const HOP_BY_HOP: [&str; 6] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
    ];

    const CONVENTIONAL: [&str; 50] = [
        "amz-sdk-invocation-id",
        "amz-sdk-request",
        "b3",
        "cf-ray",
        "elastic-apm-traceparent",
        "fly-request-id",
        "kong-request-id",
        "newrelic",
        "ot-tracer-sampled",
        "ot-tracer-spanid",
        "ot-tracer-traceid",
        "priority",
        "referer",
        "request-id",
        "sec-ch-ua",
        "sec-ch-ua-mobile",
        "sec-ch-viewport-width",
        "sec-fetch-dest",
        "sec-fetch-mode",
        "sec-fetch-site",
        "sec-fetch-user",
        "sentry-trace",
        "traceparent",
        "uber-trace-id",
        "upgrade-insecure-requests",
        "user-agent",
        "via",
        "x-amz-cf-id",
        "x-amzn-trace-id",
        "x-azure-ref",
        "x-b3-flags",
        "x-b3-parentspanid",
        "x-b3-sampled",
        "x-b3-spanid",
        "x-b3-traceid",
        "x-cloud-trace-context",
        "x-correlation-id",
        "x-datadog-parent-id",
        "x-datadog-sampling-priority",
        "x-datadog-trace-id",
        "x-forwarded-for",
        "x-ms-client-request-id",
        "x-queue-start",
        "x-real-ip",
        "x-request-id",
        "x-request-start",
        "x-timer",
        "x-unique-id",
        "x-varnish",
        "x-vercel-id",
    ];

    fn contains(user: &[&str], connection: &[&str], name: &str) -> bool {
        let parse = |name: &str| name.parse::<HeaderName>().expect("a name");
        let mut ignored = Ignored::default();
        for name in user {
            ignored.insert(parse(name));
        }
        let line = |line: &&str| (CONNECTION, line.parse().expect("a value"));
        let request: HeaderMap = connection.iter().map(line).collect();
        let named = request.values().any(names_fields);
        let named = named.then(|| named_by(&request));
        let field = RequestField::of(name);
        !ignored.treatment(field, name, named.as_ref()).is_in_key()
    }

    #[test]
    fn every_field_of_the_list_is_left_out() {
        for name in HOP_BY_HOP.iter().chain(&CONVENTIONAL) {
            assert!(contains(&[], &[], name), "{name}");
        }
    }

    #[test]
    fn every_other_field_is_in_the_key() {
        for name in [
            "accept",
            "authorization",
            "b33",
            "baggage",
            "cf-connecting-ip",
            "cookie",
            "dnt",
            "forwarded",
            "host",
            "proxy-authorization",
            "range",
            "sec-chx",
            "sec-gpc",
            "sec-websocket-key",
            "tracestate",
            "upgrade",
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
    fn a_field_that_differs_from_a_listed_one_in_a_byte_is_in_the_key() {
        let is_listed = |name: &str| {
            let families = ["sec-ch-", "sec-fetch-", "x-b3-"];
            HOP_BY_HOP.contains(&name)
                || CONVENTIONAL.contains(&name)
                || families.iter().any(|family| name.starts_with(family))
        };
        for name in HOP_BY_HOP.iter().chain(&CONVENTIONAL) {
            for (at, letter) in name.char_indices() {
                let another = if letter == 'q' { "z" } else { "q" };
                let mut other = (*name).to_owned();
                other.replace_range(at..=at, another);
                assert_eq!(contains(&[], &[], &other), is_listed(&other), "{other}");
            }
        }
    }

    #[test]
    fn the_user_may_add_names() {
        let long = "x-".repeat(40) + "long";
        let user = ["x-noise", "accept-language", "a", "x-noise", &long];
        for name in user {
            assert!(contains(&user, &[], name), "{name}");
        }
        assert!(!contains(&user, &[], "x-other"));
        assert!(!contains(&user, &[], &(long.clone() + "er")));
        assert!(contains(&user, &[], "via"));
        assert!(contains(&["forwarded"], &[], "forwarded"));
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
