//! A follower that its flight has nothing more for calls again, and goes on where it was, if the response is the same.

use std::{
    future::ready,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, request, response};
use http_body::{Body, SizeHint};
use http_body_util::Full;
use tower::{BoxError, Layer, Service, service_fn};
use tower_singleflight::{ResponseBody, Role, SingleflightLayer};

use crate::support::{
    assert_idle,
    body::{
        Calls, Feed, Key, Layered, Mock, Polled, assert_pending, body, data, frame, key, layer,
        leader_and_follower, next, now, stack,
    },
    get, role, settle,
};

/// A leader's body, the body of a follower that has had `0.` and has fallen behind, and the feed of both.
struct Behind {
    service: Layered,
    origin: Calls,
    handle: tower_singleflight::Handle<Key>,
    leader: ResponseBody<Mock>,
    slow: ResponseBody<Mock>,
    feed: Feed,
}

/// `max_body` is 4 bytes.
async fn behind(head: response::Builder) -> Behind {
    let (mut service, mut origin, handle) = stack(&layer().max_body(4));
    let mut leader = service.call(get("/page"));
    assert_pending(&mut leader);
    let mut slow = service.call(get("/page"));
    let feed = origin.call().begin_with(head, SizeHint::new());
    settle().await;
    let [mut leader, mut slow] = [&mut leader, &mut slow].map(|call| now(call).into_body());
    feed.send("0.");
    settle().await;
    assert_eq!(frame(&mut leader), data("0."));
    assert_eq!(frame(&mut slow), data("0."));
    for part in ["1.", "2.", "3.", "4."] {
        assert_eq!(frame(&mut leader), Polled::Pending);
        feed.send(part);
        settle().await;
        assert_eq!(frame(&mut leader), data(part));
    }
    Behind {
        service,
        origin,
        handle,
        leader,
        slow,
        feed,
    }
}

impl Behind {
    fn end(self) {
        drop((self.leader, self.slow, self.feed));
        assert_idle(&self.handle);
    }
}

fn is_error(polled: &Polled, text: &str) -> bool {
    matches!(polled, Polled::Error(error) if error.contains(text))
}

#[tokio::test]
async fn a_follower_that_waits_for_its_leader_at_the_front_calls_again() {
    let (mut service, mut origin, handle) = stack(&layer().max_body(4));
    let [mut leader, mut follower] = leader_and_follower(&mut service);
    let feed = origin.call().begin();
    settle().await;
    let [leader, mut follower] = [&mut leader, &mut follower].map(|call| now(call).into_body());
    for part in ["0.", "1.", "2."] {
        feed.send(part);
        settle().await;
        assert_eq!(frame(&mut follower), data(part));
    }
    // The leader, which reads nothing, is no further behind than `max_body`. It is woken, and the follower yields once.
    feed.send("3.");
    settle().await;
    assert_eq!(frame(&mut follower), Polled::Pending);
    assert_eq!(origin.count(), 1);
    assert_eq!(frame(&mut follower), Polled::Pending);
    assert_eq!((origin.count(), handle.stats().forwarded), (2, 1));
    let own = origin.call().begin();
    own.send("0.1.2.3.");
    own.end();
    assert_eq!(frame(&mut follower), data("3."));
    assert_eq!(frame(&mut follower), Polled::End);
    drop((leader, feed));
    assert_idle(&handle);
}

#[tokio::test]
async fn those_who_move_on_share_a_flight() {
    let mut all = behind(Response::builder()).await;
    let mut visitor = all.service.call(get("/page"));
    assert_pending(&mut visitor);
    assert_eq!(frame(&mut all.slow), Polled::Pending);
    assert_eq!((all.origin.count(), all.handle.waiters(&key())), (2, 2));
    let feed = all.origin.call().begin();
    settle().await;
    let mut visitor = now(&mut visitor).into_body();
    feed.send("0.1.");
    feed.end();
    settle().await;
    assert_eq!(frame(&mut all.slow), data("1."));
    assert_eq!(frame(&mut all.slow), Polled::End);
    assert_eq!(frame(&mut visitor), data("0.1."));
    assert_eq!(frame(&mut visitor), Polled::End);
    assert_eq!(all.origin.count(), 2);
    all.end();
}

