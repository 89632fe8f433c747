//! A copy of header fields, for comparison alone.

use std::fmt;

use http::{HeaderMap, HeaderName};

/// Names and values one after the other in a single allocation: a clone of each `HeaderValue` may cost one of its own.
///
/// Each is preceded by its length, so that no value can be taken for a name.
#[derive(Clone, Default)]
pub(crate) struct Fields {
    bytes: Vec<u8>,
}

/// The bytes that most requests' fields need, where any are kept.
const USUAL: usize = 512;

/// The bytes of a length.
const LEN: usize = size_of::<u32>();

// ===== impl Fields =====

impl Fields {
    /// The fields of which `keep` says so.
    pub(crate) fn of(headers: &HeaderMap, mut keep: impl FnMut(&HeaderName) -> bool) -> Self {
        let mut bytes = Vec::new();
        for (name, value) in headers {
            if keep(name) {
                if bytes.is_empty() {
                    bytes.reserve(USUAL);
                }
                for part in [name.as_str().as_bytes(), value.as_bytes()] {
                    let len = u32::try_from(part.len()).expect("a field is no longer than 4 GiB");
                    bytes.extend_from_slice(&len.to_ne_bytes());
                    bytes.extend_from_slice(part);
                }
            }
        }
        Self { bytes }
    }

    /// The values of a name, in their order.
    pub(crate) fn get_all<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || Some((part(&mut rest)?, part(&mut rest)?)))
            .filter(move |(other, _)| *other == name.as_str().as_bytes())
            .map(|(_, value)| value)
    }
}

/// Splits the first part off.
fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, tail) = rest.split_first_chunk::<LEN>()?;
    let (part, tail) = tail.split_at_checked(u32::from_ne_bytes(*len) as usize)?;
    *rest = tail;
    Some(part)
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

    #[test]
    fn the_values_of_a_name_come_in_their_order() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("a", "1"), ("b", ""), ("a", "2"), ("c", "3")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let fields = Fields::of(&headers, |name| name != "c");
        let values = |name| {
            fields
                .get_all(&HeaderName::from_static(name))
                .map(<[u8]>::to_vec)
                .collect::<Vec<_>>()
        };
        assert_eq!(values("a"), [b"1", b"2"]);
        assert_eq!(values("b"), [b""]);
        assert!(values("c").is_empty());
    }

    #[test]
    fn what_is_not_kept_costs_no_allocation() {
        let mut headers = HeaderMap::new();
        headers.append("a", HeaderValue::from_static("v"));
        assert_eq!(Fields::of(&headers, |_| false).bytes.capacity(), 0);
    }
}
