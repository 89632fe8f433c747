//! The layer's future.

// `response` holds it and its states, `poll` polls each of them, `after_response` is what the layer learns from a
// response that only its caller gets.
mod after_response;
mod poll;
mod response;

pub(crate) use self::after_response::{AfterResponse, Unshareable, Write};
pub use self::response::ResponseFuture;
