//! Loom models of the ground floor: every interleaving of a few threads, up to a number of preemptions.
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 cargo test --release --no-default-features --lib loom`
//!
//! Two preemptions take two seconds, three some thirty; the models of a promotion need three. A lost wake-up shows as
//! a deadlock. Each model names the mutation that it catches; each of these was made once by hand, seen to fail, and taken
//! back.
//!
//! | file | what it models |
//! | --- | --- |
//! | `join` | who joins while a flight begins, ends or panics |
//! | `leave` | who leaves last |
//! | `forget` | flights that are forgotten, and their leaders and successors |
//! | `drive` | who drives: promotion, demotion, and wakers that come and go |
//! | `progress` | callers that read midway, are sent away, or take the lead |
//! | `runtime` | kept flights, and runtimes that shut down |
//! | `stand_ins` | what the modelled code runs on |

#[cfg(test)]
mod drive;
#[cfg(test)]
mod forget;
#[cfg(test)]
mod join;
#[cfg(test)]
mod leave;
#[cfg(test)]
mod progress;
#[cfg(test)]
mod runtime;
mod stand_ins;
#[cfg(test)]
mod support;

pub(crate) use self::stand_ins::{OnceLock, Runtime};
