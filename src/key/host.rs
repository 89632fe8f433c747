//! The host of a request's target, split for comparison.

use http::HeaderMap;
use http::header::HOST;
use http::uri::Authority;

/// `host[:port]` with the bytes that compare without case in front (RFC 9110 section 4.2.3).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host<'a> {
    /// `user@`, never in a valid `Host` field.
    pub(super) userinfo: &'a [u8],
    pub(crate) name: &'a [u8],
    /// `:port`, as written.
    pub(super) port: &'a [u8],
}

// ===== impl Host =====

impl<'a> Host<'a> {
    pub(super) fn of(authority: &'a Authority) -> Self {
        Self::parse(authority.as_str().as_bytes())
    }

    pub(crate) fn parse(bytes: &'a [u8]) -> Self {
        // `contains` is the fast one, and almost never true.
        let at = bytes
            .contains(&b'@')
            .then(|| bytes.iter().rposition(|byte| *byte == b'@'))
            .flatten();
        let (userinfo, rest) = bytes.split_at(at.map_or(0, |at| at + 1));
        let end = match rest {
            [b'[', ..] => rest.iter().position(|byte| *byte == b']').map(|at| at + 1),
            _ => rest.iter().position(|byte| *byte == b':'),
        };
        let (name, port) = rest.split_at(end.unwrap_or(rest.len()));
        Self {
            userinfo,
            name,
            port,
        }
    }

    fn is(&self, other: &Self) -> bool {
        self.name.eq_ignore_ascii_case(other.name) && self.port == other.port
    }
}

/// Whether the `Host` field says nothing but what the authority says.
pub(super) fn repeats(headers: &HeaderMap, authority: &Authority) -> bool {
    let mut values = headers.get_all(HOST).iter();
    match (values.next(), values.next()) {
        (Some(host), None) => {
            let host = Host::parse(host.as_bytes());
            host.userinfo.is_empty() && host.is(&Host::of(authority))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_split_into_what_compares_without_case_and_the_rest() {
        for (whole, userinfo, name, port) in [
            ("a.b", "", "a.b", ""),
            ("a.b:80", "", "a.b", ":80"),
            ("a.b:", "", "a.b", ":"),
            ("u:p@a:8", "u:p@", "a", ":8"),
            ("[::1]:8", "", "[::1]", ":8"),
            ("[::1]", "", "[::1]", ""),
            ("[::1", "", "[::1", ""),
            ("", "", "", ""),
        ] {
            let host = Host::parse(whole.as_bytes());
            assert_eq!(host.userinfo, userinfo.as_bytes(), "{whole}");
            assert_eq!(host.name, name.as_bytes(), "{whole}");
            assert_eq!(host.port, port.as_bytes(), "{whole}");
        }
    }
}