#[tokio::test]
async fn one_that_moves_on_a_second_time_calls_alone() {
    let mut all = behind(Response::builder()).await;
    let mut second = all.service.call(get("/page"));
    assert_pending(&mut second);
    assert_eq!(frame(&mut all.slow), Polled::Pending);
    let feed = all.origin.call().begin();
    settle().await;
    let mut second = now(&mut second).into_body();
    // It follows, and falls behind once more.
    for part in ["0.", "1.", "2.", "3.", "4."] {
        feed.send(part);
        settle().await;
        assert_eq!(frame(&mut second), data(part));
        if part == "0." {
            assert_eq!(frame(&mut all.slow), Polled::Pending);
        }
        assert_eq!(frame(&mut second), Polled::Pending);
    }
    assert_eq!(frame(&mut all.slow), Polled::Pending);
    assert_eq!((all.origin.count(), all.handle.stats().forwarded), (3, 2));
    // Nobody can join it there.
    assert_eq!(all.handle.waiters(&key()), 0);
    let own = all.origin.call().begin();
    own.send("0.1.2.");
    own.end();
    settle().await;
    assert_eq!(frame(&mut all.slow), data("1.2."));
    assert_eq!(frame(&mut all.slow), Polled::End);
    drop((second, feed));
    all.end();
}

#[tokio::test]
async fn one_that_leads_after_moving_on_is_never_cut() {
    let mut all = behind(Response::builder()).await;
    assert_eq!(frame(&mut all.slow), Polled::Pending);
    let mut fast = all.service.call(get("/page"));
    let feed = all.origin.call().begin();
    settle().await;
    assert_eq!(frame(&mut all.slow), Polled::Pending);
    let fast = now(&mut fast);
    assert_eq!(role(&fast), Role::Follower);
    let mut fast = fast.into_body();
    for part in ["0.", "1.", "2.", "3."] {
        feed.send(part);
        settle().await;
        let _ = frame(&mut fast);
    }
    feed.end();
    drop(fast);
    for want in [data("1."), data("2."), data("3."), Polled::End] {
        assert_eq!(next(&mut all.slow).await, want);
    }
    all.end();
}

#[tokio::test]
async fn a_response_that_has_changed_is_an_error_and_no_clean_end() {
    let head = || {
        Response::builder()
            .header("etag", "\"1\"")
            .header("content-type", "text/plain")
    };
    type Change = fn(response::Builder) -> response::Builder;
    let changed: [(&str, Change); 6] = [
        ("status", |head| head.status(206)),
        ("etag", |head| head.header("etag", "\"2\"")),
        ("type", |head| head.header("content-type", "text/html")),
        ("coding", |head| head.header("content-encoding", "gzip")),
        ("range", |head| head.header("content-range", "bytes 0-9/10")),
        ("length", |head| head.header("content-length", "10")),
    ];
    for (what, change) in changed {
        let mut all = behind(head()).await;
        assert_eq!(frame(&mut all.slow), Polled::Pending, "{what}");
        let feed = all
            .origin
            .call()
            .begin_with(change(head()), SizeHint::new());
        feed.send("0.1.2.3.4.");
        feed.end();
        settle().await;
        let polled = frame(&mut all.slow);
        assert!(
            is_error(&polled, "the response changed"),
            "{what}: {polled:?}"
        );
        drop(feed);
        all.end();
    }
}

#[tokio::test]
async fn other_fields_may_change() {
    let mut all = behind(Response::builder().header("date", "1").header("x-id", "1")).await;
    assert_eq!(frame(&mut all.slow), Polled::Pending);
    let head = Response::builder().header("date", "2");
    let feed = all.origin.call().begin_with(head, SizeHint::new());
    feed.send("0.1.");
    feed.end();
    settle().await;
    assert_eq!(frame(&mut all.slow), data("1."));
    assert_eq!(frame(&mut all.slow), Polled::End);
    all.end();
}

#[tokio::test]
async fn bytes_that_have_changed_are_an_error_and_no_clean_end() {
    // Other bytes, too few of them, and none.
    for parts in [&["1.", "1."][..], &["0"], &[]] {
        let mut all = behind(Response::builder()).await;
        assert_eq!(frame(&mut all.slow), Polled::Pending);
        let feed = all.origin.call().begin();
        parts.iter().for_each(|part| feed.send(part));
        feed.end();
        settle().await;
        let polled = frame(&mut all.slow);
        assert!(
            is_error(&polled, "the response changed"),
            "{parts:?}: {polled:?}"
        );
        drop(feed);
        all.end();
    }
}

#[tokio::test]
async fn the_error_of_the_second_call_is_the_bodys() {
    let mut all = behind(Response::builder()).await;
    assert_eq!(frame(&mut all.slow), Polled::Pending);
    all.origin.call().fail("refused");
    settle().await;
    assert!(is_error(&frame(&mut all.slow), "refused"));
    all.end();
}

