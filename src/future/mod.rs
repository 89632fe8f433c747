//! The layer's future.

// `response` holds it and its states, `poll` what a poll makes of each, `tells` what a response that came to its caller
// alone tells the layer.
mod poll;
mod response;
mod tells;

pub use self::response::ResponseFuture;
pub(crate) use self::tells::Known;
