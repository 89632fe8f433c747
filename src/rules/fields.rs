//! Copies of header fields, for comparison alone.

use std::{cell::Cell, mem};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::packing::{pack, packed_len, unpack};

/// Names and values one after the other: a clone of each `HeaderValue` may cost an allocation of its own.
#[derive(Clone, Default)]
pub(crate) struct Fields {
    buffer: Vec<u8>,
    filled: usize,
}

/// Some of a request's field lines, in the order of its map.
#[derive(Clone, Copy, Default)]
pub(crate) struct Lines {
    /// A bit for each line, the last for all that follow too.
    chosen: u64,
    seen: u32,
}

/// The bytes that most requests' fields need.
const USUAL: usize = 512;

/// A larger buffer is not kept for the next request.
const KEPT: usize = 4096;

thread_local! {
    /// The buffer of the request before.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

// ===== impl Fields =====

impl Fields {
    /// The fields for which `keep` returns `true`.
    pub(crate) fn of(
        headers: &HeaderMap,
        mut keep: impl FnMut(&HeaderName, &HeaderValue) -> bool,
    ) -> Self {
        let mut fields = Self::default();
        for (name, value) in headers {
            if keep(name, value) {
                fields.push(name.as_str().as_bytes(), value.as_bytes());
            }
        }
        fields
    }

    #[inline]
    pub(crate) fn push(&mut self, name: &[u8], value: &[u8]) {
        match pack(&mut self.buffer[self.filled..], name, value) {
            Some(len) => self.filled += len,
            None => self.push_to_longer(name, value),
        }
    }

    #[cold]
    fn push_to_longer(&mut self, name: &[u8], value: &[u8]) {
        if self.buffer.is_empty() {
            self.buffer = SPARE.try_with(Cell::take).unwrap_or_default();
        }
        let needed = self.filled + packed_len(name, value);
        if needed > self.buffer.len() {
            self.buffer.resize(needed.next_power_of_two().max(USUAL), 0);
        }
        let len = pack(&mut self.buffer[self.filled..], name, value);
        self.filled += len.expect("made long enough");
    }

    fn packed(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }

    /// The names and values, in their order.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = self.packed();
        std::iter::from_fn(move || unpack(&mut rest))
    }
}

// ===== impl Lines =====

impl Lines {
    /// The next line is one of them, or not.
    #[inline]
    pub(crate) fn add(&mut self, is_chosen: bool) {
        self.chosen |= u64::from(is_chosen) << self.seen.min(63);
        self.seen += 1;
    }

    /// A copy of them, and perhaps of some beyond the 63rd that are none of them.
    pub(crate) fn copy(self, headers: &HeaderMap) -> Fields {
        let mut line = 0;
        Fields::of(headers, |_, _| {
            let is_chosen = self.chosen >> line & 1 == 1;
            line = (line + 1).min(63);
            is_chosen
        })
    }
}

impl Drop for Fields {
    fn drop(&mut self) {
        if (1..=KEPT).contains(&self.buffer.len()) {
            let buffer = mem::take(&mut self.buffer);
            let _ = SPARE.try_with(|spare| spare.set(buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values<'a>(fields: &'a Fields, name: &str) -> Vec<&'a [u8]> {
        let lines = fields.lines();
        let own = lines.filter(|(other, _)| *other == name.as_bytes());
        own.map(|(_, value)| value).collect()
    }

    #[test]
    fn the_values_of_a_name_come_in_their_order() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("a", "1"), ("b", ""), ("a", "2"), ("c", "3")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let fields = Fields::of(&headers, |name, _| name != "c");
        assert_eq!(values(&fields, "a"), [b"1", b"2"]);
        assert_eq!(values(&fields, "b"), [b""]);
        assert!(values(&fields, "c").is_empty());
    }

    #[test]
    fn many_long_values_keep_their_order() {
        let long = "v".repeat(USUAL);
        let mut headers = HeaderMap::new();
        let all = [&long[..], "1", &long, "2", &long, "3"];
        for value in all {
            headers.append("a", value.parse().expect("a value"));
            headers.append("b", HeaderValue::from_static("x"));
        }
        let fields = Fields::of(&headers, |_, _| true);
        assert_eq!(values(&fields, "a"), all.map(str::as_bytes));
    }

    #[test]
    fn the_next_copy_takes_the_buffer_of_the_last_but_none_that_a_client_has_made_large() {
        let copy = |len: usize| {
            let mut fields = Fields::default();
            fields.push(b"a", &vec![b'v'; len]);
            drop(fields);
            SPARE.take().len()
        };
        assert_eq!(copy(1), USUAL);
        assert_eq!(copy(KEPT / 2), KEPT);
        assert_eq!(copy(KEPT), 0);
    }

    #[test]
    fn of_however_many_lines_those_that_were_chosen_are_copied() {
        let mut headers = HeaderMap::new();
        for number in 0..100 {
            headers.append("a", HeaderValue::from(number));
        }
        for chosen in [&[0, 61][..], &[62], &[63], &[64, 99], &[5, 80]] {
            let mut lines = Lines::default();
            (0..100).for_each(|number| lines.add(chosen.contains(&number)));
            let fields = lines.copy(&headers);
            let copied: Vec<_> = values(&fields, "a").iter().map(|it| it.to_vec()).collect();
            let holds = |number: i32| copied.contains(&number.to_string().into_bytes());
            for number in 0..100 {
                // Of those beyond the 63rd, all are copied if one of them was chosen.
                assert!(holds(number) || !chosen.contains(&number), "{number}");
                assert!(!holds(number) || chosen.contains(&number) || number >= 63);
            }
        }
    }
}
