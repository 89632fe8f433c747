//! What reading bodies ahead costs, in allocations.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    mem::size_of,
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{Empty, Full, StreamBody};
use tower::{Layer, Service, service_fn};
use tower_singleflight::{
    BodyBytes, BufferBodyLayer, BufferedBody, RequestKeyExtractor, SingleflightLayer,
};

use crate::allocated;

/// The allocations of a call that waits for nothing.
fn allocations<S, B>(mut service: S, request: Request<B>) -> (usize, usize)
where
    S: Service<Request<B>, Error = Infallible>,
{
    let (times, bytes) = allocated();
    let mut call = std::pin::pin!(service.call(request));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    while call.as_mut().poll(&mut cx).is_pending() {}
    let (times_now, bytes_now) = allocated();
    (times_now - times, bytes_now - bytes)
}

fn answer<B>(_: Request<B>) -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
    ready(Ok(Response::new(Full::default())))
}

fn get(uri: &str) -> Request<Empty<Bytes>> {
    let request = Request::get(uri)
        .header("accept", "text/html")
        .extension(1_u8);
    request.body(Empty::new()).unwrap()
}

#[test]
fn a_get_allocates_nothing_for_the_layer() {
    let bare = allocations(service_fn(answer), get("/"));
    let buffered = BufferBodyLayer::new(100).layer(service_fn(answer));
    assert_eq!(bare, (0, 0));
    assert_eq!(allocations(buffered, get("/")), bare);
}

#[test]
fn a_get_allocates_nothing_more_above_the_flights() {
    let key = || RequestKeyExtractor::new().coalesce(Method::POST);
    let bare = SingleflightLayer::with_extractor(key()).layer(service_fn(answer));
    let buffered = SingleflightLayer::with_extractor(key()).layer(service_fn(answer));
    let buffered = BufferBodyLayer::new(100).layer(buffered);
    // The first makes what threads keep.
    allocations(bare.clone(), get("/warm"));
    let (times, _) = allocations(bare, get("/"));
    assert_eq!(allocations(buffered, get("/")).0, times);
}

#[test]
fn a_body_that_came_in_one_frame_is_not_copied() {
    const SIZE: usize = 1 << 20;
    let key = RequestKeyExtractor::new().coalesce(Method::POST);
    let flights = SingleflightLayer::with_extractor(key).layer(service_fn(answer));
    let buffered = BufferBodyLayer::new(SIZE).layer(flights);
    let post = |size| {
        Request::post("/")
            .body(Full::new(Bytes::from(vec![7; size])))
            .unwrap()
    };
    allocations(buffered.clone(), post(SIZE));
    let (times, bytes) = allocations(buffered.clone(), post(SIZE));
    assert!(bytes < 4096, "{bytes}");
    // Nor does it matter how long it is.
    assert_eq!(allocations(buffered, post(10)), (times, bytes));
}

#[test]
fn a_body_that_came_in_one_frame_costs_an_allocation_and_what_the_extensions_need() {
    let service = BufferBodyLayer::new(100).layer(service_fn(answer));
    let mut extensions = http::Extensions::new();
    let (before, _) = allocated();
    extensions.insert(BodyBytes::default());
    let inserted = allocated().0 - before;
    let post = Request::post("/")
        .body(Full::new(Bytes::from_static(b"query")))
        .unwrap();
    assert_eq!(allocations(service, post).0, 1 + inserted);
}

#[test]
fn a_body_in_many_frames_is_copied_together_in_a_few_steps() {
    const FRAMES: usize = 10_000;
    let service = BufferBodyLayer::new(FRAMES).layer(service_fn(answer));
    let frames = (0..FRAMES).map(|_| Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"a"))));
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let (times, bytes) = allocations(service, Request::post("/").body(body).unwrap());
    assert!(times < 30, "{times}");
    assert!(bytes < 5 * FRAMES, "{bytes}");
}

#[test]
fn a_body_that_passes_is_little_larger() {
    let word = size_of::<usize>();
    assert!(size_of::<BufferedBody<[usize; 16]>>() <= 17 * word);
    assert!(size_of::<BufferedBody<Empty<Bytes>>>() <= 2 * word);
}
