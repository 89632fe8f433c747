//! Singleflight of any asynchronous work; no HTTP, no Tower.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`singleflight`] | [`Group`] |
//! | `run` | [`Run`] and [`Outcome`], what a caller holds and gets |
//! | `table` | key to flight, sharded |
//! | `flight` | one flight: its states, landing and leaving, with the invariants |
//! | `drive` | who polls the work: the leader, a task, or the callers |
//! | `caller` | one caller's part in a flight, and its `Drop` |
//! | `wakers` | where the callers' wakers are kept |
//! | `ending` | value or panic |
//! | `runtime` | where a task is spawned |

mod caller;
mod drive;
mod ending;
mod flight;
#[cfg(all(test, loom))]
mod loom;
mod run;
mod runtime;
mod singleflight;
mod table;
mod wakers;

#[cfg(feature = "http")]
pub(crate) use self::{
    caller::Caller,
    flight::Flight,
    runtime::Runtime,
    table::{Entered, Table, Visit},
    wakers::{Interest, Wakers},
};
pub use self::{
    run::{Outcome, Run},
    singleflight::Group,
};
