//! Servers over loopback: axum's with a layer of its own setting on each route, and hyper's over a service that has
//! errors. Clients on HTTP/1.1 and HTTP/2 come, go, read slowly, and stop reading.

use std::{
    convert::Infallible,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{Router, body::Body, routing::any_service};
use futures_util::FutureExt;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, runtime::Builder, time::sleep};
use tower::{BoxError, Layer, Service, ServiceExt, layer::layer_fn};
use tower_singleflight::{Handle, RequestKey, RequestKeyExtractor, Role, SingleflightLayer};

use crate::{
    MEMORY, alone,
    origin::{Origin, Pace},
    seed,
    support::Rng,
    text_of, time,
    world::{BodyCheck, Manners, Question, Rules, World},
};

const ROUTES: usize = 6;
const KEYS: usize = 8;
/// HTTP/1.1 clients have a connection each, those on HTTP/2 share a few.
const OLD_CLIENTS: u64 = 150;
const NEW_CLIENTS: u64 = 100;
const NEW_CONNECTIONS: usize = 5;
/// A call takes less than a tenth of a second, on a machine that is not busy.
const BOUND: Duration = Duration::from_secs(30);

type Sender = Client<HttpConnector, Empty<bytes::Bytes>>;

/// Tells the role, and failures, over the wire.
#[derive(Clone)]
struct Tell<S>(S);

struct Route {
    handle: Handle<RequestKey>,
    rules: Arc<Rules>,
    address: SocketAddr,
}

struct Round {
    world: Arc<World>,
    routes: Vec<Route>,
    busy: AtomicUsize,
    counts: Counts,
    failures: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Counts {
    heads: AtomicU64,
    shared: AtomicU64,
    whole: AtomicU64,
    failed: AtomicU64,
    slowest_ms: AtomicU64,
}

fn refusal(name: &'static str, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
        .headers_mut()
        .insert(name, HeaderValue::from_str(text).unwrap());
    response
}

impl<S, B, R> Service<Request<B>> for Tell<S>
where
    S: Service<
            Request<B>,
            Response = Response<R>,
            Error: std::fmt::Display,
            Future: Send + 'static,
        >,
    R: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx).map(|ready| {
            assert!(ready.is_ok(), "the layer is always ready");
            Ok(())
        })
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let called = catch_unwind(AssertUnwindSafe(|| self.0.call(request)));
        Box::pin(async move {
            let answered = match called {
                Ok(call) => AssertUnwindSafe(call).catch_unwind().await,
                Err(payload) => Err(payload),
            };
            Ok(match answered {
                Ok(Ok(response)) => {
                    let mut response = response.map(Body::new);
                    let role = response.extensions().get::<Role>().expect("a role");
                    let role = HeaderValue::from_str(&format!("{role:?}")).unwrap();
                    response.headers_mut().insert("x-role", role);
                    response
                }
                Ok(Err(error)) => refusal("x-error", &error.to_string()),
                Err(payload) => refusal("x-panic", &text_of(&*payload)),
            })
        })
    }
}

fn rules() -> Rules {
    Rules {
        max_body: 2 << 20,
        tight: false,
        max_age: None,
        strict: false,
        writes: true,
    }
}

fn layer() -> SingleflightLayer {
    SingleflightLayer::with_extractor(
        RequestKeyExtractor::new().ignore_header("x-variant".parse().unwrap()),
    )
}

/// The layers of the routes, and what the checker has to know of them.
fn layers() -> Vec<(SingleflightLayer, Rules)> {
    let millis = Duration::from_millis;
    let all = vec![
        (layer().cache_status("chaos"), rules()),
        (
            layer().max_body(50_000),
            Rules {
                max_body: 50_000,
                ..rules()
            },
        ),
        (
            layer().max_waiters(3).max_age(millis(4)),
            Rules {
                max_age: Some(millis(4)),
                ..rules()
            },
        ),
        (
            layer().wait_timeout(millis(3)).max_buffered(100_000),
            Rules {
                tight: true,
                ..rules()
            },
        ),
        (
            layer().finish_abandoned(true).max_buffered(60_000),
            Rules {
                tight: true,
                ..rules()
            },
        ),
        // Over a service with errors.
        (
            layer().finish_abandoned(true).max_body(20_000),
            Rules {
                max_body: 20_000,
                ..rules()
            },
        ),
    ];
    assert_eq!(all.len(), ROUTES);
    all
}

