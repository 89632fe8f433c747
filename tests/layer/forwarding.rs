//! Followers who may not have the response make their own calls: at once, concurrently, each with its own request.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    sync::{Arc, mpsc},
};

use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt, Empty, Full};
use tokio::sync::Semaphore;
use tower::{Layer, Service, service_fn};
use tower_singleflight::{Handle, Role, SingleflightLayer, method_and_uri};

use crate::support::{Origin, all, ask, assert_idle, count, get, lines, request, roles, settle};

/// Answers each with the user it was asked by, for that user alone.
fn private() -> Origin {
    Origin::new(|request| {
        let user = Bytes::copy_from_slice(request.headers["x-user"].as_bytes());
        let response = Response::builder().header("cache-control", "private");
        response.body(user).expect("a response")
    })
}

#[tokio::test]
async fn a_length_that_is_not_the_messages_reaches_nobody_who_was_sent_on() {
    for (method, lengths) in [("GET", 0), ("HEAD", 1)] {
        let origin = Origin::new(|_| {
            let response = Response::builder().header("content-length", "9");
            let response = response.header("set-cookie", "id=1");
            let page = Bytes::from_static(b"page");
            response.body(page).expect("a response")
        });
        let layer = SingleflightLayer::new();
        let service = layer.layer(origin.clone());
        let asked = [(); 2].map(|()| ask(&service, request(method, "/", &[])));
        origin.open();
        let got = all(asked).await;
        assert_eq!(roles(&got), [Role::Leader, Role::Forwarded]);
        for got in &got {
            assert_eq!(
                lines(&got.head, "content-length").len(),
                lengths,
                "{method}"
            );
        }
        assert_idle(&layer.handle());
    }
}

