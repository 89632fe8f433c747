//! A reverse proxy that makes one upstream call when identical requests arrive at the same time.
//!
//! ```not_rust
//! cargo run --release -p reverse_proxy -- --upstream http://127.0.0.1:9000 --admin 127.0.0.1:8081
//! wrk -t2 -c256 -d30s http://127.0.0.1:8080/hot
//! ```
//!
//! Then look at <http://127.0.0.1:8081>: 256 clients ask for one page as fast as they can, and the origin sees one call at
//! a time. `POST /enabled?on=false` there, or the switch on the page, shows what the layer saves it.
//!
//! The order, from outside in: requests are brought into one form; the layer; hop-by-hop fields are removed,
//! `X-Forwarded-*` and `Via` are added, and the upstream is called under a timeout. So the timeout is the flight's, and the
//! upstream sees the client that leads. A service that answers by client address must add it to the key.
//!
//! Upgrades (WebSocket) are tunnelled; they are never coalesced. SIGINT or SIGTERM lets requests in flight end; a second
//! signal ends at once, tunnels too.

#![forbid(unsafe_code)]

mod admin;
mod cli;
mod forward;
mod headers;
mod metrics;
mod proxy;
mod server;
mod tunnel;

pub use self::{cli::Cli, proxy::Proxy};
