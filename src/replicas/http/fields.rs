//! Header fields, written and read, with the order of lines of one name and whether they are sensitive.

use bytes::{Buf, BufMut};
use http::{HeaderMap, HeaderName, HeaderValue};

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
        value.set_sensitive(rest.try_get_u8().ok()? == 1);
        fields.try_append(name, value).ok()?;
    }
    Some(fields)
}

pub(super) fn write_names(names: &[HeaderName], out: &mut Vec<u8>) {
    write_part(joined(names).as_bytes(), out);
}

pub(super) fn read_names(rest: &mut &[u8]) -> Option<Vec<HeaderName>> {
    let names = read_part(rest)?.split(|byte| *byte == b',');
    names
        .map(|name| HeaderName::from_bytes(name).ok())
        .collect()
}

/// One or more names in one text: they contain no comma.
pub(super) fn joined(names: &[HeaderName]) -> String {
    let names: Vec<_> = names.iter().map(HeaderName::as_str).collect();
    names.join(",")
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
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

fn read_length(rest: &mut &[u8]) -> Option<usize> {
    usize::try_from(rest.try_get_u32().ok()?).ok()
}
