//! A stampede on a hot key, first without and then with the layer.
//!
//! ```not_rust
//! cargo run --release --example stampede
//! ```
//!
//! An axum server on loopback answers `GET /articles/{id}` from an embedded database: each query takes
//! 100 ms, and ten run at a time, as over a pool of ten connections. A real HTTP client opens 200
//! connections and sends 1,000 requests over them, each connection one after another, all for the same
//! article. Every response is checked. A progress bar runs on stderr meanwhile, and at the end a table on
//! stdout shows requests, database calls, the median and the 99th percentile of the latency, and
//! the wall time of both runs.
//!
//! The layer is no cache: each connection asks five times in a row, so there are five waves and about five
//! queries, not one. Try `--keys 20`, `--latency-ms 20` or `--connections 1` (where nobody is
//! there to share with), and `--help`.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::{Router, routing::get};
use clap::Parser;
use clap::builder::RangedU64ValueParser;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower_singleflight::SingleflightLayer;

type BoxError = Box<dyn Error + Send + Sync>;

/// How many queries the database runs at a time.
const POOL: usize = 10;

/// Sends a burst of requests to a slow server, without and with the layer.
#[derive(Clone, Copy, Parser)]
struct Args {
    /// How many requests to send in each run
    #[arg(long, default_value_t = 1_000, value_parser = at_least_one())]
    requests: usize,
    /// How many connections to send them over
    #[arg(long, default_value_t = 200, value_parser = at_least_one())]
    connections: usize,
    /// How long one query takes
    #[arg(long, default_value_t = 100)]
    latency_ms: u64,
    /// How many different articles to ask for, in turn
    #[arg(long, default_value_t = 1, value_parser = at_least_one())]
    keys: usize,
}

fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let args = Args::parse();
    let without = Stampede::run("without", args, |app| app).await?;
    let with = Stampede::run("with", args, |app| app.layer(SingleflightLayer::new())).await?;

    println!("layer    requests  database calls         p50         p99   wall time");
    println!("{without}\n{with}\n");
    let (calls, fewer) = (without.database_calls, with.database_calls);
    if fewer < calls {
        println!(
            "With the layer {} requests cost {} database calls instead of {}, and were done {:.1} times as fast.",
            grouped(args.requests),
            grouped(fewer),
            grouped(calls),
            without.wall_time.as_secs_f64() / with.wall_time.as_secs_f64(),
        );
    } else {
        println!(
            "No two identical requests were in flight at a time, so there was nothing to share."
        );
    }
    Ok(())
}

// ===== the server =====

#[derive(Debug)]
struct Database {
    pool: Semaphore,
    latency: Duration,
    calls: AtomicUsize,
}

impl Database {
    async fn article(&self, id: usize) -> String {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let _connection = self.pool.acquire().await;
        tokio::time::sleep(self.latency).await;
        article(id)
    }
}

fn article(id: usize) -> String {
    format!(
        "article {id}: {}\n",
        "all the news that is fit to share. ".repeat(50)
    )
}

async fn serve(app: Router) -> Result<SocketAddr, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}

// ===== the client =====

/// What one run gave.
#[derive(Debug)]
struct Stampede {
    layer: &'static str,
    database_calls: usize,
    /// One for each request, sorted.
    latencies: Vec<Duration>,
    wall_time: Duration,
}

impl Stampede {
    async fn run(
        layer: &'static str,
        args: Args,
        add: impl FnOnce(Router) -> Router,
    ) -> Result<Self, BoxError> {
        let database = Arc::new(Database {
            pool: Semaphore::new(POOL),
            latency: Duration::from_millis(args.latency_ms),
            calls: AtomicUsize::new(0),
        });
        let handler = |State(database): State<Arc<Database>>, Path(id)| async move {
            database.article(id).await
        };
        let app = Router::new()
            .route("/articles/{id}", get(handler))
            .with_state(Arc::clone(&database));
        let address = serve(add(app)).await?;

        let mut connections = Vec::new();
        for _ in 0..args.connections.min(args.requests) {
            connections.push(connect(address).await.map_err(|error| {
                format!(
                    "connection {}: {error}; try fewer --connections",
                    connections.len() + 1
                )
            })?);
        }

        let style = "{prefix:>7} the layer [{bar:40}] {pos}/{len} requests, {msg} database calls, {elapsed}";
        let bar = ProgressBar::new(args.requests as u64)
            .with_style(ProgressStyle::with_template(style)?.progress_chars("=> "))
            .with_prefix(layer);
        let next = Arc::new(AtomicUsize::new(0));
        let started = Instant::now();
        let mut workers = JoinSet::new();
        for mut connection in connections {
            let (bar, next, database) = (bar.clone(), Arc::clone(&next), Arc::clone(&database));
            workers.spawn(async move {
                let mut latencies = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= args.requests {
                        return Ok::<_, BoxError>(latencies);
                    }
                    latencies.push(ask(&mut connection, number % args.keys).await?);
                    bar.set_message(database.calls.load(Ordering::Relaxed).to_string());
                    bar.inc(1);
                }
            });
        }
        let mut latencies = Vec::with_capacity(args.requests);
        while let Some(worker) = workers.join_next().await {
            latencies.extend(worker??);
        }
        let wall_time = started.elapsed();
        bar.finish();
        latencies.sort_unstable();
        let database_calls = database.calls.load(Ordering::Relaxed);
        Ok(Self {
            layer,
            database_calls,
            latencies,
            wall_time,
        })
    }

    /// The smallest latency that so many of a hundred requests did not exceed.
    fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.latencies.len() * percent).div_ceil(100);
        self.latencies[rank.max(1) - 1]
    }
}

impl fmt::Display for Stampede {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
        write!(
            f,
            "{:<7}  {:>8}  {:>14}  {:>10}  {:>10}  {:>8.2} s",
            self.layer,
            grouped(self.latencies.len()),
            grouped(self.database_calls),
            ms(self.percentile(50)),
            ms(self.percentile(99)),
            self.wall_time.as_secs_f64(),
        )
    }
}

type Connection = SendRequest<Empty<Bytes>>;

async fn connect(address: SocketAddr) -> Result<Connection, BoxError> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Asks for an article and checks the response.
async fn ask(connection: &mut Connection, id: usize) -> Result<Duration, BoxError> {
    let request = Request::get(format!("/articles/{id}"))
        .header("host", "stampede.local")
        .body(Empty::new())?;
    let started = Instant::now();
    connection.ready().await?;
    let response = connection.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    let latency = started.elapsed();
    if status != StatusCode::OK || body != article(id).as_bytes() {
        return Err(format!(
            "a wrong response for article {id}: {status}, {} bytes",
            body.len()
        )
        .into());
    }
    Ok(latency)
}

/// With commas, as `1,000`.
fn grouped(number: usize) -> String {
    HumanCount(number as u64).to_string()
}
