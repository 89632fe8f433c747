//! The layer over a mock service: who leads, who follows, and what is left.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use tokio::sync::Semaphore;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_singleflight::{Role, SingleflightLayer};

fn get(uri: &str) -> Request<Empty<Bytes>> {
    Request::get(uri).body(Empty::new()).unwrap()
}

#[tokio::test]
async fn identical_requests_make_one_call() {
    let calls = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(Semaphore::new(0));
    let layer = SingleflightLayer::new();
    let handle = layer.handle();
    let service = {
        let (calls, gate) = (calls.clone(), gate.clone());
        layer.layer(service_fn(move |_: Request<Empty<Bytes>>| {
            let (calls, gate) = (calls.clone(), gate.clone());
            async move {
                calls.fetch_add(1, Ordering::SeqCst);
                let _permit = gate.acquire().await.unwrap();
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("page"))))
            }
        }))
    };
    let mut requests = Vec::new();
    for _ in 0..10 {
        requests.push(tokio::spawn(service.clone().call(get("/page"))));
    }
    assert_eq!((handle.in_flight(), handle.stats().waiters), (1, 10));
    gate.add_permits(10);
    let mut roles = Vec::new();
    for request in requests {
        let response = request.await.unwrap().unwrap();
        roles.push(*response.extensions().get::<Role>().unwrap());
        assert_eq!(
            response.into_body().collect().await.unwrap().to_bytes(),
            "page"
        );
    }
    assert_eq!(
        roles.iter().filter(|role| **role == Role::Leader).count(),
        1
    );
    assert_eq!(
        roles.iter().filter(|role| **role == Role::Follower).count(),
        9
    );
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    let stats = handle.stats();
    assert_eq!(
        (
            stats.led,
            stats.joined,
            stats.in_flight,
            stats.waiters,
            stats.buffered_bytes
        ),
        (1, 9, 0, 0, 0)
    );
}

#[tokio::test]
async fn a_lone_request_leaves_nothing() {
    let layer = SingleflightLayer::new();
    let handle = layer.handle();
    let service = layer.layer(service_fn(|_: Request<Empty<Bytes>>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("page"))))
    }));
    let response = service.oneshot(get("/")).await.unwrap();
    assert_eq!(handle.in_flight(), 0);
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "page"
    );
    assert_eq!(handle.stats().waiters, 0);
}

#[tokio::test]
async fn one_gzip_and_ten_br_make_two_calls_though_the_upstream_answers_at_once() {
    let calls = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(Semaphore::new(0));
    let layer = SingleflightLayer::with_key(tower_singleflight::method_and_uri);
    let handle = layer.handle();
    let service = {
        let (calls, gate) = (calls.clone(), gate.clone());
        layer.layer(service_fn(move |request: Request<Empty<Bytes>>| {
            let (calls, gate) = (calls.clone(), gate.clone());
            async move {
                let coding = request.headers()["accept-encoding"].clone();
                if calls.fetch_add(1, Ordering::SeqCst) == 0 {
                    let _permit = gate.acquire().await.unwrap();
                }
                let body = Full::new(Bytes::copy_from_slice(coding.as_bytes()));
                let response = Response::builder()
                    .header("vary", "accept-encoding")
                    .header("content-encoding", coding);
                Ok::<_, Infallible>(response.body(body).unwrap())
            }
        }))
    };
    let request = |coding: &str| {
        let mut request = get("/page");
        request
            .headers_mut()
            .insert("accept-encoding", coding.parse().unwrap());
        let call = service.clone().call(request);
        let coding = coding.to_owned();
        async move {
            let response = call.await.unwrap();
            let role = *response.extensions().get::<Role>().unwrap();
            assert_eq!(
                response.into_body().collect().await.unwrap().to_bytes(),
                coding
            );
            role
        }
    };
    let mut roles = vec![tokio::spawn(request("gzip"))];
    for _ in 0..10 {
        roles.push(tokio::spawn(request("br")));
    }
    tokio::task::yield_now().await;
    gate.add_permits(1);
    let mut seen = Vec::new();
    for role in roles {
        seen.push(role.await.unwrap());
    }
    assert_eq!(calls.load(Ordering::SeqCst), 2, "{seen:?}");
    assert_eq!(
        seen.iter().filter(|role| **role == Role::Forwarded).count(),
        1
    );
    assert_eq!(
        seen.iter().filter(|role| **role == Role::Follower).count(),
        9
    );
    assert_eq!(
        (
            handle.in_flight(),
            handle.stats().waiters,
            handle.stats().buffered_bytes
        ),
        (0, 0, 0)
    );
}
