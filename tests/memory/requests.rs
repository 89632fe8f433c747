//! What a flight keeps of the heads of its request and of its response, and what that costs.

use std::{convert::Infallible, task::Poll};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Empty, StreamBody, combinators::UnsyncBoxBody};
use tower::{BoxError, Layer, Service, service_fn};
use tower_singleflight::{KeyExtractor, RequestKeyExtractor, SingleflightLayer, method_and_uri};

use crate::{
    allocated, alone, live,
    support::{assert_idle, get, poll_once},
};

/// The inner service answers with a body that goes on, and keeps nothing of the request.
fn going_on(
    _: Request<Empty<Bytes>>,
) -> std::future::Ready<Result<Response<UnsyncBoxBody<Bytes, BoxError>>, Infallible>> {
    let body = StreamBody::new(futures_util::stream::pending());
    std::future::ready(Ok(Response::new(body.boxed_unsync())))
}

/// As a server makes it: the URI is a slice of the buffer that the whole head was read into.
fn padded(number: usize) -> Request<Empty<Bytes>> {
    let path = format!("/page/{number}");
    let head = format!(
        "GET {path} HTTP/1.1\r\nx-pad: {}\r\n\r\n",
        "p".repeat(60_000)
    );
    let uri = Bytes::from(head).slice(4..4 + path.len());
    let uri = Uri::from_maybe_shared(uri).expect("a URI");
    Request::get(uri).body(Empty::new()).expect("a request")
}

/// The bytes that each flight keeps while its body goes on.
fn kept_by_each<X: KeyExtractor>(layer: &SingleflightLayer<X>) -> usize {
    const FLIGHTS: usize = 100;
    let mut service = layer.layer(service_fn(going_on));
    let mut responses = Vec::with_capacity(FLIGHTS);
    let before = live();
    for number in 0..FLIGHTS {
        responses.push(poll_once(&mut service.call(padded(number))));
    }
    let kept = live() - before;
    assert_eq!(layer.handle().in_flight(), FLIGHTS);
    drop(responses);
    assert_idle(&layer.handle());
    kept / FLIGHTS
}

#[test]
fn a_flight_keeps_no_buffer_that_its_request_was_read_into() {
    let _alone = alone();
    let kept = [
        kept_by_each(&SingleflightLayer::new()),
        kept_by_each(&SingleflightLayer::with_extractor(
            RequestKeyExtractor::new().and(|_| Some(1)),
        )),
        kept_by_each(&SingleflightLayer::with_extractor(method_and_uri)),
    ];
    assert!(kept.iter().all(|kept| *kept < 10_000), "{kept:?}");
}

#[test]
fn a_key_of_a_path_is_one_allocation_and_none_once_another_is_dropped() {
    let request = get("/page?number=1").into_parts().0;
    let extractor = RequestKeyExtractor::new();
    // The secret of the process is made once.
    let _first = extractor.extract(&request);
    let before = allocated().0;
    let key = extractor.extract(&request);
    assert_eq!(allocated().0 - before, 1, "{key:?}");
    drop(key);
    let before = allocated().0;
    let key = extractor.extract(&request);
    assert_eq!(allocated().0 - before, 0, "{key:?}");
}

/// As a client makes it: the value is a slice of the buffer that the whole head was read into.
fn sliced(
    _: Request<Empty<Bytes>>,
) -> std::future::Ready<Result<Response<UnsyncBoxBody<Bytes, BoxError>>, Infallible>> {
    let value = Bytes::from("v".repeat(60_000)).slice(..10);
    let value = HeaderValue::from_maybe_shared(value).expect("a value");
    let body = StreamBody::new(futures_util::stream::pending());
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert("x-value", value);
    std::future::ready(Ok(response))
}

#[test]
fn a_flight_keeps_no_buffer_that_its_responses_head_was_read_into() {
    const FLIGHTS: usize = 100;
    let _alone = alone();
    let layer = SingleflightLayer::new();
    let mut service = layer.layer(service_fn(sliced));
    let mut bodies = Vec::with_capacity(FLIGHTS);
    let before = live();
    for number in 0..FLIGHTS {
        let call = &mut service.call(get(&format!("/{number}")));
        let Poll::Ready(Ok(response)) = poll_once(call) else {
            panic!("it is there");
        };
        bodies.push(response.into_body());
    }
    let kept = (live() - before) / FLIGHTS;
    assert!(kept < 10_000, "{kept}");
    drop(bodies);
    assert_idle(&layer.handle());
}
