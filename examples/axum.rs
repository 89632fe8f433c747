//! The smallest server: a handler that takes a second, and the layer.
//!
//! ```not_rust
//! cargo run --example axum
//! seq 10 | xargs -P 10 -I{} curl -s http://127.0.0.1:3000/report
//! ```
//!
//! The ten requests are in flight together, so the handler runs once and curl prints ten times
//! `report 0`. Ask again and it is `report 1`: the layer is no cache.
//! An address may be given: `cargo run --example axum 127.0.0.1:8080`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::{Router, routing::get};
use tower_singleflight::SingleflightLayer;

static REPORTS: AtomicU64 = AtomicU64::new(0);

async fn report() -> String {
    let number = REPORTS.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(1)).await;
    format!("report {number}\n")
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let app = Router::new()
        .route("/report", get(report))
        .layer(SingleflightLayer::new());

    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}/report", listener.local_addr()?);
    axum::serve(listener, app).await
}
