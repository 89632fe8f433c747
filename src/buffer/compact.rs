//! Small frames, copied together.
//!
//! A frame is a slice of a buffer, and often the only one: when a body trickles in, hyper's HTTP/1 client gives each
//! byte an 8 KiB buffer of its own. `Bytes` does not say how large its buffer is.

use bytes::{Bytes, BytesMut};

/// A shorter frame probably keeps a buffer many times its size alive.
const SMALL: usize = if cfg!(test) { 32 } else { 4 << 10 };

/// Copies small frames into blocks, one after the other.
#[derive(Debug, Default)]
pub(super) struct Compactor {
    block: BytesMut,
}

// ===== impl Compactor =====

impl Compactor {
    /// The copy to hold instead of a frame; `None` to hold the frame itself. `held`: the bytes of all frames.
    pub(super) fn compact(&mut self, data: &[u8], held: usize) -> Option<Bytes> {
        if data.len() >= SMALL {
            return None;
        }
        if self.block.capacity() < data.len() {
            // The rest of a block is wasted, and the last one is hardly filled, but that is little beside what is held.
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
