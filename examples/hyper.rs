//! A server on hyper alone, HTTP/1.1 and HTTP/2 on one port, with a service built for each connection.
//!
//! ```not_rust
//! cargo run --example hyper
//! seq 10 | xargs -P 10 -I{} curl -s http://127.0.0.1:3000/report
//! seq 10 | xargs -P 10 -I{} curl -s --http2-prior-knowledge http://127.0.0.1:3000/report
//! ```
//!
//! Each curl is a connection of its own, and yet ten of them get the same report: the flights belong to
//! the layer value, of which every connection's service holds a clone. A layer made anew inside the loop
//! would share nothing across connections.
//! An address may be given: `cargo run --example hyper 127.0.0.1:8080`.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_singleflight::SingleflightLayer;

static REPORTS: AtomicU64 = AtomicU64::new(0);

async fn report(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let number = REPORTS.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let text = format!("report {number} over {:?}\n", request.version());
    Ok(Response::new(Full::from(text)))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let layer = SingleflightLayer::new();

    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}/report", listener.local_addr()?);
    loop {
        let (stream, peer) = listener.accept().await?;
        let service = ServiceBuilder::new()
            .layer(layer.clone())
            .service_fn(report);
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            let service = TowerToHyperService::new(service);
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                eprintln!("connection from {peer}: {error}");
            }
        });
    }
}
