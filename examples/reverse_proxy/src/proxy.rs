//! The proxy as a whole: its ports and the order of its layers.

use std::{io, net::SocketAddr, sync::Arc};

use http::HeaderValue;
use tokio::net::TcpListener;
use tower::{Layer, ServiceBuilder, service_fn};
use tower_singleflight::SingleflightLayer;

use crate::{admin::Admin, cli::Cli, forward::Upstream, server};

/// A proxy whose ports are open.
#[derive(Debug)]
pub struct Proxy {
    cli: Cli,
    listener: TcpListener,
    admin: Option<TcpListener>,
    /// The one value: its clones share the flights, another would have its own.
    layer: SingleflightLayer,
}

// ===== impl Proxy =====

impl Proxy {
    /// Opens the ports that `cli` names.
    ///
    /// # Errors
    ///
    /// A port that can't be had; the error names it.
    pub async fn bind(cli: Cli) -> io::Result<Self> {
        let listener = listen(cli.listen).await?;
        let admin = match cli.admin {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let mut layer = SingleflightLayer::new().max_body(cli.max_body);
        if let Some(age) = cli.max_age {
            layer = layer.max_age(age);
        }
        if let Some(wait) = cli.wait_timeout {
            layer = layer.wait_timeout(wait);
        }
        if let Some(name) = &cli.cache_status {
            layer = layer.cache_status(name);
        }
        Ok(Self {
            cli,
            listener,
            admin,
            layer,
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

    /// Serves until `stop`, and then until every request that has arrived is answered.
    ///
    /// # Errors
    ///
    /// Those of the admin port.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> io::Result<()> {
        let Self {
            cli,
            listener,
            admin,
            layer,
        } = self;
        let upstream = Arc::new(Upstream::new(cli.upstream.clone(), cli.timeout));
        let admin = Admin::new(&cli, layer.handle(), Arc::clone(&upstream)).serve(admin);

        let forward = {
            let upstream = Arc::clone(&upstream);
            move |peer: SocketAddr| {
                let upstream = Arc::clone(&upstream);
                let client = peer.ip().to_canonical().to_string();
                let client = HeaderValue::try_from(client).expect("an address is plain text");
                service_fn(move |request| upstream.forward(&client, request))
            }
        };
        let receive = ServiceBuilder::new().map_request({
            let upstream = Arc::clone(&upstream);
            move |request| upstream.receive(request)
        });

        // While what is in the air lands, the operator may watch.
        let proxy = async {
            if cli.no_coalesce {
                server::serve(listener, |peer| receive.service(forward(peer)), stop).await;
            } else {
                let stack = |peer| receive.service(layer.layer(forward(peer)));
                server::serve(listener, stack, stop).await;
            }
        };
        tokio::select! {
            () = proxy => Ok(()),
            result = admin => result,
        }
    }
}

/// Of two addresses the error must say which.
async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))
}
