//! A keyed 128-bit digest over parts of any length.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use highway::{HighwayHash, HighwayHasher, Key};

use crate::rules::{copy, lengths, pack};

/// Two messages with one digest can't be made without the secret, nor found by chance in the lifetime of a process.
pub(super) type KeyDigest = [u64; 2];

/// Marks a part that is absent; no length is so large.
const ABSENT: u64 = u64::MAX;

/// Marks a field that `Connection` names; nor do the lengths of any field look like this.
const NAMED: u64 = u64::MAX - 1;

/// The head of a usual request fits.
const SIZE: usize = 768;

/// So many bytes are put in lower case at once.
const LOWERED: usize = 16;

/// Collects what is hashed, so that the hash sees one large piece rather than fifty small ones.
///
/// Every part is preceded by its length, so that no two sequences of parts give the same bytes.
pub(super) struct Writer<S> {
    sink: S,
    buffer: [u8; SIZE],
    filled: usize,
}

/// Where the pieces go.
pub(super) trait Sink {
    fn append(&mut self, piece: &[u8]);
}

/// The secret of this process: who can't know it can't make two requests collide.
pub(crate) fn secret() -> [u64; 4] {
    static SECRET: OnceLock<[u64; 4]> = OnceLock::new();
    // Each `RandomState` is a SipHash of its own, seeded by the operating system.
    *SECRET.get_or_init(|| std::array::from_fn(|at| RandomState::new().hash_one(at)))
}

// ===== impl Writer =====

impl Sink for HighwayHasher {
    #[inline]
    fn append(&mut self, piece: &[u8]) {
        HighwayHash::append(self, piece);
    }
}

impl Writer<HighwayHasher> {
    /// For the keys of this process.
    pub(super) fn new() -> Self {
        Self::to(HighwayHasher::new(Key(secret())))
    }

    pub(super) fn finish(&mut self) -> KeyDigest {
        self.end();
        self.sink.clone().finalize128()
    }
}

impl<S: Sink> Writer<S> {
    pub(super) fn to(sink: S) -> Self {
        Self {
            sink,
            buffer: [0; SIZE],
            filled: 0,
        }
    }

    /// A part that is always there.
    #[inline]
    pub(super) fn part(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.bytes(bytes);
    }

