//! Request coalescing for Tower.
#![forbid(unsafe_code)]
#![allow(dead_code, unused_imports)] // temporary: floor 3 uses what is not used yet

#[cfg(feature = "http")]
mod cache_status;
#[cfg(feature = "http")]
mod key;
#[cfg(feature = "http")]
pub mod rules;

#[cfg(feature = "http")]
pub use key::{KeyExtractor, RequestKey, RequestKeyExtractor, method_and_uri};
