//! `Max-Forwards` of TRACE and OPTIONS (RFC 9110 section 7.6.2).

use std::fmt::Write;

use bytes::Bytes;
use http::{
    HeaderValue, Method, Response,
    header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, MAX_FORWARDS, PROXY_AUTHORIZATION},
    request,
};
use http_body_util::Full;

use super::refusal::Refusal;

/// Counts down, and answers a request that is not to go on.
pub(super) fn count(parts: &mut request::Parts) -> Result<(), Refusal> {
    if parts.method != Method::TRACE && parts.method != Method::OPTIONS {
        return Ok(());
    }
    let value = parts.headers.get(MAX_FORWARDS);
    let digits = value.filter(|value| value.as_bytes().iter().all(u8::is_ascii_digit));
    let Some(left) = digits.and_then(|digits| digits.to_str().ok()?.parse::<u64>().ok()) else {
        return Ok(());
    };
    match left.checked_sub(1) {
        Some(left) => {
            parts.headers.insert(MAX_FORWARDS, HeaderValue::from(left));
            Ok(())
        }
        None if parts.method == Method::TRACE => Err(trace(parts)),
        None => Err(Box::new(Response::new(Full::default()))),
    }
}

/// The request as it arrived, without its secrets (RFC 9110 section 9.3.8).
fn trace(parts: &request::Parts) -> Refusal {
    let mut text = format!("{} {} {:?}\r\n", parts.method, parts.uri, parts.version);
    for (name, value) in &parts.headers {
        if ![AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION].contains(name) {
            let value = String::from_utf8_lossy(value.as_bytes());
            write!(text, "{name}: {value}\r\n").expect("a string takes all that is written to it");
        }
    }
    let mut response = Response::new(Full::new(Bytes::from(text + "\r\n")));
    let message = HeaderValue::from_static("message/http");
    response.headers_mut().insert(CONTENT_TYPE, message);
    Box::new(response)
}
