//! What the layer keeps of requests that are over, in live bytes of a counting allocator.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{Empty, Full};
use tower::{Layer, Service, service_fn};
use tower_singleflight::SingleflightLayer;

use crate::{alone, live, support::assert_idle};

/// As a server makes it: the URI is a slice of the buffer that the whole head was read into.
fn request(path: &str, padding: usize) -> Request<Empty<Bytes>> {
    let head = format!(
        "GET {path} HTTP/1.1\r\nx-pad: {}\r\n\r\n",
        "p".repeat(padding)
    );
    let head = Bytes::from(head);
    let uri = Uri::from_maybe_shared(head.slice(4..4 + path.len())).expect("a URI");
    Request::get(uri).body(Empty::new()).expect("a request")
}

/// Asks for so many pages, one after the other, each of which sets a cookie if `/private` begins it.
async fn ask(layer: &SingleflightLayer, path: &str, requests: usize, padding: usize) {
    let mut service = layer.layer(service_fn(|request: Request<Empty<Bytes>>| async move {
        let mut response = Response::builder();
        if request.uri().path().starts_with("/private") {
            response = response.header("set-cookie", "a=b");
        }
        Ok::<_, Infallible>(response.body(Full::new(Bytes::new())).expect("a response"))
    }));
    for number in 0..requests {
        let request = request(&format!("{path}/{number}"), padding);
        drop(service.call(request).await);
    }
}

#[test]
fn a_remembered_key_costs_some_bytes_whatever_its_request_was_and_for_a_while_alone() {
    let _alone = alone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let layer = SingleflightLayer::new();
        ask(&layer, "/warm", 200, 0).await;
        ask(&layer, "/private", 1, 0).await;
        let before = live();
        let held = || live().saturating_sub(before);

        const KEYS: usize = 1000;
        ask(&layer, "/private", KEYS, 60_000).await;
        assert!(held() <= KEYS * 100, "{} bytes for each key", held() / KEYS);
        let led = layer.handle().stats().led;
        ask(&layer, "/private", KEYS, 60_000).await;
        assert_eq!(layer.handle().stats().led, led, "all are remembered");

        // Ten times as many as there is room for.
        ask(&layer, "/private/more", 60_000, 0).await;
        assert!(held() < 256 << 10, "{} bytes for all", held());

        tokio::time::advance(Duration::from_secs(61)).await;
        // Somebody asks for something else.
        ask(&layer, "/other", 1, 0).await;
        assert!(held() < 2000, "{} bytes are left", held());
        assert_idle(&layer.handle());
    });
}
