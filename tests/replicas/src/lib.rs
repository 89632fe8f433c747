//! What the tests across replicas need: servers, replicas as processes, and a network that fails.

pub mod http;
mod process;
mod proxy;
mod server;
mod settings;

pub use http::{HttpGot, HttpReplica, Origin};
pub use process::{Got, Replica};
pub use proxy::Proxy;
pub use server::{Cluster, Kind, Server};
pub use settings::Settings;
