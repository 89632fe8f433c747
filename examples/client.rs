//! The layer around a client: identical requests that leave this program become one.
//!
//! ```not_rust
//! cargo run --example client
//! ```
//!
//! The program starts an origin of its own on loopback, which takes 200 ms and counts its calls, sends it
//! twenty identical requests at once, and prints what role each response had and how many calls
//! arrived.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::{Router, routing::get};
use futures_util::future::try_join_all;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_singleflight::{Role, SingleflightLayer};

const CALLERS: usize = 20;

type Calls = Arc<AtomicU64>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let calls = Calls::default();
    let uri = format!("http://{}/rates", origin(Arc::clone(&calls)).await?);

    // The client's error can't be given to several callers, an `Arc` of it can: hence `map_err`, below the
    // layer.
    let client = ServiceBuilder::new()
        .layer(SingleflightLayer::new())
        .map_err(Arc::new)
        .service(Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>());

    let responses = try_join_all((0..CALLERS).map(|_| {
        let (client, uri) = (client.clone(), uri.as_str());
        async move {
            let response = client
                .oneshot(Request::get(uri).body(Empty::new())?)
                .await?;
            let role = response.extensions().get::<Role>().copied();
            let body = response.into_body().collect().await?.to_bytes();
            Ok::<_, BoxError>((role, body))
        }
    }))
    .await?;

    let count = |role| {
        responses
            .iter()
            .filter(|response| response.0 == Some(role))
            .count()
    };
    println!("requests   {}", responses.len());
    println!("leaders    {}", count(Role::Leader));
    println!("followers  {}", count(Role::Follower));
    println!("calls      {}", calls.load(Ordering::Relaxed));

    let (_, first) = &responses[0];
    if responses.iter().any(|(_, body)| body != first) {
        return Err("the bodies differ".into());
    }
    println!("all of them got {:?}", String::from_utf8_lossy(first));
    Ok(())
}

/// Starts the origin and returns its address.
async fn origin(calls: Calls) -> std::io::Result<std::net::SocketAddr> {
    async fn rates(State(calls): State<Calls>) -> String {
        let call = calls.fetch_add(1, Ordering::Relaxed) + 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
        format!("EUR/USD 1.08, call {call}")
    }

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let app = Router::new().route("/rates", get(rates)).with_state(calls);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}
