//! What can go wrong with a body.

use std::{error::Error, fmt};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// Its length is not the announced one.
    LengthMismatch { expected: u64, received: u64 },
    /// A follower fell behind in a body over `max_body` and can't call again, because its request is gone.
    FellBehind,
    /// A follower called again and got a different response.
    ResponseChanged,
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
            Self::FellBehind => "this copy of a body larger than `max_body` was read too slowly",
            Self::ResponseChanged => "the response changed while its body was read too slowly",
            Self::PrivateTrailers => "the body's trailers are for another caller alone",
        })
    }
}

impl Error for BodyError {}
