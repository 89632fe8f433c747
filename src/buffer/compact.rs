//! Small frames, copied together.
//!
//! A frame is a slice of a buffer that it often keeps alive alone: hyper's HTTP/1 client cuts each byte of a body that
//! trickles from 8 KiB of its own. `Bytes` does not say how large its buffer is.

use bytes::{Bytes, BytesMut};

/// A shorter frame is assumed to keep many times its bytes alive.
const SMALL: usize = if cfg!(test) { 32 } else { 4 << 10 };

/// Where small frames are copied to, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Compactor {
    block: BytesMut,
}

// ===== impl Compactor =====

impl Compactor {
    /// A copy that is to be held instead of a frame; `None` if the frame itself may be. `held`: the bytes of all.
    pub(super) fn compact(&mut self, data: &[u8], held: usize) -> Option<Bytes> {
        if data.len() >= SMALL {
            return None;
        }
        if self.block.capacity() < data.len() {
            // What remains of a block is lost, and the last one is hardly filled: small beside what is held.
            self.block = BytesMut::with_capacity((held / 8).clamp(SMALL, 8 * SMALL));
        }
        self.block.extend_from_slice(data);
        Some(self.block.split().freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_frame_is_never_copied() {
        assert_eq!(Compactor::default().compact(&[0; SMALL], 1), None);
    }

    #[test]
    fn small_frames_lie_one_behind_the_other() {
        let mut compactor = Compactor::default();
        let mut compact = |data: &[u8]| compactor.compact(data, 1).unwrap();
        let (first, second) = (compact(b"once"), compact(b" upon"));
        assert_eq!((&*first, &*second), (&b"once"[..], &b" upon"[..]));
        assert_eq!(first.as_ptr_range().end, second.as_ptr());
    }

    #[test]
    fn a_frame_without_bytes_holds_none() {
        assert_eq!(Compactor::default().compact(b"", 1), Some(Bytes::new()));
    }

    #[test]
    fn a_frame_that_a_block_has_no_room_for_begins_the_next() {
        let mut compactor = Compactor::default();
        for number in 0..100 {
            let data = vec![number; SMALL - 1];
            assert_eq!(compactor.compact(&data, 1).unwrap(), data);
        }
    }
}
