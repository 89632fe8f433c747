//! Which requests are identical.
//!
//! [`KeyExtractor`] is the hook, [`RequestKeyExtractor`] the default, [`method_and_uri`] the bare alternative.

mod and;
mod digest;
mod extractor;
mod forwarded;
mod host;
mod ignored;
mod may_differ;
mod named;
mod request;
mod target;

pub use and::RequestKeyAnd;
pub(crate) use digest::secret;
pub use extractor::{KeyExtractor, method_and_uri};
pub(crate) use host::Host;
pub(crate) use may_differ::MayDiffer;
pub use request::{RequestKey, RequestKeyExtractor};
