//! Comma lists, and fields of several lines.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Whether the comma list `field` has `token`.
pub(crate) fn has_token(headers: &HeaderMap, field: &HeaderName, token: &str) -> bool {
    let mut lines = headers.get_all(field).iter();
    lines.any(|line| tokens(line).any(|member| member.eq_ignore_ascii_case(token.as_bytes())))
}

pub(super) fn tokens(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let members = line.as_bytes().split(|&byte| byte == b',');
    members.map(<[u8]>::trim_ascii)
}

/// Makes one line of a field's lines and `more`.
pub(crate) fn join(
    headers: &mut HeaderMap,
    field: &HeaderName,
    by: &[u8],
    more: Option<&HeaderValue>,
) {
    let mut lines = headers.get_all(field).iter().chain(more);
    let one = match (lines.next(), lines.next()) {
        (Some(one), None) => one.clone(),
        (Some(first), Some(second)) => {
            let mut all = [first.as_bytes(), second.as_bytes()].join(by);
            for line in lines {
                all.extend_from_slice(by);
                all.extend_from_slice(line.as_bytes());
            }
            HeaderValue::from_maybe_shared(Bytes::from(all)).expect("made of valid field values")
        }
        (None, _) => return,
    };
    headers.insert(field, one);
}
