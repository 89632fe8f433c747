//! The command line.

mod values;

use std::{fmt, io, net::SocketAddr, path::PathBuf, time::Duration};

use clap::Parser;
use http::{HeaderName, Uri};

use crate::logs;

/// Where the store is. A password in it is shown to nobody.
#[derive(Clone)]
pub(crate) struct StoreUrl(
    #[cfg_attr(
        not(feature = "replicas"),
        expect(dead_code, reason = "there is no client for it")
    )]
    pub(crate) String,
);

/// What kind of store it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreKind {
    Single,
    Cluster,
    /// The server that sentinels say is this one.
    Sentinel(String),
}

/// A reverse proxy that makes one upstream call when identical requests arrive at the same time.
#[derive(Clone, Debug, Parser)]
#[command(name = "reverse_proxy", version)]
pub struct Cli {
    /// Where clients connect, with HTTP/1.1 or h2c.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// Speak TLS to clients, with this chain of certificates (PEM). HTTP/2 by ALPN.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The private key of --tls-cert (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Where the operator connects: a live page, /stats, /metrics, /healthz, /forget and /enabled. It asks for no
    /// password.
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin: Option<SocketAddr>,
    /// A name by which the operator reaches the admin port, beside addresses and localhost. Repeat for more.
    #[arg(long, value_name = "NAME")]
    pub(crate) admin_host: Vec<String>,
    /// Log a line for each request: client, method, path, status, bytes, time and role.
    #[arg(long)]
    pub(crate) access_log: bool,
    /// How long requests in flight may take to end after the first SIGINT or SIGTERM.
    #[arg(long, value_name = "TIME", value_parser = values::duration, default_value = "30s")]
    pub(crate) drain_timeout: Duration,

    /// The origin, http[s]://host[:port][/prefix]. Repeat for more: a consistent hash of the URI chooses one, so that
    /// every proxy sends a URI to the same upstream; where that one can't be reached, the next is asked.
    #[arg(long, value_name = "URL", value_parser = values::upstream, required = true, help_heading = "Upstream")]
    pub(crate) upstream: Vec<Uri>,
    /// Send the client's Host to the upstream instead of the upstream's own.
    #[arg(long, help_heading = "Upstream")]
    pub(crate) preserve_host: bool,
    /// How long the upstream may take until the head of its response, the request's body included; then the answer is
    /// 504. It is the call's, and so one for all who share it.
    #[arg(long, value_name = "TIME", value_parser = values::duration, default_value = "30s", help_heading = "Upstream")]
    pub(crate) timeout: Duration,
    /// How long the upstream may be silent within a response body; then the body breaks off. Default: no limit.
    #[arg(long, value_name = "TIME", value_parser = values::duration, help_heading = "Upstream")]
    pub(crate) body_timeout: Option<Duration>,

    /// Leave the layer out: a plain proxy, to compare with.
    #[arg(long, help_heading = "Coalescing")]
    pub(crate) no_coalesce: bool,
    /// A request field in which identical requests may differ, beside those of the default key. Repeat for more.
    #[arg(long, value_name = "FIELD", value_parser = values::field, help_heading = "Coalescing")]
    pub(crate) ignore_header: Vec<HeaderName>,
    /// The largest response body that is copied for followers.
    #[arg(long, value_name = "BYTES", value_parser = values::bytes, default_value = "2MiB", help_heading = "Coalescing")]
    pub(crate) max_body: usize,
    /// The memory of all copies together. Default: that of the layer.
    #[arg(long, value_name = "BYTES", value_parser = values::bytes, help_heading = "Coalescing")]
    pub(crate) max_buffered: Option<usize>,
    /// How many requests may share one call. Default: no limit.
    #[arg(long, value_name = "N", help_heading = "Coalescing")]
    pub(crate) max_waiters: Option<usize>,
    /// How old a call may be that is still joined (250ms, 5s, 2m). Default: that of the layer.
    #[arg(long, value_name = "TIME", value_parser = values::duration, help_heading = "Coalescing")]
    pub(crate) max_age: Option<Duration>,
    /// How long a response body may be silent and its call is still joined. Default: that of the layer.
    #[arg(long, value_name = "TIME", value_parser = values::duration, help_heading = "Coalescing")]
    pub(crate) max_silence: Option<Duration>,
    /// How long a follower waits for a head before it makes its own call. Default: no limit.
    #[arg(long, value_name = "TIME", value_parser = values::duration, help_heading = "Coalescing")]
    pub(crate) wait_timeout: Option<Duration>,
    /// Of the requests that could share a call, audit this share (0 to 1): each makes its own call, and its answer is
    /// compared with that of the call that it could have shared. The page and /stats count what differs, the log names it.
    /// With 1 nothing is coalesced.
    #[arg(long, value_name = "SHARE", value_parser = values::share, default_value = "0", help_heading = "Coalescing")]
    pub(crate) audit: f64,
    /// Append a Cache-Status member of this name to responses.
    #[arg(long, value_name = "NAME", value_parser = values::cache_name, help_heading = "Coalescing")]
    pub(crate) cache_status: Option<String>,

    /// Make one call for several proxies together, by this Redis or Valkey server that all of them use:
    /// redis[s]://[user:password@]host[:port][/db]. While it is down each proxy coalesces on its own. The proxies must see
    /// the same Host: a proxy before them keeps the client's. In the environment variable no list of processes shows the
    /// password. Needs the feature `replicas`.
    #[arg(
        long,
        value_name = "URL",
        env = "REVERSE_PROXY_REPLICAS",
        hide_env_values = true,
        value_delimiter = ',',
        requires = "namespace",
        requires = "secret_file",
        conflicts_with = "no_coalesce",
        help_heading = "Across proxies"
    )]
    pub(crate) replicas: Vec<StoreUrl>,
    /// What the proxies have in common: the service behind them, its version, their options. Proxies of different
    /// namespaces never share a response.
    #[arg(long, value_name = "NAME", value_parser = values::namespace, requires = "replicas", help_heading = "Across proxies")]
    pub(crate) namespace: Option<String>,
    /// A file with at least 32 bytes that these proxies know and nobody else: openssl rand -hex 32 > FILE
    #[arg(
        long,
        value_name = "FILE",
        requires = "replicas",
        help_heading = "Across proxies"
    )]
    pub(crate) secret_file: Option<PathBuf>,
    /// The longest wait for the store before a call. Default: that of the layer.
    #[arg(long, value_name = "TIME", value_parser = values::duration, requires = "replicas", help_heading = "Across proxies")]
    pub(crate) patience: Option<Duration>,
    /// `single`, `cluster`, or `sentinel:NAME` for the server that sentinels call so. Of the latter two, --replicas has the
    /// addresses of some nodes or sentinels, by commas.
    #[arg(long, value_name = "KIND", value_parser = values::store_kind, default_value = "single", requires = "replicas", help_heading = "Across proxies")]
    pub(crate) store: StoreKind,
}

// ===== impl StoreUrl =====

impl From<String> for StoreUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreUrl")
    }
}

// ===== impl Cli =====

impl Cli {
    /// Logs to standard error what `RUST_LOG` asks for; see the [crate's documentation](crate).
    ///
    /// # Errors
    ///
    /// `RUST_LOG` can't be read.
    pub fn init_logs(&self) -> io::Result<()> {
        logs::init(self.access_log)
    }
}
