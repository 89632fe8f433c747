//! Whether a request's head agrees with its body.

use http::{
    HeaderMap, Method,
    header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING},
    request,
};
use http_body::SizeHint;

use crate::rules::decimal;

/// Whether a body may be read before the service below is called.
pub(super) fn may_be_read(request: &request::Parts, hint: &SizeHint, max: usize) -> bool {
    let fits = |length: u64| usize::try_from(length).is_ok_and(|length| length <= max);
    let mut stated = request.headers.get_all(CONTENT_LENGTH).iter();
    request.method != Method::CONNECT
        // The client waits until the service below decides to read its body.
        && !request.headers.contains_key(EXPECT)
        && fits(hint.lower())
        && stated.all(|length| decimal(length.as_bytes()).is_none_or(fits))
}

/// Whether the head announces a body of this length, or no length at all. A badly framed request may fail below, and
/// must not make others with the same bytes fail.
pub(super) fn agrees(headers: &HeaderMap, length: usize) -> bool {
    let mut stated = headers.get_all(CONTENT_LENGTH).iter();
    let mut coded = headers.get_all(TRANSFER_ENCODING).iter();
    let is_both = headers.contains_key(CONTENT_LENGTH) && headers.contains_key(TRANSFER_ENCODING);
    stated.all(|value| decimal(value.as_bytes()) == Some(length as u64))
        && coded.all(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"))
        && !is_both
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn request(method: Method, fields: &[(&str, &str)]) -> request::Parts {
        let mut request = Request::builder().method(method);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn a_body_is_read_unless_it_is_too_long_or_waited_for_or_a_tunnel() {
        let may = |method, fields: &[(&str, &str)], hint| {
            may_be_read(&request(method, fields), &hint, 10)
        };
        let unknown = SizeHint::default;
        assert!(may(Method::POST, &[], unknown()));
        assert!(may(Method::POST, &[], SizeHint::with_exact(10)));
        assert!(may(Method::POST, &[("content-length", "10")], unknown()));
        assert!(may(Method::POST, &[("content-length", "x")], unknown()));
        assert!(!may(Method::POST, &[], SizeHint::with_exact(11)));
        assert!(!may(Method::POST, &[("content-length", "11")], unknown()));
        let most = u64::MAX.to_string();
        assert!(!may(Method::POST, &[("content-length", &most)], unknown()));
        assert!(!may(Method::POST, &[("expect", "100-continue")], unknown()));
        assert!(!may(Method::CONNECT, &[], unknown()));
    }

    #[test]
    fn only_a_head_that_says_the_very_length_agrees() {
        let agrees = |fields: &[(&str, &str)]| agrees(&request(Method::POST, fields).headers, 7);
        assert!(agrees(&[]));
        assert!(agrees(&[("content-length", "7")]));
        assert!(agrees(&[("content-length", "7"), ("content-length", "7")]));
        assert!(agrees(&[("transfer-encoding", "Chunked")]));
        for wrong in [
            "",
            "6",
            "+7",
            "-7",
            " 7",
            "7, 7",
            "0x7",
            "18446744073709551623",
        ] {
            assert!(!agrees(&[("content-length", wrong)]), "{wrong}");
        }
        assert!(!agrees(&[("content-length", "7"), ("content-length", "8")]));
        assert!(!agrees(&[("transfer-encoding", "gzip, chunked")]));
        assert!(!agrees(&[
            ("transfer-encoding", "chunked"),
            ("content-length", "7")
        ]));
        assert!(!agrees(&[
            ("content-length", "7"),
            ("transfer-encoding", "chunked")
        ]));
    }
}
