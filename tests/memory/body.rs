//! A gibibyte through the layer, and how much of it is alive at once.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::{client::conn::http1, server::conn::http1 as http1_server};
use hyper_util::rt::TokioIo;
use tower::{Layer, Service, service_fn};
use tower_singleflight::{ResponseBody, SingleflightLayer};

use crate::{
    alone, live, reset_peak,
    support::{
        assert_idle,
        body::{self, KeyOf, Req, layer},
        get, poll_once,
    },
};

const GIB: usize = 1 << 30;
const MAX_BODY: usize = 1 << 20;
const FRAME: usize = 64 << 10;
/// The flight itself, a frame in transit, and what the test needs.
const SMALL: usize = 4 * FRAME;

/// So many bytes, made as they are pulled.
#[derive(Clone, Copy)]
struct Zeros {
    left: usize,
    frame: usize,
    known: bool,
    /// The size of the buffer that each frame is cut from.
    buffer: usize,
}

impl Zeros {
    fn new(len: usize, frame: usize, known: bool) -> Self {
        Self {
            left: len,
            frame,
            known,
            buffer: 0,
        }
    }
}

impl Body for Zeros {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let len = self.left.min(self.frame);
        self.left -= len;
        Poll::Ready((len > 0).then(|| {
            let mut data = Bytes::from(vec![0; len.max(self.buffer)]);
            data.truncate(len);
            Ok(Frame::data(data))
        }))
    }

    fn size_hint(&self) -> SizeHint {
        if self.known {
            SizeHint::with_exact(self.left as u64)
        } else {
            SizeHint::new()
        }
    }
}

/// How much was alive at most, and how much was counted, while a leader alone read a body like this.
fn peak(layer: &SingleflightLayer<KeyOf>, source: Zeros) -> (usize, usize) {
    let handle = layer.handle();
    let len = source.left;
    let mut service = layer.layer(service_fn(move |_: Req| {
        std::future::ready(Ok::<_, Infallible>(Response::new(source)))
    }));
    let mut leader = service.call(get("/page"));
    let Poll::Ready(Ok(response)) = poll_once(&mut leader) else {
        panic!("no response");
    };
    let mut body: ResponseBody<Zeros> = response.into_body();
    let base = reset_peak();
    let mut cx = Context::from_waker(Waker::noop());
    let (mut read, mut counted) = (0, 0);
    while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut cx) {
        read += frame.unwrap().into_data().unwrap().len();
        counted = counted.max(handle.stats().buffered_bytes);
    }
    assert_eq!(read, len);
    drop((leader, body));
    assert_idle(&handle);
    (crate::peak() - base, counted)
}

#[test]
fn a_gibibyte_of_unknown_length_never_keeps_more_than_max_body() {
    let _alone = alone();
    let (peak, counted) = peak(&layer().max_body(MAX_BODY), Zeros::new(GIB, FRAME, false));
    assert!(peak <= MAX_BODY + SMALL, "{peak}");
    // One frame in transit may be paid for beyond the limit.
    assert!(counted <= MAX_BODY + FRAME, "{counted}");
}

#[test]
fn a_gibibyte_of_known_length_never_keeps_more_than_max_body() {
    let _alone = alone();
    let (peak, counted) = peak(&layer().max_body(MAX_BODY), Zeros::new(GIB, FRAME, true));
    assert!(peak <= MAX_BODY + SMALL, "{peak}");
    // One frame in transit may be paid for beyond the limit.
    assert!(counted <= MAX_BODY + FRAME, "{counted}");
}

#[test]
fn a_gibibyte_never_keeps_more_than_max_buffered() {
    let _alone = alone();
    let layer = layer().max_body(GIB).max_buffered(MAX_BODY);
    let (peak, counted) = peak(&layer, Zeros::new(GIB, FRAME, false));
    assert!(peak <= MAX_BODY + SMALL, "{peak}");
    // One frame in transit may be paid for beyond the limit.
    assert!(counted <= MAX_BODY + FRAME, "{counted}");
}

#[test]
fn a_body_in_frames_of_a_few_bytes_keeps_little_more_than_max_body() {
    let _alone = alone();
    let source = Zeros::new(4 << 20, 8, false);
    let (peak, counted) = peak(&layer().max_body(MAX_BODY), source);
    // A queue that grows, or is given up, is there twice for a moment.
    assert!(peak <= 4 * MAX_BODY, "{peak}");
    assert!(counted <= 5 * MAX_BODY / 2, "{counted}");
}

