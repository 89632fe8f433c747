//! The result of a call, as one replica writes it for others.
//!
//! A response is written as its head, what it varies by, and its complete body; extensions stay in the leader's
//! process. A failure is written as its text.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use http::{HeaderName, StatusCode, Version, response};
use http_body::Frame;

use super::{
    body::RemoteBody,
    fields::{read_fields, read_names, read_part, write_fields, write_names, write_part},
};
use crate::replicas::{Digest, NotShared};

/// The result of another replica's call.
#[derive(Debug)]
pub(crate) enum RemoteAnswer {
    Response(RemoteResponse),
    /// The call failed with an error of this text.
    Failure(String),
}

#[derive(Debug)]
pub(crate) struct RemoteResponse {
    pub(crate) head: response::Parts,
    /// The names of the fields that it varies by, and what the leader's request had there: see
    /// [`variant_values`](super::variant_values).
    pub(crate) vary: Option<(Arc<[HeaderName]>, Digest)>,
    pub(crate) body: RemoteBody,
}

const RESPONSE: u8 = 1;
const FAILURE: u8 = 2;

const DATA: u8 = 1;
const TRAILERS: u8 = 2;

const VERSIONS: [Version; 5] = [
    Version::HTTP_09,
    Version::HTTP_10,
    Version::HTTP_11,
    Version::HTTP_2,
    Version::HTTP_3,
];

/// Writes a response that other replicas may have: `head` is that of a follower's copy, and `frames` are all of its
/// body. `Err` if that is longer than `limit`.
pub(crate) fn write_response<'a>(
    head: &response::Parts,
    vary: Option<(&[HeaderName], Digest)>,
    frames: impl IntoIterator<Item = &'a Frame<Bytes>>,
    limit: usize,
) -> Result<Bytes, NotShared> {
    let mut out = vec![RESPONSE];
    let version = VERSIONS.iter().position(|&known| known == head.version);
    // A version that we don't know can't be written.
    out.push(version.ok_or(NotShared::Failed)? as u8);
    out.put_u16(head.status.as_u16());
    out.push(vary.is_some().into());
    if let Some((names, values)) = vary {
        write_names(names, &mut out);
        out.put_u128(values.0);
    }
    write_fields(&head.headers, &mut out);
    for frame in frames {
        if let Some(data) = frame.data_ref() {
            out.push(DATA);
            // Check before copying: a body may be many times the limit.
            if data.len() > limit.saturating_sub(out.len()) {
                return Err(NotShared::TooLarge);
            }
            write_part(data, &mut out);
        } else if let Some(trailers) = frame.trailers_ref() {
            out.push(TRAILERS);
            write_fields(trailers, &mut out);
        }
    }
    within(out, limit)
}

/// Writes a failure.
pub(crate) fn write_failure(text: &str, limit: usize) -> Result<Bytes, NotShared> {
    let mut out = vec![FAILURE];
    out.extend_from_slice(text.as_bytes());
    within(out, limit)
}

fn within(out: Vec<u8>, limit: usize) -> Result<Bytes, NotShared> {
    match out.len() <= limit {
        true => Ok(out.into()),
        false => Err(NotShared::TooLarge),
    }
}

// ===== impl RemoteAnswer =====

impl RemoteAnswer {
    /// `None` if it can't be parsed. The frames share the memory of `answer`.
    pub(crate) fn read(answer: &Bytes) -> Option<Self> {
        let mut rest = &answer[..];
        match rest.try_get_u8().ok()? {
            RESPONSE => RemoteResponse::read(answer, rest).map(Self::Response),
            FAILURE => Some(Self::Failure(String::from_utf8(rest.to_vec()).ok()?)),
            _ => None,
        }
    }
}

// ===== impl RemoteResponse =====

