//! Accepts connections, and lets them end in peace.

use std::{convert::Infallible, net::SocketAddr, pin::pin, time::Duration};

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tower::{BoxError, Service};

/// Serves each connection, HTTP/1.1 or h2c, by what `service` makes for it, until `stop`. Then nobody new is let in, and
/// this ends when all that was asked has been answered.
pub(crate) async fn serve<M, S, B>(
    listener: TcpListener,
    service: M,
    stop: impl Future<Output = ()>,
) where
    M: Fn(SocketAddr) -> S,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // A client that never ends its head is sent away.
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    let graceful = GracefulShutdown::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, as a rule; it passes when clients leave.
                eprintln!("accept: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // It has gone if this fails; reading will say so.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(service(peer));
        let connection = builder
            .serve_connection_with_upgrades(TokioIo::new(stream), service)
            .into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A client that broke off, or no HTTP: nobody is left to be told.
            let _ = connection.await;
        });
    }
    drop(listener);
    graceful.shutdown().await;
}
