//! What is kept of a response, and how two of them differ.

use std::collections::BTreeSet;

use http::{
    HeaderMap, HeaderName, StatusCode,
    header::{AGE, CONNECTION, CONTENT_LENGTH, DATE, EXPIRES, UPGRADE, VIA},
    response,
};

use super::digest::BodyDigest;
use crate::{
    key::RequestKeyExtractor,
    observe::{CallerSpan, Difference},
    rules::{self, Fields},
};

pub(super) struct ResponseSummary {
    pub(super) head: Head,
    pub(super) body: BodyDigest,
    /// `None` if the reader of the body did not ask for them.
    pub(super) trailers: Option<HeaderMap>,
}

pub(super) struct Head {
    status: StatusCode,
    headers: HeaderMap,
}

/// The fields in which two equal responses may differ.
pub(super) struct IgnoredFields(pub(super) RequestKeyExtractor);

/// What an auditor leaves to compare when it ends.
pub(super) struct AuditedRequest {
    pub(super) path: String,
    pub(super) span: CallerSpan,
    /// The fields in which it may differ from the leader's request.
    pub(super) request: Fields,
    pub(super) ignored: IgnoredFields,
    /// `None` if it was incomplete.
    pub(super) answer: Option<ResponseSummary>,
}

/// The names of the request fields in which two requests differ.
pub(super) fn request_fields(one: &Fields, two: &Fields) -> Vec<String> {
    let names = one.lines().chain(two.lines()).map(|(name, _)| name);
    let names: BTreeSet<_> = names.collect();
    let differs = |name: &&[u8]| {
        let is_own = |(other, _): &(&[u8], _)| other == name;
        !one.lines().filter(is_own).eq(two.lines().filter(is_own))
    };
    let differing = names.into_iter().filter(differs);
    differing
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect()
}

// ===== impl Head =====

impl Head {
    pub(super) fn of(response: &response::Parts) -> Self {
        Self {
            status: response.status,
            headers: response.headers.clone(),
        }
    }
}

// ===== impl ResponseSummary =====

impl ResponseSummary {
    pub(super) fn difference(&self, other: &Self, ignored: &IgnoredFields) -> Option<Difference> {
        let (head, others) = (&self.head, &other.head);
        let mut fields = ignored.differing(&head.headers, &others.headers);
        if let (Some(trailers), Some(others)) = (&self.trailers, &other.trailers) {
            fields.extend(ignored.differing(trailers, others));
        }
        let difference = Difference {
            status: head.status != others.status,
            fields: fields.into_iter().map(str::to_owned).collect(),
            body: self.body.difference(&other.body),
        };
        (!difference.what().is_empty()).then_some(difference)
    }
}

// ===== impl IgnoredFields =====

impl IgnoredFields {
    fn differing<'a>(&self, one: &'a HeaderMap, two: &'a HeaderMap) -> BTreeSet<&'a str> {
        let is_named = |headers, name: &HeaderName| {
            rules::tokens(headers, &CONNECTION)
                .any(|named| named.eq_ignore_ascii_case(name.as_str().as_bytes()))
        };
        let names = one.keys().chain(two.keys());
        let differing = names.filter(|name| {
            !one.get_all(*name).iter().eq(two.get_all(*name))
                && !self.contains(name)
                && !is_named(one, name)
                && !is_named(two, name)
        });
        differing.map(HeaderName::as_str).collect()
    }

    fn contains(&self, name: &HeaderName) -> bool {
        const BY_NATURE: [HeaderName; 7] = [
            DATE,
            AGE,
            VIA,
            EXPIRES,
            UPGRADE,
            HeaderName::from_static("server-timing"),
            HeaderName::from_static("cache-status"),
        ];
        // `coalesce` takes the framing out of the key.
        BY_NATURE.contains(name) || *name != CONTENT_LENGTH && self.0.may_leave_out(name)
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn differing(ignored: &IgnoredFields, one: &[(&str, &str)], two: &[(&str, &str)]) -> bool {
        let [one, two] = [one, two].map(|fields| {
            let lines = fields.iter().map(|(name, value)| {
                let name: HeaderName = name.parse().expect("a name");
                (name, value.parse().expect("a value"))
            });
            lines.collect::<HeaderMap>()
        });
        !ignored.differing(&one, &two).is_empty()
    }

    #[test]
    fn a_field_that_the_connection_of_either_names_is_not_compared() {
        let ignored = IgnoredFields(RequestKeyExtractor::new());
        let (one, two) = (("a", "1"), ("a", "2"));
        let named = ("connection", "a");
        assert!(differing(&ignored, &[one], &[two]));
        assert!(!differing(&ignored, &[named, one], &[two]));
        assert!(!differing(&ignored, &[one], &[named, two]));
    }

    #[test]
    fn the_length_is_compared_though_the_key_leaves_it_out() {
        let ignored = IgnoredFields(RequestKeyExtractor::new().coalesce(Method::POST));
        let one = [("content-length", "1")];
        assert!(differing(&ignored, &one, &[("content-length", "2")]));
        assert!(!differing(&ignored, &one, &one));
        assert!(differing(&ignored, &[("etag", "a")], &[("etag", "b")]));
    }
}
