//! `MayDiffer`.

/// For each of a request's field lines, whether an identical request may differ there: found out when the key was made,
/// and kept so that nobody looks for it once more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MayDiffer {
    bits: u64,
    /// The bit behind that of the last line. Of more than 63 lines nothing is known.
    end: u64,
}

// ===== impl MayDiffer =====

impl MayDiffer {
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

    /// Splits the first line off.
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

impl Default for MayDiffer {
    fn default() -> Self {
        Self { bits: 0, end: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_in_their_order_and_nothing_is_known_of_more_than_63() {
        let mut may_differ = MayDiffer::default();
        for line in 0..70 {
            may_differ.push(line % 3 == 0);
        }
        for line in 0..63 {
            assert_eq!(may_differ.pop(), Some(line % 3 == 0));
        }
        assert_eq!(may_differ.pop(), None);
    }
}
