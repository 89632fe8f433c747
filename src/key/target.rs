//! The target of a request, as a key keeps it.
//!
//! A server's URI is a slice of the buffer that it has read the whole head into: a key that kept it would keep that buffer.

use std::sync::OnceLock;

use bytes::Bytes;
use http::{
    Uri,
    uri::{PathAndQuery, Scheme},
};

use super::host::Host;

/// A URI in bytes of its own, without a user and password: a key holds no credential in clear. Their hash is in its digest.
#[derive(Clone, Debug)]
pub(super) struct Target {
    text: Box<str>,
    /// Parsed when somebody wants to see it: few do.
    uri: OnceLock<Box<Uri>>,
}

/// The URI in bytes of its own.
pub(super) fn copied(uri: &Uri) -> Uri {
    let text = text(uri, |authority| authority);
    Uri::from_maybe_shared(Bytes::from(text)).unwrap_or_else(|_| uri.clone())
}

fn text(uri: &Uri, part: impl Fn(&str) -> &str) -> String {
    let path = uri.path_and_query().map_or("", PathAndQuery::as_str);
    let Some(authority) = uri.authority() else {
        return path.to_owned();
    };
    let scheme = uri.scheme().map_or("", Scheme::as_str);
    let separator = if scheme.is_empty() { "" } else { "://" };
    let parts = [scheme, separator, part(authority.as_str()), path];
    let mut text = String::with_capacity(parts.iter().map(|part| part.len()).sum());
    parts.into_iter().for_each(|part| text.push_str(part));
    text
}

// ===== impl Target =====

impl Target {
    pub(super) fn of(uri: &Uri) -> Self {
        let userinfo = |authority: &str| Host::parse(authority.as_bytes()).userinfo.len();
        Self {
            text: text(uri, |authority| &authority[userinfo(authority)..]).into(),
            uri: OnceLock::new(),
        }
    }

    pub(super) fn uri(&self) -> &Uri {
        // What is left of a valid URI is one; were it not, showing none is better than showing the password.
        self.uri
            .get_or_init(|| Box::new(self.text.parse().unwrap_or_default()))
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
    fn a_user_and_password_are_left_out() {
        for (uri, expected) in [
            ("http://u:p@a.b/c?d", "http://a.b/c?d"),
            ("http://u@[::1]:8/", "http://[::1]:8/"),
            ("http://a.b/u@c", "http://a.b/u@c"),
        ] {
            let target = Target::of(&uri.parse().unwrap());
            assert_eq!(target.uri().to_string(), expected);
        }
    }
}
