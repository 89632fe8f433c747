//! The wire: raw origins whose heads and bodies say any thing in any way, hyper's client, the layer, hyper's server, and raw
//! clients. What each client reads, to the byte, is compared with what is true and with the same stack without the layer.
//!
//! Each case has a seed of its own, the run's and its number in one: `CHAOS_SEED` of a failure begins with the case that
//! failed.

mod case;
mod check;
mod client;

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client as Sender, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Builder,
    task::yield_now,
};
use tower::{BoxError, Layer, Service, service_fn, util::BoxCloneSyncService};
use tower_singleflight::{Handle, RequestKey, Role, SingleflightLayer};

use self::{
    case::{Case, Mangle},
    check::{ROLE, Seen, check},
    client::talk,
};
use crate::{
    alone, seed,
    support::{Rng, wire::serve},
    time,
};

/// So many cases are under way at a time.
const LANES: usize = 24;
/// A case takes a few milliseconds, on a machine that is not busy.
const BOUND: Duration = Duration::from_secs(200);

type Page = Response<UnsyncBoxBody<Bytes, BoxError>>;
type Inner = BoxCloneSyncService<Request<Incoming>, Page, Infallible>;

/// The cases under way, by their number.
type Cases = Arc<Mutex<HashMap<u64, Arc<Case>>>>;

struct Round {
    seed: u64,
    cases: Cases,
    /// A server without the layer.
    alone: SocketAddr,
    servers: Vec<(SocketAddr, Handle<RequestKey>)>,
    next: AtomicU64,
    counts: Counts,
    failures: Mutex<Vec<String>>,
}

#[derive(Debug, Default)]
struct Counts {
    cases: AtomicU64,
    responses: AtomicU64,
    followers: AtomicU64,
    whole: AtomicU64,
    refused: AtomicU64,
    trailers: AtomicU64,
}

/// A body that a service below the layer has had its hands on.
struct Mangled {
    body: Incoming,
    hint: SizeHint,
    /// After so many frames it fails.
    frames: usize,
}

// ===== impl Mangled =====

impl Body for Mangled {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.frames == 0 {
            return Poll::Ready(Some(Err("broken on the way".into())));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.frames -= 1;
        Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)))
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

fn mangle(mangle: &Mangle, response: Response<Incoming>) -> Page {
    let (mut head, body) = response.into_parts();
    let boxed = |body, hint, frames| Mangled { body, hint, frames }.boxed_unsync();
    let body = match mangle {
        Mangle::HidesHint => boxed(body, SizeHint::new(), usize::MAX),
        Mangle::Hints(bytes) => boxed(body, SizeHint::with_exact(*bytes), usize::MAX),
        Mangle::Breaks(frames) => {
            let hint = body.size_hint();
            boxed(body, hint, *frames)
        }
        Mangle::Nothing | Mangle::Adds(_) | Mangle::Strips => {
            body.map_err(BoxError::from).boxed_unsync()
        }
    };
    match mangle {
        Mangle::Adds(length) => {
            let length = HeaderValue::from_str(length).unwrap();
            head.headers.append(header::CONTENT_LENGTH, length);
        }
        Mangle::Strips => {
            for name in [header::CONNECTION, header::TRANSFER_ENCODING] {
                head.headers.remove(name);
            }
        }
        _ => {}
    }
    Response::from_parts(head, body)
}

fn page(text: &str) -> Page {
    let body = Full::from(text.to_owned()).map_err(BoxError::from);
    Response::new(body.boxed_unsync())
}

/// The number in a path of the form `/somewhere/number`.
fn number(path: &str) -> u64 {
    let number = path.rsplit('/').next().and_then(|last| last.parse().ok());
    number.expect("a number at the end of a path")
}

/// hyper's client, and what is done to its responses. `/after/...` is answered right here.
fn inner(cases: Cases, origin: SocketAddr) -> Inner {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    // What an origin leaves on a connection must not be another case's.
    let client: Sender<_, Empty<Bytes>> = Sender::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build(connector);
    BoxCloneSyncService::new(service_fn(move |request: Request<Incoming>| {
        let path = request.uri().path().to_owned();
        let is_other = path.starts_with("/after/");
        let case = (!is_other).then(|| case_of(&cases, &path)).flatten();
        let call = case.map(|case| {
            let upstream = Request::builder()
                .method(request.method())
                .uri(format!("http://{origin}{path}"));
            (client.request(upstream.body(Empty::new()).unwrap()), case)
        });
        async move {
            let Some((call, case)) = call else {
                return Ok(page(&path));
            };
            Ok(match call.await {
                Ok(response) => mangle(&case.mangle, response),
                Err(_) => {
                    let mut refusal = page("refused");
                    *refusal.status_mut() = StatusCode::BAD_GATEWAY;
                    let yes = HeaderValue::from_static("yes");
                    refusal.headers_mut().insert("x-refused", yes);
                    refusal
                }
            })
        }
    }))
}

