//! Write stamps: who asks after a write does not join a flight that began before it (RFC 9111 section 4.4).
//!
//! A small array of counters, indexed by a hash of the target URI. A successful write raises its URI's counters when its
//! head arrives; a flight keeps what they were when it began, and is joined only while they are the same. Two URIs that
//! meet in a counter cost each other at most a call.

use http::{header::HOST, request::Parts};

use std::sync::atomic::{AtomicU64, Ordering};

const SLOTS: usize = 1024;

#[derive(Debug)]
pub(crate) struct Stamps {
    slots: [AtomicU64; SLOTS],
}

/// The counters that tell of a URI. The scheme and the port are left out, so that the origin form and the absolute form
/// of one target meet; a request that names no host meets those of every host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// Raised by writes to this host; for a request without one, by those to any.
    near: usize,
    /// Raised by writes that name no host.
    far: usize,
    /// Raised by every write to this path.
    any: usize,
}

// ===== impl Stamps =====

impl Stamps {
    pub(crate) fn new() -> Self {
        Self {
            slots: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// What a reader of `target` compares.
    pub(crate) fn read(&self, target: Target) -> u64 {
        let load = |slot: usize| self.slots[slot].load(Ordering::Acquire);
        // Each only grows, so an equal sum is an equal pair.
        load(target.near).wrapping_add(load(target.far))
    }

    pub(crate) fn write(&self, target: Target) {
        let mut slots = [target.near, target.far, target.any];
        slots.sort_unstable();
        let mut last = None;
        for slot in slots {
            if last.replace(slot) != Some(slot) {
                self.slots[slot].fetch_add(1, Ordering::AcqRel);
            }
        }
    }
}

// ===== impl Target =====

impl Target {
    /// Where a reader of `request`'s URI looks.
    pub(crate) fn read_of(request: &Parts) -> Self {
        let path = path_of(request);
        let any = slot(path, Host::Any);
        match host_of(request) {
            Some(host) => Self {
                near: slot(path, Host::Named(host)),
                far: slot(path, Host::None),
                any,
            },
            None => Self {
                near: any,
                far: any,
                any,
            },
        }
    }

    /// What a writer to `request`'s URI raises.
    pub(crate) fn write_of(request: &Parts) -> Self {
        let path = path_of(request);
        let any = slot(path, Host::Any);
        let near = match host_of(request) {
            Some(host) => slot(path, Host::Named(host)),
            None => slot(path, Host::None),
        };
        Self {
            near,
            far: near,
            any,
        }
    }
}

#[derive(Clone, Copy)]
enum Host<'a> {
    Named(&'a [u8]),
    None,
    Any,
}

fn path_of(request: &Parts) -> u64 {
    // Not `path_and_query`: of `http://a?b` that lacks the slash which the origin form of the same target has.
    let path = mix(0, request.uri.path().as_bytes(), 0);
    match request.uri.query() {
        Some(query) => mix(path, query.as_bytes(), 0),
        None => path,
    }
}

/// Without the port.
fn host_of(request: &Parts) -> Option<&[u8]> {
    if let Some(host) = request.uri.host() {
        return Some(host.as_bytes());
    }
    let host = request.headers.get(HOST)?.as_bytes();
    // `contains` is the fast one.
    let colon = host
        .contains(&b':')
        .then(|| host.iter().rposition(|&byte| byte == b':'));
    let end = match colon.flatten() {
        // Not a colon inside an IPv6 address.
        Some(colon) if !host[colon..].contains(&b']') => colon,
        _ => host.len(),
    };
    Some(&host[..end])
}

fn slot(path: u64, host: Host<'_>) -> usize {
    let hash = match host {
        Host::Named(host) => mix(path ^ 1, host, LOWERCASE),
        Host::None => step(path, 2),
        Host::Any => step(path, 3),
    };
    (hash >> 16) as usize % SLOTS
}

/// Takes letters for their lower case, and some other bytes for each other.
const LOWERCASE: u64 = 0x2020_2020_2020_2020;

/// Eight bytes a step; made collisions cost whoever makes them a call. `case` is set in each eight.
fn mix(seed: u64, bytes: &[u8], case: u64) -> u64 {
    let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes) | case;
    let mut hash = step(seed, bytes.len() as u64);
    let Some(last) = bytes.last_chunk() else {
        let fold = |word, byte: &u8| word << 8 | u64::from(*byte);
        return step(hash, bytes.iter().fold(0, fold) | case);
    };
    let mut rest = bytes;
    while let Some((first, tail)) = rest.split_first_chunk() {
        hash = step(hash, word(first));
        rest = tail;
    }
    // Of the last eight some may have had their turn.
    step(hash, word(last))
}

/// The upper bits of a product depend on all of its factors.
fn step(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 32
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    fn parts(uri: &str, host: Option<&str>) -> Parts {
        let mut request = Request::builder().uri(uri);
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn sees(read: &Parts, write: &Parts) -> bool {
        let stamps = Stamps::new();
        let before = stamps.read(Target::read_of(read));
        stamps.write(Target::write_of(write));
        stamps.read(Target::read_of(read)) != before
    }

    #[test]
    fn a_write_is_seen_in_whatever_form_the_two_requests_name_the_target() {
        let forms = [
            parts("/a?b", Some("example.com")),
            parts("/a?b", Some("EXAMPLE.com:80")),
            parts("http://example.com/a?b", None),
            parts("http://example.com:80/a?b", Some("example.com")),
            parts("/a?b", None),
        ];
        for read in &forms {
            for write in &forms {
                assert!(sees(read, write), "{read:?} {write:?}");
            }
        }
    }

    #[test]
    fn a_write_to_another_target_is_not_seen() {
        let read = parts("/a", Some("example.com"));
        for (uri, host) in [
            ("/b", "example.com"),
            ("/a", "example.org"),
            ("/a?b", "example.com"),
        ] {
            assert!(!sees(&read, &parts(uri, Some(host))), "{uri} {host}");
        }
    }

    #[test]
    fn an_ipv6_host_keeps_its_colons() {
        assert_eq!(host_of(&parts("/", Some("[::1]"))), Some(&b"[::1]"[..]));
        assert_eq!(host_of(&parts("/", Some("[::1]:80"))), Some(&b"[::1]"[..]));
    }

    proptest! {
        #[test]
        fn a_write_is_seen_however_long_its_host_and_path_are(
            host in "[a-z0-9.-]{1,20}|\\[[0-9a-f:]{2,12}\\]",
            path in "/[a-zA-Z0-9/%]{0,30}",
            query in proptest::option::of("[a-z=&]{0,20}"),
            upper: (bool, bool),
            forms in (0..5_usize, 0..5_usize),
        ) {
            let target = match query {
                Some(query) => format!("{path}?{query}"),
                None => path,
            };
            let form = |form: usize, upper: bool| {
                let host = if upper { host.to_uppercase() } else { host.clone() };
                match form {
                    0 => parts(&target, None),
                    1 => parts(&target, Some(&host)),
                    2 => parts(&target, Some(&format!("{host}:8080"))),
                    3 => parts(&format!("http://{host}{target}"), None),
                    _ => parts(&format!("https://{host}:8443{target}"), Some("other")),
                }
            };
            // Not every name of these letters is an authority.
            prop_assume!(format!("http://{host}{target}").parse::<http::Uri>().is_ok());
            let (read, write) = (form(forms.0, upper.0), form(forms.1, upper.1));
            prop_assert!(sees(&read, &write), "{read:?} {write:?}");
        }
    }
}
