//! The target of a write: URIs that are equal although they are spelled differently.

use std::{
    borrow::Cow,
    hash::{DefaultHasher, Hash, Hasher},
};

use http::{HeaderValue, Uri, header::HOST, request};

use crate::key::{Host, RequestKey};

/// The number of slots in [`WriteEpochs`](super::writes::WriteEpochs).
pub(super) const SLOTS: usize = 1024;

/// A resource as writes see it: without scheme and port, so that the origin form and the absolute form of a URI are
/// equal.
#[derive(Debug)]
pub(crate) struct Resource<'a> {
    /// `None` if the request names none: it may be any host.
    host: Option<HostHash>,
    path: Cow<'a, [u8]>,
    query: Option<&'a [u8]>,
}

/// The hash of a host, ignoring case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostHash(u64);

/// The slots of a resource. A request that names no host shares slots with every host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteTarget {
    /// The slots that a reader checks.
    pub(super) read: [usize; 2],
    /// The slots in which a writer leaves its number.
    pub(super) written: [usize; 2],
}

// ===== impl Resource =====

impl<'a> Resource<'a> {
    pub(crate) fn new(uri: &'a Uri, host: Option<HostHash>) -> Self {
        Self {
            host,
            // Not `path_and_query`: for `http://a?b` that lacks the slash that the origin form has.
            path: uri.path().as_bytes().into(),
            query: uri.query().map(str::as_bytes),
        }
    }

    /// The resource that a request with this key asks for.
    pub(crate) fn of(key: &'a RequestKey) -> Self {
        Self::new(key.uri(), key.authority().map(HostHash::new))
    }

    /// Resolves a URI reference in a response (RFC 3986 section 5.2), if it is on the same host.
    pub(crate) fn resolve<'b>(&'b self, reference: &'b HeaderValue) -> Option<Resource<'b>> {
        let reference = reference.as_bytes().trim_ascii();
        let reference = split(reference, b'#').map_or(reference, |(front, _)| front);
        let (hierarchy, query) = match split(reference, b'?') {
            Some((hierarchy, query)) => (hierarchy, Some(query)),
            None => (reference, None),
        };
        // A colon before the first slash ends a scheme; without an authority after it, this is another kind of URI.
        let rest = match split(hierarchy, b':') {
            Some((scheme, rest)) if !scheme.contains(&b'/') => {
                rest.starts_with(b"//").then_some(rest)?
            }
            _ => hierarchy,
        };
        let (host, path) = match rest.strip_prefix(b"//") {
            Some(rest) => {
                let end = rest.iter().position(|byte| *byte == b'/');
                let (authority, path) = rest.split_at(end.unwrap_or(rest.len()));
                (Some(HostHash::new(authority)), path)
            }
            None => (self.host, rest),
        };
        if host.is_some_and(|host| self.host.is_some_and(|own| own != host)) {
            return None;
        }
        let is_absolute = rest.starts_with(b"//") || path.starts_with(b"/");
        let (path, query) = match path {
            [] if is_absolute => (Cow::Borrowed(&b"/"[..]), query),
            [] => (Cow::Borrowed(&*self.path), query.or(self.query)),
            path if is_absolute => (path.into(), query),
            path => {
                let folder = self.path.iter().rposition(|byte| *byte == b'/');
                let folder = &self.path[..folder.map_or(0, |slash| slash + 1)];
                ([folder, path].concat().into(), query)
            }
        };
        Some(Resource {
            host: self.host,
            path,
            query,
        })
    }

    /// Its path and query with percent-encodings and dot segments resolved.
    #[cfg(feature = "redis")]
    pub(crate) fn parts(&self, mut part: impl FnMut(&[u8])) {
        part(&rewrite(&self.path));
        if let Some(query) = self.query {
            part(&rewrite(query));
        }
    }

    pub(crate) fn target(&self) -> WriteTarget {
        let path = canonical(0, &self.path);
        let path = self.query.map_or(path, |query| canonical(path, query));
        let (none, any) = (slot(path, 2), slot(path, 3));
        let own = self.host.map(|HostHash(host)| slot(path, host));
        WriteTarget {
            read: [own.unwrap_or(any), none],
            written: [own.unwrap_or(none), any],
        }
    }
}

