//! `Marks`.

/// In which of a request's field lines an identical request may differ: what was seen when the key was made, so that it
/// need not be found out once more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marks {
    bits: u64,
    /// The bit behind the last mark. Of more than 63 lines nothing is known.
    end: u64,
}

// ===== impl Marks =====

impl Marks {
    #[inline]
    pub(crate) fn push(&mut self, may_differ: bool) {
        let end = self.end << 1;
        if end != 0 {
            if may_differ {
                self.bits |= self.end;
            }
            self.end = end;
        }
    }

    /// Splits the first mark off.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<bool> {
        if self.end == 1 {
            return None;
        }
        self.end >>= 1;
        let first = self.bits & 1 == 1;
        self.bits >>= 1;
        Some(first)
    }
}

impl Default for Marks {
    fn default() -> Self {
        Self { bits: 0, end: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_in_their_order_and_nothing_is_known_of_more_than_63() {
        let mut marks = Marks::default();
        for line in 0..70 {
            marks.push(line % 3 == 0);
        }
        for line in 0..63 {
            assert_eq!(marks.pop(), Some(line % 3 == 0));
        }
        assert_eq!(marks.pop(), None);
    }
}
