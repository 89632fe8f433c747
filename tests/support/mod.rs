//! What the tests of all floors share.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `work` | gates, counters, polling by hand, panics: for work of a `Group`, without HTTP |
//! | `random` | random numbers that a seed repeats |
//! | `fields` | names of request fields that the default key leaves out |
//! | `callers` | requests, what their callers get, and that nothing is left |
//! | `origin` | an inner service whose calls wait at a gate |
//! | `body` | an inner service whose every call the test answers, with bodies whose every frame it sends |
//! | `wire` | HTTP/1.1 read from a socket by the letter of RFC 9112, and hyper's server over a service |
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
mod callers;
pub(crate) mod fields;
#[cfg(feature = "http")]
mod origin;
mod random;
#[cfg(feature = "http")]
pub(crate) mod sockets;
#[cfg(feature = "http")]
pub(crate) mod wire;
mod work;

#[cfg(feature = "http")]
pub(crate) use self::{callers::*, origin::*};
pub(crate) use self::{random::*, work::*};
