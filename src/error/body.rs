//! What can go wrong with a body.

use std::{error::Error, fmt};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// Its length is not the announced one.
    LengthMismatch { expected: u64, received: u64 },
    /// Its trailers are only for the leader.
    PrivateTrailers,
}

// ===== impl BodyError =====

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LengthMismatch { expected, received } => {
                return write!(
                    f,
                    "the response announced a body of {expected} bytes, its source gave {received}"
                );
            }
            Self::PrivateTrailers => "the body's trailers are for another caller alone",
        })
    }
}

impl Error for BodyError {}
