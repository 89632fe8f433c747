//! Which requests are identical.
//!
//! [`KeyExtractor`] is the hook, [`RequestKeyExtractor`] the default, [`method_and_uri`] the bare alternative.

// | file | what it holds |
// | --- | --- |
// | `extractor` | `KeyExtractor` and `method_and_uri` |
// | `request` | the default key, and its extractor |
// | `and` | the default key and one of the user's |
// | `ignored` | the request fields that the default key leaves out: those that a user adds, beside the list in `rules/request_field.rs` |
// | `forwarded` | of `Forwarded`, what may be left out |
// | `named` | the fields that `Connection` names |
// | `host` | the host of a request, split for comparison |
// | `target` | the request's URI, as a key keeps it |
// | `digest` | the keyed digest of a key's parts |
mod and;
mod digest;
mod extractor;
mod forwarded;
mod host;
mod ignored;
mod named;
mod request;
mod target;

pub use and::RequestKeyAnd;
pub(crate) use digest::secret;
pub use extractor::{KeyExtractor, method_and_uri};
pub(crate) use host::Host;
pub use request::{RequestKey, RequestKeyExtractor};
