//! What the chaos test found, each as small as it gets.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Either, Empty, Full};
use tokio::sync::Semaphore;
use tokio_test::assert_pending;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_singleflight::{Role, SingleflightLayer};

use crate::support::{assert_idle, get};

/// These frames, and then nothing more, not even an end.
struct Stalls(VecDeque<Frame<Bytes>>);

impl Body for Stalls {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Poll::Pending,
        }
    }
}

#[tokio::test]
async fn trailers_are_the_end_though_the_source_has_not_said_so() {
    let layer = SingleflightLayer::new();
    let handle = layer.handle();
    let service = layer.layer(service_fn(|_: Request<Empty<Bytes>>| async {
        let frames = [
            Frame::data(Bytes::from("page")),
            Frame::trailers(HeaderMap::new()),
        ];
        Ok::<_, Infallible>(Response::new(Stalls(frames.into())))
    }));
    let response = service.oneshot(get("/")).await.unwrap();
    let mut body = response.into_body();
    assert!(body.frame().await.unwrap().unwrap().is_data());
    assert_eq!(handle.in_flight(), 1);
    assert!(body.frame().await.unwrap().unwrap().is_trailers());
    // A server has sent the whole response now, and asks for no more.
    assert_eq!(handle.in_flight(), 0);
    assert!(body.is_end_stream());
    assert!(body.frame().await.is_none());
    assert_idle(&handle);
}

/// A body whose first poll panics.
struct Panics;

impl Body for Panics {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        panic!("the body of another variant")
    }
}

/// Without a runtime the follower polls the flight that it is moved out of.
#[test]
fn who_is_moved_to_another_variant_does_not_hear_the_panic_of_the_first() {
    let layer = SingleflightLayer::with_key(tower_singleflight::method_and_uri);
    let handle = layer.handle();
    let gate = Arc::new(Semaphore::new(0));
    let mut service = {
        let gate = gate.clone();
        layer.layer(service_fn(move |request: Request<Empty<Bytes>>| {
            let gate = gate.clone();
            async move {
                let coding = request.headers()["accept-encoding"].clone();
                let response = Response::builder().header("vary", "accept-encoding");
                let body = if coding == "gzip" {
                    gate.acquire().await.unwrap().forget();
                    Either::Left(Panics)
                } else {
                    Either::Right(Full::new(Bytes::from("br")))
                };
                Ok::<_, Infallible>(response.body(body).unwrap())
            }
        }))
    };
    let mut request = |coding: &str| {
        let mut request = get("/");
        let coding = coding.parse().unwrap();
        request.headers_mut().insert("accept-encoding", coding);
        tokio_test::task::spawn(service.call(request))
    };
    let (leader, mut follower) = (request("gzip"), request("br"));
    assert_pending!(follower.poll());
    gate.add_permits(1);
    // Here the head of the first comes, and its body panics.
    let Poll::Ready(Ok(response)) = follower.poll() else {
        panic!("the follower makes its own call at once");
    };
    let role = response.extensions().get::<Role>();
    assert_eq!(role, Some(&Role::Forwarded));
    let body = response.into_body().collect().now_or_never();
    assert_eq!(body.unwrap().unwrap().to_bytes(), "br");
    drop((leader, follower));
    assert_idle(&handle);
}
