//! Request coalescing for Tower.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg_attr(
    not(feature = "http"),
    expect(dead_code, reason = "hooks for the floors above")
)]
mod group;
mod sync;

pub use self::group::{Group, Outcome, Run};
