//! Responses of the proxy's own: a line of text.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;

pub(crate) type Line = Response<Full<Bytes>>;

/// The response to a request that is not forwarded.
pub(crate) type Refusal = Box<Line>;

pub(crate) fn refuse(status: StatusCode, text: &'static str) -> Refusal {
    Box::new(line(status, text))
}

pub(crate) fn line(status: StatusCode, text: &'static str) -> Line {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}
