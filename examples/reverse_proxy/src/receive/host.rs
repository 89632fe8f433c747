//! Which host a request is for (RFC 9112 section 3.2): where that is missing or in doubt, it is for none.

use http::{StatusCode, Version, header::HOST, request, uri::Authority};

use super::refusal::{Refusal, refuse};

const BAD: StatusCode = StatusCode::BAD_REQUEST;

pub(super) fn check(parts: &request::Parts) -> Result<(), Refusal> {
    let mut lines = parts.headers.get_all(HOST).iter();
    let host = lines.next();
    if lines.next().is_some() {
        return Err(refuse(BAD, "This request has more than one Host.\n"));
    }
    if let Some(authority) = parts.uri.authority() {
        // Phishing, as a rule (RFC 9110 section 4.2.4); HTTP/2 forbids it (RFC 9113 section 8.3.1).
        if authority.as_str().contains('@') {
            return Err(refuse(
                BAD,
                "The target of this request has user information.\n",
            ));
        }
    }
    match host {
        Some(host) if is_host(host.as_bytes()) => Ok(()),
        Some(_) => Err(refuse(BAD, "The Host of this request is not a host.\n")),
        None if parts.version == Version::HTTP_2 && parts.uri.authority().is_some() => Ok(()),
        None if parts.version == Version::HTTP_10 => Ok(()),
        None => Err(refuse(BAD, "This request has no Host.\n")),
    }
}

fn is_host(host: &[u8]) -> bool {
    match Authority::try_from(host) {
        Ok(authority) => !authority.host().is_empty() && !host.contains(&b'@'),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        for host in [
            "a",
            "a.example:80",
            "192.0.2.1",
            "[2001:db8::1]:8080",
            "a_b",
        ] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "", ":80", "a b", "a/b", "a\"b", "a\\b", "ann@a", "a?b", "a#b", "[::1",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }
}
