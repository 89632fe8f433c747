//! Errors that several callers can have.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `shared` | [`SharedError`] |
//! | `share` | [`ShareError`], what the inner service's error must be |
//! | `body` | what can be wrong with a body |

#[cfg(feature = "http")]
mod body;
#[cfg(feature = "http")]
mod share;
mod shared;

#[cfg(feature = "http")]
pub(crate) use self::body::BodyError::{LengthMismatch, PrivateTrailers};
#[cfg(feature = "http")]
pub use self::share::ShareError;
pub use self::shared::SharedError;

/// The error type of Tower's and axum's middleware.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