#[tokio::test]
async fn a_follower_whose_request_is_gone_ends_with_an_error() {
    // A request with a body, whose body was given up when the copy began.
    let calls = Arc::new(AtomicUsize::new(0));
    let (feed, first) = body(SizeHint::new());
    let first = Arc::new(Mutex::new(Some(first)));
    let count = Arc::clone(&calls);
    let origin = service_fn(move |_: Request<Full<Bytes>>| {
        count.fetch_add(1, Ordering::SeqCst);
        let body = first.lock().unwrap().take().expect("one call");
        ready(Ok::<_, BoxError>(Response::new(body)))
    });
    let layer = SingleflightLayer::with_key(|_: &request::Parts| Some("all")).max_body(4);
    let handle = layer.handle();
    let mut service = layer.layer(origin);
    let ask = || {
        let request = Request::post("/page");
        request
            .body(Full::new(Bytes::from_static(b"what")))
            .unwrap()
    };
    let mut leader = service.call(ask());
    let mut leader = now(&mut leader).into_body();
    let mut slow = now(&mut service.call(ask()));
    assert_eq!(role(&slow), Role::Follower);
    for part in ["0.", "1.", "2.", "3.", "4."] {
        assert_eq!(frame(&mut leader), Polled::Pending);
        feed.send(part);
        settle().await;
        assert_eq!(frame(&mut leader), data(part));
    }
    let polled = frame(slow.body_mut());
    assert!(is_error(&polled, "read too slowly"), "{polled:?}");
    assert_eq!(
        (calls.load(Ordering::SeqCst), handle.stats().forwarded),
        (1, 0)
    );
    drop((leader, slow));
    assert_idle(&handle);
}

#[tokio::test]
async fn a_follower_keeps_its_request_only_while_its_body_may_yet_outgrow_the_buffer() {
    for (len, is_over, is_kept) in [
        (None, false, true),
        (None, true, false),
        (Some(2), false, false),
        (Some(8), false, true),
    ] {
        let (mut service, mut origin, handle) = stack(&layer().max_body(4));
        let mut leader = service.call(get("/page"));
        assert_pending(&mut leader);
        let request_is_there = Arc::new(());
        let mut request = get("/page");
        request
            .extensions_mut()
            .insert(Arc::clone(&request_is_there));
        let mut follower = service.call(request);
        let feed = origin.call().begin_of(len);
        if is_over {
            feed.end();
        }
        settle().await;
        let body = now(&mut follower).into_body();
        assert_eq!(Arc::strong_count(&request_is_there) > 1, is_kept, "{len:?}");
        drop((leader, body));
        assert_idle(&handle);
    }
}

#[tokio::test]
async fn the_trailers_of_a_second_response_come_after_the_bytes_that_the_first_has_promised() {
    let head = || Response::builder().header("content-length", 10);
    let mut all = behind(head()).await;
    all.handle.set_enabled(false);
    assert_eq!(frame(&mut all.slow), Polled::Pending);
    let feed = (all.origin.call()).begin_with(head(), SizeHint::new());
    feed.send("0.1.2.3.4.");
    assert_eq!(frame(&mut all.slow), data("1.2.3.4."));
    assert!(!all.slow.is_end_stream());
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("1"));
    feed.trailers(trailers.clone());
    feed.end();
    assert_eq!(frame(&mut all.slow), Polled::Trailers(trailers));
    assert_eq!(frame(&mut all.slow), Polled::End);
    all.end();
}

#[tokio::test]
async fn a_second_response_that_is_not_as_long_as_the_first_has_promised_is_no_clean_end() {
    let all: [(&[_], bool); 4] = [
        (&["0.1.2"], false),
        (&["0.1.2"], true),
        (&["0.1.2.3.4.5."], false),
        (&["0.1.2.3.", "4.5."], false),
    ];
    for (rest, says_its_end) in all {
        let head = || Response::builder().header("content-length", 10);
        let mut all = behind(head()).await;
        // A flight of its own is not asked for its length: the follower calls alone.
        all.handle.set_enabled(false);
        assert_eq!(frame(&mut all.slow), Polled::Pending);
        let (feed, mut own) = body(SizeHint::new());
        if says_its_end {
            own.finish();
        }
        all.origin.call().answer(head().body(own).unwrap());
        rest.iter().for_each(|part| feed.send(part));
        feed.end();
        let mut got = String::from("0.");
        let end = loop {
            assert!(!all.slow.is_end_stream());
            match frame(&mut all.slow) {
                Polled::Data(data) => got.push_str(std::str::from_utf8(&data).unwrap()),
                end => break end,
            }
        };
        assert!(is_error(&end, "changed"), "{end:?} after {got}");
        assert!("0.1.2.3.4.".starts_with(&got), "{got}");
        all.end();
    }
}
