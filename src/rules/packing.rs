//! A header field as bytes.

/// A name is never longer than 16 bits can say, a value never than 48.
const VALUE_BITS: u32 = 48;

/// The bytes of the two lengths.
const LENS: usize = size_of::<u64>();

/// Writes the lengths, the name and the value, and gives how many bytes these are; `None` if they don't fit.
///
/// With the lengths in front no two sequences of fields give the same bytes.
#[inline(always)]
pub(crate) fn pack(to: &mut [u8], name: &[u8], value: &[u8]) -> Option<usize> {
    let len = packed_len(name, value);
    let to = to.get_mut(..len)?;
    let (lens, rest) = to.split_at_mut(LENS);
    let (first, second) = rest.split_at_mut(name.len());
    lens.copy_from_slice(&lengths(name, value));
    copy(first, name);
    copy(second, value);
    Some(len)
}

#[inline]
pub(super) fn packed_len(name: &[u8], value: &[u8]) -> usize {
    LENS + name.len() + value.len()
}

pub(crate) fn lengths(name: &[u8], value: &[u8]) -> [u8; LENS] {
    ((name.len() as u64) << VALUE_BITS | value.len() as u64).to_le_bytes()
}

/// Splits the first field off.
pub(super) fn unpack<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (lens, tail) = rest.split_first_chunk()?;
    let lens = u64::from_le_bytes(*lens);
    let (name, tail) = tail.split_at_checked((lens >> VALUE_BITS) as usize)?;
    let value = lens & ((1 << VALUE_BITS) - 1);
    let (value, tail) = tail.split_at_checked(value as usize)?;
    *rest = tail;
    Some((name, value))
}

/// Copies as `copy_from_slice`, faster where a name or a short value is copied: two fixed pieces that overlap.
#[inline]
pub(crate) fn copy(to: &mut [u8], from: &[u8]) {
    #[inline]
    fn ends<const N: usize>(to: &mut [u8], from: &[u8]) {
        if let (Some(first), Some(last)) = (from.first_chunk::<N>(), from.last_chunk::<N>()) {
            let (to_first, _) = to.split_first_chunk_mut().expect("as long as `from`");
            *to_first = *first;
            let (_, to_last) = to.split_last_chunk_mut().expect("as long as `from`");
            *to_last = *last;
        }
    }
    assert_eq!(to.len(), from.len());
    match from.len() {
        4..8 => ends::<4>(to, from),
        8..=16 => ends::<8>(to, from),
        17..=32 => ends::<16>(to, from),
        33..=64 => ends::<32>(to, from),
        65..=128 => ends::<64>(to, from),
        _ => to.copy_from_slice(from),
    }
}
