//! What can be wrong with a body.

use std::{error::Error, fmt};

/// A body that was not as long as its response had said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LengthMismatch {
    pub(crate) expected: u64,
    pub(crate) received: u64,
}

/// A follower's reader was overtaken by more than the window (`stream_unknown`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FellBehind;

// ===== impl LengthMismatch =====

impl fmt::Display for LengthMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expected, received } = self;
        write!(
            f,
            "the response announced a body of {expected} bytes, its source gave {received}"
        )
    }
}

impl Error for LengthMismatch {}

// ===== impl FellBehind =====

impl fmt::Display for FellBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this copy of a body larger than `max_body` was read too slowly")
    }
}

impl Error for FellBehind {}