// ===== impl HostHash =====

impl HostHash {
    /// The host that a request names in its URI, or else in its `Host` field.
    pub(crate) fn of(request: &request::Parts) -> Option<Self> {
        match request.uri.authority() {
            Some(authority) => Some(Self::new(authority.as_str().as_bytes())),
            None => Some(Self::new(request.headers.get(HOST)?.as_bytes())),
        }
    }

    fn new(authority: &[u8]) -> Self {
        Self(hash(Host::parse(authority).name.to_ascii_lowercase()))
    }
}

fn split(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == at)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

fn slot(path: u64, host: u64) -> usize {
    hash((path, host)) as usize % SLOTS
}

/// Deliberate collisions cost only calls.
fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

// ===== spellings (RFC 3986 section 6.2.2) =====

/// The hash of a path or query without percent-encodings and dot segments. That `%2F` becomes `/` as well, and that a
/// query may be taken for a path, costs two targets at most a call.
fn canonical(seed: u64, bytes: &[u8]) -> u64 {
    match bytes.iter().any(|byte| matches!(byte, b'%' | b'.')) {
        true => hash((seed, rewrite(bytes))),
        false => hash((seed, bytes)),
    }
}

fn rewrite(bytes: &[u8]) -> Vec<u8> {
    let decoded = decode(bytes);
    match decoded.strip_prefix(b"/") {
        Some(segments) => remove_dot_segments(segments),
        // A query.
        None => decoded,
    }
}

/// Anything that is not a percent-encoding stays.
fn decode(mut rest: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut decoded = Vec::with_capacity(rest.len());
    while let [byte, ..] = *rest {
        let pair = match *rest {
            [b'%', high, low, ..] => digit(high).zip(digit(low)),
            _ => None,
        };
        let (byte, len) = pair.map_or((byte, 1), |(high, low)| (high << 4 | low, 3));
        decoded.push(byte);
        rest = &rest[len..];
    }
    decoded
}

