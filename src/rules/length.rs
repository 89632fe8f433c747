//! How many bytes a response's body promises.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode, response};
use http_body::SizeHint;

use super::directives::members;

/// The number of bytes that the body of `response`, an answer to `method`, promises to have; `None` if it does not say.
pub(crate) fn expected(
    method: &Method,
    response: &response::Parts,
    hint: &SizeHint,
) -> Option<u64> {
    // There `Content-Length` tells of a body that is not sent (RFC 9110 section 8.6).
    let absent = *method == Method::HEAD
        || matches!(
            response.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
    let stated = if absent {
        None
    } else {
        content_length(&response.headers)
    };
    stated.or_else(|| hint.exact())
}

/// The one valid value of `Content-Length`, however often it is repeated.
fn content_length(headers: &HeaderMap) -> Option<u64> {
    let mut stated = None;
    // One pass: two look-ups by name cost more.
    for (name, value) in headers {
        // A coding of the transfer overrides the length (RFC 9112 section 6.3).
        if *name == TRANSFER_ENCODING {
            return None;
        }
        if *name == CONTENT_LENGTH {
            for member in members(value) {
                let length = decimal(member)?;
                if *stated.get_or_insert(length) != length {
                    return None;
                }
            }
        }
    }
    stated
}

fn decimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, lengths: &[&str]) -> response::Parts {
        let mut response = http::Response::builder().status(status);
        for length in lengths {
            response = response.header(CONTENT_LENGTH, *length);
        }
        response.body(()).expect("a response").into_parts().0
    }

    fn of(lengths: &[&str], hint: &SizeHint) -> Option<u64> {
        expected(&Method::GET, &response(200, lengths), hint)
    }

    #[test]
    fn one_valid_content_length_is_the_promise() {
        for lengths in [&["7"][..], &["007"], &["7", "7"], &["7, 7"], &[" 7 ,"]] {
            assert_eq!(of(lengths, &SizeHint::default()), Some(7), "{lengths:?}");
        }
        let most = u64::MAX.to_string();
        assert_eq!(of(&[&most], &SizeHint::default()), Some(u64::MAX));
        assert_eq!(of(&["0"], &SizeHint::default()), Some(0));
    }

    #[test]
    fn a_malformed_or_conflicting_content_length_is_ignored() {
        for lengths in [
            &[""][..],
            &["-1"],
            &["+1"],
            &["1 2"],
            &["0x1"],
            &["18446744073709551616"],
            &["1", "2"],
            &["1, 2"],
            &["1, x"],
        ] {
            assert_eq!(of(lengths, &SizeHint::default()), None, "{lengths:?}");
            assert_eq!(of(lengths, &SizeHint::with_exact(3)), Some(3));
        }
    }

    #[test]
    fn without_a_content_length_an_exact_hint_is_the_promise() {
        let mut range = SizeHint::new();
        range.set_lower(1);
        range.set_upper(2);
        assert_eq!(of(&[], &SizeHint::with_exact(3)), Some(3));
        assert_eq!(of(&[], &range), None);
    }

    #[test]
    fn after_head_and_in_204_and_304_content_length_says_nothing_of_this_body() {
        let hint = SizeHint::with_exact(0);
        for (method, status) in [(Method::HEAD, 200), (Method::GET, 204), (Method::GET, 304)] {
            let response = response(status, &["7"]);
            assert_eq!(expected(&method, &response, &hint), Some(0));
            assert_eq!(expected(&method, &response, &SizeHint::default()), None);
        }
    }

    #[test]
    fn a_transfer_coding_overrides_content_length() {
        let mut response = response(200, &["7"]);
        response
            .headers
            .insert(TRANSFER_ENCODING, "chunked".parse().expect("a value"));
        assert_eq!(
            expected(&Method::GET, &response, &SizeHint::default()),
            None
        );
    }
}
