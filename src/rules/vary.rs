//! `Vary`: which request fields a response depends on, and who is of one variant.

use std::{fmt, sync::Arc};

use http::header::{
    self, AUTHORIZATION, COOKIE, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, PROXY_AUTHORIZATION, RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, response};

use super::{directives::members, fields::Fields};

/// What the answers to conditions and ranges depend on without saying so (RFC 9110 sections 13 and 14).
const CONDITIONS: [HeaderName; 6] = [
    RANGE,
    IF_RANGE,
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_UNMODIFIED_SINCE,
];

/// Where a request says who it is from. Keep in sync with [`Said`](super::Said).
const CREDENTIALS: [HeaderName; 3] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];

/// What a response depends on besides its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Vary {
    Nothing,
    /// Sorted and without repetition, so that equal sets compare equal.
    Fields(Arc<[HeaderName]>),
    /// `*`, or a field that cannot be parsed.
    Everything,
}

/// The values that one request has in the fields that a `Vary` names.
#[derive(Clone)]
pub(crate) struct Variant {
    names: Arc<[HeaderName]>,
    /// Each value with the index of its name, in the order of the names and then in that of the request.
    values: Arc<[(usize, Box<[u8]>)]>,
}

/// Whether a line of `Vary` says that no two requests are alike.
pub(super) fn is_everything(value: &HeaderValue) -> bool {
    members(value).any(|member| name(member).is_none())
}

/// `None` for `*` and for what is no field name. (`*` is a token, so it would pass for a name.)
fn name(member: &[u8]) -> Option<HeaderName> {
    (member != b"*").then(|| HeaderName::from_bytes(member).ok())?
}

// ===== impl Vary =====

impl Vary {
    pub(crate) fn of(response: &response::Parts) -> Self {
        let mut names = Vec::new();
        for (field, value) in &response.headers {
            if *field != header::VARY {
                continue;
            }
            for member in members(value) {
                match name(member) {
                    Some(name) => names.push(name),
                    None => return Self::Everything,
                }
            }
        }
        match response.status {
            StatusCode::PARTIAL_CONTENT
            | StatusCode::NOT_MODIFIED
            | StatusCode::PRECONDITION_FAILED
            | StatusCode::RANGE_NOT_SATISFIABLE => names.extend(CONDITIONS),
            // Who says who it is may be let in.
            StatusCode::FORBIDDEN => names.extend(CREDENTIALS),
            _ => {}
        }
        if names.is_empty() {
            return Self::Nothing;
        }
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        Self::Fields(names.into())
    }
}

// ===== impl Variant =====

impl Variant {
    pub(crate) fn new(names: Arc<[HeaderName]>, request: &HeaderMap) -> Self {
        let mut values = Vec::new();
        for (at, name) in names.iter().enumerate() {
            let own = request.get_all(name).iter();
            values.extend(own.map(|value| (at, value.as_bytes().into())));
        }
        let values = values.into();
        Self { names, values }
    }

    /// Of a request of which these fields were kept.
    pub(crate) fn of_fields(names: Arc<[HeaderName]>, request: &Fields) -> Self {
        let mut values = Vec::new();
        for (at, name) in names.iter().enumerate() {
            values.extend(request.get_all(name).map(|value| (at, value.into())));
        }
        let values = values.into();
        Self { names, values }
    }

    /// Whether a request has the same values, byte for byte and in the same order; absent differs from empty.
    ///
    /// Nothing is normalised: RFC 9111 section 4.1 would allow it, but asks for knowledge of each field's syntax.
    pub(crate) fn matches(&self, request: &HeaderMap) -> bool {
        let mut own = self.values.iter();
        for (at, name) in self.names.iter().enumerate() {
            for value in request.get_all(name) {
                // A value that we lack or have under another name differs here, one too many of ours at the end.
                if !matches!(own.next(), Some((of, own)) if *of == at && **own == *value.as_bytes())
                {
                    return false;
                }
            }
        }
        own.next().is_none()
    }

    pub(crate) fn names(&self) -> &Arc<[HeaderName]> {
        &self.names
    }
}

