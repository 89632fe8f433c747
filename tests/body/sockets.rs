//! The body over real sockets: axum's server, hyper's client.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, body::Body, extract::State, response::Response, routing::get};
use bytes::Bytes;
use http::header;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;
use tower_singleflight::{Handle, RequestKey, SingleflightLayer};

use crate::support::{
    is_idle,
    sockets::{Client, serve, until},
};

type Item = Result<Frame<Bytes>, std::io::Error>;

/// The senders of the bodies that were begun.
#[derive(Clone, Default)]
struct Origin {
    feeds: Arc<Mutex<Vec<mpsc::Sender<Item>>>>,
    calls: Arc<AtomicUsize>,
}

impl Origin {
    fn feed(&self, call: usize) -> mpsc::Sender<Item> {
        self.feeds.lock().unwrap()[call].clone()
    }
}

/// A server whose `/known` promises four bytes, `/unknown` nothing, and `/events` goes on for ever.
async fn server() -> (std::net::SocketAddr, Origin, Handle<RequestKey>) {
    let origin = Origin::default();
    let begin = |head: http::response::Builder, origin: &Origin| -> Response {
        origin.calls.fetch_add(1, Ordering::SeqCst);
        let (feed, items) = mpsc::channel::<Item>(1);
        origin.feeds.lock().unwrap().push(feed);
        let items = futures_util::stream::unfold(items, |mut items| async {
            items.recv().await.map(|item| (item, items))
        });
        head.body(Body::new(StreamBody::new(items))).unwrap()
    };
    let known = move |State(origin): State<Origin>| async move {
        begin(
            Response::builder().header(header::CONTENT_LENGTH, 4),
            &origin,
        )
    };
    let unknown =
        move |State(origin): State<Origin>| async move { begin(Response::builder(), &origin) };
    let events = move |State(origin): State<Origin>| async move {
        let head = Response::builder().header(header::CONTENT_TYPE, "text/event-stream");
        begin(head, &origin)
    };
    let layer = SingleflightLayer::new();
    let handle = layer.handle();
    let app = Router::new()
        .route("/known", get(known))
        .route("/unknown", get(unknown))
        .route("/events", get(events))
        .layer(layer)
        .with_state(origin.clone());
    (serve(app).await, origin, handle)
}

fn item(text: &'static str) -> Item {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

async fn next(body: &mut hyper::body::Incoming) -> Bytes {
    body.frame().await.unwrap().unwrap().into_data().unwrap()
}

async fn nothing_left(handle: &Handle<RequestKey>) {
    until(|| is_idle(handle)).await;
    let stats = handle.stats();
    assert_eq!((stats.in_flight, stats.buffered_bytes), (0, 0));
}

#[tokio::test]
async fn events_come_one_by_one_to_each_client() {
    let (address, origin, handle) = server().await;
    let mut clients = [
        Client::connect(address).await,
        Client::connect(address).await,
    ];
    let mut bodies = Vec::new();
    for client in &mut clients {
        bodies.push(client.get("/events").await.unwrap().into_body());
    }
    assert_eq!(origin.calls.load(Ordering::SeqCst), 2);
    for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
        for (call, body) in bodies.iter_mut().enumerate() {
            origin.feed(call).send(item(event)).await.unwrap();
            assert_eq!(next(body).await, event);
        }
    }
    assert_eq!(handle.stats().waiters, 0);
    drop((bodies, clients));
    let feeds = origin.feeds.lock().unwrap().clone();
    for feed in feeds {
        // The origin sees that its readers have gone.
        feed.closed().await;
    }
    nothing_left(&handle).await;
}

#[tokio::test]
async fn frames_of_a_known_length_come_to_leader_and_follower_as_they_arrive() {
    let (address, origin, handle) = server().await;
    let mut first = Client::connect(address).await;
    let mut leader = first.get("/known").await.unwrap().into_body();
    let mut second = Client::connect(address).await;
    let response = second.get("/known").await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_LENGTH], "4");
    let mut follower = response.into_body();
    for part in ["pa", "ge"] {
        origin.feed(0).send(item(part)).await.unwrap();
        assert_eq!(next(&mut leader).await, part);
        assert_eq!(next(&mut follower).await, part);
    }
    assert_eq!(origin.calls.load(Ordering::SeqCst), 1);
    // All bytes are there: nobody joins any more, though the source has not said that it has ended.
    until(|| handle.in_flight() == 0).await;
    assert!(leader.frame().await.is_none() && follower.frame().await.is_none());
    nothing_left(&handle).await;
}

#[tokio::test]
async fn a_leader_whose_client_goes_before_the_head_or_in_the_body_costs_its_follower_nothing() {
    for path in ["/known", "/unknown"] {
        let (address, origin, handle) = server().await;
        let mut first = Client::connect(address).await;
        let mut leader = first.get(path).await.unwrap().into_body();
        let mut second = Client::connect(address).await;
        let follower = tokio::spawn(async move {
            let response = second.get(path).await.unwrap();
            response.into_body().collect().await.unwrap().to_bytes()
        });
        until(|| handle.stats().joined == 1).await;
        origin.feed(0).send(item("pa")).await.unwrap();
        assert_eq!(next(&mut leader).await, "pa");
        drop((leader, first));
        until(|| handle.stats().waiters == 1).await;
        origin.feed(0).send(item("ge")).await.unwrap();
        origin.feeds.lock().unwrap().clear();
        assert_eq!(follower.await.unwrap(), "page");
        assert_eq!(origin.calls.load(Ordering::SeqCst), 1);
        nothing_left(&handle).await;
    }
}

#[tokio::test]
async fn a_body_that_is_cut_is_whole_for_no_client() {
    for path in ["/known", "/unknown"] {
        for error in [true, false] {
            if path == "/unknown" && !error {
                // Without a length that is its end.
                continue;
            }
            let (address, origin, handle) = server().await;
            let reading = |mut client: Client| async move {
                let response = client.get(path).await?;
                response.into_body().collect().await
            };
            let leader = tokio::spawn(reading(Client::connect(address).await));
            until(|| origin.calls.load(Ordering::SeqCst) == 1).await;
            let follower = tokio::spawn(reading(Client::connect(address).await));
            until(|| handle.stats().joined == 1).await;
            origin.feed(0).send(item("pa")).await.unwrap();
            if error {
                let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
                origin.feed(0).send(Err(reset)).await.unwrap();
            }
            origin.feeds.lock().unwrap().clear();
            assert!(leader.await.unwrap().is_err(), "{path} {error}");
            assert!(follower.await.unwrap().is_err(), "{path} {error}");
            nothing_left(&handle).await;
        }
    }
}
