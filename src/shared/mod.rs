//! What all requests of a layer and of its clones share.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `shared` | everything that a service needs, in one `Arc` |
//! | `settings` | what the layer's builder sets |
//! | `flights` | the table of flights, and everything that goes with it |
//! | `audit_share` | which requests are audited |
//! | `stats` | counters, and [`Stats`] |
//! | `varying` | by which request fields the responses of a key vary |
//! | `unshareable` | the keys whose responses may not be shared |
//! | `write_target` | which URIs are the same target for a write |
//! | `writes` | which targets were written, and when |
//! | `replicated` | the connection to other replicas |

mod audit_share;
mod flights;
#[cfg(feature = "redis")]
mod replicated;
mod settings;
#[expect(
    clippy::module_inception,
    reason = "it is what the folder is named after"
)]
mod shared;
mod stats;
mod unshareable;
mod varying;
mod write_target;
mod writes;

#[cfg(feature = "redis")]
pub(crate) use self::replicated::Replicated;
pub use self::stats::Stats;
pub(crate) use self::{
    flights::Flights,
    settings::Settings,
    shared::Shared,
    stats::{Counters, Event},
    varying::VariantGuard,
    write_target::{HostHash, Resource},
};
