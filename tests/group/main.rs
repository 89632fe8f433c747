//! A `Group`: callers, flights and work, without HTTP.

#[path = "../support/mod.rs"]
mod support;

mod driving;
mod forget;
mod kept;
mod leaving;
mod linearizable;
mod panic_hook;
mod panics;
mod reentrancy;
mod sharing;
mod solo;
mod types;
mod wakers;
