//! What the chaos test found, each as small as it gets.
#![cfg(feature = "http")]

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty};
use tower::{Layer, ServiceExt, service_fn};
use tower_singleflight::SingleflightLayer;

fn get(uri: &str) -> Request<Empty<Bytes>> {
    Request::get(uri).body(Empty::new()).unwrap()
}

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
    assert_eq!(handle.stats().waiters, 0);
}
