//! Which requests are identical.
//!
//! [`KeyExtractor`] is the hook, [`RequestKeyExtractor`] the default, [`method_and_uri`] the bare alternative.

mod digest;
mod extractor;
mod ignore;
mod request;
mod target;

pub use extractor::{KeyExtractor, method_and_uri};
pub use request::{RequestKey, RequestKeyExtractor};
pub(crate) use target::Target;
