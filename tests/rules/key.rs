//! Which requests have equal keys, seen through the public interface alone.

use std::hash::{DefaultHasher, Hash, Hasher};

use http::header::{AUTHORIZATION, HOST};
use http::{HeaderName, HeaderValue, Method, Request, request};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use tower_singleflight::{KeyExtractor, RequestKey, RequestKeyExtractor, method_and_uri};

use crate::support::fields::{HOP_BY_HOP, IDS};

type Fields<'a> = &'a [(&'a str, &'a [u8])];

const OTHERS_IGNORED: [&str; 19] = [
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-sampled",
    "via",
    "x-forwarded-for",
    "x-real-ip",
    "user-agent",
    "sec-ch-ua",
    "sec-ch-ua-platform",
    "sec-ch-prefers-color-scheme",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "sec-fetch-user",
    "priority",
    "referer",
    "upgrade-insecure-requests",
    "X-B3-Flags",
    "User-Agent",
];

fn ignored() -> Vec<&'static str> {
    [&HOP_BY_HOP[..], &IDS, &OTHERS_IGNORED].concat()
}

fn request(method: &str, uri: &str, fields: Fields<'_>) -> request::Parts {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request").into_parts().0
}

fn key_of(request: &request::Parts) -> RequestKey {
    let key = RequestKeyExtractor::new().extract(request);
    key.expect("a GET or HEAD has a key")
}

fn key(uri: &str, fields: Fields<'_>) -> RequestKey {
    key_of(&request("GET", uri, fields))
}

