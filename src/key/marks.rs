//! `Marks`.

/// In which of a request's field lines an identical request may differ: what was seen when the key was made, so that it
/// need not be found out once more.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Marks {
    bits: u64,
    /// How many lines were marked, of more than these nothing is known.
    len: u32,
}

// ===== impl Marks =====

impl Marks {
    pub(crate) fn push(&mut self, may_differ: bool) {
        if self.len < u64::BITS {
            self.bits |= u64::from(may_differ) << self.len;
            self.len += 1;
        }
    }

    /// Splits the first mark off.
    pub(crate) fn pop(&mut self) -> Option<bool> {
        self.len = self.len.checked_sub(1)?;
        let first = self.bits & 1 == 1;
        self.bits >>= 1;
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_in_their_order_and_nothing_is_known_of_more_than_64() {
        let mut marks = Marks::default();
        for line in 0..70 {
            marks.push(line % 3 == 0);
        }
        for line in 0..64 {
            assert_eq!(marks.pop(), Some(line % 3 == 0));
        }
        assert_eq!(marks.pop(), None);
    }
}
