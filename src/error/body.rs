//! What can be wrong with a body.

use std::{error::Error, fmt};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// It was not as long as its response had said.
    LengthMismatch { expected: u64, received: u64 },
    /// A follower read a body over `max_body` so slowly that it has to call again, and its request is no longer there.
    FellBehind,
    /// A follower called again, and the response is not the one whose beginning it has had.
    ResponseChanged,
    /// It ended with trailers that are for the leader alone.
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
            Self::FellBehind => "this copy of a body larger than `max_body` was read too slowly",
            Self::ResponseChanged => "the response changed while its body was read too slowly",
            Self::PrivateTrailers => "the body's trailers are for another caller alone",
        })
    }
}

impl Error for BodyError {}
