//! The target of a request, as a key keeps it.
//!
//! A server's URI and fields are slices of the buffer that it has read the whole head into: a key that kept them would keep that
//! buffer.

use std::{cell::Cell, mem, sync::OnceLock};

use bytes::Bytes;
use http::{
    HeaderValue, Uri,
    header::HOST,
    request,
    uri::{PathAndQuery, Scheme},
};

/// A URI in bytes of its own, without user and password, because a key holds no credential in the clear. Their hash is
/// in the key's digest.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestTarget {
    /// The `Host` field, if the URI names no host, and then the URI.
    text: Vec<u8>,
    host: usize,
    /// Parsed when first asked for, which is rare.
    uri: OnceLock<Box<Uri>>,
}

/// A longer text is not kept for the next request.
const KEPT: usize = 256;

thread_local! {
    /// The buffer of a request before.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The URI in bytes of its own.
pub(super) fn copied(uri: &Uri) -> Uri {
    let text = text(Vec::new(), b"", uri, |authority| authority);
    Uri::from_maybe_shared(Bytes::from(text)).unwrap_or_else(|_| uri.clone())
}

fn text(mut text: Vec<u8>, host: &[u8], uri: &Uri, part: impl Fn(&str) -> &str) -> Vec<u8> {
    let scheme = uri.scheme().map_or("", Scheme::as_str);
    let authority = uri.authority().map_or("", |all| part(all.as_str()));
    let path = uri.path_and_query().map_or("", PathAndQuery::as_str);
    let separator = if scheme.is_empty() { "" } else { "://" };
    let parts = [scheme, separator, authority, path].map(str::as_bytes);
    text.reserve_exact(parts.iter().fold(host.len(), |sum, part| sum + part.len()));
    text.extend_from_slice(host);
    parts.iter().for_each(|part| text.extend_from_slice(part));
    text
}

// ===== impl RequestTarget =====

impl RequestTarget {
    pub(super) fn of(request: &request::Parts) -> Self {
        let uri = &request.uri;
        let host = match uri.authority() {
            Some(_) => None,
            None => request.headers.get(HOST),
        };
        let host = host.map_or(&[][..], HeaderValue::as_bytes);
        let userinfo = |authority: &str| {
            let mut bytes = authority.bytes();
            bytes.rposition(|byte| byte == b'@').map_or(0, |at| at + 1)
        };
        let spare = SPARE.try_with(Cell::take).unwrap_or_default();
        Self {
            text: text(spare, host, uri, |all| &all[userinfo(all)..]),
            host: host.len(),
            uri: OnceLock::new(),
        }
    }

    fn split(&self) -> (&[u8], &[u8]) {
        self.text.split_at(self.host)
    }

    pub(super) fn uri(&self) -> &Uri {
        // What is left of a valid URI is valid; if not, an empty one is better than showing the password.
        let parse = || Uri::try_from(self.split().1).unwrap_or_default();
        self.uri.get_or_init(|| Box::new(parse()))
    }

    /// The host and port of its URI, or else of its `Host` field.
    pub(super) fn authority(&self) -> Option<&[u8]> {
        let (host, _) = self.split();
        let authority = self.uri().authority();
        authority
            .map(|authority| authority.as_str().as_bytes())
            .or_else(|| (!host.is_empty()).then_some(host))
    }
}

impl Drop for RequestTarget {
    fn drop(&mut self) {
        if (1..=KEPT).contains(&self.text.capacity()) {
            let mut text = mem::take(&mut self.text);
            text.clear();
            let _ = SPARE.try_with(|spare| spare.set(text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_uri_is_the_same() {
        for uri in [
            "/",
            "*",
            "/a?b=c%20d",
            "a.b:80",
            "http://a.b",
            "HTTPS://A.b:8/c?d",
            "x-y://u:p@[::1]:8/c",
        ] {
            let uri: Uri = uri.parse().unwrap();
            let copy = copied(&uri);
            assert_eq!((&copy, copy.to_string()), (&uri, uri.to_string()));
        }
    }

    #[test]
    fn the_next_target_takes_the_text_of_the_last_but_none_that_a_client_has_made_long() {
        let kept = |len: usize| {
            let uri = format!("/{}", "a".repeat(len - 1));
            let request = http::Request::get(uri).body(()).unwrap();
            drop(RequestTarget::of(&request.into_parts().0));
            let text = SPARE.take();
            assert!(text.is_empty());
            text.capacity()
        };
        assert_eq!((kept(1), kept(KEPT), kept(KEPT + 1)), (1, KEPT, 0));
    }

    #[test]
    fn a_user_and_password_are_left_out() {
        for (uri, expected) in [
            ("http://u:p@a.b/c?d", "http://a.b/c?d"),
            ("http://u@[::1]:8/", "http://[::1]:8/"),
            ("http://a.b/u@c", "http://a.b/u@c"),
        ] {
            let request = http::Request::get(uri).body(()).unwrap();
            let target = RequestTarget::of(&request.into_parts().0);
            assert_eq!(target.uri().to_string(), expected);
        }
    }
}
