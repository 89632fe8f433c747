//! Which requests are identical.
//!
//! [`KeyExtractor`] is the hook, [`RequestKeyExtractor`] the default, [`method_and_uri`] the bare alternative.

mod digest;
mod extractor;
mod host;
mod ignore;
mod marks;
mod named;
mod request;

pub(crate) use digest::secret;
pub use extractor::{KeyExtractor, method_and_uri};
pub(crate) use marks::Marks;
pub use request::{RequestKey, RequestKeyExtractor};
