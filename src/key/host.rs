//! The host of a request's target, split for comparison.

use super::digest::{Sink, Writer};

/// `[user@]host[:port]`, split so that the name can be compared case-insensitively (RFC 9110 section 4.2.3).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host<'a> {
    /// `user@`, never in a valid `Host` field.
    pub(super) userinfo: &'a [u8],
    pub(crate) name: &'a [u8],
    /// `:port`, as written.
    pub(super) port: &'a [u8],
    /// The name and the port.
    full: &'a [u8],
}

// ===== impl Host =====

impl<'a> Host<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Self {
        let (mut start, mut end) = (0, None);
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'@' => (start, end) = (at + 1, None),
                b':' if end.is_none() => end = Some(at),
                _ => {}
            }
        }
        let (userinfo, rest) = bytes.split_at(start);
        let end = match rest {
            [b'[', ..] => rest.iter().position(|byte| *byte == b']').map(|at| at + 1),
            _ => end.map(|end| end - start),
        };
        let (name, port) = rest.split_at(end.unwrap_or(rest.len()));
        Self {
            userinfo,
            name,
            port,
            full: rest,
        }
    }

    pub(super) fn write<S: Sink>(&self, writer: &mut Writer<S>) {
        writer.part(self.userinfo);
        writer.lowercase(self.name);
        writer.part(self.port);
    }

    /// Whether a `Host` field just repeats this, the URI's host.
    pub(super) fn is_repeated_by(&self, field: &[u8]) -> bool {
        // Most have the same spelling.
        field == self.full || {
            let field = Host::parse(field);
            field.userinfo.is_empty()
                && field.name.eq_ignore_ascii_case(self.name)
                && field.port == self.port
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_split_into_what_compares_without_case_and_the_rest() {
        for (full, userinfo, name, port) in [
            ("a.b", "", "a.b", ""),
            ("a.b:80", "", "a.b", ":80"),
            ("a.b:", "", "a.b", ":"),
            ("u:p@a:8", "u:p@", "a", ":8"),
            ("[::1]:8", "", "[::1]", ":8"),
            ("[::1]", "", "[::1]", ""),
            ("a:1:2", "", "a", ":1:2"),
            ("[::1", "", "[::1", ""),
            ("", "", "", ""),
        ] {
            let host = Host::parse(full.as_bytes());
            assert_eq!(host.userinfo, userinfo.as_bytes(), "{full}");
            assert_eq!(host.name, name.as_bytes(), "{full}");
            assert_eq!(host.port, port.as_bytes(), "{full}");
        }
    }
}
