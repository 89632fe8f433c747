//! The `Cache-Status` member that says what the layer did with a request (RFC 9211).

use std::{error, fmt};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::rules::is_tchar;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What became of a request, in the words of RFC 9211 sections 2.2 and 2.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forward {
    /// It led a flight: `fwd=miss`.
    Miss,
    /// It got another's response: `fwd=miss; collapsed`.
    Collapsed,
    /// It had to make its own call: `fwd=miss; collapsed=?0`.
    NotCollapsed,
    /// It is never coalesced: `fwd=bypass`.
    Bypass,
    /// Its method is not coalesced: `fwd=method`.
    Method,
    /// It got another replica's response: `fwd=miss; collapsed; detail=replica`.
    Replica,
}

/// The members that one layer appends, serialised once.
#[derive(Clone)]
pub(crate) struct CacheStatus {
    /// Indexed by [`Forward`].
    members: [HeaderValue; 6],
}

/// A name that is neither an sf-token nor an sf-string (RFC 9651 section 3.3): empty, or not printable ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidName;

// ===== impl Forward =====

impl Forward {
    const ALL: [Self; 6] = [
        Self::Miss,
        Self::Collapsed,
        Self::NotCollapsed,
        Self::Bypass,
        Self::Method,
        Self::Replica,
    ];

    fn parameters(self) -> &'static str {
        match self {
            Self::Miss => "fwd=miss",
            Self::Collapsed => "fwd=miss; collapsed",
            Self::NotCollapsed => "fwd=miss; collapsed=?0",
            Self::Bypass => "fwd=bypass",
            Self::Method => "fwd=method",
            Self::Replica => "fwd=miss; collapsed; detail=replica",
        }
    }
}

// ===== impl CacheStatus =====

impl CacheStatus {
    pub(crate) fn new(name: &str) -> Result<Self, InvalidName> {
        let name = bare_item(name)?;
        let member = |forward: Forward| {
            HeaderValue::try_from(format!("{name}; {}", forward.parameters()))
                .expect("printable ASCII is a header value")
        };
        Ok(Self {
            members: Forward::ALL.map(member),
        })
    }

    /// Appends the member for `forward` after those of caches closer to the origin (RFC 9211 section 2).
    pub(crate) fn append(&self, headers: &mut HeaderMap, forward: Forward) {
        // A separate line means the same as a longer list (RFC 9110 section 5.3). A full map stays as it is.
        let member = self.members[forward as usize].clone();
        let _ = headers.try_append(CACHE_STATUS, member);
    }
}

impl fmt::Debug for CacheStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CacheStatus")
            .field(&self.members[0])
            .finish()
    }
}

// ===== impl InvalidName =====

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a cache must be printable ASCII and not empty")
    }
}

impl error::Error for InvalidName {}

/// `name` as an sf-token if it can be one, else as an sf-string (RFC 9651 sections 4.1.6 and 4.1.7).
fn bare_item(name: &str) -> Result<String, InvalidName> {
    let bytes = name.as_bytes();
    let first = *bytes.first().ok_or(InvalidName)?;
    if bytes.iter().any(|byte| !matches!(byte, b' '..=b'~')) {
        return Err(InvalidName);
    }
    let starts = first == b'*' || first.is_ascii_alphabetic();
    if starts
        && bytes
            .iter()
            .all(|byte| is_tchar(*byte) || b":/".contains(byte))
    {
        return Ok(name.to_owned());
    }
    let escaped = name.replace('\\', "\\\\").replace('"', "\\\"");
    Ok(format!("\"{escaped}\""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn appended(name: &str, forward: Forward) -> String {
        let mut headers = HeaderMap::new();
        let status = CacheStatus::new(name).expect("a name");
        status.append(&mut headers, forward);
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
        for (forward, expected) in [
            (Forward::Miss, "edge; fwd=miss"),
            (Forward::Collapsed, "edge; fwd=miss; collapsed"),
            (Forward::NotCollapsed, "edge; fwd=miss; collapsed=?0"),
            (Forward::Bypass, "edge; fwd=bypass"),
            (Forward::Method, "edge; fwd=method"),
        ] {
            assert_eq!(appended("edge", forward), expected);
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
                appended(name, Forward::Bypass),
                format!("{item}; fwd=bypass")
            );
        }
    }

    #[test]
    fn a_name_that_is_empty_or_not_printable_ascii_is_refused() {
        for name in ["", "a\tb", "a\nb", "a\r\nx: y", "\u{7f}", "\0", "café"] {
            assert_eq!(CacheStatus::new(name).err(), Some(InvalidName), "{name:?}");
        }
    }

    #[test]
    fn the_member_comes_after_those_that_are_there() {
        let mut headers = HeaderMap::new();
        headers.append(CACHE_STATUS, HeaderValue::from_static("origin; hit"));
        headers.append(CACHE_STATUS, HeaderValue::from_static("mid; fwd=stale"));
        let status = CacheStatus::new("edge").expect("a name");
        status.append(&mut headers, Forward::Collapsed);
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
            outcome in 0..5_usize,
            before in proptest::collection::vec("[a-z]{1,4}; hit", 0..3),
        ) {
            let forward = Forward::ALL[outcome];
            let mut headers = HeaderMap::new();
            for line in &before {
                headers.append(CACHE_STATUS, line.parse().expect("a value"));
            }
            CacheStatus::new(&name).expect("a name").append(&mut headers, forward);
            let lines: Vec<_> = headers.get_all(CACHE_STATUS).iter().collect();
            prop_assert_eq!(lines.len(), before.len() + 1);
            let last = lines[before.len()].to_str().expect("ASCII");
            prop_assert_eq!(read(last), (name, forward.parameters()));
        }
    }
}
