//! The fields that a request's own `Connection` names.

use http::header::CONNECTION;
use http::{HeaderMap, HeaderValue};

use crate::rules::{members, tokens};

/// Their names as written, sorted case-insensitively, because a client may send many names and many fields.
#[derive(Debug)]
pub(super) struct Named<'a> {
    sorted: Vec<&'a [u8]>,
}

/// Whether a line of `Connection` names fields, besides the usual values.
pub(super) fn names_fields(connection: &HeaderValue) -> bool {
    !is_usual(connection.as_bytes()) && !members(connection).all(is_usual)
}

/// Whether a member names no field, or one that always belongs to the connection: Java's clients send `Upgrade,
/// HTTP2-Settings` with every request.
fn is_usual(member: &[u8]) -> bool {
    const USUAL: [&[u8]; 5] = [
        b"keep-alive",
        b"close",
        b"te",
        b"upgrade",
        b"http2-settings",
    ];
    USUAL.iter().any(|usual| member.eq_ignore_ascii_case(usual))
}

// ===== impl Named =====

impl<'a> Named<'a> {
    #[cold]
    pub(super) fn by(request: &'a HeaderMap) -> Self {
        let names = tokens(request, &CONNECTION).filter(|name| !is_usual(name));
        let mut sorted: Vec<_> = names.collect();
        sorted.sort_unstable_by(|one, two| lower(one).cmp(lower(two)));
        Self { sorted }
    }

    #[cold]
    pub(super) fn contains(&self, name: &str) -> bool {
        let name = name.as_bytes();
        let found = self
            .sorted
            .binary_search_by(|other| lower(other).cmp(lower(name)));
        found.is_ok()
    }
}

fn lower(name: &[u8]) -> impl Iterator<Item = u8> {
    name.iter().map(u8::to_ascii_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(lines: &[&'static [u8]]) -> HeaderMap {
        let value = |line: &&[u8]| HeaderValue::from_bytes(line).expect("a value");
        let lines = lines.iter().map(|line| (CONNECTION, value(line)));
        lines.collect()
    }

    #[test]
    fn the_names_of_all_lines_are_found_in_any_case() {
        let request = request(&[b"Close, X-b", b"a,, \xff ,", b"x-A", b"x_c, Upgrade"]);
        let named = Named::by(&request);
        for name in ["x-b", "a", "x-a", "x_c"] {
            assert!(named.contains(name), "{name}");
        }
        for name in ["", "b", "x-", "x-aa", "xx-a", "c", "close", "upgrade"] {
            assert!(!named.contains(name), "{name}");
        }
    }

    #[test]
    fn the_usual_values_name_no_fields() {
        let names = |line| names_fields(&HeaderValue::from_static(line));
        for line in [
            "Keep-Alive",
            "close",
            "",
            "TE, close",
            "Upgrade, HTTP2-Settings",
        ] {
            assert!(!names(line), "{line}");
        }
        for line in ["close, x-a", "x-a", "upgrade,via", "keep-alive x-a"] {
            assert!(names(line), "{line}");
        }
    }
}