fn path(route: usize, key: usize) -> String {
    format!("/r{route}/{key}")
}

async fn serve_axum(listener: TcpListener, layers: Vec<SingleflightLayer>, origin: Origin) {
    let mut router = Router::new();
    for (route, layer) in layers.into_iter().enumerate() {
        let never = |_: BoxError| -> Infallible { unreachable!("this origin has no errors") };
        let service = any_service(ServiceExt::<axum::extract::Request>::map_err(
            origin.clone(),
            never,
        ));
        let service = service.layer::<_, Infallible>(layer).layer(layer_fn(Tell));
        router = router.route(&format!("/r{route}/{{key}}"), service);
    }
    axum::serve(listener, router).await.unwrap();
}

async fn serve_hyper(listener: TcpListener, layer: SingleflightLayer, origin: Origin) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let service = TowerToHyperService::new(Tell(layer.layer(origin.clone())));
        tokio::spawn(async move {
            // A client that goes is no error.
            let server = auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

impl Round {
    fn failures(&self) -> MutexGuard<'_, Vec<String>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One request, and what chance does to it.
    async fn ask(&self, sender: &Sender, rng: &mut Rng) -> Result<(), String> {
        let route = rng.index(ROUTES);
        let Route { rules, address, .. } = &self.routes[route];
        let question = Question {
            method: match rng.below(16) {
                0 => Method::HEAD,
                1 => Method::POST,
                _ => Method::GET,
            },
            path: path(route, rng.zipf(KEYS)),
            user: rng.below(3) as u8,
            variant: rng.below(3) as u8,
        };
        let impatient = rng.chance(10);
        let (asked, request) = self.world.ask(question);
        let (mut head, ()) = request.into_parts();
        head.uri = format!("http://{address}{}", head.uri).parse().unwrap();
        let request = Request::from_parts(head, Empty::new());
        let began = Instant::now();
        let response = if impatient {
            let patience = Duration::from_micros(rng.below(8000));
            match tokio::time::timeout(patience, sender.request(request)).await {
                Ok(response) => response,
                // The client hangs up.
                Err(_) => return Ok(()),
            }
        } else {
            sender.request(request).await
        };
        let took = u64::try_from(began.elapsed().as_millis()).unwrap();
        self.counts.slowest_ms.fetch_max(took, SeqCst);
        let response = match response {
            Ok(response) => response,
            // The server writes the head with the first of the body, and with neither if that breaks.
            Err(_) if self.world.may_break(&asked, rules) => {
                self.counts.failed.fetch_add(1, SeqCst);
                return Ok(());
            }
            // hyper-util's pool gives a request up with the connection of another that was to be its own: nothing was sent.
            Err(error) if error.is_connect() => {
                self.counts.failed.fetch_add(1, SeqCst);
                return Ok(());
            }
            Err(error) => return Err(format!("no response: {error:?}\n{asked:?}")),
        };
        let (head, body) = response.into_parts();
        for (name, panicked) in [("x-error", false), ("x-panic", true)] {
            if let Some(text) = head.headers.get(name) {
                self.counts.failed.fetch_add(1, SeqCst);
                return self
                    .world
                    .check_failure(&asked, text.to_str().unwrap(), panicked, rules);
            }
        }
        let role = match head.headers.get("x-role").map(HeaderValue::as_bytes) {
            Some(b"Leader") => Role::Leader,
            Some(b"Follower") => Role::Follower,
            Some(b"Forwarded") => Role::Forwarded,
            Some(b"Bypassed") => Role::Bypassed,
            other => return Err(format!("a role of {other:?}: {head:?}")),
        };
        let check = self.world.check_head(&asked, &head, role, rules)?;
        self.counts.heads.fetch_add(1, SeqCst);
        if role == Role::Follower {
            self.counts.shared.fetch_add(1, SeqCst);
        }
        self.read(check.over_the_wire(), body, rng).await
    }

    async fn read(
        &self,
        mut check: BodyCheck,
        mut body: Incoming,
        rng: &mut Rng,
    ) -> Result<(), String> {
        let hangs_up = rng.chance(8);
        let slow = rng.chance(10);
        if rng.chance(3) {
            // It stops reading, and goes at last.
            sleep(Duration::from_millis(rng.below(60))).await;
            return Ok(());
        }
        loop {
            if hangs_up && rng.chance(30) {
                return Ok(());
            }
            if slow {
                sleep(Duration::from_millis(rng.below(10))).await;
            }
            match body.frame().await {
                Some(Ok(frame)) => check.frame(frame)?,
                Some(Err(error)) => return check.error(&format!("{error:?}")),
                None => {
                    self.counts.whole.fetch_add(1, SeqCst);
                    return check.end(&self.world);
                }
            }
        }
    }

    fn forget(&self, rng: &mut Rng) {
        let route = rng.index(ROUTES);
        let handle = &self.routes[route].handle;
        match rng.below(12) {
            0 => handle.set_enabled(false),
            1..=4 => handle.set_enabled(true),
            5 => {
                let began = self.world.now();
                handle.forget_all();
                for key in 0..KEYS {
                    self.world.forgot(Some(&path(route, key)), began);
                }
            }
            _ => {
                let path = path(route, rng.zipf(KEYS));
                let began = self.world.now();
                handle.forget_if(|key| key.uri().path() == path);
                self.world.forgot(Some(&path), began);
            }
        }
    }

    async fn client(self: Arc<Self>, sender: Sender, mut rng: Rng, deadline: Instant) {
        while Instant::now() < deadline && self.failures().is_empty() {
            let answered = tokio::time::timeout(BOUND, self.ask(&sender, &mut rng)).await;
            if let Err(failure) =
                answered.unwrap_or_else(|_| Err("a client gets no answer".to_owned()))
            {
                self.failures().push(failure);
            }
            if rng.chance(2) {
                self.forget(&mut rng);
            }
            if rng.chance(50) {
                sleep(Duration::from_micros(rng.below(3000))).await;
            }
        }
        drop(sender);
        self.busy.fetch_sub(1, SeqCst);
    }
}

fn senders(rng: &mut Rng) -> Vec<Sender> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let mut all: Vec<Sender> = (0..OLD_CLIENTS)
        .map(|_| Client::builder(TokioExecutor::new()).build(connector.clone()))
        .collect();
    let new: Vec<Sender> = (0..NEW_CONNECTIONS)
        .map(|_| {
            Client::builder(TokioExecutor::new())
                .http2_only(true)
                .build(connector.clone())
        })
        .collect();
    all.extend((0..NEW_CLIENTS).map(|_| rng.pick(&new)));
    all
}

fn play(seed: u64, length: Duration) -> String {
    let mut rng = Rng::new(seed);
    let manners = |errors, rng: &mut Rng| Manners {
        failing: 3,
        errors,
        unshareable: rng.pick(&[0, 0, 5]),
        breaking: 4,
        // One that gives more than it said is cut short by the server.
        too_low: false,
        lying: 3,
        steps: 4,
        chunks: 8,
        // A client on HTTP/2 ends a connection that has brought it too many smaller frames.
        chunk: (1200, rng.pick(&[1300, 3000, 30_000])),
    };
    let world = World::new(rng.next(), manners(false, &mut rng));
    world.set_manners_below(&format!("/r{}/", ROUTES - 1), manners(true, &mut rng));
    let pace = Pace::Timed(Arc::new(Mutex::new(Rng::new(rng.next()))), 8);
    let origin = Origin::new(Arc::clone(&world), pace, None);
    let runtime = Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap();
    let (mut layers, rules): (Vec<_>, Vec<_>) = layers().into_iter().unzip();
    let handles: Vec<_> = layers.iter().map(SingleflightLayer::handle).collect();
    let last = layers.pop().unwrap();
    let bind = || runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let (axum, hyper) = (bind(), bind());
    let addresses = [axum.local_addr().unwrap(), hyper.local_addr().unwrap()];
    let servers = [
        runtime.spawn(serve_axum(axum, layers, origin.clone())),
        runtime.spawn(serve_hyper(hyper, last, origin)),
    ];
    let routes = handles
        .into_iter()
        .zip(rules)
        .enumerate()
        .map(|(route, (handle, rules))| Route {
            handle,
            rules: Arc::new(rules),
            address: addresses[usize::from(route == ROUTES - 1)],
        });
    let senders = senders(&mut rng);
    let round = Arc::new(Round {
        world,
        routes: routes.collect(),
        busy: AtomicUsize::new(senders.len()),
        counts: Counts::default(),
        failures: Mutex::default(),
    });
    let deadline = Instant::now() + length;
    for sender in senders {
        runtime.spawn(Arc::clone(&round).client(sender, Rng::new(rng.next()), deadline));
    }
    let failed = |what: String| -> ! { panic!("CHAOS_SEED={seed} (sockets): {what}") };
    let wait = |what: &str, done: &dyn Fn() -> bool| {
        let since = Instant::now();
        while !done() {
            let failure = round.failures().pop();
            if let Some(failure) = failure {
                failed(failure);
            }
            if since.elapsed() > length + 2 * BOUND {
                failed(format!(
                    "{what}: {} clients, {} tasks",
                    round.busy.load(SeqCst),
                    runtime.metrics().num_alive_tasks()
                ));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    wait("clients do not end", &|| round.busy.load(SeqCst) == 0);
    for server in servers {
        server.abort();
    }
    wait("tasks do not end", &|| {
        runtime.metrics().num_alive_tasks() == 0
    });
    let failure = round.failures().pop();
    if let Some(failure) = failure {
        failed(failure);
    }
    let mut sum = [0; 4];
    for Route { handle, .. } in &round.routes {
        let stats = handle.stats();
        if (stats.in_flight, stats.waiters, stats.buffered_bytes) != (0, 0, 0) {
            failed(format!("something is left: {stats:?}"));
        }
        let counts = [stats.led, stats.joined, stats.forwarded, stats.bypassed];
        sum = std::array::from_fn(|at| sum[at] + counts[at]);
    }
    assert_eq!(round.world.live.load(SeqCst), 0, "a call is left");
    let Counts {
        heads,
        shared,
        whole,
        failed,
        slowest_ms,
    } = &round.counts;
    let [led, joined, forwarded, bypassed] = sum;
    format!(
        "{} responses ({} of them shared, {} read to the end), {} failures, slowest head {} ms; \
         {led} led, {joined} joined, {forwarded} forwarded, {bypassed} bypassed",
        heads.load(SeqCst),
        shared.load(SeqCst),
        whole.load(SeqCst),
        failed.load(SeqCst),
        slowest_ms.load(SeqCst),
    )
}

#[test]
fn over_sockets_everybody_gets_what_is_theirs_and_nothing_is_left() {
    let _alone = alone();
    let first = seed();
    println!("CHAOS_SEED={first} (sockets)");
    let total = time(25);
    let deadline = Instant::now() + total;
    // Longer rounds would keep the records of more calls.
    let length = (total / 3).min(Duration::from_secs(10));
    let mut before = None;
    for round in 0.. {
        let told = play(first.wrapping_add(round), length);
        println!("{told}");
        let held = MEMORY.allocated();
        let kept = held.saturating_sub(*before.get_or_insert(held));
        assert!(
            kept < 256 * 1024,
            "{kept} bytes are kept after {round} rounds"
        );
        if round > 0 && Instant::now() + length > deadline {
            break;
        }
    }
}
