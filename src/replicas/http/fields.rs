//! Header fields, written and read, with the order of lines of one name and whether they are sensitive.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The length of a part, or the number of parts.
type Length = u32;

pub(super) fn write_fields(fields: &HeaderMap, out: &mut Vec<u8>) {
    write_length(fields.len(), out);
    for (name, value) in fields {
        write_part(name.as_str().as_bytes(), out);
        write_part(value.as_bytes(), out);
        out.push(value.is_sensitive().into());
    }
}

pub(super) fn read_fields(rest: &mut &[u8]) -> Option<HeaderMap> {
    let count = read_length(rest)?;
    let mut fields = HeaderMap::new();
    for _ in 0..count {
        let name = HeaderName::from_bytes(read_part(rest)?).ok()?;
        let mut value = HeaderValue::from_bytes(read_part(rest)?).ok()?;
        value.set_sensitive(read_byte(rest)? == 1);
        fields.try_append(name, value).ok()?;
    }
    Some(fields)
}

pub(super) fn write_names(names: &[HeaderName], out: &mut Vec<u8>) {
    write_length(names.len(), out);
    for name in names {
        write_part(name.as_str().as_bytes(), out);
    }
}

pub(super) fn read_names(rest: &mut &[u8]) -> Option<Vec<HeaderName>> {
    let count = read_length(rest)?;
    let mut names = Vec::new();
    for _ in 0..count {
        names.push(HeaderName::from_bytes(read_part(rest)?).ok()?);
    }
    Some(names)
}

pub(super) fn write_part(part: &[u8], out: &mut Vec<u8>) {
    write_length(part.len(), out);
    out.extend_from_slice(part);
}

pub(super) fn read_part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = read_length(rest)?;
    let (part, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(part)
}

/// Anything longer exceeds every limit and is rejected by that.
fn write_length(length: usize, out: &mut Vec<u8>) {
    let length = Length::try_from(length).unwrap_or(Length::MAX);
    out.extend_from_slice(&length.to_be_bytes());
}

fn read_length(rest: &mut &[u8]) -> Option<usize> {
    let (length, after) = rest.split_first_chunk()?;
    *rest = after;
    usize::try_from(Length::from_be_bytes(*length)).ok()
}

pub(super) fn read_byte(rest: &mut &[u8]) -> Option<u8> {
    let (&byte, after) = rest.split_first()?;
    *rest = after;
    Some(byte)
}
