//! Rng traffic of many kinds on many threads: whoever gets a response gets one that was made for such a request, whole,
//! and by a call that was in the air when it asked; and in the end nothing is left.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty};
use tower::{BoxError, Layer, Service, limit::ConcurrencyLimitLayer, service_fn};
use tower_singleflight::{Role, SingleflightLayer};

use crate::support::{Rng, assert_idle, hush};

/// A body that comes with pauses.
struct Slow {
    frames: VecDeque<Bytes>,
    fails: bool,
    pauses: u64,
    random: Rng,
}

impl Body for Slow {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.pauses > 0 && self.random.below(2) == 0 {
            self.pauses -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match self.frames.pop_front() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None if self.fails => Poll::Ready(Some(Err("cut".into()))),
            None => Poll::Ready(None),
        }
    }
}

/// When somebody had first read each call's answer to its end, by its number.
type Ends = Arc<std::sync::Mutex<Vec<u64>>>;

async fn answer(
    request: Request<Empty<Bytes>>,
    mut random: Rng,
    ends: Ends,
) -> Result<Response<Slow>, BoxError> {
    let call = {
        let mut ends = ends.lock().unwrap();
        ends.push(u64::MAX);
        ends.len() - 1
    };
    for _ in 0..random.below(8) {
        tokio::task::yield_now().await;
    }
    let kind = random.below(16);
    match kind {
        0 => {
            return Err(format!("failed {}", request.uri().path()).into());
        }
        1 => panic!("random panic"),
        _ => {}
    }
    let variant = request.headers()["x-variant"].to_str().unwrap();
    let other = request.headers()["x-other"].to_str().unwrap();
    let mut head = Response::builder();
    let mut about = request.uri().path().to_owned();
    // What the answer depends on, and says so.
    match kind {
        2..=6 => {
            head = head.header("vary", "x-variant");
            about += &format!(" v{variant}");
        }
        7..=8 => {
            head = head.header("vary", "x-other, x-variant");
            about += &format!(" v{variant} o{other}");
        }
        9 => {
            head = head.header("cache-control", "private");
            about += &format!(" p{}", request.headers()["x-me"].to_str().unwrap());
        }
        _ => {}
    }
    let frames: VecDeque<_> = (0..random.below(5))
        .map(|frame| Bytes::from(format!("[{frame}:{call}]")))
        .chain([Bytes::from(format!("end {call} {about}"))])
        .collect();
    if random.below(2) == 0 && kind != 10 {
        let length: usize = frames.iter().map(Bytes::len).sum();
        head = head.header("content-length", length);
    }
    let pauses = random.below(6);
    let fails = kind == 10;
    Ok(head.body(Slow {
        frames,
        fails,
        pauses,
        random,
    })?)
}

/// Whether this body is whole, of one call, and for this request; gives the call.
fn check(body: &str, path: &str, variant: u64, other: u64, me: u64) -> usize {
    let (frames, end) = body
        .split_once("end ")
        .unwrap_or_else(|| panic!("cut: {body}"));
    let mut words = end.split(' ');
    let call = words.next().unwrap();
    for (at, frame) in frames.split_terminator(']').enumerate() {
        assert_eq!(frame, format!("[{at}:{call}"), "{body}");
    }
    assert_eq!(words.next(), Some(path), "{body}");
    for word in words {
        let expected = match word.as_bytes()[0] {
            b'v' => format!("v{variant}"),
            b'o' => format!("o{other}"),
            _ => format!("p{me}"),
        };
        assert_eq!(word, expected, "a stranger's: {body}");
    }
    call.parse().unwrap()
}