/// `None` where what a client that hung up had asked comes when its case is over.
fn case_of(cases: &Cases, path: &str) -> Option<Arc<Case>> {
    cases.lock().unwrap().get(&number(path)).cloned()
}

/// `inner` below `layer`, with each response's role in a field, and each request counted once it has come to the layer.
async fn serve_layered(layer: &SingleflightLayer, inner: Inner, cases: Cases) -> SocketAddr {
    let service = layer.layer(inner);
    serve(service_fn(move |request: Request<Incoming>| {
        let path = request.uri().path().to_owned();
        let call = service.clone().call(request);
        if !path.starts_with("/after/") {
            if let Some(case) = case_of(&cases, &path) {
                case.progress.count();
            }
        }
        async move {
            let mut response = call.await?;
            let role = *response.extensions().get::<Role>().expect("a role");
            let role = HeaderValue::from_str(&format!("{role:?}")).unwrap();
            response.headers_mut().insert(ROLE, role);
            Ok::<_, Infallible>(response)
        }
    }))
    .await
}

// ===== the origin =====

async fn origin(listener: TcpListener, cases: Cases) {
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(answer(socket, Arc::clone(&cases)));
    }
}

/// Answers one request as its case says.
async fn answer(mut socket: TcpStream, cases: Cases) {
    let _ = socket.set_nodelay(true);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if !socket.read_buf(&mut head).await.is_ok_and(|read| read > 0) {
            return;
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap();
    let Some(case) = case_of(&cases, path) else {
        return;
    };
    let is_gated = path.starts_with("/layer/");
    for piece in &case.script {
        if is_gated {
            // Once it is closed there is no more to wait for.
            if let Ok(permit) = case.progress.gate.acquire().await {
                permit.forget();
            }
        }
        if socket.write_all(piece).await.is_err() {
            return;
        }
    }
    if case.closes {
        let _ = socket.shutdown().await;
    }
    // Closed before the other side has read it all, what is on the way would be lost.
    let mut rest = [0; 64];
    while socket.read(&mut rest).await.is_ok_and(|read| read > 0) {}
}

// ===== impl Round =====

impl Round {
    fn fail(&self, failure: String) {
        self.failures.lock().unwrap().push(failure);
    }

    fn has_failed(&self) -> bool {
        !self.failures.lock().unwrap().is_empty()
    }

    /// Plays one case after another.
    async fn lane(self: Arc<Self>, deadline: Instant) {
        while Instant::now() < deadline && !self.has_failed() {
            let number = self.next.fetch_add(1, SeqCst);
            let case = Arc::new(Case::new(self.seed.wrapping_add(number)));
            self.cases.lock().unwrap().insert(number, Arc::clone(&case));
            let played = tokio::time::timeout(BOUND, self.play(number, &case)).await;
            let played = played.unwrap_or_else(|_| {
                let stats = self.servers.iter().map(|(_, handle)| handle.stats());
                let stats = stats.collect::<Vec<_>>();
                let clients = &case.clients;
                Err(format!("one of {clients:?} waits for ever: {stats:?}"))
            });
            self.counts.cases.fetch_add(1, SeqCst);
            if let Err(failure) = played {
                let seed = self.seed.wrapping_add(number);
                self.fail(format!(
                    "CHAOS_SEED={seed} (wire): {failure}\n{}",
                    case.show()
                ));
            }
            self.cases.lock().unwrap().remove(&number);
        }
    }

    async fn play(self: &Arc<Self>, number: u64, case: &Arc<Case>) -> Result<(), String> {
        let mut rng = Rng::new(self.seed.wrapping_add(number) ^ 1);
        let (address, handle) = &self.servers[rng.index(self.servers.len())];
        let path = format!("/layer/{number}");
        let mut clients = Vec::new();
        let mut asked = 0;
        for client in &case.clients {
            let leaves = client.leaves.is_some();
            clients.push(tokio::spawn({
                let (address, case, client, path) =
                    (*address, Arc::clone(case), client.clone(), path.clone());
                async move { talk(address, &case, &client, &path).await }
            }));
            asked += usize::from(!leaves);
            // Most wait until the one before is in its place; the others come when they come.
            if !leaves && rng.chance(80) {
                case.progress.until_asked(asked).await;
            }
            if rng.chance(50) {
                let pieces = rng.index(4);
                case.progress.gate.add_permits(pieces);
            }
            for _ in 0..rng.below(30) {
                yield_now().await;
            }
        }
        case.progress.gate.close();
        let mut all = Vec::new();
        for (client, seen) in case.clients.iter().zip(clients) {
            if let Some(seen) = seen.await.map_err(|error| error.to_string())? {
                all.push((client, seen));
            }
        }
        for (client, seen) in &all {
            // Without the layer a server believes whom it should not, and is out of step itself.
            let alone = if case.is_honest() {
                talk(self.alone, case, client, &format!("/alone/{number}")).await
            } else {
                None
            };
            self.count(seen);
            check(case, seen, alone.as_ref()).map_err(|failure| {
                let alone = alone.as_ref().map_or("-".to_owned(), Seen::show);
                let shown = all
                    .iter()
                    .map(|(client, seen)| format!("{client:?}\n  {}", seen.show()));
                let shown = shown.collect::<Vec<_>>().join("\n");
                let stats = handle.stats();
                format!("{failure}\n{client:?}\nalone: {alone}\nall: {shown}\n{stats:?}")
            })?;
        }
        Ok(())
    }

    fn count(&self, seen: &Seen) {
        let counts = &self.counts;
        counts.responses.fetch_add(1, SeqCst);
        let Ok(message) = &seen.answer else {
            return;
        };
        let all = [
            (&counts.followers, message.all(ROLE) == [b"Follower"]),
            (&counts.whole, message.is_whole),
            (&counts.refused, message.is_refusal()),
            (&counts.trailers, !message.trailers.is_empty()),
        ];
        for (count, is_so) in all {
            count.fetch_add(u64::from(is_so), SeqCst);
        }
    }
}

fn layers() -> Vec<SingleflightLayer> {
    vec![
        SingleflightLayer::new(),
        SingleflightLayer::new().max_body(500),
        SingleflightLayer::new().max_waiters(2).max_buffered(5_000),
        SingleflightLayer::new().finish_abandoned(true),
    ]
}

fn play(seed: u64, length: Duration) -> Counts {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let cases = Cases::default();
    let (alone, servers) = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(origin(listener, Arc::clone(&cases)));
        let alone = serve(inner(Arc::clone(&cases), address)).await;
        let mut servers = Vec::new();
        for layer in layers() {
            let inner = inner(Arc::clone(&cases), address);
            let server = serve_layered(&layer, inner, Arc::clone(&cases)).await;
            servers.push((server, layer.handle()));
        }
        (alone, servers)
    });
    let round = Arc::new(Round {
        seed,
        cases,
        alone,
        servers,
        next: AtomicU64::new(0),
        counts: Counts::default(),
        failures: Mutex::default(),
    });
    let deadline = Instant::now() + length;
    runtime.block_on(async {
        let lanes: Vec<_> = (0..LANES)
            .map(|_| tokio::spawn(Arc::clone(&round).lane(deadline)))
            .collect();
        for lane in lanes {
            if let Err(error) = lane.await {
                round.fail(format!("CHAOS_SEED={seed} (wire): {error}"));
            }
        }
    });
    let failure = round.failures.lock().unwrap().pop();
    if let Some(failure) = failure {
        panic!("{failure}");
    }
    let left = || {
        let stats = round.servers.iter().map(|(_, handle)| handle.stats());
        let mut left = stats.filter(|stats| stats.waiters + stats.in_flight > 0);
        left.next()
    };
    let since = Instant::now();
    while let Some(stats) = left() {
        assert!(
            since.elapsed() < BOUND,
            "CHAOS_SEED={seed} (wire): something is left: {stats:?}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    runtime.shutdown_background();
    let round = Arc::into_inner(round).expect("the lanes have ended");
    round.counts
}

#[test]
fn no_byte_on_the_wire_is_out_of_step() {
    let _alone = alone();
    let seed = seed();
    println!("CHAOS_SEED={seed} (wire)");
    let counts = play(seed, time(25));
    println!("{counts:?}");
    let (responses, followers) = (&counts.responses, &counts.followers);
    if responses.load(SeqCst) > 1_000 {
        assert!(
            followers.load(SeqCst) * 10 > responses.load(SeqCst),
            "too few share"
        );
    }
}
