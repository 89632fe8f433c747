//! The fields that a request's own `Connection` names.

use std::collections::HashSet;

use http::header::CONNECTION;
use http::{HeaderMap, HeaderValue};

use crate::rules::{members, tokens};

/// Their names, in lower case. A set, because a client may send many names and many fields.
pub(super) type Named = HashSet<Vec<u8>>;

#[cold]
pub(super) fn named_by(request: &HeaderMap) -> Named {
    let names = tokens(request, &CONNECTION).filter(|name| !is_usual(name));
    names.map(<[u8]>::to_ascii_lowercase).collect()
}

#[cold]
pub(super) fn holds(named: &Named, name: &str) -> bool {
    named.contains(name.as_bytes())
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
        let named = named_by(&request);
        for name in ["x-b", "a", "x-a", "x_c"] {
            assert!(named.contains(name.as_bytes()), "{name}");
        }
        for name in ["", "b", "x-", "x-aa", "xx-a", "c", "close", "upgrade"] {
            assert!(!named.contains(name.as_bytes()), "{name}");
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
