//! A copy of header fields, for comparison alone.

use std::fmt;

use http::{HeaderMap, HeaderName};

use super::packing::{lengths, unpack};

/// Names and values one after the other: a clone of each `HeaderValue` may cost an allocation of its own.
#[derive(Clone, Default)]
pub(crate) struct Fields {
    packed: Vec<u8>,
}

/// The bytes that most requests' fields need.
const USUAL: usize = 384;

// ===== impl Fields =====

impl Fields {
    /// The fields for which `keep` returns `true`.
    pub(crate) fn of(headers: &HeaderMap, mut keep: impl FnMut(&HeaderName) -> bool) -> Self {
        let mut fields = Self::default();
        for (name, value) in headers {
            if keep(name) {
                fields.push(name.as_str().as_bytes(), value.as_bytes());
            }
        }
        fields
    }

    #[inline]
    fn push(&mut self, name: &[u8], value: &[u8]) {
        if self.packed.capacity() == 0 {
            self.packed.reserve(USUAL);
        }
        for part in [&lengths(name, value), name, value] {
            self.packed.extend_from_slice(part);
        }
    }

    /// The names and values, in their order.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        pairs(&self.packed)
    }
}

fn pairs(mut rest: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || unpack(&mut rest))
}

/// Shows nothing: the values may be credentials.
impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fields").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn values<'a>(fields: &'a Fields, name: &str) -> Vec<&'a [u8]> {
        let lines = fields.lines();
        let own = lines.filter(|(other, _)| *other == name.as_bytes());
        own.map(|(_, value)| value).collect()
    }

    #[test]
    fn the_values_of_a_name_come_in_their_order() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("a", "1"), ("b", ""), ("a", "2"), ("c", "3")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let fields = Fields::of(&headers, |name| name != "c");
        assert_eq!(values(&fields, "a"), [b"1", b"2"]);
        assert_eq!(values(&fields, "b"), [b""]);
        assert!(values(&fields, "c").is_empty());
    }

    #[test]
    fn many_long_values_keep_their_order() {
        let long = "v".repeat(USUAL);
        let mut headers = HeaderMap::new();
        let all = [&long[..], "1", &long, "2", &long, "3"];
        for value in all {
            headers.append("a", value.parse().expect("a value"));
            headers.append("b", HeaderValue::from_static("x"));
        }
        let fields = Fields::of(&headers, |_| true);
        assert_eq!(values(&fields, "a"), all.map(str::as_bytes));
    }
}
