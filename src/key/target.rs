//! The target of a request: its host, split for comparison, and a hash for invalidation.

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, Uri, request};

use super::digest::secret;

/// A hash of the target URI, the same for its origin form and its absolute form, for GET and for POST.
///
/// It serves to find the flights that a write may have made old (RFC 9111 section 4.4). There a collision costs a call
/// too many and nothing else, so it is cheap and leaves the scheme out, which the origin form does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target(pub(crate) u64);

/// `host[:port]` with the bytes that compare without case in front (RFC 9110 section 4.2.3).
#[derive(Clone, Copy, Debug)]
pub(super) struct Host<'a> {
    /// `user@`, never in a valid `Host` field.
    pub(super) userinfo: &'a [u8],
    pub(super) name: &'a [u8],
    /// `:port`, as written.
    pub(super) port: &'a [u8],
}

// ===== impl Target =====

impl Target {
    pub(crate) fn of(request: &request::Parts) -> Self {
        let host = request.headers.get(HOST);
        Self::new(&request.uri, host.map(|host| Host::parse(host.as_bytes())))
    }

    /// `host` is the first `Host` field, which counts where the URI has no authority.
    pub(super) fn new(uri: &Uri, host: Option<Host<'_>>) -> Self {
        let host = uri.authority().map(Host::of).or(host);
        let path = uri.path_and_query().map_or("", |path| path.as_str());
        let [seed, other_seed, ..] = secret();
        let path = fold(seed, path.as_bytes(), 0);
        let host = host.map_or(0, |host| {
            // The bit that makes ASCII letters lower case; that other bytes get it as well does no harm here.
            fold(other_seed, host.name, 0x2020_2020_2020_2020) ^ fold(seed, host.port, 0)
        });
        Self(mix(path, host))
    }
}

/// A multiplication per eight bytes; `or` is set in each word.
fn fold(seed: u64, bytes: &[u8], or: u64) -> u64 {
    let mut words = bytes.chunks_exact(8);
    let hash = words.by_ref().fold(seed, |hash, word| {
        let word = word.try_into().expect("a chunk has eight bytes");
        mix(hash, u64::from_le_bytes(word) | or)
    });
    let last = words.remainder();
    let last = last.iter().fold(bytes.len() as u64, |word, byte| {
        word << 8 | u64::from(*byte)
    });
    mix(hash, last | or)
}

fn mix(one: u64, two: u64) -> u64 {
    let product = u128::from(one ^ two) * u128::from(0x9e37_79b9_7f4a_7c15_u64);
    (product as u64) ^ (product >> 64) as u64
}

// ===== impl Host =====

impl<'a> Host<'a> {
    pub(super) fn of(authority: &'a Authority) -> Self {
        Self::parse(authority.as_str().as_bytes())
    }

    pub(super) fn parse(bytes: &'a [u8]) -> Self {
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

    fn target(uri: &str, host: Option<&str>) -> Target {
        let mut request = http::Request::builder().uri(uri);
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        Target::of(&request.body(()).expect("a request").into_parts().0)
    }

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

    #[test]
    fn the_forms_of_one_uri_have_one_target() {
        let origin = target("/long/enough/a?b=c", Some("Example.org:80"));
        assert_eq!(
            origin,
            target("http://example.ORG:80/long/enough/a?b=c", None)
        );
        assert_eq!(
            origin,
            target("https://u@example.org:80/long/enough/a?b=c", Some("other"))
        );
    }

    #[test]
    fn other_paths_queries_hosts_and_ports_have_other_targets() {
        let base = target("/long/enough/a?b=c", Some("example.org:80"));
        for (uri, host) in [
            ("/long/enough/b?b=c", Some("example.org:80")),
            ("/long/enough/A?b=c", Some("example.org:80")),
            ("/long/enough/a?b=d", Some("example.org:80")),
            ("/long/enough/a", Some("example.org:80")),
            ("/long/enough/a?b=c", Some("example.net:80")),
            ("/long/enough/a?b=c", Some("example.org:81")),
            ("/long/enough/a?b=c", Some("example.org")),
            ("/long/enough/a?b=c", None),
        ] {
            assert_ne!(base, target(uri, host), "{uri} {host:?}");
        }
    }
}
