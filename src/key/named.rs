//! The fields that a request's own `Connection` names.

use http::header::CONNECTION;
use http::{HeaderMap, HeaderValue};

use crate::rules::tokens;

/// Their names as written, sorted without regard to case: there may be many, and as many fields to look up.
#[derive(Debug)]
pub(super) struct Named<'a> {
    sorted: Vec<&'a [u8]>,
}

/// Whether a line of `Connection` names fields, beside the usual values.
pub(super) fn names_fields(connection: &HeaderValue) -> bool {
    let line = connection.as_bytes();
    !line.eq_ignore_ascii_case(b"keep-alive") && !line.eq_ignore_ascii_case(b"close")
}

// ===== impl Named =====

impl<'a> Named<'a> {
    #[cold]
    pub(super) fn by(request: &'a HeaderMap) -> Self {
        let mut sorted: Vec<_> = tokens(request, &CONNECTION).collect();
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
        let request = request(&[b"Close, X-b", b"a,, \xff ,", b"x-A", b"x_c"]);
        let named = Named::by(&request);
        for name in ["close", "x-b", "a", "x-a", "x_c"] {
            assert!(named.contains(name), "{name}");
        }
        for name in ["", "b", "x-", "x-aa", "xx-a", "c"] {
            assert!(!named.contains(name), "{name}");
        }
    }

    #[test]
    fn keep_alive_and_close_name_no_fields() {
        let names = |line| names_fields(&HeaderValue::from_static(line));
        assert!(!names("Keep-Alive") && !names("close"));
        assert!(names("close, x-a") && names("x-a") && names("te"));
    }
}