#[tokio::test]
async fn all_forwarded_followers_are_in_the_inner_service_at_the_same_time() {
    let origin = private();
    let layer = SingleflightLayer::with_key(method_and_uri);
    let service = layer.layer(origin.clone());
    let users: Vec<_> = (0..100).map(|user| user.to_string()).collect();
    let asked: Vec<_> = users
        .iter()
        .map(|user| {
            ask(
                &service,
                request("GET", "/", &[("x-user", user.as_bytes())]),
            )
        })
        .collect();
    assert_eq!(layer.handle().stats().waiters, 100);
    origin.until_inside(1).await;
    origin.admit(1);
    // Not one of them has answered yet.
    origin.until_inside(99).await;
    assert_eq!(
        (origin.calls(), layer.handle().stats().forwarded),
        (100, 99)
    );
    assert_idle(&layer.handle());
    origin.open();
    let got = all(asked).await;
    for (user, got) in users.iter().zip(&got) {
        assert_eq!(got.body, *user, "each with its own request");
    }
    assert_eq!(count(&got, Role::Forwarded), 99);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn followers_are_forwarded_though_the_leader_has_gone() {
    let origin = private();
    let layer = SingleflightLayer::with_key(method_and_uri);
    let service = layer.layer(origin.clone());
    let leader = ask(&service, request("GET", "/", &[("x-user", b"0")]));
    let asked =
        [&b"1"[..], b"2"].map(|user| ask(&service, request("GET", "/", &[("x-user", user)])));
    origin.until_inside(1).await;
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    origin.open();
    let got = all(asked).await;
    assert_eq!((&got[0].body[..], &got[1].body[..]), (&b"1"[..], &b"2"[..]));
    assert_eq!(roles(&got), [Role::Forwarded; 2]);
    assert_eq!(origin.calls(), 3);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_forwarded_request_is_the_followers_own_extensions_and_body_included() {
    let origin = tower::service_fn(
        |request: http::Request<http_body_util::Full<Bytes>>| async move {
            let user = *request.extensions().get::<u8>().expect("an extension");
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let response = Response::builder().header("set-cookie", user.to_string());
            Ok::<_, std::convert::Infallible>(
                response.body(http_body_util::Full::new(body)).unwrap(),
            )
        },
    );
    let layer = SingleflightLayer::with_key(|_| Some(()));
    let service = layer.layer(origin);
    let asked = [1_u8, 2, 3].map(|user| {
        let body = http_body_util::Full::new(Bytes::from(user.to_string()));
        let mut request = http::Request::post("/").body(body).unwrap();
        request.extensions_mut().insert(user);
        ask(&service, request)
    });
    let got = all(asked).await;
    for (user, got) in ["1", "2", "3"].iter().zip(&got) {
        assert_eq!(got.body, *user);
        assert_eq!(got.head.headers["set-cookie"], *user);
    }
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_flight_that_is_full_sends_one_more_caller_on_at_once() {
    let origin = Origin::page();
    let layer = SingleflightLayer::new().max_waiters(2);
    let service = layer.layer(origin.clone());
    let asked = [(); 4].map(|()| ask(&service, get("/")));
    assert_eq!(origin.calls(), 3);
    let stats = layer.handle().stats();
    assert_eq!(
        (stats.led, stats.joined, stats.forwarded, stats.waiters),
        (1, 1, 2, 2)
    );
    origin.open();
    use Role::{Follower, Forwarded, Leader};
    assert_eq!(
        roles(&all(asked).await),
        [Leader, Follower, Forwarded, Forwarded]
    );
    assert_idle(&layer.handle());
}

/// Looks at the table when it is dropped.
struct Looks {
    handle: Handle<(Method, Uri)>,
    seen: mpsc::Sender<usize>,
}

impl Drop for Looks {
    fn drop(&mut self) {
        let _ = self.seen.send(self.handle.in_flight());
    }
}

#[tokio::test]
async fn the_key_is_free_before_anybody_hears_that_the_response_is_not_for_all() {
    let layer = SingleflightLayer::with_key(method_and_uri);
    let gate = Arc::new(Semaphore::new(0));
    let (seen, saw) = mpsc::channel();
    let service = {
        let (handle, gate) = (layer.handle(), Arc::clone(&gate));
        layer.layer(service_fn(move |_: Request<Empty<Bytes>>| {
            let looks = Looks {
                handle: handle.clone(),
                seen: seen.clone(),
            };
            let gate = Arc::clone(&gate);
            let mut passes = Box::pin(async move { gate.acquire().await.unwrap().forget() });
            // Dropped with the call, which is when it is known whom its response is for.
            poll_fn(move |cx| {
                let _kept = &looks;
                let response = Response::builder().header("cache-control", "private");
                let response = response.body(Full::new(Bytes::from("own"))).unwrap();
                passes
                    .as_mut()
                    .poll(cx)
                    .map(|()| Ok::<_, Infallible>(response))
            })
        }))
    };
    let asked = [get("/"), get("/")].map(|request| ask(&service, request));
    gate.add_permits(1);
    settle().await;
    assert_eq!(saw.try_recv(), Ok(0));
    gate.add_permits(1);
    let got = all(asked).await;
    assert_eq!(roles(&got), [Role::Leader, Role::Forwarded]);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_call_that_has_answered_is_dropped_though_its_callers_future_is_kept() {
    let alive = Arc::new(());
    let inner = {
        let alive = Arc::downgrade(&alive);
        service_fn(move |_: Request<Empty<Bytes>>| {
            let held = alive.upgrade();
            poll_fn(move |_| {
                assert!(held.is_some());
                std::task::Poll::Ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())))
            })
        })
    };
    let layer = SingleflightLayer::new();
    let mut service = layer.layer(inner);
    for method in ["GET", "POST"] {
        let mut call = Box::pin(service.call(request(method, "/", &[])));
        assert!(call.as_mut().await.is_ok());
        assert_eq!(Arc::strong_count(&alive), 1, "{method}");
        drop(call);
    }
    assert_idle(&layer.handle());
}
