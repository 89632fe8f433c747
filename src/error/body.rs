//! What can be wrong with a body.

use std::{error::Error, fmt};

/// A body that was not as long as its response had said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LengthMismatch {
    pub(crate) expected: u64,
    pub(crate) received: u64,
}

/// A follower read a body over `max_body` so slowly that it has to call again, and its request is no longer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FellBehind;

/// A follower called again, and the response is not the one whose beginning it has had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResponseChanged;

/// The body ended with trailers that are for the leader alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PrivateTrailers;

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

// ===== impl ResponseChanged =====

impl fmt::Display for ResponseChanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the response changed while its body was read too slowly")
    }
}

impl Error for ResponseChanged {}

// ===== impl PrivateTrailers =====

impl fmt::Display for PrivateTrailers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body's trailers are for another caller alone")
    }
}

impl Error for PrivateTrailers {}
