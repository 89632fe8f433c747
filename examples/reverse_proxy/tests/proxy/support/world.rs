use std::{
    convert::Infallible,
    sync::{Arc, atomic::AtomicUsize},
};

use clap::Parser;
use http_body_util::Either;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use reverse_proxy::{Cli, Proxy};
use tokio::sync::{Notify, Semaphore};

use super::*;

type OriginBody = Either<Full<Bytes>, StreamBody<Chunks>>;

/// An origin whose answers wait for permits, and the proxy before it.
pub(crate) struct World {
    pub(crate) proxy: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) origin: SocketAddr,
    /// Calls that have reached the origin.
    calls: Arc<AtomicUsize>,
    called: Arc<Notify>,
    /// One permit lets one call of `/gated...` be answered.
    pub(crate) gate: Arc<Semaphore>,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) done: JoinHandle<()>,
}

// ===== impl World =====

impl World {
    /// `/gated...` waits for a permit, `/echo` returns the request body frame by frame, every other path says what was
    /// asked; `.../vary/FIELD` has that `Vary`.
    pub(crate) async fn new(options: &[&str]) -> Self {
        let calls = Arc::new(AtomicUsize::new(0));
        let (called, gate) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = listener.local_addr().unwrap();
        let service = {
            let (calls, called, gate) = (calls.clone(), called.clone(), gate.clone());
            hyper::service::service_fn(move |request: Request<Incoming>| {
                let (calls, called, gate) = (calls.clone(), called.clone(), gate.clone());
                async move {
                    calls.fetch_add(1, Ordering::SeqCst);
                    called.notify_waiters();
                    if request.uri().path().starts_with("/gated") {
                        gate.acquire().await.unwrap().forget();
                    }
                    Ok::<_, Infallible>(answer(request))
                }
            })
        };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let server = hyper::server::conn::http1::Builder::new();
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service.clone()));
            }
        });
        let mut world = Self::before(origin, options).await;
        (world.calls, world.called, world.gate) = (calls, called, gate);
        world
    }

    /// Before any origin.
    pub(crate) async fn before(origin: SocketAddr, options: &[&str]) -> Self {
        Self::before_url(&format!("http://{origin}"), origin, options).await
    }

    pub(crate) async fn before_url(upstream: &str, origin: SocketAddr, options: &[&str]) -> Self {
        let fixed = ["proxy", "--upstream", upstream];
        let ports = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        let cli = Cli::parse_from(fixed.iter().chain(&ports).chain(options));
        let proxy = Proxy::bind(cli).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        Self {
            proxy: proxy.address().unwrap(),
            admin: proxy.admin_address().unwrap().unwrap(),
            origin,
            calls: Arc::default(),
            called: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
            stop: Some(stop),
            done: tokio::spawn(proxy.serve(async {
                let _ = stopped.await;
            })),
        }
    }

    pub(crate) async fn until_called(&self, calls: usize) {
        loop {
            let called = self.called.notified();
            if self.calls.load(Ordering::SeqCst) >= calls {
                return;
            }
            called.await;
        }
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub(crate) async fn stats(&self) -> serde_json::Value {
        serde_json::from_str(&self.operate(Method::GET, "/stats").await.1).unwrap()
    }

    pub(crate) async fn until_stats(&self, name: &str, value: u64) {
        while self.stats().await[name] != value {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn operate(&self, method: Method, path: &str) -> (StatusCode, String) {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.admin))
            .body(Full::<Bytes>::default());
        text(client().request(request.unwrap()).await.unwrap()).await
    }

    pub(crate) fn get(&self, path: &str) -> JoinHandle<(StatusCode, String)> {
        let request = Request::get(format!("http://{}{path}", self.proxy));
        let call = client().request(request.body(Full::default()).unwrap());
        tokio::spawn(async { text(call.await.unwrap()).await })
    }

    /// Sends `request` as it stands, with `Connection: close` in it, and returns all that comes.
    pub(crate) async fn raw(&self, request: &str) -> String {
        send_from("127.0.0.1", self.proxy, request).await
    }
}

fn answer(request: Request<Incoming>) -> Response<OriginBody> {
    if request.uri().path() == "/echo" {
        let (send, chunks) = mpsc::unbounded_channel();
        let mut body = request.into_body();
        tokio::spawn(async move {
            while let Some(Ok(frame)) = body.frame().await {
                if send.send(Ok(frame)).is_err() {
                    return;
                }
            }
        });
        let mut response = Response::new(Either::Right(StreamBody::new(Chunks(chunks))));
        let trailer = header::HeaderValue::from_static("x-sum");
        response.headers_mut().insert(header::TRAILER, trailer);
        return response;
    }
    let mut said = format!("{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        said.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
    }
    let mut response = Response::new(Either::Left(Full::from(said)));
    if let Some((_, field)) = request.uri().path().rsplit_once("/vary/") {
        let field = header::HeaderValue::from_str(field).unwrap();
        response.headers_mut().insert(header::VARY, field);
    }
    response
}
