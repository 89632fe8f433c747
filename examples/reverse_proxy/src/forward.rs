//! The inner service: one request to the upstream, one response back.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, ResponseFuture, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use super::{
    headers,
    tunnel::{self, Tunnel},
};

/// What the upstream sends, frame by frame, or a line of ours.
pub(crate) type Body = Either<Incoming, Full<Bytes>>;

/// The way to the upstream, with a pool of connections.
pub(crate) struct Upstream {
    client: Client<HttpConnector, Incoming>,
    uri: Uri,
    timeout: Duration,
    counters: Counters,
}

/// What the layer can't count, or is not there to count.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Requests of clients.
    pub(crate) requests: AtomicU64,
    /// Requests that were sent upstream.
    pub(crate) calls: AtomicU64,
    /// Those of them that were answered with 502 or 504 here.
    pub(crate) failures: AtomicU64,
}

// ===== impl Upstream =====

impl Upstream {
    pub(crate) fn new(uri: Uri, timeout: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self {
            client,
            uri,
            timeout,
            counters: Counters::default(),
        }
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Above the layer: whoever asks counts, however many calls are made for them.
    pub(crate) fn receive(&self, request: Request<Incoming>) -> Request<Incoming> {
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        let (mut parts, body) = request.into_parts();
        headers::normalise(&mut parts);
        Request::from_parts(parts, body)
    }

    /// Below the layer. It never fails: what goes wrong upstream is a response, which all who share the call get.
    ///
    /// The request is made here and not in the future, which would be a kilobyte large if it held it.
    pub(crate) fn forward(
        self: &Arc<Self>,
        client: &HeaderValue,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send + use<> {
        let call = if request.method() == Method::CONNECT {
            Err(line(StatusCode::NOT_IMPLEMENTED, "no forward proxy\n"))
        } else {
            let tunnel = Tunnel::wanted(&mut request);
            let (mut parts, body) = request.into_parts();
            match headers::target(&self.uri, &parts.uri) {
                Ok(uri) => {
                    parts.uri = uri;
                    headers::to_upstream(&mut parts, client);
                    if let Some(tunnel) = &tunnel {
                        tunnel.ask(&mut parts.headers);
                    }
                    self.counters.calls.fetch_add(1, Ordering::Relaxed);
                    Ok((
                        self.client.request(Request::from_parts(parts, body)),
                        tunnel,
                    ))
                }
                Err(_) => Err(line(StatusCode::BAD_REQUEST, "bad target\n")),
            }
        };
        let upstream = Arc::clone(self);
        async move {
            Ok(match call {
                Ok((call, tunnel)) => upstream.answer(call, tunnel).await,
                Err(response) => response,
            })
        }
    }

    async fn answer(&self, call: ResponseFuture, tunnel: Option<Tunnel>) -> Response<Body> {
        let mut response = match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if error.is_connect() => {
                return self.failure(StatusCode::BAD_GATEWAY, "upstream unreachable\n");
            }
            Ok(Err(_)) => {
                return self.failure(StatusCode::BAD_GATEWAY, "upstream broke off\n");
            }
            Err(_) => {
                return self.failure(StatusCode::GATEWAY_TIMEOUT, "upstream is too slow\n");
            }
        };

        if headers::is_coded(response.headers()) {
            return self.failure(StatusCode::BAD_GATEWAY, "unasked-for transfer coding\n");
        }
        let switched = match (response.status(), tunnel) {
            (StatusCode::SWITCHING_PROTOCOLS, Some(tunnel)) => Some(tunnel.open(&mut response)),
            (StatusCode::SWITCHING_PROTOCOLS, None) => {
                return self.failure(StatusCode::BAD_GATEWAY, "unasked-for upgrade\n");
            }
            _ => None,
        };
        let (mut parts, body) = response.into_parts();
        headers::to_client(&mut parts);
        if let Some(protocol) = switched {
            tunnel::announce(&mut parts.headers, protocol);
        }
        Response::from_parts(parts, Either::Left(body))
    }

    fn failure(&self, status: StatusCode, text: &'static str) -> Response<Body> {
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        line(status, text)
    }
}

fn line(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Either::Right(Full::from(text)));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, plain);
    response
}
