//! `Vary`: which request fields a response depends on, and which requests are of one variant.
//!
//! In a set of names, one that ends in `-` is a family: it stands for every field whose name begins with it.

use std::sync::Arc;

use http::header::{
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LOCATION, RANGE,
    REFERER, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, response};

use super::{
    client_fields::{CLIENT, CLIENT_ADDRESS},
    directives::{members, tokens},
    fields::Fields,
    packing::{lengths, unpack},
    request::CREDENTIALS,
};

/// What responses to conditional and range requests depend on implicitly (RFC 9110 sections 13 and 14).
const CONDITIONS: [HeaderName; 6] = [
    RANGE,
    IF_RANGE,
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_UNMODIFIED_SINCE,
];

/// A request's values in the fields that a `Vary` names.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Variant {
    names: Arc<[HeaderName]>,
    /// The lines of these fields, sorted by name and then in their order, each with its lengths in front.
    lines: Arc<[u8]>,
}

/// Whether a line of `Vary` says that no other request matches.
pub(super) fn is_everything(value: &HeaderValue) -> bool {
    members(value).any(|member| name(member).is_none())
}

/// `None` for `*` and for anything that is not a field name. (`*` is a token, so it would pass as a name.)
fn name(member: &[u8]) -> Option<HeaderName> {
    (member != b"*").then(|| HeaderName::from_bytes(member).ok())?
}

/// The request fields that `response` depends on: sorted, without repetition and without a name that a family covers, so
/// that equal sets compare equal. `request` holds the request fields that the layer kept.
///
/// A response whose `Vary` is `*` or can't be parsed [is never shared](super::may_share), so it counts as one without.
pub(crate) fn varies_by(response: &response::Parts, request: &Fields) -> Vec<HeaderName> {
    let named = tokens(&response.headers, &VARY).map(name);
    let Some(mut names) = named.collect::<Option<Vec<_>>>() else {
        return Vec::new();
    };
    match response.status {
        StatusCode::PARTIAL_CONTENT
        | StatusCode::NOT_MODIFIED
        | StatusCode::PRECONDITION_FAILED
        | StatusCode::RANGE_NOT_SATISFIABLE => names.extend(CONDITIONS),
        // A client with credentials may be let in, and a denial for one client is not one for another.
        StatusCode::FORBIDDEN => {
            names.extend(CREDENTIALS.into_iter().chain(CLIENT).chain(CLIENT_ADDRESS));
        }
        StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS => {
            names.extend(CLIENT.into_iter().chain(CLIENT_ADDRESS));
        }
        _ => {}
    }
    // A 304 among them, which may name a `Location` as well.
    if response.status.is_redirection() {
        let mut locations = response.headers.get_all(LOCATION).iter();
        let is_referer = |location: &HeaderValue| {
            let mut fields = request.lines();
            fields.any(|field| field == (b"referer", location.as_bytes()))
        };
        if locations.any(is_referer) {
            names.push(REFERER);
        }
    }
    names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup_by(|next, kept| {
        let (next, kept) = (next.as_str(), kept.as_str());
        next == kept || kept.ends_with('-') && next.starts_with(kept)
    });
    names
}

// ===== impl Variant =====

impl Variant {
    pub(crate) fn new(names: Arc<[HeaderName]>, request: &HeaderMap) -> Self {
        let lines = pack(lines_of(&names, || lines(request)));
        Self { names, lines }
    }

    /// The variant of a request, from the fields that were kept of it.
    pub(crate) fn of_fields(names: Arc<[HeaderName]>, request: &Fields) -> Self {
        let lines = pack(lines_of(&names, || request.lines()));
        Self { names, lines }
    }

    /// Whether a request has the same values, byte for byte and in the same order; absent differs from empty.
    ///
    /// Nothing is normalised: RFC 9111 section 4.1 allows it, but that needs to know each field's syntax.
    pub(crate) fn matches(&self, request: &HeaderMap) -> bool {
        let mut own = &*self.lines;
        lines_of(&self.names, || lines(request)).all(|line| unpack(&mut own) == Some(line))
            && own.is_empty()
    }

    pub(crate) fn names(&self) -> &Arc<[HeaderName]> {
        &self.names
    }

    /// The values as bytes: equal if all values are equal.
    #[cfg(feature = "redis")]
    pub(crate) fn lines(&self) -> &[u8] {
        &self.lines
    }
}

