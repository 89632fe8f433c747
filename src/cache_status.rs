//! The `Cache-Status` member that says what the layer did with a request (RFC 9211).

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{role::Disposition, rules::is_tchar};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The members that one layer appends, serialised once.
#[derive(Clone)]
pub(crate) struct CacheStatus {
    /// Indexed by [`Disposition`].
    members: Arc<[HeaderValue]>,
}

// ===== impl CacheStatus =====

impl CacheStatus {
    /// `None` for a name that is neither an sf-token nor an sf-string (RFC 9651 section 3.3): empty, or not printable
    /// ASCII.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let name = bare_item(name)?;
        let member = |&disposition: &Disposition| {
            HeaderValue::try_from(format!("{name}; {}", parameters(disposition)))
                .expect("printable ASCII is a header value")
        };
        Some(Self {
            members: Disposition::ALL.iter().map(member).collect(),
        })
    }

    /// Appends the member for `disposition` after those of caches closer to the origin (RFC 9211 section 2).
    pub(crate) fn append(&self, headers: &mut HeaderMap, disposition: Disposition) {
        // A separate line means the same as a longer list (RFC 9110 section 5.3). A full map stays as it is.
        let member = self.members[disposition as usize].clone();
        let _ = headers.try_append(CACHE_STATUS, member);
    }
}

/// In the words of RFC 9211 sections 2.2 and 2.6.
fn parameters(disposition: Disposition) -> &'static str {
    match disposition {
        // Not collapsed with anything, nor meant to be.
        Disposition::Led | Disposition::NotJoined => "fwd=miss",
        Disposition::Followed => "fwd=miss; collapsed",
        Disposition::Forwarded => "fwd=miss; collapsed=?0",
        Disposition::Bypassed => "fwd=bypass",
        Disposition::Method => "fwd=method",
        #[cfg(feature = "redis")]
        Disposition::Replica => "fwd=miss; collapsed; detail=replica",
    }
}

/// `name` as an sf-token if it can be one, else as an sf-string (RFC 9651 sections 4.1.6 and 4.1.7).
fn bare_item(name: &str) -> Option<String> {
    let bytes = name.as_bytes();
    let first = *bytes.first()?;
    if bytes.iter().any(|byte| !matches!(byte, b' '..=b'~')) {
        return None;
    }
    let starts = first == b'*' || first.is_ascii_alphabetic();
    if starts
        && bytes
            .iter()
            .all(|byte| is_tchar(*byte) || b":/".contains(byte))
    {
        return Some(name.to_owned());
    }
    let escaped = name.replace('\\', "\\\\").replace('"', "\\\"");
    Some(format!("\"{escaped}\""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn appended(name: &str, disposition: Disposition) -> String {
        let mut headers = HeaderMap::new();
        let status = CacheStatus::new(name).expect("a name");
        status.append(&mut headers, disposition);
        let value = headers[CACHE_STATUS].to_str().expect("ASCII");
        value.to_owned()
    }

    /// The name and the parameters of a member, read by the parser of RFC 9651 section 4.2.
    fn read(member: &str) -> (String, &str) {
        let (name, rest) = match member.strip_prefix('"') {
            None => {
                let (name, rest) = member.split_once(';').expect("parameters");
                (name.to_owned(), rest)
            }
            Some(quoted) => {
                let mut name = String::new();
                let mut characters = quoted.char_indices();
                loop {
                    match characters.next().expect("a closing quote") {
                        (_, '\\') => name.push(characters.next().expect("an escaped one").1),
                        (at, '"') => break (name, &quoted[at + 2..]),
                        (_, other) => name.push(other),
                    }
                }
            }
        };
        (name, rest.trim_start_matches(' '))
    }

    #[test]
    fn every_outcome_is_written_as_the_rfc_says() {
        for (disposition, expected) in [
            (Disposition::Led, "edge; fwd=miss"),
            (Disposition::NotJoined, "edge; fwd=miss"),
            (Disposition::Followed, "edge; fwd=miss; collapsed"),
            (Disposition::Forwarded, "edge; fwd=miss; collapsed=?0"),
            (Disposition::Bypassed, "edge; fwd=bypass"),
            (Disposition::Method, "edge; fwd=method"),
            #[cfg(feature = "redis")]
            (
                Disposition::Replica,
                "edge; fwd=miss; collapsed; detail=replica",
            ),
        ] {
            assert_eq!(appended("edge", disposition), expected);
        }
    }

    #[test]
    fn a_name_is_a_token_where_it_can_be_and_a_string_elsewhere() {
        for (name, item) in [
            ("ExampleCache", "ExampleCache"),
            ("*a:b/c.d", "*a:b/c.d"),
            ("1st", "\"1st\""),
            ("my cache", "\"my cache\""),
            ("a,b;c=d", "\"a,b;c=d\""),
            ("say \"hi\" \\o", r#""say \"hi\" \\o""#),
            (" ", "\" \""),
        ] {
            assert_eq!(
                appended(name, Disposition::Bypassed),
                format!("{item}; fwd=bypass")
            );
        }
    }

    #[test]
    fn a_name_that_is_empty_or_not_printable_ascii_is_refused() {
        for name in ["", "a\tb", "a\nb", "a\r\nx: y", "\u{7f}", "\0", "café"] {
            assert!(CacheStatus::new(name).is_none(), "{name:?}");
        }
    }

    #[test]
    fn the_member_comes_after_those_that_are_there() {
        let mut headers = HeaderMap::new();
        headers.append(CACHE_STATUS, HeaderValue::from_static("origin; hit"));
        headers.append(CACHE_STATUS, HeaderValue::from_static("mid; fwd=stale"));
        let status = CacheStatus::new("edge").expect("a name");
        status.append(&mut headers, Disposition::Followed);
        let lines: Vec<_> = headers.get_all(CACHE_STATUS).iter().collect();
        assert_eq!(
            lines,
            ["origin; hit", "mid; fwd=stale", "edge; fwd=miss; collapsed"]
        );
    }

    proptest! {
        #[test]
        fn what_was_serialised_and_appended_is_what_is_read(
            name in "[ -~]{1,20}",
            disposition in proptest::sample::select(Disposition::ALL),
            before in proptest::collection::vec("[a-z]{1,4}; hit", 0..3),
        ) {
            let mut headers = HeaderMap::new();
            for line in &before {
                headers.append(CACHE_STATUS, line.parse().expect("a value"));
            }
            CacheStatus::new(&name).expect("a name").append(&mut headers, disposition);
            let lines: Vec<_> = headers.get_all(CACHE_STATUS).iter().collect();
            prop_assert_eq!(lines.len(), before.len() + 1);
            let last = lines[before.len()].to_str().expect("ASCII");
            prop_assert_eq!(read(last), (name, parameters(disposition)));
        }
    }
}
