//! The digest of a body so far.

use highway::{HighwayHash, HighwayHasher, Key};

use crate::key::secret;

/// The first bytes of a body: how many, and their keyed 128-bit digest. Where frames begin and end is no part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prefix {
    pub(crate) bytes: u64,
    digest: [u64; 2],
}

/// Hashes a body from its first byte.
#[derive(Clone, Debug)]
pub(crate) struct PrefixHasher {
    /// Boxed, because it is large and its alignment would make its owner expensive to allocate.
    hasher: Box<HighwayHasher>,
    bytes: u64,
}

// ===== impl PrefixHasher =====

impl PrefixHasher {
    pub(crate) fn new() -> Self {
        Self {
            hasher: Box::new(HighwayHasher::new(Key(secret()))),
            bytes: 0,
        }
    }

    pub(crate) fn append(&mut self, data: &[u8]) {
        self.hasher.append(data);
        self.bytes += data.len() as u64;
    }

    pub(crate) fn prefix(&self) -> Prefix {
        Prefix {
            bytes: self.bytes,
            digest: HighwayHasher::clone(&self.hasher).finalize128(),
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(frames: &[&[u8]]) -> Prefix {
        let mut hasher = PrefixHasher::new();
        frames.iter().for_each(|frame| hasher.append(frame));
        hasher.prefix()
    }

    #[test]
    fn equal_bytes_have_one_prefix_however_they_are_framed() {
        let whole = prefix(&[b"one and two and three and four and five"]);
        assert_eq!(
            whole,
            prefix(&[b"one ", b"", b"and two and three", b" and four and five"])
        );
        assert_eq!(whole.bytes, 39);
    }

    #[test]
    fn other_bytes_have_another_prefix() {
        assert_ne!(prefix(&[b"one"]), prefix(&[b"two"]));
        assert_ne!(prefix(&[b"one"]), prefix(&[b"one\0"]));
        assert_ne!(prefix(&[]), prefix(&[b"\0"]));
    }
}