    /// A part that may be absent, which differs from empty.
    pub(super) fn optional(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.part(bytes),
            None => self.number(ABSENT),
        }
    }

    /// As [`part`](Self::part), with ASCII letters in lower case.
    pub(super) fn lowercase(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        // Chunks that fit into the buffer, where they are changed, in whole pieces: what lies behind them is not used yet.
        for chunk in bytes.chunks(256) {
            if self.filled + chunk.len().next_multiple_of(LOWERED) > SIZE {
                self.flush();
            }
            let start = self.filled;
            self.bytes(chunk);
            let pieces = self.buffer[start..].chunks_exact_mut(LOWERED);
            pieces
                .take(chunk.len().div_ceil(LOWERED))
                .for_each(<[u8]>::make_ascii_lowercase);
        }
    }

    /// A header field.
    #[inline]
    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) {
        match pack(&mut self.buffer[self.filled..], name, value) {
            Some(len) => self.filled += len,
            None => {
                for part in [&lengths(name, value), name, value] {
                    self.bytes(part);
                }
            }
        }
    }

    /// The field that comes next is one that `Connection` names.
    #[cold]
    pub(super) fn named(&mut self) {
        self.number(NAMED);
    }

    /// Ends the list of fields, which has no length in front.
    pub(super) fn end(&mut self) {
        self.number(ABSENT);
        self.flush();
    }

    fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        if let Some(free) = self.buffer[self.filled..].get_mut(..bytes.len()) {
            copy(free, bytes);
            self.filled += bytes.len();
        } else {
            self.overflow(bytes);
        }
    }

    #[cold]
    fn overflow(&mut self, bytes: &[u8]) {
        self.flush();
        if bytes.len() > SIZE {
            self.sink.append(bytes);
        } else {
            self.bytes(bytes);
        }
    }

    fn flush(&mut self) {
        self.sink.append(&self.buffer[..self.filled]);
        self.filled = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(write: impl FnOnce(&mut Writer<HighwayHasher>)) -> KeyDigest {
        let mut writer = Writer::new();
        write(&mut writer);
        writer.finish()
    }

    #[test]
    fn the_secret_is_one_per_process_and_not_trivial() {
        assert_eq!(secret(), secret());
        let mut words = secret().to_vec();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), 4);
    }

    #[test]
    fn bytes_do_not_move_between_parts() {
        let all = [
            digest(|writer| {
                writer.part(b"ab");
                writer.part(b"c");
            }),
            digest(|writer| {
                writer.part(b"a");
                writer.part(b"bc");
            }),
            digest(|writer| writer.part(b"abc")),
            digest(|writer| writer.field(b"ab", b"c")),
            digest(|writer| writer.field(b"a", b"bc")),
            digest(|writer| {
                writer.field(b"a", b"b");
                writer.field(b"c", b"");
            }),
            digest(|writer| {
                writer.named();
                writer.field(b"a", b"b");
                writer.field(b"c", b"");
            }),
            digest(|writer| {
                writer.field(b"a", b"b");
                writer.named();
                writer.field(b"c", b"");
            }),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "{at}");
        }
    }

    #[test]
    fn absent_differs_from_empty() {
        assert_ne!(
            digest(|writer| writer.optional(None)),
            digest(|writer| writer.optional(Some(b"")))
        );
    }

    #[test]
    fn lower_case_is_lower_case_at_any_length() {
        for length in [0, 1, 255, 256, 257, 1000, 5000] {
            let mixed = vec![b'A'; length];
            let lower = vec![b'a'; length];
            assert_eq!(
                digest(|writer| writer.lowercase(&mixed)),
                digest(|writer| writer.part(&lower))
            );
        }
    }

    #[test]
    fn lower_case_is_lower_case_wherever_the_buffer_ends() {
        for (upper, lower) in [(&b"E"[..], &b"e"[..]), (b"EXAMPLE.org", b"example.ORG")] {
            for before in 0..2 * SIZE {
                let after = |host: &[u8]| {
                    digest(|writer| {
                        writer.part(&vec![0; before]);
                        writer.lowercase(host);
                    })
                };
                assert_eq!(after(upper), after(lower), "{before}");
            }
        }
    }

    proptest! {
        #[test]
        fn how_the_bytes_meet_the_buffer_does_not_matter(
            lengths in proptest::collection::vec(prop_oneof![0..70_usize, 0..1500_usize], 0..12),
        ) {
            let part = |length: &usize| (0..*length).map(|at| at as u8).collect::<Vec<_>>();
            let buffered = digest(|writer| {
                for length in &lengths {
                    writer.part(&part(length));
                }
            });
            let mut whole = Vec::new();
            for length in &lengths {
                whole.extend_from_slice(&(*length as u64).to_le_bytes());
                whole.extend_from_slice(&part(length));
            }
            whole.extend_from_slice(&ABSENT.to_le_bytes());
            let mut hasher = HighwayHasher::new(Key(secret()));
            HighwayHash::append(&mut hasher, &whole);
            prop_assert_eq!(buffered, hasher.finalize128());
        }

        #[test]
        fn a_field_is_its_lengths_its_name_and_its_value_wherever_the_buffer_ends(
            fields in proptest::collection::vec((0..70_usize, 0..900_usize), 0..8),
        ) {
            let bytes = |length: usize| (0..length).map(|at| at as u8).collect::<Vec<_>>();
            let packed = digest(|writer| {
                for (name, value) in &fields {
                    writer.field(&bytes(*name), &bytes(*value));
                }
            });
            let single = digest(|writer| {
                for (name, value) in &fields {
                    writer.number((*name as u64) << 48 | *value as u64);
                    writer.bytes(&bytes(*name));
                    writer.bytes(&bytes(*value));
                }
            });
            prop_assert_eq!(packed, single);
        }
    }
}
