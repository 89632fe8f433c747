//! Nobody ever gets what was not made for them: many users ask one real server for the same pages at once.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Router, extract::Request, routing};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tower_singleflight::SingleflightLayer;

use crate::support::assert_idle;

const USERS: usize = 64;
const REQUESTS: usize = 20_000;
const CONNECTIONS: usize = 250;
const PAGES: usize = 4;

/// How a user says who it is. The last one is anybody.
fn credentials(user: usize) -> Option<(&'static str, String)> {
    match user % 4 {
        0 => Some(("authorization", format!("Bearer {user}"))),
        1 => Some(("cookie", format!("theme=dark; user={user}"))),
        2 => Some(("x-user-id", user.to_string())),
        _ => None,
    }
}

/// Whom a request is from, as its server sees it.
fn whom(headers: &HeaderMap) -> String {
    ["authorization", "cookie", "x-user-id"]
        .iter()
        .find_map(|name| Some(format!("{name}: {}", headers.get(*name)?.to_str().ok()?)))
        .unwrap_or_else(|| "anonymous".to_owned())
}

async fn serve(layer: &SingleflightLayer, calls: &Arc<AtomicUsize>) -> SocketAddr {
    let calls = Arc::clone(calls);
    let page = routing::get(move |request: Request| {
        let call = calls.fetch_add(1, Ordering::SeqCst);
        async move {
            // Long enough for others to come, without a clock.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            let page = format!("{} for {}", request.uri().path(), whom(request.headers()));
            // Some answers come with a cookie, or vary, or are not to be shared.
            let mut head = HeaderMap::new();
            match call % 8 {
                0 => drop(head.insert(header::SET_COOKIE, "id=1".parse().unwrap())),
                1 => drop(head.insert(header::CACHE_CONTROL, "private".parse().unwrap())),
                2 => drop(head.insert(header::VARY, "user-agent, cookie".parse().unwrap())),
                _ => {}
            }
            (head, page)
        }
    });
    let app = Router::new().route("/{page}", page).layer(layer.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

async fn connect(address: SocketAddr) -> http1::SendRequest<axum::body::Body> {
    let socket = TcpStream::connect(address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// One connection's requests; gives how many bodies were not the user's.
async fn client(address: SocketAddr, next: Arc<AtomicUsize>) -> usize {
    let mut sender = connect(address).await;
    let mut strangers = 0;
    loop {
        let n = next.fetch_add(1, Ordering::SeqCst);
        if n >= REQUESTS {
            return strangers;
        }
        // All users of a page ask for it at the same time.
        let (page, user) = (n / (USERS * 4) % PAGES, n % USERS);
        let mut request = http::Request::get(format!("/{page}"))
            .header("host", "example.org")
            .header("user-agent", format!("agent {}", n % 3))
            .header("x-request-id", n.to_string());
        if let Some((name, value)) = credentials(user) {
            request = request.header(name, value);
        }
        let request = request.body(axum::body::Body::empty()).unwrap();
        let expected = format!("/{page} for {}", whom(request.headers()));
        sender.ready().await.unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert!(response.status().is_success());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        strangers += usize::from(body != expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_users_get_their_own_pages_in_twenty_thousand_requests() {
    let calls = Arc::new(AtomicUsize::new(0));
    let layer = SingleflightLayer::new();
    let address = serve(&layer, &calls).await;
    let next = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| tokio::spawn(client(address, Arc::clone(&next))))
        .collect();
    let mut strangers = 0;
    for client in clients {
        strangers += client.await.unwrap();
    }
    assert_eq!(strangers, 0, "bodies that were made for somebody else");
    let (calls, stats) = (calls.load(Ordering::SeqCst), layer.handle().stats());
    assert!(calls < REQUESTS, "{stats:?}");
    assert_eq!(
        stats.led as usize + stats.forwarded as usize,
        calls,
        "{stats:?}"
    );
    assert!(stats.joined > 0, "{stats:?}");
    while layer.handle().stats().waiters > 0 {
        tokio::task::yield_now().await;
    }
    assert_idle(&layer.handle());
}
