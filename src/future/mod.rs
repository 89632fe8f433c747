//! The layer's future.

// `response` holds it and its states, `poll` what a poll makes of each, `after_response` what the layer learns from a
// response that came to its caller alone.
mod after_response;
mod poll;
mod response;

pub(crate) use self::after_response::{Unshareable, Write};
pub use self::response::ResponseFuture;
