//! What the tests of all floors share.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `work` | gates, counters, and how to poll by hand: work of a `Group`, without HTTP |
//! | `origin` | an inner service whose calls wait at a gate, and callers of the layer over it |
//! | `body` | an inner service whose every call the test answers, with bodies whose every frame it sends |
//! | `sockets` | servers and clients over loopback |
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "each test binary uses its part"
)]

#[cfg(feature = "http")]
pub(crate) mod body;
#[cfg(feature = "http")]
pub(crate) mod gated;
#[cfg(feature = "http")]
pub(crate) mod origin;
#[cfg(feature = "http")]
pub(crate) mod sockets;
pub(crate) mod work;