async fn traffic(seed: u64, build: fn(SingleflightLayer<Key>) -> SingleflightLayer<Key>) {
    let layer = build(SingleflightLayer::with_key(key as Key));
    let handle = layer.handle();
    let (clock, ends) = (Arc::new(AtomicU64::new(0)), Ends::default());
    let calls = Arc::new(AtomicUsize::new(0));
    let inner = {
        let (ends, calls) = (ends.clone(), calls.clone());
        service_fn(move |request| {
            let call = calls.fetch_add(1, Ordering::SeqCst) as u64;
            let random = Rng::new((seed << 32) + call * 7919 + 1);
            answer(request, random, ends.clone())
        })
    };
    let service = layer.layer(ConcurrencyLimitLayer::new(16).layer(inner));
    let clients: Vec<_> = (0..32)
        .map(|client| {
            let (mut service, handle) = (service.clone(), handle.clone());
            let (clock, ends) = (clock.clone(), ends.clone());
            let mut random = Rng::new(seed * 1000 + client + 1);
            tokio::spawn(async move {
                let mut followed = 0;
                for n in 0..150 {
                    let (variant, other) = (random.below(3), random.below(2));
                    let (path, me) = (format!("/{}", random.below(4)), client * 1000 + n);
                    let request = Request::get(&path)
                        .header("x-variant", variant)
                        .header("x-other", other)
                        .header("x-me", me)
                        .body(Empty::new())
                        .unwrap();
                    match random.below(200) {
                        0 => drop(handle.forget_all()),
                        1 => drop(handle.forget(&path)),
                        _ => {}
                    }
                    let asked_at = clock.fetch_add(1, Ordering::SeqCst);
                    let call = service.call(request);
                    if random.below(10) == 0 {
                        // Leaves, polled or not.
                        let mut call = Box::pin(call);
                        if random.below(2) == 0 {
                            let _ = std::panic::AssertUnwindSafe(async {
                                tokio::select! {
                                    biased;
                                    _ = &mut call => {}
                                    () = tokio::task::yield_now() => {}
                                }
                            })
                            .catch_unwind()
                            .await;
                        }
                        continue;
                    }
                    let response = std::panic::AssertUnwindSafe(call).catch_unwind().await;
                    let Ok(Ok(response)) = response else { continue };
                    let role = *response.extensions().get::<Role>().unwrap();
                    followed += usize::from(role == Role::Follower);
                    if random.below(10) == 0 {
                        continue;
                    }
                    // A reader that moves on may meet another's panic.
                    let body = response.into_body().collect();
                    let body = std::panic::AssertUnwindSafe(body).catch_unwind().await;
                    let Ok(Ok(body)) = body else { continue };
                    let body = String::from_utf8(body.to_bytes().into()).unwrap();
                    let call = check(&body, &path, variant, other, me);
                    let now = clock.fetch_add(1, Ordering::SeqCst);
                    let ended_at = {
                        let mut ends = ends.lock().unwrap();
                        ends[call] = ends[call].min(now);
                        ends[call]
                    };
                    assert!(
                        ended_at > asked_at,
                        "{role:?} got what had ended before it asked"
                    );
                }
                followed
            })
        })
        .collect();
    let mut followed = 0;
    for client in clients {
        followed += client.await.unwrap();
    }
    assert!(followed > 0, "traffic that never meets proves nothing");
    // What is finished though its callers have left, and a driver's last steps on another thread.
    while handle.in_flight() > 0 || handle.stats().buffered_bytes > 0 {
        tokio::task::yield_now().await;
    }
    assert_idle(&handle);
}

type Key = fn(&http::request::Parts) -> Option<String>;

fn key(request: &http::request::Parts) -> Option<String> {
    Some(request.uri.path().to_owned())
}

#[test]
fn random_traffic_gets_right_answers_and_leaves_nothing() {
    hush("random panic");
    let builds: [fn(SingleflightLayer<Key>) -> SingleflightLayer<Key>; 4] = [
        |layer| layer,
        |layer| layer,
        |layer| layer.max_body(20),
        |layer| layer.max_waiters(4).finish_abandoned(true),
    ];
    for threads in [1, 4] {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build()
            .unwrap();
        for (at, build) in builds.iter().enumerate() {
            for seed in 0..4 {
                runtime.block_on(traffic(seed * 10 + at as u64 + 1, *build));
            }
        }
    }
}
