//! `Content-Length`, and how many bytes a response's body promises.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Response, StatusCode, response};
use http_body::{Body, SizeHint};

use super::directives::members;

/// Removes a `Content-Length` that is not the length of the message (RFC 9112 section 6.3), and replaces one that is
/// stated in several ways by a plain one. `is_head`: whether the response is for a HEAD request.
///
/// A server writes the field as it is, so a wrong one would leave the peer in the middle of a message.
pub(crate) fn correct_length<B: Body>(is_head: bool, mut response: Response<B>) -> Response<B> {
    let (mut lines, mut last, mut is_coded) = (0, None, false);
    // One pass: two look-ups by name cost more.
    for (name, value) in response.headers() {
        if *name == TRANSFER_ENCODING {
            is_coded = true;
        } else if *name == CONTENT_LENGTH {
            lines += 1;
            last = decimal(value.as_bytes());
        }
    }
    if lines == 0 {
        return response;
    }
    // HTTP lets a recipient accept more than one line of digits, but not forward it.
    let plain = last.filter(|_| lines == 1);
    let stated = plain.or_else(|| repeated(response.headers()));
    let fits =
        |bytes: &u64| !has_content(is_head, response.status()) || allows(response.body(), *bytes);
    match stated.filter(|bytes| !is_coded && fits(bytes)) {
        None => _ = response.headers_mut().remove(CONTENT_LENGTH),
        Some(_) if plain.is_some() => {}
        Some(bytes) => _ = response.headers_mut().insert(CONTENT_LENGTH, bytes.into()),
    }
    response
}

/// The one length that is repeated in several lines, or in a list (RFC 9110 section 8.6).
fn repeated(headers: &HeaderMap) -> Option<u64> {
    let mut length = None;
    for line in headers.get_all(CONTENT_LENGTH) {
        let mut lengths = members(line).map(decimal).peekable();
        length = length.or(*lengths.peek()?);
        if !lengths.all(|other| other.is_some() && other == length) {
            return None;
        }
    }
    length
}

/// How many bytes the body of `response` promises to have; `None` if unknown. Its `Content-Length` has been
/// [corrected](correct_length).
pub(crate) fn expected(
    method: &Method,
    response: &response::Parts,
    hint: &SizeHint,
) -> Option<u64> {
    let has_content = has_content(*method == Method::HEAD, response.status);
    match response.headers.get(CONTENT_LENGTH) {
        Some(length) if has_content => decimal(length.as_bytes()),
        _ => hint.exact(),
    }
}

