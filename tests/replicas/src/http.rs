//! Replicas that serve HTTP, each a process, and the origin that they call.

use std::{
    convert::Infallible,
    net::Ipv4Addr,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::{
    body::Incoming,
    client::conn::http2::{SendRequest, handshake},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{server::signal, settings::Settings};

/// Asks a replica how many callers the request's flight has, and whether its store is in use.
pub const LOOK: &str = "x-look";

/// In all responses: which call of the origin made it.
pub const CALL: &str = "x-call";

/// In all responses: the layer's role.
pub const ROLE: &str = "x-role";

/// A server in this process, which counts its calls.
#[derive(Debug)]
pub struct Origin {
    port: u16,
    state: Arc<Calls>,
}

#[derive(Debug)]
struct Calls {
    takes: Duration,
    all: AtomicUsize,
    running: AtomicUsize,
}

struct Running(Arc<Calls>);

/// A process with a layer in front of an origin.
#[derive(Debug)]
pub struct HttpReplica {
    process: Child,
    requests: SendRequest<Empty<Bytes>>,
}

/// A response that has been read.
#[derive(Clone, Debug)]
pub struct HttpGot {
    /// The origin's so-manieth call.
    pub call: usize,
    /// The layer's role.
    pub role: String,
    /// All of it.
    pub body: Bytes,
    /// Until all of it was there.
    pub took: Duration,
}

/// Serves HTTP/2 at a free port of this machine, as many requests at once as come.
///
/// # Panics
///
/// If no port can be listened at.
pub async fn serve<S, B>(service: S) -> u16
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let served = http2::Builder::new(TokioExecutor::new())
                .max_concurrent_streams(10_000)
                .serve_connection(TokioIo::new(stream), service.clone());
            tokio::spawn(served);
        }
    });
    port
}

/// One HTTP/2 connection to such a server.
///
/// # Panics
///
/// If there is none.
pub async fn connect<B>(port: u16) -> SendRequest<B>
where
    B: http_body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
    let stream = stream.expect("a connection");
    let _ = stream.set_nodelay(true);
    let (requests, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .expect("HTTP/2");
    tokio::spawn(connection);
    requests
}

// ===== impl Origin =====

impl Origin {
    /// Whose calls take that long.
    pub async fn start(takes: Duration) -> Self {
        let state = Arc::new(Calls {
            takes,
            all: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
        });
        let calls = Arc::clone(&state);
        let service = service_fn(move |_: Request<Incoming>| {
            let calls = Arc::clone(&calls);
            async move { Ok::<_, Infallible>(calls.call().await) }
        });
        Self {
            port: serve(service).await,
            state,
        }
    }

    /// How many calls have begun.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.state.all.load(Ordering::SeqCst)
    }

    /// How many have neither ended nor been given up.
    #[must_use]
    pub fn running(&self) -> usize {
        self.state.running.load(Ordering::SeqCst)
    }

    /// # Panics
    ///
    /// If there are not so many calls after some seconds.
    pub async fn calls_reach(&self, calls: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.calls() < calls {
            assert!(Instant::now() < deadline, "{} calls", self.calls());
            sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Calls {
    async fn call(self: Arc<Self>) -> Response<Full<Bytes>> {
        let call = self.all.fetch_add(1, Ordering::SeqCst);
        self.running.fetch_add(1, Ordering::SeqCst);
        let takes = self.takes;
        let _running = Running(self);
        sleep(takes).await;
        let mut response = Response::new(vec![b'a' + call as u8 % 26; 10_000].into());
        response.headers_mut().insert(CALL, call.into());
        response
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

// ===== impl HttpReplica =====

impl HttpReplica {
    /// Starts the program at `path`, and waits until its store is in use.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub async fn start(path: &str, settings: &Settings, origin: &Origin) -> Self {
        let mut process = Command::new(path)
            .args(settings.to_args())
            .arg(origin.port.to_string())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the replica starts");
        let output = process.stdout.take().expect("piped");
        let mut lines = BufReader::new(output).lines();
        let port = lines.next_line().await.expect("a line");
        let port = port.expect("a line").parse().expect("a port");
        let replica = Self {
            process,
            requests: connect(port).await,
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while !replica.look("/").await.1 {
            assert!(Instant::now() < deadline, "the store is not in use");
            sleep(Duration::from_millis(5)).await;
        }
        replica
    }

    /// A request, in a task of its own. It leaves when that is aborted.
    #[must_use]
    pub fn ask(&self, path: &str) -> JoinHandle<Result<HttpGot, hyper::Error>> {
        let mut requests = self.requests.clone();
        let request = request(path, None);
        tokio::spawn(async move {
            let began = Instant::now();
            let (head, body) = requests.send_request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            let text = |name| head.headers[name].to_str().expect("text");
            Ok(HttpGot {
                call: text(CALL).parse().expect("a number"),
                role: text(ROLE).to_owned(),
                body,
                took: began.elapsed(),
            })
        })
    }

    /// How many callers the path's flight has, those at other replicas included, and whether the store is in use.
    ///
    /// # Panics
    ///
    /// If it does not say.
    pub async fn look(&self, path: &str) -> (usize, bool) {
        let sent = self
            .requests
            .clone()
            .send_request(request(path, Some(LOOK)));
        let response = timeout(Duration::from_secs(20), sent).await;
        let response = response.expect("it answers").expect("a response");
        let body = response.collect().await.expect("a body").to_bytes();
        let text = std::str::from_utf8(&body).expect("text");
        let (waiters, is_up) = text.split_once(' ').expect("two words");
        (waiters.parse().expect("a number"), is_up == "true")
    }

    /// Sends its process a signal.
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub fn signal(&self, name: &str) {
        signal(self.process.id().expect("it runs"), name);
    }
}

fn request(path: &str, look: Option<&str>) -> Request<Empty<Bytes>> {
    let mut request = Request::get(format!("http://replicas.test{path}"));
    if let Some(look) = look {
        request = request.header(look, "");
    }
    request.body(Empty::new()).expect("a request")
}