/// RFC 3986 section 5.2.4, on what follows the first slash of a path.
fn remove_dot_segments(path: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(path.len() + 1);
    let mut segments = path.split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        if !matches!(segment, b"." | b"..") {
            kept.push(b'/');
            kept.extend_from_slice(segment);
            continue;
        }
        if segment == b".." {
            let slash = kept.iter().rposition(|byte| *byte == b'/');
            kept.truncate(slash.unwrap_or(0));
        }
        if segments.peek().is_none() {
            kept.push(b'/');
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use http::{Request, request::Parts};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        key::{KeyExtractor, RequestKeyExtractor},
        shared::writes::WriteEpochs,
    };

    fn parts(uri: &str, host: Option<&str>) -> Parts {
        let mut request = Request::builder().uri(uri);
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn meets(read: &WriteTarget, written: &WriteTarget) -> bool {
        let epochs = WriteEpochs::new();
        epochs.record(written);
        epochs.written_since(0, || Some(*read))
    }

    /// As a key has it.
    fn read(request: &Parts) -> WriteTarget {
        let key = RequestKeyExtractor::new().extract(request).expect("a GET");
        Resource::of(&key).target()
    }

    /// As a write has it.
    fn written(request: &Parts) -> Resource<'_> {
        Resource::new(&request.uri, HostHash::of(request))
    }

    fn sees(read_by: &Parts, write: &Parts) -> bool {
        meets(&read(read_by), &written(write).target())
    }

    fn rewritten(text: &str) -> String {
        String::from_utf8_lossy(&rewrite(text.as_bytes())).into_owned()
    }

    #[test]
    fn a_write_is_seen_in_whatever_form_the_two_requests_name_the_target() {
        let forms = [
            parts("/a?b", Some("example.com")),
            parts("/a?b", Some("EXAMPLE.com:80")),
            parts("http://example.com/a?b", None),
            parts("http://u:p@example.com:80/a?b", Some("example.com")),
            parts("/a?b", None),
        ];
        for read in &forms {
            for write in &forms {
                assert!(sees(read, write), "{read:?} {write:?}");
            }
        }
    }

    #[test]
    fn a_write_to_another_target_is_not_seen() {
        let read = parts("/a", Some("example.com"));
        for (uri, host) in [
            ("/b", "example.com"),
            ("/a/", "example.com"),
            ("/a", "example.org"),
            ("/a?b", "example.com"),
        ] {
            assert!(!sees(&read, &parts(uri, Some(host))), "{uri} {host}");
        }
    }

    #[test]
    fn two_spellings_of_one_uri_are_one_target() {
        let spellings = [
            "/a/b-c?q=%C3%A9",
            "/%61/b-c?q=%C3%A9",
            "/a/%62%2Dc?q=%c3%a9",
            "/a/b%2dc?%71=%C3%a9",
            "/x/../a/./b-c?q=%C3%A9",
            "/x/%2E%2e/a/%2E/b-c?q=%C3%A9",
            "/../a/b-c?q=%C3%A9",
        ];
        for read in spellings {
            for write in spellings {
                let (read, write) = (parts(read, Some("a")), parts(write, Some("a")));
                assert!(sees(&read, &write), "{read:?} {write:?}");
            }
        }
    }

    #[test]
    fn dot_segments_are_removed_as_the_rfc_says() {
        for (from, to) in [
            ("/a/b/c/./../../g", "/a/g"),
            ("/mid/content=5/../6", "/mid/6"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/a/../bcd/.", "/bcd/"),
            ("/..", "/"),
            ("/.", "/"),
            ("/../../a", "/a"),
            ("/a/../", "/"),
            ("/a//../b", "/a/b"),
            ("/.a/..b/c./...", "/.a/..b/c./..."),
            ("/%2e%2E/a%zz%4", "/a%zz%4"),
            ("a=/../b", "a=/../b"),
            ("*", "*"),
        ] {
            assert_eq!(rewritten(from), to, "{from}");
        }
    }

    #[test]
    fn a_reference_is_resolved_as_the_rfc_says_and_on_the_same_host_alone() {
        let request = parts("http://a/b/c/d;p?q", None);
        let base = written(&request);
        for (reference, expected) in [
            ("g", Some("/b/c/g")),
            ("./g", Some("/b/c/g")),
            ("g/", Some("/b/c/g/")),
            ("/g", Some("/g")),
            ("//a", Some("/")),
            ("//A:8080/g?y", Some("/g?y")),
            ("?y", Some("/b/c/d;p?y")),
            ("g?y#s", Some("/b/c/g?y")),
            ("#s", Some("/b/c/d;p?q")),
            ("", Some("/b/c/d;p?q")),
            (" g ", Some("/b/c/g")),
            ("..", Some("/b/")),
            ("../../../g", Some("/g")),
            ("http://a", Some("/")),
            ("https://user@A/x?y", Some("/x?y")),
            ("http://a?x/y:z", Some("/?x/y:z")),
            ("./g:h", Some("/b/c/g:h")),
            ("http://b/g", None),
            ("//b/g", None),
            ("http://a.example/g", None),
            ("mailto:someone@a", None),
            ("urn:a:b", None),
        ] {
            let reference = HeaderValue::from_static(reference);
            let resolved = base.resolve(&reference);
            let written = resolved.as_ref().map(Resource::target);
            let expected = expected.map(|uri| parts(&format!("http://a{uri}"), None));
            assert_eq!(resolved.is_some(), expected.is_some(), "{reference:?}");
            if let (Some(written), Some(expected)) = (written, &expected) {
                let read = read(expected);
                assert!(meets(&read, &written), "{reference:?} {resolved:?}");
            }
        }
    }

    #[test]
    fn a_write_that_names_no_host_may_be_on_any() {
        let request = parts("/a", None);
        let location = HeaderValue::from_static("http://b/c");
        let written = written(&request)
            .resolve(&location)
            .expect("maybe the same")
            .target();
        for read in [
            parts("/c", Some("b")),
            parts("http://d/c", None),
            parts("/c", None),
        ] {
            assert!(meets(&self::read(&read), &written), "{read:?}");
        }
    }

    #[test]
    fn an_ipv6_host_keeps_its_colons() {
        let of = |host| HostHash::of(&parts("/", Some(host)));
        assert_eq!(of("[::1]"), of("[::1]:80"));
        assert_ne!(of("[::1]"), of("[::2]"));
    }

    proptest! {
        #[test]
        fn a_write_is_seen_however_long_its_host_and_path_are(
            host in "[a-z0-9.-]{1,20}|\\[[0-9a-f:]{2,12}\\]",
            path in "/[a-zA-Z0-9/%.]{0,30}",
            query in proptest::option::of("[a-z=&]{0,20}"),
            upper: (bool, bool),
            forms in (0..5_usize, 0..5_usize),
        ) {
            let target = match query {
                Some(query) => format!("{path}?{query}"),
                None => path,
            };
            let form = |form: usize, upper: bool| {
                let host = if upper { host.to_uppercase() } else { host.clone() };
                match form {
                    0 => parts(&target, None),
                    1 => parts(&target, Some(&host)),
                    2 => parts(&target, Some(&format!("{host}:8080"))),
                    3 => parts(&format!("http://{host}{target}"), None),
                    _ => parts(&format!("https://{host}:8443{target}"), Some("other")),
                }
            };
            // Not every name of these letters is an authority.
            prop_assume!(format!("http://{host}{target}").parse::<Uri>().is_ok());
            let (read, write) = (form(forms.0, upper.0), form(forms.1, upper.1));
            prop_assert!(sees(&read, &write), "{read:?} {write:?}");
        }

        #[test]
        fn a_write_is_seen_however_its_path_and_query_are_spelt(
            segments in proptest::collection::vec("[a-zA-Z0-9_~.\u{e9}/]{0,6}", 1..200),
            query in proptest::option::of("[a-z=&/?]{0,12}"),
            spelt in proptest::collection::vec((any::<bool>(), any::<bool>(), 0..12_u8), 24),
        ) {
            let plain = format!("/{}", segments.join("/"));
            let mut spellings = spelt.iter().cycle();
            let mut spell = |bytes: &[u8], is_path: bool| {
                let mut spelt = String::new();
                for &byte in bytes {
                    let (encodes, upper, segment) = *spellings.next().expect("a cycle");
                    let slash = byte == b'/' && is_path;
                    if slash || byte.is_ascii() && !encodes {
                        spelt.push(char::from(byte));
                    } else if upper {
                        spelt.push_str(&format!("%{byte:02X}"));
                    } else {
                        spelt.push_str(&format!("%{byte:02x}"));
                    }
                    match segment {
                        0 if slash => spelt.push_str("./"),
                        1 if slash => spelt.push_str("%2e/"),
                        2 if slash => spelt.push_str("x/../"),
                        3 if slash => spelt.push_str("x/.%2E/"),
                        _ => {}
                    }
                }
                spelt
            };
            let one = spell(plain.as_bytes(), true);
            let other = spell(plain.as_bytes(), true);
            let (one, other) = match &query {
                Some(query) => (
                    format!("{one}?{}", spell(query.as_bytes(), false)),
                    format!("{other}?{}", spell(query.as_bytes(), false)),
                ),
                None => (one, other),
            };
            let (one, other) = (parts(&one, Some("a")), parts(&other, Some("a")));
            prop_assert!(sees(&one, &other), "{one:?} {other:?}");
        }

        #[test]
        fn no_bytes_of_a_location_make_it_panic(
            reference in proptest::collection::vec(any::<u8>(), 0..24),
            pieces in proptest::collection::vec(
                proptest::sample::select(vec!["/", "//", ":", "?", "#", ".", "..", "a", "%2e", "%", "@", "[", "]", "http"]), 0..8,
            ),
        ) {
            let request = parts("http://a/b/c?d", None);
            for bytes in [&reference[..], pieces.concat().as_bytes()] {
                if let Ok(value) = HeaderValue::from_bytes(bytes) {
                    let _ = written(&request).resolve(&value).map(|resource| resource.target());
                }
            }
        }
    }
}
