//! The target of a request, as a key keeps it.
//!
//! A server's URI is a slice of the buffer that it has read the whole head into: a key that kept it would keep that buffer.

use http::{
    Uri,
    uri::{Authority, PathAndQuery},
};

/// The URI in bytes of its own.
pub(super) fn copied(uri: &Uri) -> Uri {
    copy(uri, |authority| authority).unwrap_or_else(|| uri.clone())
}

/// As `copied`, without a user and password: a key holds no credential in clear. Their hash is in its digest.
pub(super) fn without_userinfo(uri: &Uri) -> Uri {
    let host = |authority: &str| authority.rfind('@').map_or(0, |at| at + 1);
    // A URI of one of its own parts is valid; were it not, showing none is better than showing the password.
    copy(uri, |authority| &authority[host(authority)..]).unwrap_or_default()
}

fn copy(uri: &Uri, part: impl Fn(&str) -> &str) -> Option<Uri> {
    let path = uri.path_and_query().map(PathAndQuery::as_str);
    let path = path.map(str::parse::<PathAndQuery>).transpose().ok()?;
    let Some(authority) = uri.authority() else {
        return path.map(Uri::from);
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = path;
    parts.authority = Some(part(Authority::as_str(authority)).parse().ok()?);
    Uri::from_parts(parts).ok()
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
            let uri = without_userinfo(&uri.parse().unwrap());
            assert_eq!(uri.to_string(), expected);
        }
    }
}
