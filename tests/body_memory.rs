//! A gibibyte through the layer, and how much of it is alive at once.
#![cfg(feature = "http")]
#![allow(unsafe_code, reason = "an allocator that counts")]

mod body_support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    convert::Infallible,
    pin::Pin,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use body_support::{KeyOf, Req, assert_nothing_left, get, layer, poll_now};
use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tower::{Layer, Service, service_fn};
use tower_singleflight::{ResponseBody, SingleflightLayer};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: `System` does it all.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::SeqCst) + layout.size();
        PEAK.fetch_max(live, Ordering::SeqCst);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::SeqCst);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test at a time, since they count together.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|poison| poison.into_inner())
}

const GIB: usize = 1 << 30;
const MAX_BODY: usize = 1 << 20;
const FRAME: usize = 64 << 10;
/// The flight itself, a frame in transit, and what the test needs.
const SMALL: usize = 4 * FRAME;

/// So many bytes, made as they are pulled.
struct Zeros {
    left: usize,
    frame: usize,
    known: bool,
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
        Poll::Ready((len > 0).then(|| Ok(Frame::data(Bytes::from(vec![0; len])))))
    }

    fn size_hint(&self) -> SizeHint {
        if self.known {
            SizeHint::with_exact(self.left as u64)
        } else {
            SizeHint::new()
        }
    }
}

/// How much was alive at most while a leader alone read a body like this.
fn peak(layer: &SingleflightLayer<KeyOf>, len: usize, frame: usize, known: bool) -> usize {
    let handle = layer.handle();
    let mut service = layer.layer(service_fn(move |_: Req| {
        std::future::ready(Ok::<_, Infallible>(Response::new(Zeros {
            left: len,
            frame,
            known,
        })))
    }));
    let mut leader = service.call(get());
    let Poll::Ready(Ok(response)) = poll_now(&mut leader) else {
        panic!("no response");
    };
    let mut body: ResponseBody<Zeros> = response.into_body();
    let base = LIVE.load(Ordering::SeqCst);
    PEAK.store(base, Ordering::SeqCst);
    let mut cx = Context::from_waker(Waker::noop());
    let mut read = 0;
    while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut cx) {
        read += frame.unwrap().into_data().unwrap().len();
        assert!(handle.stats().buffered_bytes <= MAX_BODY + frame_room(len));
    }
    assert_eq!(read, len);
    drop((leader, body));
    assert_nothing_left(&handle);
    PEAK.load(Ordering::SeqCst) - base
}

/// One frame in transit may be paid for beyond the limit.
fn frame_room(len: usize) -> usize {
    len.min(FRAME)
}

#[test]
fn a_gibibyte_of_unknown_length_never_keeps_more_than_max_body() {
    let _alone = alone();
    let peak = peak(&layer().max_body(MAX_BODY), GIB, FRAME, false);
    assert!(peak <= MAX_BODY + SMALL, "{peak}");
}

#[test]
fn a_gibibyte_of_unknown_length_that_would_stream_never_keeps_more_than_max_body() {
    let _alone = alone();
    let layer = layer().max_body(MAX_BODY).stream_unknown(true);
    let peak = peak(&layer, GIB, FRAME, false);
    assert!(peak <= MAX_BODY + SMALL, "{peak}");
}

#[test]
fn a_gibibyte_of_known_length_is_not_kept_at_all() {
    let _alone = alone();
    let peak = peak(&layer().max_body(MAX_BODY), GIB, FRAME, true);
    assert!(peak <= SMALL, "{peak}");
}

#[test]
fn a_gibibyte_never_keeps_more_than_max_buffered() {
    let _alone = alone();
    let layer = layer().max_body(GIB).max_buffered(MAX_BODY);
    let peak = peak(&layer, GIB, FRAME, false);
    assert!(peak <= MAX_BODY + SMALL, "{peak}");
}

#[test]
fn a_body_in_frames_of_a_few_bytes_keeps_little_more_than_max_body() {
    let _alone = alone();
    // An allocator rounds up, so more than their bytes and their entries is alive.
    let peak = peak(&layer().max_body(MAX_BODY), 4 << 20, 8, false);
    assert!(peak <= 4 * MAX_BODY, "{peak}");
}

#[test]
fn a_gibibyte_for_two_readers_in_a_window_never_keeps_more_than_max_body() {
    let _alone = alone();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.build().unwrap();
    runtime.block_on(two_readers());
}

async fn two_readers() {
    let layer = layer().max_body(MAX_BODY).stream_unknown(true);
    let handle = layer.handle();
    let mut service = layer.layer(service_fn(|_: Req| async {
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(Response::new(Zeros {
            left: GIB / 8,
            frame: FRAME,
            known: false,
        }))
    }));
    let calls = [service.call(get()), service.call(get())];
    let base = LIVE.load(Ordering::SeqCst);
    PEAK.store(base, Ordering::SeqCst);
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
    let peak = PEAK.load(Ordering::SeqCst) - base;
    assert!(peak <= MAX_BODY + SMALL, "{peak}");
    drop(bodies);
    assert_nothing_left(&handle);
}
