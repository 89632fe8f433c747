//! What all clones of a layer have in common: its flights, and what it remembers and counts.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `registry` | the table of flights, and everything below |
//! | `cargo` | what the layer hangs on a flight: key, variant, stage, waiting followers, copy |
//! | `gauges` | counters, and [`Stats`] |
//! | `settings` | what the layer's builder sets |

mod cargo;
mod gauges;
mod registry;
mod settings;

pub use self::gauges::Stats;
pub(crate) use self::{
    cargo::{Cargo, Flight, Stage, Waiting},
    gauges::Event,
    registry::Flights,
    settings::{Settings, Shared},
};