/// Shows the names only: the values may be credentials.
impl fmt::Debug for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Variant")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn response(status: u16, vary: &[&[u8]]) -> response::Parts {
        let mut response = http::Response::builder().status(status);
        for value in vary {
            response = response.header(header::VARY, *value);
        }
        response.body(()).expect("a response").into_parts().0
    }

    fn names(names: &[&'static str]) -> Arc<[HeaderName]> {
        let names = names.iter().copied();
        names.map(HeaderName::from_static).collect()
    }

    fn headers(fields: &[(&'static str, &[u8])]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &[u8])| {
            let value = HeaderValue::from_bytes(value).expect("a value");
            (HeaderName::from_static(name), value)
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn no_vary_or_an_empty_one_is_nothing() {
        assert_eq!(Vary::of(&response(200, &[])), Vary::Nothing);
        assert_eq!(Vary::of(&response(200, &[b"", b" , "])), Vary::Nothing);
    }

    #[test]
    fn equal_sets_compare_equal_however_they_are_written() {
        let expected = Vary::Fields(names(&["accept", "cookie", "x-a"]));
        for vary in [
            &[&b"accept, cookie, x-a"[..]][..],
            &[b"X-A,,Cookie", b"ACCEPT"],
            &[b"cookie, accept, cookie", b"x-a, x-a"],
        ] {
            assert_eq!(Vary::of(&response(200, vary)), expected);
        }
    }

    #[test]
    fn an_asterisk_or_what_is_no_name_is_everything() {
        for vary in [
            &[&b"*"[..]][..],
            &[b"accept, *"],
            &[b"accept", b" * "],
            &[b"accept encoding"],
            &[b"accept;q=1"],
            &[b"\"accept\""],
            &[b"accept, \xff"],
        ] {
            assert_eq!(Vary::of(&response(200, vary)), Vary::Everything);
            assert_eq!(Vary::of(&response(304, vary)), Vary::Everything);
            let head = response(200, vary);
            assert!(head.headers.values().any(is_everything));
        }
    }

    #[test]
    fn answers_to_conditions_and_ranges_vary_by_them() {
        let conditions = [
            "if-match",
            "if-modified-since",
            "if-none-match",
            "if-range",
            "if-unmodified-since",
            "range",
        ];
        for status in [206, 304, 412, 416] {
            assert_eq!(
                Vary::of(&response(status, &[])),
                Vary::Fields(names(&conditions))
            );
            assert_eq!(
                Vary::of(&response(status, &[b"Range, accept"])),
                Vary::Fields(names(&[&["accept"][..], &conditions].concat()))
            );
        }
        for status in [200, 204, 302, 404, 500] {
            assert_eq!(Vary::of(&response(status, &[])), Vary::Nothing);
        }
    }

    #[test]
    fn a_refusal_varies_by_who_asks() {
        let credentials = ["authorization", "cookie", "proxy-authorization"];
        assert_eq!(
            Vary::of(&response(403, &[])),
            Vary::Fields(names(&credentials))
        );
        assert_eq!(
            Vary::of(&response(403, &[b"Cookie, accept"])),
            Vary::Fields(names(&[&["accept"][..], &credentials].concat()))
        );
    }

    #[test]
    fn a_variant_matches_the_same_values_in_the_same_order_alone() {
        let base: &[(&'static str, &[u8])] = &[("a", b"1"), ("a", b"2"), ("b", b"")];
        let variant = Variant::new(names(&["a", "b"]), &headers(base));
        assert!(variant.matches(&headers(base)));
        assert!(variant.matches(&headers(&[
            ("x", b"0"),
            ("b", b""),
            ("a", b"1"),
            ("a", b"2")
        ])));
        for other in [
            &[("a", &b"2"[..]), ("a", b"1"), ("b", b"")][..],
            &[("a", b"1"), ("b", b"")],
            &[("a", b"1, 2"), ("b", b"")],
            &[("a", b"1"), ("a", b"2")],
            &[("a", b"1"), ("a", b"2"), ("b", b""), ("b", b"")],
            &[("a", b"1"), ("a", b"2"), ("b", b" ")],
            &[("a", b"1"), ("a", b"2"), ("a", b""), ("b", b"")],
            &[("a", b"1"), ("b", b"2"), ("b", b"")],
            &[],
        ] {
            assert!(!variant.matches(&headers(other)), "{other:?}");
        }
    }

    #[test]
    fn absent_everywhere_matches_absent() {
        let variant = Variant::new(names(&["a", "b"]), &headers(&[("c", b"1")]));
        assert!(variant.matches(&headers(&[])));
        assert!(!variant.matches(&headers(&[("b", b"")])));
    }

    #[test]
    fn debug_shows_names_and_no_value() {
        let variant = Variant::new(names(&["cookie"]), &headers(&[("cookie", b"hunter2")]));
        let shown = format!("{variant:?}");
        assert!(shown.contains("cookie") && !shown.contains("hunter2"));
        assert_eq!(variant.names(), &names(&["cookie"]));
    }

    proptest! {
        #[test]
        fn a_variant_matches_exactly_when_every_named_fields_values_are_equal(
            one in proptest::collection::vec((0..3_usize, "[ab]{0,1}"), 0..5),
            two in proptest::collection::vec((0..3_usize, "[ab]{0,1}"), 0..5),
        ) {
            const NAMES: [&str; 3] = ["a", "b", "c"];
            let map = |fields: &[(usize, String)]| {
                let fields: Vec<_> =
                    fields.iter().map(|(at, value)| (NAMES[*at], value.as_bytes())).collect();
                headers(&fields)
            };
            let (one, two) = (map(&one), map(&two));
            let equal = ["a", "b"].iter().all(|name| {
                one.get_all(*name).iter().eq(two.get_all(*name).iter())
            });
            prop_assert_eq!(Variant::new(names(&["a", "b"]), &one).matches(&two), equal);
        }
    }
}