fn hash(key: &RequestKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

#[test]
fn equal_requests_have_equal_keys_whichever_extractor_made_them() {
    let fields: Fields<'_> = &[("host", b"a"), ("accept", b"x"), ("cookie", b"c=d")];
    let (one, two) = (key("/a?b=c", fields), key("/a?b=c", fields));
    assert_eq!(one, two);
    assert_eq!(hash(&one), hash(&two));
    let other = RequestKeyExtractor::new().ignore_header(HeaderName::from_static("x-noise"));
    assert_eq!(other.extract(&request("GET", "/a?b=c", fields)), Some(one));
}

#[test]
fn only_get_and_head_have_a_key_and_not_the_same_one() {
    let get = key_of(&request("GET", "/", &[]));
    let head = key_of(&request("HEAD", "/", &[]));
    assert_ne!(get, head);
    for method in [
        "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "QUERY", "get",
    ] {
        let request = request(method, "/", &[]);
        assert_eq!(RequestKeyExtractor::new().extract(&request), None);
        assert_eq!(method_and_uri(&request), None);
    }
    let head = request("HEAD", "/a", &[("accept", b"b")]);
    let uri = "/a".parse().expect("a URI");
    assert_eq!(method_and_uri(&head), Some((Method::HEAD, uri)));
}

#[test]
fn the_key_gives_back_method_and_uri() {
    let key = key("http://a.example:8080/b?c", &[]);
    assert_eq!(key.method(), Method::GET);
    assert_eq!(key.uri(), "http://a.example:8080/b?c");
}

#[test]
fn requests_that_differ_anywhere_have_different_keys() {
    let requests: &[(&str, Fields<'_>)] = &[
        ("ftp://a.example/", &[]),
        ("sftp://a.example/", &[]),
        ("/", &[]),
        ("/?", &[]),
        ("/?a", &[]),
        ("/a", &[]),
        ("/A", &[]),
        ("/%61", &[]),
        ("/a/", &[]),
        ("*", &[]),
        ("http://a/", &[]),
        ("https://a/", &[]),
        ("http://a:80/", &[]),
        ("http://a:/", &[]),
        ("http://u@a/", &[]),
        ("http://U@a/", &[]),
        ("http://u:p@a/", &[]),
        ("http://b/", &[]),
        ("http://a/", &[("host", b"b")]),
        ("http://a/", &[("host", b"a:80")]),
        ("http://a/", &[("host", b"")]),
        ("http://a/", &[("host", b"a"), ("host", b"b")]),
        ("http://a/", &[("host", b"b"), ("host", b"a")]),
        ("http://a/", &[("host", b"a"), ("host", b"a")]),
        ("/", &[("host", b"")]),
        ("/", &[("host", b"a")]),
        ("/", &[("host", b"a:80")]),
        ("/", &[("host", b"a:443")]),
        ("/", &[("host", b"u@a")]),
        ("/", &[("host", b"U@a")]),
        ("/", &[("host", b"[::1]:1")]),
        ("/", &[("host", b"a"), ("host", b"a")]),
        ("/", &[("hos", b"ta")]),
        ("/", &[("a", b"")]),
        ("/", &[("a", b"b")]),
        ("/", &[("a", b"B")]),
        ("/", &[("ab", b"")]),
        ("/", &[("a", b"\xff")]),
        ("/", &[("a", b"\xfe")]),
        ("/", &[("a", b"\xc3\xa9")]),
        ("/", &[("a", b"b"), ("a", b"c")]),
        ("/", &[("a", b"c"), ("a", b"b")]),
        ("/", &[("a", b"b, c")]),
        ("/", &[("a", b"b,c")]),
        ("/", &[("a", b"b"), ("c", b"")]),
        ("/", &[("a", b""), ("b", b"c")]),
        ("/", &[("a", b"bc"), ("d", b"")]),
        ("/", &[("a", b"b: c\tx: y")]),
        ("/", &[("proxy-authorization", b"a")]),
        ("/", &[("authorization", b"a")]),
        ("/", &[("cookie", b"a")]),
        ("/", &[("x-forwarded-host", b"a")]),
        ("/", &[("x-forwarded-proto", b"a")]),
        ("/", &[("x-forwarded-user", b"a")]),
        ("/", &[("x-user-id", b"a")]),
        ("/", &[("accept-encoding", b"a")]),
        ("/", &[("range", b"a")]),
        ("/", &[("cache-control", b"no-cache")]),
        ("/", &[("content-length", b"0")]),
        ("/", &[("upgrade", b"h2c")]),
        ("/", &[("upgrade", b"TLS/1.2")]),
        ("/", &[("tracestate", b"a=b")]),
        ("/", &[("baggage", b"a=b")]),
        ("/", &[("dnt", b"1")]),
        ("/", &[("sec-gpc", b"1")]),
        ("/", &[("forwarded", b"host=a")]),
        ("/", &[("forwarded", b"host=b")]),
        ("/", &[("forwarded", b"proto=http")]),
        ("/", &[("forwarded", b"for=192.0.2.1;proto=http")]),
        ("/", &[("forwarded", b"for=192.0.2.2;proto=http")]),
        ("/", &[("forwarded", b"for=a b")]),
        ("/", &[("forwarded", b"for=a"), ("forwarded", b"proto=x")]),
        ("/", &[("forwarded", b"for=b"), ("forwarded", b"proto=x")]),
        ("/", &[("forwarded", b"proto=x"), ("forwarded", b"for=b")]),
    ];
    let keys: Vec<_> = requests
        .iter()
        .map(|(uri, fields)| key(uri, fields))
        .collect();
    for (at, one) in keys.iter().enumerate() {
        for (other_at, other) in keys[..at].iter().enumerate() {
            assert_ne!(one, other, "{:?} {:?}", requests[at], requests[other_at]);
        }
    }
}

#[test]
fn every_ignored_field_is_left_out() {
    let plain = key("/", &[("accept", b"a")]);
    for name in ignored() {
        for value in [&b""[..], b"x", b"keep-alive", b"\xff"] {
            let with = key("/", &[(name, value), ("accept", b"a"), (name, b"again")]);
            assert_eq!(plain, with, "{name}");
        }
    }
}

#[test]
fn of_forwarded_addresses_alone_are_left_out() {
    let plain = key("/", &[("accept", b"a")]);
    let rows: &[Fields<'_>] = &[
        &[("forwarded", b"for=192.0.2.1")],
        &[("forwarded", b"For=\"[2001:db8::1]:80\"; by=unknown, for=_x")],
        &[("forwarded", b"for=1.2.3.4:80;;,")],
        &[
            ("forwarded", b"for=192.0.2.1"),
            ("forwarded", b"by=10.0.0.1"),
        ],
        &[("forwarded", b"")],
    ];
    for fields in rows {
        let with = [*fields, &[("accept", b"a")]].concat();
        assert_eq!(plain, key("/", &with), "{fields:?}");
    }
    let named: Fields<'_> = &[("connection", b"forwarded"), ("forwarded", b"for=a")];
    assert_ne!(key("/", named), key("/", &[("connection", b"forwarded")]));
    let ignoring = RequestKeyExtractor::new().ignore_header(http::header::FORWARDED);
    let of = |fields| ignoring.extract(&request("GET", "/", fields));
    assert_eq!(
        of(&[("forwarded", b"host=a")]),
        of(&[("forwarded", b"host=b")])
    );
}

#[test]
fn the_addresses_that_cdns_pass_on_are_in_the_key_unless_they_are_ignored() {
    let names: Vec<_> = RequestKeyExtractor::client_address_headers().collect();
    for name in ["cf-connecting-ip", "true-client-ip", "fastly-client-ip"] {
        assert!(names.iter().any(|other| other == name), "{name}");
    }
    let ignoring =
        RequestKeyExtractor::new().ignore_headers(RequestKeyExtractor::client_address_headers());
    for name in &names {
        let from = |value: &'static [u8]| request("GET", "/", &[(name.as_str(), value)]);
        let (one, two) = (from(b"192.0.2.1"), from(b"192.0.2.2"));
        assert_ne!(key_of(&one), key_of(&two), "{name}");
        assert_eq!(ignoring.extract(&one), ignoring.extract(&two), "{name}");
    }
}

#[test]
fn scheme_and_host_compare_without_regard_to_case() {
    assert_eq!(
        key("HTTP://Example.ORG/a", &[]),
        key("http://example.org/a", &[])
    );
    assert_eq!(
        key("/a", &[("host", b"Example.ORG:80")]),
        key("/a", &[("host", b"example.org:80")])
    );
    let long = format!("{}.example", "X".repeat(200));
    assert_eq!(
        key("/a", &[("host", long.as_bytes())]),
        key("/a", &[("host", long.to_ascii_lowercase().as_bytes())])
    );
}

#[test]
fn a_host_field_that_repeats_the_authority_adds_nothing() {
    let uri = "http://a.example:80/";
    assert_eq!(key(uri, &[]), key(uri, &[("host", b"A.example:80")]));
    assert_ne!(key(uri, &[]), key(uri, &[("host", b"a.example")]));
    assert_ne!(key(uri, &[]), key(uri, &[("host", b"u@a.example:80")]));
    // Others may come in several lines, it alone.
    let twice: Fields<'_> = &[("accept", b"a"), ("accept", b"b")];
    assert_eq!(
        key(uri, twice),
        key(uri, &[&[("host", &b"a.example:80"[..])], twice].concat())
    );
    let host: Fields<'_> = &[("host", b"a.example:80"), ("host", b"a.example:80")];
    assert_ne!(key(uri, &[]), key(uri, host));
}

#[test]
fn connection_cannot_take_a_field_out_of_the_key() {
    for connection in ["x-user-id", "close, X-User-Id", "x-user-id,authorization"] {
        let connection = connection.as_bytes();
        for name in ["x-user-id", "authorization"] {
            let with = |value: &[u8]| key("/", &[("connection", connection), (name, value)]);
            assert_ne!(with(b"1"), with(b"2"));
        }
    }
}

#[test]
fn connection_puts_an_ignored_field_into_the_key() {
    let with = |value: &[u8]| key("/", &[("connection", b"x-real-ip"), ("x-real-ip", value)]);
    assert_ne!(with(b"1"), with(b"2"));
}

#[test]
fn a_field_that_connection_names_is_not_the_same_as_one_that_it_does_not() {
    for name in ["x-tenant", "cookie", "host"] {
        let with = |connection: &str| {
            let fields: Fields<'_> = &[("connection", connection.as_bytes()), (name, b"a")];
            key("http://a/", fields)
        };
        // A proxy behind this layer forwards the request without the field that is named.
        let named = format!("close, {}", name.to_uppercase());
        assert_ne!(with("close"), with(&named), "{name}");
        assert_eq!(with(name), with(&named), "{name}");
        assert_eq!(with("close"), with("close, x-other, TE"), "{name}");
    }
    assert_ne!(
        key("/", &[("connection", b"a"), ("a", b""), ("b", b"")]),
        key("/", &[("connection", b"b"), ("a", b""), ("b", b"")])
    );
    // A `Host` that only repeats the authority does not lend its name's mark to its neighbour.
    assert_ne!(
        key(
            "http://a/",
            &[("connection", b"host"), ("host", b"a"), ("b", b"")]
        ),
        key(
            "http://a/",
            &[("connection", b"b"), ("host", b"a"), ("b", b"")]
        )
    );
}

#[test]
fn the_users_ignored_fields_are_left_out_beside_the_default_ones() {
    let extractor = RequestKeyExtractor::new()
        .ignore_headers([HeaderName::from_static("x-b"), AUTHORIZATION, HOST])
        .ignore_header(HeaderName::from_static("x-a"))
        .ignore_header(HeaderName::from_static("x-a"));
    let key = |fields: Fields<'_>| extractor.extract(&request("GET", "/", fields));
    let plain = key(&[]);
    for name in ["x-a", "x-b", "authorization", "host", "user-agent"] {
        assert_eq!(plain, key(&[(name, b"1")]), "{name}");
    }
    assert_ne!(plain, key(&[("x-c", b"1")]));
    let named = |value: &[u8]| key(&[("connection", b"x-a"), ("x-a", value)]);
    assert_ne!(named(b"1"), named(b"2"));
}

#[test]
fn a_clone_of_an_extractor_is_not_changed_by_its_origin() {
    let origin = RequestKeyExtractor::new();
    let clone = origin.clone();
    let origin = origin.ignore_header(HeaderName::from_static("x-a"));
    let with = request("GET", "/", &[("x-a", b"1")]);
    let without = request("GET", "/", &[]);
    assert_eq!(origin.extract(&with), origin.extract(&without));
    assert_ne!(clone.extract(&with), clone.extract(&without));
}

#[test]
fn a_sensitive_value_counts_as_any_other() {
    let with = |value: &'static str, sensitive| {
        let mut request = request("GET", "/", &[]);
        let mut value = HeaderValue::from_static(value);
        value.set_sensitive(sensitive);
        request.headers.insert(AUTHORIZATION, value);
        key_of(&request)
    };
    assert_ne!(with("a", true), with("b", true));
    assert_eq!(with("a", true), with("a", false));
}

#[test]
fn debug_shows_where_and_no_secret() {
    let extractor = RequestKeyExtractor::new().ignore_header(HeaderName::from_static("x-noise"));
    assert!(format!("{extractor:?}").contains("x-noise"));
    let key = key(
        "http://user:hunter1@a.example/path?token=hunter2",
        &[
            ("authorization", b"hunter3"),
            ("host", b"hunter4"),
            ("x-a", b"hunter5"),
        ],
    );
    let shown = format!("{key:?} {key:#?}");
    assert!(shown.contains("GET") && shown.contains("a.example") && shown.contains("/path"));
    assert!(!shown.contains("hunter"), "{shown}");
    assert_eq!(key.uri(), "http://a.example/path?token=hunter2");
}

#[test]
fn a_closure_and_a_function_are_extractors() {
    fn extract<X: KeyExtractor>(extractor: &X) -> Option<X::Key> {
        extractor.extract(&request("GET", "/a", &[]))
    }
    assert!(extract(&method_and_uri).is_some());
    let paths = |request: &request::Parts| Some(request.uri.path().to_owned());
    assert_eq!(extract(&paths).as_deref(), Some("/a"));
}

#[test]
fn keys_and_extractors_go_anywhere() {
    fn anywhere<T: Send + Sync + Unpin + Clone + std::fmt::Debug + 'static>() {}
    anywhere::<RequestKey>();
    anywhere::<RequestKeyExtractor>();
}

// ===== properties =====

/// A request as the model sees it: what a key must tell apart.
#[derive(Clone, Debug, PartialEq)]
struct Model {
    head: bool,
    uri: String,
    fields: Vec<(String, Vec<u8>)>,
}

impl Model {
    fn key(&self) -> RequestKey {
        let fields: Vec<_> = self
            .fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
            .collect();
        let method = if self.head { "HEAD" } else { "GET" };
        key_of(&request(method, &self.uri, &fields))
    }

    /// Without the order of different names, which the contract leaves open.
    fn by_name(&self) -> Self {
        let mut sorted = self.clone();
        sorted.fields.sort_by(|a, b| a.0.cmp(&b.0));
        sorted
    }
}

/// Few and short letters, so that delimiters and neighbours have a chance to be confused.
fn model() -> impl Strategy<Value = Model> {
    let known = vec!["accept", "cookie", "x-user-id", "x-forwarded-host"];
    let name = prop_oneof!["[ab]{1,3}", select(known).prop_map(str::to_owned)];
    let byte = prop_oneof![select(b"ab:,=; \t\"\\0".to_vec()), 0x80..=0xff_u8];
    let value = proptest::collection::vec(byte, 0..4);
    (
        any::<bool>(),
        "(http://[ab]{1,2}(:[12]{1,2})?)?/[ab/]{0,2}(\\?[ab]{0,2})?",
        proptest::collection::vec((name, value), 0..5),
    )
        .prop_map(|(head, uri, fields)| Model { head, uri, fields })
}

fn ignored_fields() -> impl Strategy<Value = Vec<(String, Vec<u8>, Index)>> {
    let name = select(ignored()).prop_map(str::to_owned);
    // No letters, so that no `Connection` among them names a field.
    let value = proptest::collection::vec(select(b"0123 ,;=".to_vec()), 0..6);
    proptest::collection::vec((name, value, any::<Index>()), 0..6)
}

proptest! {
    #[test]
    fn two_requests_that_differ_never_have_the_same_key(one in model(), two in model()) {
        if one.by_name() != two.by_name() {
            prop_assert_ne!(one.key(), two.key());
        }
    }

    #[test]
    fn one_changed_byte_changes_the_key(
        one in model(), field in any::<Index>(), at in any::<Index>(), byte in 0x80..=0xff_u8,
    ) {
        let mut two = one.clone();
        if !two.fields.is_empty() {
            let field = field.index(two.fields.len());
            let value = &mut two.fields[field].1;
            let at = at.index(value.len() + 1);
            if at == value.len() {
                value.push(byte);
            } else {
                value[at] = byte;
            }
        }
        prop_assert_eq!(one == two, one.key() == two.key());
    }

    #[test]
    fn two_requests_that_differ_only_in_ignored_fields_have_the_same_key(
        one in model(), added in ignored_fields(),
    ) {
        let mut two = one.clone();
        for (name, value, at) in added {
            let at = at.index(two.fields.len() + 1);
            two.fields.insert(at, (name, value));
        }
        prop_assert_eq!(one.key(), two.key());
        prop_assert_eq!(hash(&one.key()), hash(&two.key()));
    }
}