#[test]
fn small_frames_cut_from_large_buffers_do_not_hold_the_buffers() {
    let _alone = alone();
    for known in [true, false] {
        let source = Zeros {
            buffer: FRAME,
            ..Zeros::new(MAX_BODY, 512, known)
        };
        let (peak, counted) = peak(&layer().max_body(MAX_BODY), source);
        // Of the first few frames it isn't known yet that many follow.
        assert!(peak <= MAX_BODY * 5 / 4 + 16 * FRAME + SMALL, "{peak}");
        assert_eq!(counted, MAX_BODY);
    }
}

/// hyper's HTTP/1 client reads into 8 KiB at the least, and what one read gave is a frame.
#[test]
fn a_body_that_trickles_through_hyper_does_not_hold_a_buffer_for_each_byte() {
    let _alone = alone();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.build().unwrap();
    runtime.block_on(trickle());
}

async fn trickle() {
    const BYTES: usize = 2_000;
    let (near, far) = tokio::io::duplex(1 << 10);
    let (feed, body) = body::body(SizeHint::new());
    let body = Mutex::new(Some(body));
    let origin = hyper::service::service_fn(move |_| {
        let body = body.lock().unwrap().take().expect("one call");
        std::future::ready(Ok::<_, Infallible>(Response::new(body)))
    });
    let server = http1_server::Builder::new().serve_connection(TokioIo::new(far), origin);
    tokio::spawn(server);
    let (client, connection) = http1::handshake(TokioIo::new(near)).await.unwrap();
    tokio::spawn(connection);
    let client = Arc::new(tokio::sync::Mutex::new(client));
    let layer = layer();
    let handle = layer.handle();
    let mut service = layer.layer(service_fn(move |request: Req| {
        let client = client.clone();
        async move {
            client
                .lock()
                .await
                .send_request(request)
                .await
                .map_err(Arc::new)
        }
    }));
    // The flight has a follower, so that nobody need read.
    let [leader, follower] = [service.call(get("/page")), service.call(get("/page"))];
    let leader = leader.await.unwrap().into_body();
    let base = live();
    for sent in 1..=BYTES {
        feed.send("x");
        while handle.stats().buffered_bytes < sent {
            tokio::task::yield_now().await;
        }
    }
    let kept = live() - base;
    assert!(kept <= 100 * BYTES + SMALL, "{kept}");
    feed.end();
    let copy = follower.await.unwrap().into_body();
    for body in [leader, copy] {
        assert_eq!(body.collect().await.unwrap().to_bytes().len(), BYTES);
    }
    assert_idle(&handle);
}

#[test]
fn what_tiny_frames_of_a_known_length_hold_is_counted() {
    let _alone = alone();
    let source = Zeros::new(MAX_BODY, 1, true);
    let layer = layer().max_body(MAX_BODY).max_buffered(MAX_BODY * 8);
    let (peak, counted) = peak(&layer, source);
    assert!(counted > 4 * MAX_BODY, "{counted}");
    assert!(peak <= counted * 3 / 2 + SMALL, "{peak}");
}

#[test]
fn a_gibibyte_for_two_readers_in_a_window_never_keeps_more_than_max_body() {
    let _alone = alone();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.build().unwrap();
    runtime.block_on(two_readers());
}

async fn two_readers() {
    let layer = layer().max_body(MAX_BODY);
    let handle = layer.handle();
    let mut service = layer.layer(service_fn(|_: Req| async {
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(Response::new(Zeros::new(GIB / 8, FRAME, false)))
    }));
    let calls = [service.call(get("/page")), service.call(get("/page"))];
    let base = reset_peak();
    let [first, second] = calls;
    let (first, second) = tokio::join!(first, second);
    let mut bodies = [first, second].map(|response| response.unwrap().into_body());
    let mut read = [0, 0];
    loop {
        let mut over = true;
        for (body, read) in bodies.iter_mut().zip(&mut read) {
            if let Some(frame) = body.frame().await {
                *read += frame.unwrap().into_data().unwrap().len();
                over = false;
            }
        }
        if over {
            break;
        }
    }
    assert_eq!(read, [GIB / 8; 2]);
    let peak = crate::peak() - base;
    assert!(peak <= MAX_BODY + SMALL, "{peak}");
    drop(bodies);
    assert_idle(&handle);
}
