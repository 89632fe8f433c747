//! The default key against a slow and plain account of what it must tell apart.

use http::header::{CONNECTION, HOST};
use http::{HeaderName, Request, request};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use tower_singleflight::{KeyExtractor, RequestKeyExtractor};

use crate::support::fields::HOP_BY_HOP;

/// In the user's list.
const NOISE: &str = "x-noise";

/// `user@`, the name in lower case, `:port`.
type Host = (String, String, String);

/// All that the key is made of.
#[derive(Clone, Debug, PartialEq)]
struct Account {
    method: String,
    scheme: Option<String>,
    authority: Option<Host>,
    path: Option<String>,
    /// Each line in its order: its name, its value, and whether the request's `Connection` names it.
    lines: Vec<(String, Vec<u8>, bool)>,
}

fn host(text: &str) -> Host {
    let (user, rest) = match text.rfind('@') {
        Some(at) => text.split_at(at + 1),
        None => ("", text),
    };
    let (name, port) = match rest.find(':') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    (user.to_owned(), name.to_lowercase(), port.to_owned())
}

fn is_named(request: &request::Parts, name: &str) -> bool {
    if name == "upgrade" {
        // It belongs to the connection, named or not.
        return false;
    }
    request.headers.get_all(CONNECTION).iter().any(|line| {
        let line = String::from_utf8_lossy(line.as_bytes()).to_lowercase();
        line.split(',').any(|member| member.trim() == name)
    })
}

fn is_left_out(name: &str) -> bool {
    matches!(name, "user-agent" | "via" | NOISE)
        || name.starts_with("x-b3-")
        || name.starts_with("sec-ch-")
}

/// Of the lines that are asked for here.
fn holds_addresses_alone(request: &request::Parts) -> bool {
    let mut lines = request.headers.get_all("forwarded").iter();
    lines.all(|line| matches!(line.as_bytes(), b"" | b"for=a" | b"by=b;for=\"c\""))
}

fn account(request: &request::Parts) -> Account {
    let authority = request.uri.authority().map(|it| host(it.as_str()));
    let hosts: Vec<_> = request.headers.get_all(HOST).iter().collect();
    let mut lines = Vec::new();
    for (name, value) in &request.headers {
        let (name, mut value) = (name.as_str(), value.as_bytes().to_vec());
        let named = is_named(request, name);
        if HOP_BY_HOP.contains(&name) || is_left_out(name) && !named {
            continue;
        }
        if name == "forwarded" && !named && holds_addresses_alone(request) {
            continue;
        }
        if name == "host" {
            let own = host(std::str::from_utf8(&value).expect("no other hosts here"));
            let of_uri = authority.as_ref().map(|of_uri| (&of_uri.1, &of_uri.2));
            let repeats = own.0.is_empty() && of_uri == Some((&own.1, &own.2));
            // Only where it says nothing of its own.
            if hosts.len() == 1 && repeats && !named {
                continue;
            }
            value = format!("{}\0{}\0{}", own.0, own.1, own.2).into_bytes();
        }
        lines.push((name.to_owned(), value, named));
    }
    Account {
        method: request.method.to_string(),
        scheme: request.uri.scheme_str().map(str::to_lowercase),
        authority,
        path: request.uri.path_and_query().map(ToString::to_string),
        lines,
    }
}

// ===== requests =====

type Field = (&'static str, Vec<u8>);

fn field() -> impl Strategy<Value = Field> {
    let names = vec![
        "a",
        "ab",
        "abc",
        "accept",
        "cookie",
        "te",
        "via",
        "user-agent",
        "forwarded",
        "forwarded",
        "upgrade",
        "x-b3",
        "x-b3-",
        "x-b3-a",
        "sec-ch",
        "sec-ch-a",
        NOISE,
        "connection",
        "connection",
        "host",
        "host",
    ];
    select(names).prop_flat_map(|name| {
        let texts: &[&str] = match name {
            "host" => &["", "a", "A", "a:1", "a:", "b", "u@a", "U@a"],
            "forwarded" => &[
                "",
                "for=a",
                "by=b;for=\"c\"",
                "for=a;host=b",
                "proto=c",
                "for",
            ],
            "connection" => &[
                "",
                "close",
                "Keep-Alive",
                "te",
                "close, a",
                "AB",
                "via,user-agent",
                " X-B3-A ,",
                "x-noise",
                "host",
                "connection, cookie",
                "forwarded, upgrade",
                "Upgrade, HTTP2-Settings",
            ],
            _ => &["", "a", "b", "ab", "A", "a, b"],
        };
        let texts = texts
            .iter()
            .map(|text| text.as_bytes().to_vec())
            .collect::<Vec<_>>();
        let long = matches!(name, "host" | "connection" | "forwarded");
        let values = prop_oneof![
            12 => select(texts),
            1 => Just(if long { b"b".to_vec() } else { vec![0xff] }),
            1 => (0..3_usize, 1..3_u8).prop_map(move |(size, byte)| {
                if long { b"close".to_vec() } else { vec![b'0' + byte; [120, 700, 1600][size]] }
            }),
        ];
        let values = values.prop_map(move |value| {
            if name != "connection" && value == b"close" {
                b"a".to_vec()
            } else {
                value
            }
        });
        (Just(name), values)
    })
}

fn uri() -> impl Strategy<Value = &'static str> {
    select(vec![
        "/",
        "/?",
        "/?a",
        "/a",
        "*",
        "http://a/",
        "HTTP://A/",
        "https://a/",
        "http://a:1/",
        "http://u@a/",
        "http://a",
        "http://a?a",
    ])
}

fn request(method: &str, uri: &str, fields: &[Field]) -> request::Parts {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, value.as_slice());
    }
    request.body(()).expect("a request").into_parts().0
}

/// A change that may well be none: a line more, less, or another.
fn edit(fields: &mut Vec<Field>, at: Index, field: Option<Field>, replaces: bool) {
    let at = at.index(fields.len() + 1);
    if at < fields.len() && (replaces || field.is_none()) {
        fields.remove(at);
    }
    if let Some(field) = field {
        fields.insert(at, field);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn two_keys_are_equal_exactly_when_the_accounts_are(
        heads in any::<(bool, bool)>(),
        uris in (uri(), proptest::option::weighted(0.2, uri())),
        fields in proptest::collection::vec(field(), 0..8),
        edits in proptest::collection::vec((any::<Index>(), proptest::option::of(field()), any::<bool>()), 0..3),
        filler in prop_oneof![4 => Just(0_usize), 1 => 60..70_usize],
    ) {
        let extractor = RequestKeyExtractor::new().ignore_header(HeaderName::from_static(NOISE));
        let method = |both: bool| if both && heads.0 && heads.1 { "HEAD" } else { "GET" };
        let mut one: Vec<Field> = vec![("filler", b"some".to_vec()); filler];
        one.extend(fields);
        let mut two = one.clone();
        for (at, field, replaces) in edits {
            edit(&mut two, at, field, replaces);
        }
        let one = request(method(false), uris.0, &one);
        let two = request(method(true), uris.1.unwrap_or(uris.0), &two);
        prop_assert_eq!(
            extractor.extract(&one) == extractor.extract(&two),
            account(&one) == account(&two),
            "{:?} {:?}", one, two
        );
    }
}
