//! The proxy as a whole: its ports and the order of its layers.

use std::{fmt, io, net::SocketAddr, sync::Arc};

use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower::{Layer, service_fn};
use tower_singleflight::{RequestKeyExtractor, SingleflightLayer};

use crate::{
    admin::Admin,
    cli::Cli,
    front::Fronts,
    observe::{HotPaths, Observed},
    replicas,
    server::Server,
    tls,
    upstream::Upstreams,
};

/// A proxy whose ports are open.
pub struct Proxy {
    cli: Cli,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    admin: Option<TcpListener>,
    observed: Arc<Observed>,
    upstreams: Arc<Upstreams>,
    /// The one value: its clones share the flights, another would have its own.
    layer: SingleflightLayer,
}

// ===== impl Proxy =====

impl Proxy {
    /// Opens the ports that `cli` names.
    ///
    /// # Errors
    ///
    /// A port that can't be had, a certificate, or what `--replicas` needs; the error names it.
    pub async fn bind(cli: Cli) -> io::Result<Self> {
        let tls = match (&cli.tls_cert, &cli.tls_key) {
            (Some(cert), Some(key)) => Some(tls::acceptor(cert, key)?),
            _ => None,
        };
        let listener = listen(cli.listen).await?;
        let admin = match cli.admin {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let observed = Arc::new(Observed {
            hot_paths: admin.is_some().then(HotPaths::default),
            access_log: cli.access_log,
            ..Observed::default()
        });
        Ok(Self {
            upstreams: Arc::new(Upstreams::new(&cli, &observed)?),
            layer: replicas::across(layer(&cli), &cli)?,
            cli,
            listener,
            tls,
            admin,
            observed,
        })
    }

    /// Where clients connect.
    ///
    /// # Errors
    ///
    /// Those of [`TcpListener::local_addr`].
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where the operator connects, if there is such a port.
    ///
    /// # Errors
    ///
    /// Those of [`TcpListener::local_addr`].
    pub fn admin_address(&self) -> io::Result<Option<SocketAddr>> {
        self.admin.as_ref().map(TcpListener::local_addr).transpose()
    }

    /// Whether clients connect with TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// Serves until `stop`, and then until every request that has arrived is answered or the limit on that has passed.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let admin = Admin::new(
            &self.cli,
            self.layer.handle(),
            &self.upstreams,
            &self.observed,
        );
        let draining = admin.draining();
        let admin = admin.serve(self.admin);

        let forward = {
            let upstreams = Arc::clone(&self.upstreams);
            service_fn(move |request| upstreams.forward(request))
        };
        let fronts = Fronts {
            layered: self.layer.layer(forward.clone()),
            forward,
            coalesce: !self.cli.no_coalesce,
            observed: self.observed,
            upstreams: self.upstreams,
        };
        let server = Server {
            listener: self.listener,
            tls: self.tls,
            drain: self.cli.drain_timeout,
        };
        let stop = async {
            stop.await;
            draining.begin();
        };
        // While requests in flight end, the operator may watch.
        tokio::select! {
            open = server.serve(|peer, secure| fronts.of(peer, secure), stop) => {
                if open > 0 {
                    tracing::warn!(open, "ended with connections open: --drain-timeout has passed");
                }
            }
            () = admin => {}
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Proxy");
        debug.field("cli", &self.cli).finish_non_exhaustive()
    }
}

/// The layer that the options ask for.
fn layer(cli: &Cli) -> SingleflightLayer {
    let key = RequestKeyExtractor::new().ignore_headers(cli.ignore_header.iter().cloned());
    let mut layer = SingleflightLayer::with_extractor(key)
        .name("reverse_proxy")
        .max_body(cli.max_body)
        .audit(cli.audit);
    if let Some(bytes) = cli.max_buffered {
        layer = layer.max_buffered(bytes);
    }
    if let Some(n) = cli.max_waiters {
        layer = layer.max_waiters(n);
    }
    if let Some(age) = cli.max_age {
        layer = layer.max_age(age);
    }
    if let Some(silence) = cli.max_silence {
        layer = layer.max_silence(silence);
    }
    if let Some(wait) = cli.wait_timeout {
        layer = layer.wait_timeout(wait);
    }
    if let Some(name) = &cli.cache_status {
        layer = layer.cache_status(name);
    }
    layer
}

/// Of two addresses the error must say which.
async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| {
        io::Error::new(error.kind(), format!("can't listen on {address}: {error}"))
    })
}
