//! Accepts connections, and lets them end in peace.

use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower::{BoxError, Service};

/// A client that connects and then says nothing.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A port, and how it is served.
pub(crate) struct Server {
    pub(crate) listener: TcpListener,
    pub(crate) tls: Option<TlsAcceptor>,
    /// How long connections may take to end.
    pub(crate) drain: Duration,
}

// ===== impl Server =====

impl Server {
    /// Serves each connection, HTTP/1.1 or HTTP/2, by what `service` makes for it, until `stop`. Then nobody new is let in,
    /// and this ends when every request is answered or the limit on that has passed.
    ///
    /// Returns how many connections were open then.
    pub(crate) async fn serve<M, S, B>(self, service: M, stop: impl Future<Output = ()>) -> usize
    where
        M: Fn(SocketAddr, bool) -> S,
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        // A client that never ends its head is sent away.
        builder.http1().timer(TokioTimer::new());
        builder.http2().timer(TokioTimer::new());
        let builder = Arc::new(builder);
        let graceful = GracefulShutdown::new();
        // Dropped with this future, they end with it.
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                () = &mut stop => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, as a rule; it passes when clients leave.
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            // It has gone if this fails; reading will say so.
            let _ = stream.set_nodelay(true);
            let service = service(peer, self.tls.is_some());
            let (builder, watcher) = (Arc::clone(&builder), graceful.watcher());
            match self.tls.clone() {
                None => connections.spawn(connection(builder, watcher, stream, service)),
                Some(tls) => connections.spawn(async move {
                    if let Some(stream) = handshake(&tls, stream, peer).await {
                        connection(builder, watcher, stream, service).await;
                    }
                }),
            };
        }
        drop(self.listener);
        tokio::select! {
            () = graceful.shutdown() => 0,
            () = sleep(self.drain) => {
                while connections.try_join_next().is_some() {}
                connections.len()
            }
        }
    }
}

async fn handshake(
    tls: &TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    match timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "no TLS");
            None
        }
        Err(_) => {
            tracing::debug!(%peer, "no TLS in time");
            None
        }
    }
}

async fn connection<I, S, B>(
    builder: Arc<auto::Builder<TokioExecutor>>,
    watcher: Watcher,
    stream: I,
    service: S,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let service = TowerToHyperService::new(service);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    // A client that broke off, or no HTTP: nobody is left to be told.
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(error, "a client's connection ended in an error");
    }
}
