//! Four replicas behind a load balancer make one call among them, over a Redis server that they share.
//!
//! ```not_rust
//! cargo run --release --features redis --example fleet
//! ```
//!
//! All of it is on loopback: clients, a balancer that sends each request to the next replica, four replicas, each with a layer
//! and a connection to the store of its own, and an origin whose calls take half a second. The store is a private `redis-server`
//! without persistence, so the binary has to be installed.
//!
//! A thousand identical requests at once: without coalescing, with replicas that coalesce each on its own, and with replicas
//! that do so together. Then the store is killed in the middle of such a burst, and does not come back for the next one: all
//! are answered, and the replicas coalesce each on its own again.

use std::{
    collections::hash_map::RandomState,
    error::Error,
    hash::BuildHasher,
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{Router, body::Body, extract::State, http::StatusCode, response::Response};
use futures_util::future::join_all;
use http_body_util::BodyExt;
use hyper::{Request, client::conn, server};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};
use tower_singleflight::{Handle, Replicas, RequestKey, SingleflightLayer};

type BoxError = Box<dyn Error + Send + Sync>;
/// HTTP/2, so a burst needs no more than one.
type Connection = conn::http2::SendRequest<Body>;

const REPLICAS: usize = 4;
const REQUESTS: usize = 1000;
const CALL: Duration = Duration::from_millis(500);
const PAGE: &str = "the same for all who ask\n";

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Held to the end of `main`, however it ends: its drop stops the server.
    let mut store = Store::start().await?;
    tokio::select! {
        result = run(&mut store) => result,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    }
}

async fn run(store: &mut Store) -> Result<(), BoxError> {
    println!("{REPLICAS} replicas            requests  answered  calls  longest");
    let calls = Arc::new(AtomicUsize::new(0));
    let origin = connect(serve(origin(&calls)).await?).await?;

    let plain = fleet(&origin, |replica| replica).await?;
    burst("no coalescing", &plain, &calls).await?;

    let alone = fleet(&origin, |replica| replica.layer(SingleflightLayer::new())).await?;
    burst("each on its own", &alone, &calls).await?;

    let layers = (0..REPLICAS)
        .map(|_| Ok(SingleflightLayer::new().replicas(store.replicas()?)))
        .collect::<Result<Vec<_>, BoxError>>()?;
    let handles: Vec<_> = layers.iter().map(SingleflightLayer::handle).collect();
    let mut layers = layers.into_iter();
    let together = fleet(&origin, |replica| match layers.next() {
        Some(layer) => replica.layer(layer),
        None => replica,
    });
    let together = together.await?;
    let in_use = timeout(Duration::from_secs(10), until_in_use(&handles));
    in_use
        .await
        .map_err(|_| "the store was not in use within 10 s")?;
    burst("together", &together, &calls).await?;

    let middle = async {
        sleep(CALL / 2).await;
        store.kill();
    };
    let ((), killed) = tokio::join!(middle, burst("store killed midway", &together, &calls));
    killed?;
    burst("store gone", &together, &calls).await
}

// ===== the fleet =====

/// Counts its calls.
fn origin(calls: &Arc<AtomicUsize>) -> Router {
    let call = |State(calls): State<Arc<AtomicUsize>>| async move {
        calls.fetch_add(1, Relaxed);
        sleep(CALL).await;
        PAGE
    };
    Router::new().fallback(call).with_state(Arc::clone(calls))
}

/// Replicas before `origin`, and the balancer before them. A connection to that.
async fn fleet(
    origin: &Connection,
    mut layered: impl FnMut(Router) -> Router,
) -> Result<Connection, BoxError> {
    let mut replicas = Vec::new();
    for _ in 0..REPLICAS {
        let replica = layered(before(vec![origin.clone()]));
        replicas.push(connect(serve(replica).await?).await?);
    }
    connect(serve(before(replicas)).await?).await
}

/// Sends each request to the next of `upstreams`, as it is. So all replicas see one host: in the default key it is a part.
fn before(upstreams: Vec<Connection>) -> Router {
    let next = Arc::new(AtomicUsize::new(0));
    let forward = async move |request: Request<Body>| {
        let next = next.fetch_add(1, Relaxed) % upstreams.len();
        let response = upstreams[next].clone().send_request(request).await;
        match response {
            Ok(response) => response.map(Body::new),
            Err(error) => {
                let mut response = Response::new(Body::from(error.to_string()));
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                response
            }
        }
    };
    Router::new().fallback(forward)
}

async fn until_in_use(handles: &[Handle<RequestKey>]) {
    let is_up = |handle: &Handle<_>| handle.stats().replicas.is_some_and(|stats| stats.is_up);
    while !handles.iter().all(is_up) {
        sleep(Duration::from_millis(5)).await;
    }
}

async fn serve(app: Router) -> Result<SocketAddr, BoxError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(app.clone());
            let server = server::conn::http2::Builder::new(TokioExecutor::new())
                .max_concurrent_streams(None)
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(server);
        }
    });
    Ok(address)
}

async fn connect(address: SocketAddr) -> Result<Connection, BoxError> {
    let stream = TcpStream::connect(address).await?;
    let io = TokioIo::new(stream);
    let (sender, connection) = conn::http2::handshake(TokioExecutor::new(), io).await?;
    tokio::spawn(connection);
    Ok(sender)
}

// ===== the clients =====

/// Prints what came of all requests at once.
async fn burst(what: &str, fleet: &Connection, calls: &AtomicUsize) -> Result<(), BoxError> {
    calls.store(0, Relaxed);
    let began = Instant::now();
    let answers = join_all((0..REQUESTS).map(|_| tokio::spawn(ask(fleet.clone())))).await;
    let longest = began.elapsed();
    let answered = answers
        .iter()
        .filter(|answer| matches!(answer, Ok(Ok(()))))
        .count();
    let calls = calls.load(Relaxed);
    println!("{what:<20}  {REQUESTS:>8}  {answered:>8}  {calls:>5}  {longest:>6.0?}");
    for answer in answers {
        answer??;
    }
    Ok(())
}

async fn ask(mut fleet: Connection) -> Result<(), BoxError> {
    let request = Request::get("http://fleet.example/page").body(Body::empty())?;
    let response = fleet.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if status != StatusCode::OK || body != PAGE {
        return Err(format!("{status}, {} bytes", body.len()).into());
    }
    Ok(())
}

// ===== Store =====

/// A private `redis-server`, stopped when this is dropped.
struct Store {
    process: Child,
    url: String,
    secret: String,
}

impl Store {
    async fn start() -> Result<Self, BoxError> {
        // Free now, and as good as certain to be free in a moment.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        drop(listener);
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| {
                format!(
                    "can't start redis-server: {error}; install it (Debian and Ubuntu: apt-get install redis-server, \
                     macOS: brew install redis)"
                )
            })?;
        // Known to these replicas and nobody else. Yours comes from where you keep secrets.
        let random = RandomState::new();
        Ok(Self {
            process,
            url: format!("redis://127.0.0.1:{port}"),
            secret: (0..4)
                .map(|part| format!("{:016x}", random.hash_one(part)))
                .collect(),
        })
    }

    fn replicas(&self) -> Result<Replicas, BoxError> {
        Ok(Replicas::redis(&self.url)?
            .namespace("fleet/1")
            .secret(&self.secret)
            // On a busy machine, too, the store is waited for.
            .patience(Duration::from_millis(250)))
    }

    fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.kill();
    }
}
