//! Small frames, packed together.
//!
//! A frame is a slice of a buffer that is often its alone to keep: of a body that trickles, hyper's HTTP/1 client cuts each
//! byte from 8 KiB of its own. How large the buffer is `Bytes` doesn't tell.

use bytes::{Bytes, BytesMut};

/// A shorter frame is taken to hold many times its bytes.
const SMALL: usize = if cfg!(test) { 32 } else { 4 << 10 };

/// So many small frames of a body are kept as they came: most have no more.
const UNPACKED: usize = if cfg!(test) { 3 } else { 16 };

/// Where small frames are copied to, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Packer {
    small: usize,
    block: BytesMut,
}

// ===== impl Packer =====

impl Packer {
    /// A copy of a frame that is to be held instead of it; `None` if the frame itself may be. `held`: the bytes of all.
    pub(super) fn pack(&mut self, data: &[u8], held: usize) -> Option<Bytes> {
        if data.len() >= SMALL {
            return None;
        }
        if self.small < UNPACKED {
            self.small += 1;
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

    fn packing() -> Packer {
        let mut packer = Packer::default();
        for _ in 0..UNPACKED {
            assert_eq!(packer.pack(b"few", 0), None);
        }
        packer
    }

    #[test]
    fn a_large_frame_is_never_copied() {
        assert_eq!(packing().pack(&[0; SMALL], 0), None);
    }

    #[test]
    fn small_frames_lie_one_behind_the_other() {
        let mut packer = packing();
        let mut pack = |data: &[u8]| packer.pack(data, 0).unwrap();
        let (first, second) = (pack(b"once"), pack(b" upon"));
        assert_eq!((&*first, &*second), (&b"once"[..], &b" upon"[..]));
        assert_eq!(first.as_ptr_range().end, second.as_ptr());
    }

    #[test]
    fn a_frame_without_bytes_holds_none() {
        assert_eq!(packing().pack(b"", 0), Some(Bytes::new()));
    }

    #[test]
    fn a_frame_that_a_block_has_no_room_for_begins_the_next() {
        let mut packer = packing();
        for number in 0..100 {
            let data = vec![number; SMALL - 1];
            assert_eq!(packer.pack(&data, 0).unwrap(), data);
        }
    }
}
