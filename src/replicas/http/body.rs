//! The body of a response from another replica.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// It is complete: each frame as the leader's source gave it, trailers last.
#[derive(Debug, Default)]
pub(crate) struct RemoteBody {
    frames: VecDeque<Frame<Bytes>>,
    /// The bytes of data that are left.
    left: u64,
}

// ===== impl RemoteBody =====

impl FromIterator<Frame<Bytes>> for RemoteBody {
    fn from_iter<I: IntoIterator<Item = Frame<Bytes>>>(frames: I) -> Self {
        let frames: VecDeque<_> = frames.into_iter().collect();
        let lengths = frames.iter().filter_map(Frame::data_ref).map(Bytes::len);
        Self {
            left: lengths.map(|length| length as u64).sum(),
            frames,
        }
    }
}

impl Body for RemoteBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = self.frames.pop_front();
        if let Some(data) = frame.as_ref().and_then(Frame::data_ref) {
            self.left -= data.len() as u64;
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::with_exact(self.left);
        // HTTP/1.1 has no trailers after a body of known length.
        if self.frames.back().is_some_and(Frame::is_trailers) {
            hint = SizeHint::new();
            hint.set_lower(self.left);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn what_is_left_is_what_is_announced() {
        let data = |bytes: &'static [u8]| Frame::data(Bytes::from_static(bytes));
        let mut body = RemoteBody::from_iter([data(b"abc"), data(b"d")]);
        for left in [4, 1, 0] {
            assert_eq!(body.size_hint().exact(), Some(left));
            assert_eq!(body.is_end_stream(), left == 0);
            assert_eq!(body.frame().await.is_none(), left == 0);
        }
        let trailers = Frame::trailers(HeaderMap::new());
        let mut body = RemoteBody::from_iter([data(b"abc"), trailers]);
        for left in [3, 0] {
            let hint = body.size_hint();
            assert_eq!((hint.lower(), hint.upper()), (left, None));
            assert!(!body.is_end_stream() && body.frame().await.is_some());
        }
        assert!(body.is_end_stream());
    }
}