impl RemoteResponse {
    fn read(answer: &Bytes, mut rest: &[u8]) -> Option<Self> {
        let rest = &mut rest;
        let version = *VERSIONS.get(usize::from(rest.try_get_u8().ok()?))?;
        let status = rest.try_get_u16().ok()?;
        let vary = match rest.try_get_u8().ok()? {
            0 => None,
            _ => {
                let names = read_names(rest)?.into();
                Some((names, Digest(rest.try_get_u128().ok()?)))
            }
        };
        let (mut head, ()) = http::Response::new(()).into_parts();
        head.status = StatusCode::from_u16(status).ok()?;
        head.version = version;
        head.headers = read_fields(rest)?;
        let mut frames = Vec::new();
        while !rest.is_empty() {
            frames.push(match rest.try_get_u8().ok()? {
                DATA => Frame::data(answer.slice_ref(read_part(rest)?)),
                TRAILERS => Frame::trailers(read_fields(rest)?),
                _ => return None,
            });
        }
        Some(Self {
            head,
            vary,
            body: frames.into_iter().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use http_body_util::BodyExt;
    use proptest::prelude::*;

    use super::*;

    fn head(fields: &[(&'static str, &[u8])]) -> response::Parts {
        let (mut head, ()) = http::Response::new(()).into_parts();
        head.status = StatusCode::NON_AUTHORITATIVE_INFORMATION;
        head.version = Version::HTTP_2;
        for (name, value) in fields {
            let value = HeaderValue::from_bytes(value).expect("a value");
            head.headers.append(*name, value);
        }
        head
    }

    fn data(bytes: &[u8]) -> Frame<Bytes> {
        Frame::data(Bytes::copy_from_slice(bytes))
    }

    fn trailers() -> Frame<Bytes> {
        let value = HeaderValue::from_static("0");
        let line = ("grpc-status".parse().expect("a name"), value);
        Frame::trailers(HeaderMap::from_iter([line]))
    }

    fn read(answer: &Bytes) -> RemoteResponse {
        match RemoteAnswer::read(answer) {
            Some(RemoteAnswer::Response(response)) => response,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let mut head = head(&[("b", b"2"), ("a", b"\xff"), ("b", b"1"), ("c", b"")]);
        let mut secret = HeaderValue::from_static("secret");
        secret.set_sensitive(true);
        head.headers.insert("d", secret);
        let names = [HeaderName::from_static("accept")];
        let vary = Some((&names[..], Digest(7)));
        let written = write_response(&head, vary, [], 1000).expect("it fits");
        let response = read(&written);
        assert_eq!(response.head.status, head.status);
        assert_eq!(response.head.version, head.version);
        let lines = |head: &response::Parts| {
            let lines = head.headers.iter();
            let lines = lines.map(|(name, value)| (name.clone(), value.clone()));
            lines.collect::<Vec<_>>()
        };
        assert_eq!(lines(&response.head), lines(&head));
        assert!(response.head.headers["d"].is_sensitive());
        let (names, values) = response.vary.expect("it varies");
        assert_eq!(
            (&names[..], values),
            (&[HeaderName::from_static("accept")][..], Digest(7))
        );
    }

    #[tokio::test]
    async fn frames_keep_their_boundaries_and_trailers_come_last() {
        let frames = [data(b"ab"), data(b""), data(b"c"), trailers()];
        let written = write_response(&head(&[]), None, &frames, 1000).expect("it fits");
        let mut body = read(&written).body;
        let mut lengths = Vec::new();
        let mut ended = false;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame;
            assert!(!ended);
            match frame.into_data() {
                Ok(data) => lengths.push(data.len()),
                Err(frame) => {
                    assert_eq!(frame.into_trailers().expect("trailers")["grpc-status"], "0");
                    ended = true;
                }
            }
        }
        assert!(ended && http_body::Body::is_end_stream(&body));
        assert_eq!(lengths, [2, 0, 1]);
    }

    #[tokio::test]
    async fn the_length_of_a_body_is_exact_where_no_trailers_come() {
        let hint = |frames: &[Frame<Bytes>]| {
            let written = write_response(&head(&[]), None, frames, 1000).expect("it fits");
            http_body::Body::size_hint(&read(&written).body)
        };
        assert_eq!(hint(&[]).exact(), Some(0));
        assert_eq!(hint(&[data(b"ab"), data(b"c")]).exact(), Some(3));
        let hint = hint(&[data(b"ab"), trailers()]);
        assert_eq!((hint.lower(), hint.exact()), (2, None));
    }

    #[test]
    fn what_is_longer_than_the_limit_is_too_large() {
        let frames = [data(&[0; 100])];
        let exact = write_response(&head(&[]), None, &frames, 1000).expect("it fits");
        let write = |limit| write_response(&head(&[]), None, &frames, limit);
        assert!(write(exact.len()).is_ok());
        for limit in [0, 50, exact.len() - 1] {
            assert_eq!(write(limit), Err(NotShared::TooLarge));
        }
        let fields = head(&[("a", &[b'a'; 100])]);
        assert_eq!(
            write_response(&fields, None, [], 100),
            Err(NotShared::TooLarge)
        );
        assert_eq!(write_failure("no", 2), Err(NotShared::TooLarge));
    }

    #[test]
    fn a_failure_is_its_text() {
        let written = write_failure("no such host", 100).expect("it fits");
        let read = RemoteAnswer::read(&written);
        assert!(matches!(read, Some(RemoteAnswer::Failure(text)) if text == "no such host"));
    }

    #[test]
    fn the_frames_share_the_memory_of_the_answer() {
        let written = write_response(&head(&[]), None, &[data(b"abc")], 1000).expect("it fits");
        let body = read(&written).body;
        let range = written.as_ptr_range();
        let mut frames = std::pin::pin!(body.into_data_stream());
        let next = futures_util::future::FutureExt::now_or_never(futures_util::StreamExt::next(
            &mut frames,
        ));
        let data = next.flatten().expect("a frame").expect("no failure");
        assert!(range.contains(&data.as_ptr()));
    }

    proptest! {
        #[test]
        fn what_is_cut_or_changed_is_read_as_something_or_nothing(
            at: prop::sample::Index, bit in 0..8u32, cut: prop::sample::Index,
        ) {
            let names = [HeaderName::from_static("accept")];
            let vary = Some((&names[..], Digest(7)));
            let frames = [data(b"ab"), trailers()];
            let written = write_response(&head(&[("a", b"b")]), vary, &frames, 1000).expect("it fits");
            let mut changed = written.to_vec();
            let at = at.index(changed.len());
            changed[at] ^= 1 << bit;
            let _ = RemoteAnswer::read(&changed.into());
            let _ = RemoteAnswer::read(&written.slice(..cut.index(written.len())));
        }
    }
}
