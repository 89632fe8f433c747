//! A slow origin, to try the reverse proxy beside it with.
//!
//! ```not_rust
//! cargo run --release --example origin -- --latency-ms 5
//! curl http://127.0.0.1:9000/any/path
//! curl http://127.0.0.1:9000/calls
//! ```
//!
//! Every path gets a page of `--bytes` bytes after `--latency-ms`. `/calls` says at once how many such calls there were
//! since it was last asked, and how many of them at one time.

use std::{
    net::SocketAddr,
    sync::{
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use clap::Parser;
use http::{Request, Response, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::oneshot, time::Instant};

#[derive(Parser)]
struct Cli {
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// How long a call takes.
    #[arg(long, value_name = "MS", default_value_t = 5)]
    latency_ms: u64,
    /// How large a page is.
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    bytes: usize,
}

static CALLS: AtomicU64 = AtomicU64::new(0);
static AT_ONCE: AtomicU64 = AtomicU64::new(0);
static PEAK: AtomicU64 = AtomicU64::new(0);

/// Lets each call take its time. Tokio's timer is up to two milliseconds late, which is much of five; a thread that sleeps
/// is late by less than a tenth of one. All calls take the same time, so they are due in the order in which they came.
#[derive(Clone)]
struct Clock(mpsc::Sender<(Instant, oneshot::Sender<()>)>);

/// A call, until it is answered or its client has gone.
struct Call;

// ===== impl Clock =====

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "a thread of its own, and no test"
    )]
    fn start() -> Self {
        let (sender, calls) = mpsc::channel::<(Instant, oneshot::Sender<()>)>();
        thread::spawn(move || {
            for (due, call) in calls {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                // Its client may have gone.
                let _ = call.send(());
            }
        });
        Self(sender)
    }

    async fn wait(&self, latency: Duration) {
        let (call, due) = oneshot::channel();
        if self.0.send((Instant::now() + latency, call)).is_ok() {
            let _ = due.await;
        }
    }
}

// ===== impl Call =====

impl Call {
    fn begin() -> Self {
        CALLS.fetch_add(1, Relaxed);
        PEAK.fetch_max(AT_ONCE.fetch_add(1, Relaxed) + 1, Relaxed);
        Self
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        AT_ONCE.fetch_sub(1, Relaxed);
    }
}

async fn answer(
    request: Request<Incoming>,
    page: Bytes,
    latency: Duration,
    clock: Clock,
) -> Result<Response<Full<Bytes>>, http::Error> {
    if request.uri().path() == "/calls" {
        let (calls, peak) = (CALLS.swap(0, Relaxed), PEAK.swap(0, Relaxed));
        let json = format!("{{\"calls\":{calls},\"peak\":{peak}}}\n");
        return Response::builder()
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(json));
    }
    let _call = Call::begin();
    if !latency.is_zero() {
        clock.wait(latency).await;
    }
    Response::builder()
        .header(CONTENT_TYPE, "text/plain")
        .body(Full::new(page))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let cli = Cli::parse();
    let page = Bytes::from("x".repeat(cli.bytes));
    let latency = Duration::from_millis(cli.latency_ms);
    let clock = Clock::start();
    let listener = TcpListener::bind(cli.listen)
        .await
        .map_err(|error| std::io::Error::new(error.kind(), format!("{}: {error}", cli.listen)))?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (page, clock) = (page.clone(), clock.clone());
        tokio::spawn(async move {
            let service =
                service_fn(move |request| answer(request, page.clone(), latency, clock.clone()));
            let server = http1::Builder::new();
            // A client that leaves is no failure of ours.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
