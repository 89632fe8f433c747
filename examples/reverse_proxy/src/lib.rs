//! A reverse proxy that makes one upstream call when identical requests arrive at the same time.
//!
//! ```not_rust
//! cargo run --release --example origin -- --latency-ms 5
//! cargo run --release -p reverse_proxy -- --upstream http://127.0.0.1:9000 --admin 127.0.0.1:8081
//! wrk -t2 -c256 -d30s http://127.0.0.1:8080/hot
//! ```
//!
//! Then look at <http://127.0.0.1:8081>: 256 clients ask for one page as fast as they can, and the origin sees one call at
//! a time. The switch on the page, or `POST /enabled?on=false`, shows what the layer saves it. `--help` has every option.
//!
//! # Order
//!
//! From outside in:
//!
//! 1. A request whose host or target is in doubt is refused. Others are brought into one form, whichever version of HTTP they
//!    came by, and say who asks: `X-Forwarded-For`, `X-Real-IP`, `Forwarded`. An origin that answers by one of these and says
//!    so in `Vary` is obeyed; one that does not say so answers all who share a call alike.
//! 2. The layer.
//! 3. Fields of one hop are removed, `Via` is added, and the upstream is called under a time limit. So the limit is the
//!    flight's, and the upstream sees the client that leads.
//!
//! # Failures
//!
//! A call without a response is a 502 or 504 for all who share it, and a line in the log with its cause. A safe request without
//! a body is sent once more where a connection that had been used before breaks without a byte of an answer: as a rule the
//! upstream had closed it already.
//!
//! # Try before you trust
//!
//! `--audit 1` coalesces nothing. Of the requests that could share a call each makes its own, and the two answers are compared:
//! `audited` in `/stats` says how many calls would be saved, and `audit_differed`, the page and the log say where answers differ
//! that should not. With `--audit 0.01` one in a hundred keeps watch.
//!
//! # Several upstreams
//!
//! A consistent hash of the path and query chooses one, so that a layer in each of them sees all requests for a URI:
//!
//! ```not_rust
//! reverse_proxy --no-coalesce --upstream http://10.0.0.1:8080 --upstream http://10.0.0.2:8080
//! ```
//!
//! A request without a body that can't be sent to its upstream goes to the next one.
//!
//! # Several proxies
//!
//! Proxies that stand side by side make one call among them, by a Redis or Valkey server that they share:
//!
//! ```not_rust
//! openssl rand -hex 32 > secret
//! cargo run --release -p reverse_proxy --features replicas -- --upstream http://10.0.0.1:8080 \
//!     --replicas redis://10.0.0.9:6379 --namespace shop/2026-11-26 --secret-file secret
//! ```
//!
//! All of them have the same `--namespace` and the same secret; what differs never meets. They must see the same `Host`: a
//! proxy of this kind before them needs `--preserve-host`. A store that is down or slow costs a request `--patience` at most, and
//! then each proxy coalesces on its own. The page and `/stats` say how the store does, and how many calls led for all proxies,
//! followed another proxy's, or were made alone, and why. A response of more than 1 MiB stays with its proxy.
//!
//! # Connections that stand for a user
//!
//! A client that authenticates by NTLM or Negotiate gets an upstream connection of its own, since these authenticate the
//! connection. Its requests are not coalesced.
//!
//! # Upgrades and the end
//!
//! Upgrades (WebSocket) are tunnelled; they are never coalesced. SIGINT or SIGTERM lets requests in flight end, for as long as
//! `--drain-timeout`, and `/healthz` says 503 meanwhile; tunnels are not waited for. A second signal ends at once.
//!
//! # The admin port
//!
//! `/` is the page, and `/stats` and `/metrics` have its numbers. The Grafana dashboard in `examples/dashboards` shows those of the
//! layer. `POST /forget?uri=/path`, `/forget?all=true` and `/enabled?on=false` act. The port asks for no password, so bind it to an
//! address that strangers can't reach. Pages of other sites can't reach it through the operator's browser: it answers to addresses,
//! localhost and the names of `--admin-host`.
//!
//! # Logs
//!
//! `RUST_LOG` chooses what is logged, `info` by default: `reverse_proxy=debug`, or `tower_singleflight=trace` for what becomes
//! of each request in the layer, and why. `--access-log` adds a line for each request. Neither has queries, which hold secrets.

#![forbid(unsafe_code)]

mod admin;
mod cli;
mod front;
mod headers;
mod logs;
mod observe;
mod proxy;
mod receive;
mod replicas;
mod server;
mod tls;
mod upstream;

pub use self::{cli::Cli, proxy::Proxy};
