//! A reader that waits, looks again on its own account, and finds the rest before its flight has woken it.
//!
//! hyper's server (1.12) looks at a body twice in one poll. What the second look ends it follows up when it is polled once
//! more, so it needs the wake-up that its first look was promised.

use std::{
    pin::Pin,
    sync::{Arc, mpsc},
    task::{Context, Poll},
    thread,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Empty;
use hyper::body::Incoming;
use tower::{BoxError, Service, ServiceExt, service_fn};
use tower_singleflight::ResponseBody;

use crate::support::{
    Count, assert_idle,
    body::{Feed, Mock, Polled, assert_pending, body, data, frame, key, layer, now, stack},
    get, is_idle, settle,
    sockets::until,
    wire::{Connection, Framing, serve},
};

fn look(body: &mut ResponseBody<Mock>, woken: &Count) -> bool {
    let waker = woken.waker();
    let polled = Pin::new(body).poll_frame(&mut Context::from_waker(&waker));
    polled.is_pending()
}

/// What `last` tells the source to give comes to a follower that has waited for it, but not through its waker.
async fn is_woken_though_it_has_looked(last: fn(&Feed), found: Polled) {
    let (mut service, mut calls, handle) = stack(&layer());
    let (mut leader, mut follower) = (service.call(get("/page")), service.call(get("/page")));
    assert_pending(&mut leader);
    assert_pending(&mut follower);
    let feed = calls.call().begin();
    settle().await;
    let mut leader = now(&mut leader).into_body();
    let mut follower = now(&mut follower).into_body();
    let woken = Count::new();
    assert!(look(&mut follower, &woken));
    // The source is dropped when its end is there to be read, and before anybody is woken for it.
    let (sender, receiver) = mpsc::channel();
    feed.on_drop(move || {
        let polled = frame(&mut follower);
        drop(follower);
        sender.send(polled).unwrap();
    });
    last(&feed);
    settle().await;
    assert_eq!(receiver.try_recv(), Ok(found));
    assert_eq!(woken.get(), 1, "it is never polled again");
    while !matches!(frame(&mut leader), Polled::End) {}
    assert_idle(&handle);
}

#[tokio::test]
async fn a_follower_that_finds_the_end_by_itself_is_woken_nevertheless() {
    is_woken_though_it_has_looked(Feed::end, Polled::End).await;
}

#[tokio::test]
async fn a_follower_that_finds_the_last_bytes_by_itself_is_woken_nevertheless() {
    let last = |feed: &Feed| {
        feed.send("last");
        feed.end();
    };
    is_woken_though_it_has_looked(last, data("last")).await;
}

/// A body that ends between two looks: as soon as a look finds nothing behind the first bytes, and before anybody is woken.
struct EndsBetween {
    body: ResponseBody<Mock>,
    has_given: bool,
    end: Option<Box<dyn FnOnce() + Send>>,
    has_been_read: mpsc::Sender<()>,
}

// ===== impl EndsBetween =====

impl EndsBetween {
    fn new(body: ResponseBody<Mock>, feed: Arc<Feed>) -> Self {
        let (ended, has_ended) = mpsc::channel();
        let (has_been_read, read) = mpsc::channel();
        feed.on_drop(move || {
            let _ = ended.send(());
            // A server that looks once is woken for the end in its turn.
            let _ = read.recv_timeout(Duration::from_secs(1));
        });
        let end = move || {
            // From elsewhere, so that the flight's task is not left to this thread, which waits for it.
            thread::spawn(move || feed.end());
            has_ended.recv().unwrap();
        };
        Self {
            body,
            has_given: false,
            end: Some(Box::new(end)),
            has_been_read,
        }
    }
}

impl Body for EndsBetween {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Pending if self.has_given => {
                if let Some(end) = self.end.take() {
                    end();
                }
            }
            Poll::Pending => {}
            Poll::Ready(Some(_)) => self.has_given = true,
            Poll::Ready(None) => {
                let _ = self.has_been_read.send(());
            }
        }
        polled
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_closes_behind_a_body_that_ends_between_two_looks_of_hypers_server() {
    let (mut service, mut calls, handle) = stack(&layer());
    let leader = service.call(get("/page"));
    let (feed, source) = body(SizeHint::new());
    let feed = Arc::new(feed);
    let fed = Arc::clone(&feed);
    let address = serve(service_fn(move |request: Request<Incoming>| {
        let request = request.map(|_| Empty::new());
        let (call, feed) = (service.clone().oneshot(request), Arc::clone(&fed));
        async move {
            let response = call.await.expect("a response");
            Ok(response.map(|body| EndsBetween::new(body, feed)))
        }
    }))
    .await;
    let mut client = Connection::open(address).await;
    client.send(b"GET /page HTTP/1.0\r\n\r\n").await;
    until(|| handle.waiters(&key()) == 2).await;
    calls.call().answer(Response::new(source));
    client.peek(b"HTTP/1.0 200 OK\r\n".len()).await;
    feed.send("hello");
    let answer = client.receive(false).await.expect("an answer");
    assert_eq!(answer.framing, Framing::Close);
    assert_eq!(answer.body, b"hello");
    assert!(client.is_in_step(), "the connection stays open");
    drop(leader);
    until(|| is_idle(&handle)).await;
    assert_idle(&handle);
}
