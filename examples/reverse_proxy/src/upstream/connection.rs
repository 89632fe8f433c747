//! Connections to an upstream, each with a note of what has passed over it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::Extensions;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::legacy::{
        Error,
        connect::{Connected, Connection, HttpConnector},
    },
    rt::TokioIo,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tower::{ServiceExt, util::MapResponse};

/// How long a crashed host may keep a connection: the kernel asks it whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Of several addresses, or upstreams, the next one gets its turn.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

type Plain = MaybeHttpsStream<TokioIo<TcpStream>>;

pub(super) type Connector =
    MapResponse<HttpsConnector<HttpConnector>, fn(Plain) -> TokioIo<Tracked>>;

/// A connection that keeps a [`Progress`].
#[derive(Debug)]
pub(super) struct Tracked {
    io: TokioIo<Plain>,
    progress: Progress,
}

/// How far the requests on a connection have come, one after the other as HTTP/1.1 has it.
///
/// 1. A write after a read begins a request. It is counted before it is tried: it may fail.
/// 2. The lowest bit is set as long as no byte has been read since; the others count the requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress(Arc<AtomicU32>);

/// Speaks http and https, HTTP/1.1 in both.
///
/// # Errors
///
/// `secure`, and the system's roots can't be had.
pub(super) fn connector(secure: bool) -> io::Result<Connector> {
    let mut http = HttpConnector::new();
    http.set_nodelay(true);
    http.enforce_http(false);
    http.set_keepalive(Some(KEEPALIVE));
    http.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let tls = ClientConfig::builder();
    let tls = if secure {
        let roots = tls.with_native_roots().map_err(|error| {
            io::Error::other(format!(
                "the system's root certificates can't be read: {error}"
            ))
        });
        roots?.with_no_client_auth()
    } else {
        tls.with_root_certificates(RootCertStore::empty())
            .with_no_client_auth()
    };
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(http);
    Ok(connector.map_response(track as fn(Plain) -> TokioIo<Tracked>))
}

/// Whether a connection that had been used before broke without a byte of an answer to this request. As a rule the upstream
/// had closed it already, and has not seen the request.
pub(super) fn broke_unanswered(error: &Error) -> bool {
    let mut extra = Extensions::new();
    if let Some(connected) = error.connect_info() {
        connected.get_extras(&mut extra);
    }
    extra
        .get::<Progress>()
        .is_some_and(Progress::is_unanswered_again)
}

fn track(io: Plain) -> TokioIo<Tracked> {
    TokioIo::new(Tracked {
        io: TokioIo::new(io),
        progress: Progress::default(),
    })
}

// ===== impl Progress =====

impl Progress {
    /// Only the connection's own task calls this and `read`.
    fn write(&self) {
        let state = self.0.load(Relaxed);
        if state & 1 == 0 {
            self.0.store(state.wrapping_add(2) | 1, Relaxed);
        }
    }

    fn read(&self) {
        let state = self.0.load(Relaxed);
        if state & 1 == 1 {
            self.0.store(state & !1, Relaxed);
        }
    }

    fn is_unanswered_again(&self) -> bool {
        let state = self.0.load(Relaxed);
        state & 1 == 1 && state >> 1 > 1
    }
}

// ===== impl Tracked =====

impl Connection for Tracked {
    fn connected(&self) -> Connected {
        let connected = self.io.inner().connected();
        connected.extra(self.progress.clone())
    }
}

impl AsyncRead for Tracked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.progress.read();
        }
        result
    }
}

impl AsyncWrite for Tracked {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.progress.write();
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.progress.write();
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
