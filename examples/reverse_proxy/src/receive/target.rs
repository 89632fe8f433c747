//! Dot segments.

/// Whether an origin could read `path` as one that leads out of its root. Origins differ in what they decode and merge, so
/// every reading counts: `%2e`, `%2f` and `%5c` decoded, `\` as `/`, parameters (`..;x`) left out, empty segments merged.
pub(super) fn leaves_its_root(path: &str) -> bool {
    let path = decode(path.as_bytes());
    let mut depth = 0_usize;
    for segment in path.split(|&byte| matches!(byte, b'/' | b'\\')) {
        let name = segment.split(|&byte| byte == b';').next();
        match name.unwrap_or_default() {
            b"" | b"." => {}
            b".." if depth == 0 => return true,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

/// Decodes `%2e`, `%2f` and `%5c`, and leaves everything else as it is.
fn decode(mut path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    while let [first, rest @ ..] = path {
        let byte = match rest {
            [high, low, ..] if *first == b'%' => match [*high, low.to_ascii_lowercase()] {
                [b'2', b'e'] => Some(b'.'),
                [b'2', b'f'] => Some(b'/'),
                [b'5', b'c'] => Some(b'\\'),
                _ => None,
            },
            _ => None,
        };
        decoded.push(byte.unwrap_or(*first));
        path = if byte.is_some() { &rest[2..] } else { rest };
    }
    decoded
}
