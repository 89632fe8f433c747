//! Below the layer: a request to an upstream, and its response.

mod body;
mod call;
mod choice;
mod connection;
mod failure;
mod origin;
mod pinned;
mod tunnel;

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{Either, Empty, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};

use self::{body::UpstreamBody, connection::Connector};
pub(crate) use self::{origin::Origin, pinned::Pinned};
use crate::{cli::Cli, observe::Observed};

/// What the upstream sends, frame by frame, or a line of ours.
pub(crate) type Body = Either<UpstreamBody, Full<Bytes>>;

type RequestBody = Either<Incoming, Empty<Bytes>>;

/// The ways to the upstreams.
#[derive(Debug)]
pub(crate) struct Upstreams {
    origins: Box<[Origin]>,
    connector: Connector,
    /// Keeps connections for the next requests.
    pool: Client<Connector, RequestBody>,
    /// A new connection for each request.
    fresh: Client<Connector, RequestBody>,
    timeout: Duration,
    body_timeout: Option<Duration>,
    preserve_host: bool,
    observed: Arc<Observed>,
}

// ===== impl Upstreams =====

impl Upstreams {
    /// # Errors
    ///
    /// TLS is asked for, and the system's roots can't be had.
    pub(crate) fn new(cli: &Cli, observed: &Arc<Observed>) -> io::Result<Self> {
        let origins: Box<[_]> = cli.upstream.iter().map(Origin::new).collect();
        let connector = connection::connector(origins.iter().any(Origin::is_secure))?;
        let client = |idle| {
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_max_idle_per_host(idle)
                .build(connector.clone())
        };
        Ok(Self {
            pool: client(usize::MAX),
            fresh: client(0),
            connector,
            origins,
            timeout: cli.timeout,
            body_timeout: cli.body_timeout,
            preserve_host: cli.preserve_host,
            observed: Arc::clone(observed),
        })
    }

    pub(crate) fn origins(&self) -> &[Origin] {
        &self.origins
    }

    /// Whether an upstream has a prefix, which no path may leave.
    pub(crate) fn prefixed(&self) -> bool {
        self.origins.iter().any(Origin::is_prefixed)
    }
}
