//! What the tests across replicas need: servers, replicas as processes, and a network that fails.

mod process;
mod proxy;
mod server;

pub use process::{Got, Replica, Settings};
pub use proxy::Proxy;
pub use server::{Cluster, Kind, Server};
