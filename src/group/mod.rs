//! Singleflight for any asynchronous work, without HTTP or Tower.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`singleflight`] | [`Group`] |
//! | `run` | [`Run`], what a caller holds |
//! | `outcome` | [`Outcome`], what it gets |
//! | `try_run` | `Group::try_run` and [`TryRun`], for work that can fail |
//! | `value` | [`ShareValue`], what work may return |
//! | `table` | key to flight: lead or join, forget |
//! | `shard` | one lock of the table, and the entries behind it |
//! | `entries` | how flights are linked in a shard, and how a solo one becomes whole |
//! | `solo` | a flight whose leader is alone: just an entry |
//! | `solo_leader` | the leader of a solo flight |
//! | `replicated` | a group across replicas: contend for the lead before the work, or take another's value |
//! | `across` | a caller's share in a flight of such a group |
//! | `codec` | [`Codec`], how values are written for other replicas |
//! | `matching` | lead or join a flight that is chosen by the data it carries: how the HTTP layer uses the table |
//! | `caller` | one caller's part in a flight, and its `Drop` |
//! | `drive` | who polls the work: the leader, a task, or the callers |
//! | `task` | the task that drives a shared flight |
//! | `flight` | one flight: how it ends and who leaves it, with the invariants |
//! | `state` | what its lock guards: the work, its driver, the waiting callers |
//! | `cancel` | dropping work that nobody waits for |
//! | `wakers` | the callers' wakers, taken under a lock and woken outside it |
//! | `work` | the work, and the runtime to which it belongs |
//! | `runtime` | where a task is spawned |
//! | `name` | a group's name in metrics and spans |
//! | `observed` | reports the work of a named group to `tracing` and `metrics` |
//! | `report` | calls observers, and stops their panics |
//! | `panic` | panics as values |

#[cfg(feature = "redis")]
mod across;
mod caller;
mod cancel;
#[cfg(feature = "redis")]
mod codec;
mod drive;
mod entries;
mod flight;
#[cfg(loom)]
mod loom;
#[cfg(any(feature = "http", loom))]
mod matching;
mod name;
#[cfg(any(feature = "tracing", feature = "metrics"))]
mod observed;
mod outcome;
mod panic;
#[cfg(feature = "redis")]
mod replicated;
#[cfg(all(test, feature = "redis"))]
mod replicated_tests;
#[cfg(any(feature = "tracing", feature = "metrics"))]
mod report;
mod run;
mod runtime;
mod shard;
mod singleflight;
mod solo;
mod solo_leader;
mod state;
mod table;
mod task;
mod try_run;
mod value;
mod wakers;
mod work;

#[cfg(feature = "redis")]
pub use self::codec::Codec;
#[cfg(loom)]
pub(crate) use self::loom::OnceLock;
#[cfg(any(feature = "http", feature = "redis"))]
pub(crate) use self::panic::{caught, drop_quietly};
#[cfg(all(feature = "http", feature = "metrics"))]
pub(crate) use self::report::declare_metrics;
#[cfg(feature = "metrics")]
pub(crate) use self::report::record;
#[cfg(all(feature = "http", feature = "tracing"))]
pub(crate) use self::report::{Span, report, report_end};
#[cfg(feature = "http")]
pub(crate) use self::{
    caller::Caller,
    flight::{Entry, Flight},
    matching::{Admission, Match, Matcher},
    name::Name,
    runtime::Runtime,
    solo_leader::SoloLeader,
    table::Table,
    wakers::Wakers,
    work::{Drive, Polled, PolledBy, Work, WorkEnd},
};
pub use self::{
    outcome::Outcome, run::Run, singleflight::Group, try_run::TryRun, value::ShareValue,
};
