//! A body's length, and its digest at each power of ten.

use std::mem;

use crate::{
    buffer::{Prefix, PrefixHasher},
    observe::BodyDifference,
};

/// Hashes a body from its first byte.
pub(super) struct BodyHasher {
    hasher: PrefixHasher,
    /// After its first byte, its first ten, its first hundred, ...
    marks: Vec<Prefix>,
}

/// The digests of a complete body: of all its bytes, and of those up to each power of ten.
pub(super) struct BodyDigest(Prefix, Vec<Prefix>);

// ===== impl BodyHasher =====

impl BodyHasher {
    pub(super) fn new() -> Self {
        Self {
            hasher: PrefixHasher::new(),
            marks: Vec::new(),
        }
    }

    pub(super) fn append(&mut self, mut data: &[u8]) {
        loop {
            let mark = 10_u64.saturating_pow(self.marks.len() as u32);
            let left = mark - self.hasher.bytes();
            let mark = usize::try_from(left).ok();
            let Some((before, after)) = mark.and_then(|left| data.split_at_checked(left)) else {
                break;
            };
            self.hasher.append(before);
            self.marks.push(self.hasher.prefix());
            data = after;
        }
        self.hasher.append(data);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.hasher.bytes()
    }

    pub(super) fn finish(&mut self) -> BodyDigest {
        BodyDigest(self.hasher.prefix(), mem::take(&mut self.marks))
    }
}

// ===== impl BodyDigest =====

impl BodyDigest {
    pub(super) fn difference(&self, other: &Self) -> Option<BodyDifference> {
        let (Self(one, marks), Self(two, others)) = (self, other);
        let marks = marks.iter().zip(others);
        let equal = marks.take_while(|(one, two)| one == two).count();
        (one != two).then(|| BodyDifference {
            lengths: (one.bytes, two.bytes),
            within: u32::try_from(equal)
                .ok()
                .and_then(|power| 10_u64.checked_pow(power)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(body: &[u8], frame: usize) -> BodyDigest {
        let mut digest = BodyHasher::new();
        body.chunks(frame).for_each(|frame| digest.append(frame));
        assert_eq!(digest.bytes(), body.len() as u64);
        digest.finish()
    }

    fn within(one: &[u8], two: &[u8]) -> Option<u64> {
        let difference = digest(one, 7).difference(&digest(two, 64))?;
        assert_eq!(difference.lengths, (one.len() as u64, two.len() as u64));
        difference.within
    }

    #[test]
    fn equal_bodies_have_equal_digests_however_they_are_framed() {
        let body = vec![b'x'; 1234];
        for frame in [1, 9, 10, 11, 100, 5000] {
            assert!(
                digest(&body, frame)
                    .difference(&digest(&body, 100))
                    .is_none()
            );
        }
        assert!(digest(b"", 1).difference(&digest(b"", 1)).is_none());
    }

    #[test]
    fn a_difference_is_within_the_power_of_ten_behind_its_offset() {
        let body = vec![b'x'; 5000];
        for (offset, expected) in [
            (0, 1),
            (1, 10),
            (9, 10),
            (10, 100),
            (99, 100),
            (100, 1000),
            (999, 1000),
            (1000, 10_000),
            (4999, 10_000),
        ] {
            let mut other = body.clone();
            other[offset] = b'y';
            assert_eq!(within(&body, &other), Some(expected), "{offset}");
            // A body that ends there.
            assert_eq!(within(&body, &body[..offset]), Some(expected), "{offset}");
        }
    }
}
