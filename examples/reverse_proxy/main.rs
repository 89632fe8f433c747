//! A reverse proxy that collapses identical requests in flight.
//!
//! ```not_rust
//! cargo run --release --example reverse_proxy -- --upstream http://127.0.0.1:9000 --admin 127.0.0.1:8081
//! wrk -t2 -c256 -d30s http://127.0.0.1:8080/hot
//! ```
//!
//! Then look at <http://127.0.0.1:8081>: 256 clients ask for one page as fast as they can, and the origin sees one call at
//! a time. `POST /enabled?on=false` there, or the switch on the page, shows it what it was spared.
//!
//! The order, from outside in: what the request says is put into one form; the layer; what belongs to one hop is taken
//! out, `X-Forwarded-*` and `Via` are put in, and the upstream is called under a timeout. So the timeout is the flight's,
//! and the upstream sees the client that leads. Who answers by client address must add it to the key.
//!
//! Upgrades (WebSocket) are tunnelled; they are never coalesced. SIGINT or SIGTERM lets all that is in the air land, a
//! second one ends at once, tunnels too.

mod admin;
mod cli;
mod forward;
mod headers;
mod metrics;
mod server;
mod tunnel;

use std::{io, net::SocketAddr, sync::Arc};

use clap::Parser;
use http::HeaderValue;
use tokio::{net::TcpListener, signal::unix};
use tower::{Layer, ServiceBuilder, service_fn};
use tower_singleflight::SingleflightLayer;

pub(crate) use self::cli::Cli;
use self::{admin::Admin, forward::Upstream};

/// A proxy whose ports are open.
pub(crate) struct Proxy {
    cli: Cli,
    listener: TcpListener,
    admin: Option<TcpListener>,
    /// The one value: its clones share the flights, another would have its own.
    layer: SingleflightLayer,
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let proxy = Proxy::bind(Cli::parse()).await?;
    println!("listening on http://{}", proxy.address()?);
    if let Some(address) = proxy.admin_address()? {
        println!("admin on http://{address}");
    }
    let twice = async {
        signal().await;
        eprintln!("waiting for what is in the air; once more to end at once");
        signal().await;
    };
    tokio::select! {
        result = proxy.serve(signal()) => result,
        () = twice => Err(io::Error::other("ended with requests in the air")),
    }
}

// ===== impl Proxy =====

impl Proxy {
    pub(crate) async fn bind(cli: Cli) -> io::Result<Self> {
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

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    pub(crate) fn admin_address(&self) -> io::Result<Option<SocketAddr>> {
        self.admin.as_ref().map(TcpListener::local_addr).transpose()
    }

    /// Ends after `stop`, when all that was asked has been answered.
    pub(crate) async fn serve(self, stop: impl Future<Output = ()>) -> io::Result<()> {
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

async fn signal() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        unix::signal(unix::SignalKind::interrupt()),
        unix::signal(unix::SignalKind::terminate()),
    ) else {
        // They keep their default, to end the process.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
