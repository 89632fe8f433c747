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

mod drive;
mod forget;
mod join;
mod leave;
mod progress;
mod runtime;
mod support;