type Line<'a> = (&'a [u8], &'a [u8]);

fn pack<'a>(lines: impl Iterator<Item = Line<'a>>) -> Arc<[u8]> {
    let mut packed = Vec::new();
    for (name, value) in lines {
        for part in [&lengths(name, value), name, value] {
            packed.extend_from_slice(part);
        }
    }
    packed.into()
}

fn lines(request: &HeaderMap) -> impl Iterator<Item = Line<'_>> {
    request
        .iter()
        .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
}

/// Those of `all` lines whose field has one of these names, sorted by name.
fn lines_of<'a, I>(names: &[HeaderName], all: impl Fn() -> I) -> impl Iterator<Item = Line<'a>>
where
    I: Iterator<Item = Line<'a>>,
{
    names.iter().flat_map(move |name| {
        let name = name.as_str().as_bytes();
        let own = all().filter(move |(field, _)| *field == name);
        let mut family = Vec::new();
        if name.ends_with(b"-") {
            family.extend(all().filter(|(field, _)| field.starts_with(name) && *field != name));
            // The order of the lines of one name counts.
            family.sort_by_key(|(field, _)| *field);
        }
        own.chain(family)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn response(status: u16, vary: &[&[u8]]) -> response::Parts {
        let mut response = http::Response::builder().status(status);
        for value in vary {
            response = response.header(VARY, *value);
        }
        response.body(()).expect("a response").into_parts().0
    }

    fn vary_of(status: u16, vary: &[&[u8]]) -> Vec<HeaderName> {
        varies_by(&response(status, vary), &Fields::default())
    }

    fn fields(lines: &[(&'static str, &[u8])]) -> Fields {
        Fields::of(&headers(lines), |_, _| true)
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
        assert!(vary_of(200, &[]).is_empty());
        assert!(vary_of(200, &[b"", b" , "]).is_empty());
    }

    #[test]
    fn equal_sets_compare_equal_however_they_are_written() {
        let expected = ["accept", "cookie", "x-a"];
        for vary in [
            &[&b"accept, cookie, x-a"[..]][..],
            &[b"X-A,,Cookie", b"ACCEPT"],
            &[b"cookie, accept, cookie", b"x-a, x-a"],
        ] {
            assert_eq!(vary_of(200, vary), expected);
        }
    }

    #[test]
    fn an_asterisk_or_what_is_no_name_forbids_sharing_and_names_nothing() {
        for vary in [
            &[&b"*"[..]][..],
            &[b"accept, *"],
            &[b"accept", b" * "],
            &[b"accept encoding"],
            &[b"accept;q=1"],
            &[b"\"accept\""],
            &[b"accept, \xff"],
        ] {
            assert!(vary_of(200, vary).is_empty());
            assert!(vary_of(304, vary).is_empty());
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
            assert_eq!(vary_of(status, &[]), conditions);
            assert_eq!(
                vary_of(status, &[b"Range, accept"]),
                [&["accept"][..], &conditions].concat()
            );
        }
        for status in [200, 204, 302, 404, 500] {
            assert!(vary_of(status, &[]).is_empty());
        }
    }

    const CLIENTS: [&str; 7] = [
        "forwarded",
        "referer",
        "sec-ch-",
        "sec-fetch-",
        "user-agent",
        "x-forwarded-for",
        "x-real-ip",
    ];

    #[test]
    fn a_denial_varies_by_what_describes_the_client() {
        let credentials = &["authorization", "cookie", "proxy-authorization"][..];
        for (status, more) in [(403, credentials), (451, &[])] {
            let all = vary_of(status, &[b"Cookie, accept, sec-ch-ua, via"]);
            let all: Vec<_> = all.iter().map(HeaderName::as_str).collect();
            let mut sorted = all.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(all, sorted);
            let addresses = CLIENT_ADDRESS;
            let addresses = addresses.iter().map(HeaderName::as_str);
            for name in CLIENTS.iter().chain(more).copied().chain(addresses) {
                assert!(all.contains(&name), "{status} {name}");
            }
            assert!(all.contains(&"accept") && all.contains(&"via") && all.contains(&"cookie"));
            assert!(!all.contains(&"sec-ch-ua"), "its family is there");
            assert!(status == 403 || !all.contains(&"authorization"));
        }
    }

    #[test]
    fn a_redirect_back_to_the_referer_varies_by_it() {
        let of = |status: u16, location: &str, referers: &[&'static str]| {
            let mut response = response(status, &[]);
            let location = location.parse().expect("a value");
            response.headers.insert(LOCATION, location);
            let lines: Vec<_> = referers
                .iter()
                .map(|it| ("referer", it.as_bytes()))
                .collect();
            varies_by(&response, &fields(&lines))
        };
        let by_referer = ["referer"];
        let referer = "https://a.example/b?c";
        for status in [300, 301, 302, 303, 307, 308] {
            assert_eq!(of(status, referer, &[referer]), by_referer);
        }
        assert!(of(304, referer, &[referer]).contains(&REFERER));
        assert_eq!(of(302, referer, &["https://x/", referer]), by_referer);
        assert!(of(302, referer, &[]).is_empty());
        for status in [200, 201, 404] {
            assert!(of(status, referer, &[referer]).is_empty());
        }
        for location in [
            "/",
            "/b?c",
            "https://a.example/",
            "https://a.example/b?cd",
            "",
        ] {
            assert!(of(302, location, &[referer]).is_empty(), "{location}");
        }
    }

    #[test]
    fn a_family_stands_for_every_field_whose_name_begins_with_it() {
        let names = names(&["accept", "sec-ch-", "x-a"]);
        let base: &[(&'static str, &[u8])] = &[
            ("sec-ch-ua", b"1"),
            ("sec-ch-", b"2"),
            ("sec-ch-dpr", b"3"),
            ("sec-c", b"4"),
            ("sec-ch", b"5"),
            ("x-a", b"6"),
        ];
        let variant = Variant::new(Arc::clone(&names), &headers(base));
        assert!(variant == Variant::of_fields(Arc::clone(&names), &fields(base)));
        assert!(variant.matches(&headers(base)));
        // In another order, and with others of what does not count.
        let mut same = base.to_vec();
        same.reverse();
        same[1..3].fill(("sec-chx", b"7"));
        assert!(variant.matches(&headers(&same)));
        for at in [0, 1, 2, 5] {
            let mut other = base.to_vec();
            other[at].1 = b"0";
            assert!(!variant.matches(&headers(&other)), "{at}");
            other.remove(at);
            assert!(!variant.matches(&headers(&other)), "{at}");
        }
        let more = [base, &[("sec-ch-width", b"")]].concat();
        assert!(!variant.matches(&headers(&more)));
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

        #[test]
        fn a_variant_is_the_same_whichever_way_it_is_made(
            chosen in proptest::collection::btree_set(select(vec!["a", "a-", "a-b", "a-ba", "b", "b-", "c"]), 0..5),
            one in proptest::collection::vec((select(vec!["a", "a-", "a-a", "a-b", "a-ba", "aa", "b", "b-c", "c", "d"]), "[xy]{0,1}"), 0..8),
            two in proptest::collection::vec((select(vec!["a", "a-", "a-a", "a-b", "a-ba", "aa", "b", "b-c", "c", "d"]), "[xy]{0,1}"), 0..8),
        ) {
            let mut response = response(200, &[]);
            for name in &chosen {
                response.headers.append(VARY, HeaderValue::from_static(name));
            }
            let names: Arc<[_]> = varies_by(&response, &Fields::default()).into();
            let counts = |field: &str| chosen.iter().any(|name| {
                *name == field || name.ends_with('-') && field.starts_with(name)
            });
            let account = |lines: &[(&'static str, String)]| {
                let mut own: Vec<_> = lines.iter().filter(|(name, _)| counts(name)).cloned().collect();
                own.sort_by_key(|(name, _)| *name);
                own
            };
            let lines = |lines: &[(&'static str, String)]| {
                let lines: Vec<_> = lines.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
                (headers(&lines), fields(&lines))
            };
            let equal = account(&one) == account(&two);
            let ((one, one_kept), (two, two_kept)) = (lines(&one), lines(&two));
            let made = [
                Variant::new(Arc::clone(&names), &one),
                Variant::of_fields(Arc::clone(&names), &one_kept),
            ];
            let others = [
                Variant::new(Arc::clone(&names), &two),
                Variant::of_fields(names, &two_kept),
            ];
            prop_assert!(made[0] == made[1] && others[0] == others[1]);
            prop_assert_eq!(made[0].matches(&two), equal);
            prop_assert_eq!(made[0] == others[0], equal);
        }
    }
}
