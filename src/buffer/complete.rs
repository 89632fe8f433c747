//! A body that has come to its end.

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{budget::Reservation, frames::Content};

/// All frames of a body that ended as promised. Nothing of it changes any more, so it is read without a lock.
#[derive(Debug)]
pub(crate) struct CompleteBody {
    pub(super) frames: Box<[Content]>,
    /// Bytes of data.
    pub(super) len: u64,
    /// Whether its length may be told: HTTP/1.1 has no trailers after a body of known length.
    pub(super) has_known_length: bool,
    /// What was paid for the frames, until nobody holds them.
    pub(super) _paid: Reservation,
}

impl CompleteBody {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn frame(&self, index: usize) -> Option<Frame<Bytes>> {
        self.frames.get(index).map(Content::to_frame)
    }

    pub(crate) fn is_end(&self, index: usize) -> bool {
        index == self.frames.len()
    }

    /// The hint of a reader that lacks so many bytes.
    pub(crate) fn size_hint(&self, left: u64) -> SizeHint {
        let mut hint = SizeHint::new();
        if self.has_known_length {
            hint.set_upper(left);
        }
        hint.set_lower(left);
        hint
    }
}