/// Whether the message has a body. If not, `Content-Length` describes one that is not sent (RFC 9110 section 8.6).
fn has_content(is_head: bool, status: StatusCode) -> bool {
    !is_head && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Whether the body's own size hint allows this length.
fn allows<B: Body>(body: &B, bytes: u64) -> bool {
    let hint = body.size_hint();
    hint.lower() <= bytes && hint.upper().is_none_or(|upper| bytes <= upper)
}

pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok()?;
    // `parse` takes a sign as well.
    digits.parse().ok().filter(|_| !digits.starts_with('+'))
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        pin::Pin,
        task::{Context, Poll},
    };

    use bytes::Bytes;
    use http_body::Frame;

    use super::*;

    /// A body of which nothing matters but what it says of its length.
    struct Hinted {
        hint: SizeHint,
        is_end: bool,
    }

    impl Body for Hinted {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }

        fn is_end_stream(&self) -> bool {
            self.is_end
        }

        fn size_hint(&self) -> SizeHint {
            self.hint
        }
    }

    /// The lines of `Content-Length` that are left.
    fn corrected(
        (is_head, status): (bool, u16),
        fields: &[(&str, &str)],
        body: Hinted,
    ) -> Vec<String> {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        let response = correct_length(is_head, response.body(body).expect("a response"));
        let lines = response.headers().get_all(CONTENT_LENGTH).iter();
        lines
            .map(|line| line.to_str().expect("text").to_owned())
            .collect()
    }

    fn hinted(hint: SizeHint) -> Hinted {
        Hinted {
            hint,
            is_end: false,
        }
    }

    fn of(lengths: &[&str], hint: SizeHint) -> Vec<String> {
        let fields: Vec<_> = lengths
            .iter()
            .map(|length| ("content-length", *length))
            .collect();
        corrected((false, 200), &fields, hinted(hint))
    }

    fn between(lower: u64, upper: u64) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_upper(upper);
        hint.set_lower(lower);
        hint
    }

    #[test]
    fn one_valid_content_length_stays_and_is_the_promise() {
        let most = u64::MAX.to_string();
        for (lengths, plain) in [
            (&["7"][..], "7"),
            (&["007"], "007"),
            (&["7", "7"], "7"),
            (&["7", "07"], "7"),
            (&["7, 7"], "7"),
            (&["7", "7,7"], "7"),
            (&[" 7 ,"], "7"),
            (&["0"], "0"),
            (&[&most], &most),
        ] {
            assert_eq!(of(lengths, SizeHint::default()), [plain], "{lengths:?}");
            let response = Response::builder().header(CONTENT_LENGTH, plain);
            let (parts, ()) = response.body(()).expect("a response").into_parts();
            let promise = expected(&Method::GET, &parts, &SizeHint::default());
            assert_eq!(promise, plain.parse().ok());
        }
    }

    #[test]
    fn a_malformed_or_conflicting_content_length_goes() {
        for lengths in [
            &[""][..],
            &[","],
            &["-1"],
            &["+1"],
            &["1 2"],
            &["0x1"],
            &["1.0"],
            &["18446744073709551616"],
            &["1", "2"],
            &["1, 2"],
            &["1, x"],
            &["1", "x"],
            &["x", "1"],
            &["", "1"],
            &["1", ""],
            &["1", "1", "2"],
        ] {
            assert!(of(lengths, SizeHint::default()).is_empty(), "{lengths:?}");
            assert!(of(lengths, SizeHint::with_exact(1)).is_empty());
        }
    }

    #[test]
    fn a_content_length_that_the_body_contradicts_goes() {
        for hint in [
            SizeHint::with_exact(4),
            SizeHint::with_exact(0),
            between(6, 9),
            between(0, 4),
        ] {
            assert!(of(&["5"], hint).is_empty(), "{hint:?}");
        }
        let end = || Hinted {
            hint: SizeHint::default(),
            is_end: true,
        };
        for length in ["5", "0"] {
            let left = corrected((false, 200), &[("content-length", length)], end());
            assert_eq!(left, [length]);
        }
        for hint in [SizeHint::with_exact(5), between(0, 5), between(5, 9)] {
            assert_eq!(of(&["5"], hint), ["5"], "{hint:?}");
        }
    }

    #[test]
    fn without_a_content_length_an_exact_hint_is_the_promise() {
        let (parts, ()) = Response::new(()).into_parts();
        let promised = |hint| expected(&Method::GET, &parts, &hint);
        assert_eq!(promised(SizeHint::with_exact(3)), Some(3));
        assert_eq!(promised(between(1, 2)), None);
    }

    #[test]
    fn after_head_and_in_204_and_304_content_length_says_nothing_of_this_body() {
        let hint = SizeHint::with_exact(0);
        for (method, status) in [(Method::HEAD, 200), (Method::GET, 204), (Method::GET, 304)] {
            let message = (method == Method::HEAD, status);
            assert_eq!(
                corrected(message, &[("content-length", "7")], hinted(hint)),
                ["7"]
            );
            let twice = [("content-length", "7"), ("content-length", "7")];
            assert_eq!(corrected(message, &twice, hinted(hint)), ["7"]);
            assert!(corrected(message, &[("content-length", "x")], hinted(hint)).is_empty());
            let response = Response::builder().status(status).header(CONTENT_LENGTH, 7);
            let (parts, ()) = response.body(()).expect("a response").into_parts();
            assert_eq!(expected(&method, &parts, &hint), Some(0));
            assert_eq!(expected(&method, &parts, &SizeHint::default()), None);
        }
    }

    #[test]
    fn a_transfer_coding_overrides_content_length() {
        for coding in ["chunked", "gzip, chunked", "identity", ""] {
            for message in [(false, 200), (true, 200), (false, 204), (false, 304)] {
                let before = [("content-length", "7"), ("transfer-encoding", coding)];
                let behind = [("transfer-encoding", coding), ("content-length", "7")];
                for fields in [before, behind] {
                    let left = corrected(message, &fields, hinted(SizeHint::default()));
                    assert!(left.is_empty(), "{message:?} {fields:?}");
                }
            }
        }
    }
}
