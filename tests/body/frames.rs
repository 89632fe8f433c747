//! A copy is complete and faithful: frames, trailers, hints, and when it begins.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, mpsc},
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, StreamBody};
use tower::{BoxError, Layer, Service, service_fn};
use tower_singleflight::{Handle, ResponseBody, Role};

use crate::support::{
    assert_idle,
    body::{
        Key, Polled, Req, assert_pending, body, data, frame, layer, leader_and_follower, now, stack,
    },
    get, role, settle,
};

#[tokio::test]
async fn a_leaders_head_and_frames_pass_as_they_come_alone_and_in_company() {
    for known in [true, false] {
        for company in [false, true] {
            let (mut service, mut origin, handle) = stack(&layer());
            let mut leader = service.call(get("/page"));
            assert_pending(&mut leader);
            let follower = company.then(|| service.call(get("/page")));
            settle().await;
            let feed = origin.call().begin_of(known.then_some(6));
            settle().await;
            let mut leader = now(&mut leader).into_body();
            for part in ["pa", "ge", "d."] {
                assert_eq!(frame(&mut leader), Polled::Pending);
                feed.send(part);
                settle().await;
                assert_eq!(frame(&mut leader), data(part));
            }
            feed.end();
            settle().await;
            assert_eq!(frame(&mut leader), Polled::End);
            drop((leader, follower));
            assert_idle(&handle);
        }
    }
}

#[tokio::test]
async fn a_follower_begins_with_the_head_where_the_length_is_known() {
    for by_header in [true, false] {
        let (mut service, mut origin, handle) = stack(&layer());
        let [leader, mut follower] = leader_and_follower(&mut service);
        let head = Response::builder();
        let call = origin.call();
        let feed = if by_header {
            call.begin_with(head.header(header::CONTENT_LENGTH, 4), SizeHint::new())
        } else {
            call.begin_with(head, SizeHint::with_exact(4))
        };
        settle().await;
        let response = now(&mut follower);
        assert_eq!(role(&response), Role::Follower);
        let mut follower = response.into_body();
        assert_eq!(follower.size_hint().exact(), Some(4));
        // Live.
        for part in ["pa", "ge"] {
            assert_eq!(frame(&mut follower), Polled::Pending);
            feed.send(part);
            settle().await;
            assert_eq!(frame(&mut follower), data(part));
        }
        assert_eq!(follower.size_hint().exact(), Some(0));
        feed.end();
        settle().await;
        assert!(follower.is_end_stream());
        assert_eq!(frame(&mut follower), Polled::End);
        drop(leader);
        assert_idle(&handle);
    }
}

#[tokio::test]
async fn a_follower_begins_with_the_head_where_the_length_is_unknown() {
    let (mut service, mut origin, handle) = stack(&layer());
    let [leader, mut follower] = leader_and_follower(&mut service);
    let feed = origin.call().begin();
    settle().await;
    let mut follower = now(&mut follower).into_body();
    assert_eq!(follower.size_hint().exact(), None);
    assert_eq!(frame(&mut follower), Polled::Pending);
    feed.send("page");
    settle().await;
    assert_eq!(frame(&mut follower), data("page"));
    feed.end();
    settle().await;
    assert!(follower.is_end_stream());
    assert_eq!(frame(&mut follower), Polled::End);
    drop(leader);
    assert_idle(&handle);
}

#[tokio::test]
async fn frames_are_shared_without_a_copy_and_as_they_were_cut() {
    let (mut service, mut origin, handle) = stack(&layer());
    let [mut leader, mut follower] = leader_and_follower(&mut service);
    let feed = origin.call().begin_known(30_000);
    settle().await;
    let mut bodies = [&mut leader, &mut follower].map(|call| now(call).into_body());
    let sent: Vec<Bytes> = [1_000, 10_000, 14_000, 5_000]
        .map(|len| Bytes::from(vec![7; len]))
        .into();
    sent.iter().for_each(|data| feed.bytes(data.clone()));
    feed.end();
    settle().await;
    for body in &mut bodies {
        for want in &sent {
            let Polled::Data(got) = frame(body) else {
                panic!("no data");
            };
            assert_eq!((got.as_ptr(), got.len()), (want.as_ptr(), want.len()));
        }
        assert_eq!(frame(body), Polled::End);
    }
    drop(bodies);
    assert_idle(&handle);
}

#[tokio::test]
async fn a_lone_leader_gets_trailers_behind_a_body_of_known_length() {
    for text in ["page", ""] {
        let (mut service, mut origin, handle) = stack(&layer());
        let mut leader = service.call(get("/page"));
        assert_pending(&mut leader);
        let feed = origin.call().begin_known(text.len() as u64);
        if !text.is_empty() {
            feed.send(text);
        }
        let mut leader = now(&mut leader).into_body();
        if !text.is_empty() {
            assert_eq!(frame(&mut leader), data(text));
        }
        assert_eq!(frame(&mut leader), Polled::Pending);
        let mut trailers = HeaderMap::new();
        trailers.append("checksum", "1".parse().unwrap());
        feed.trailers(trailers.clone());
        assert_eq!(frame(&mut leader), Polled::Trailers(trailers));
        assert_eq!(frame(&mut leader), Polled::End);
        assert_eq!(origin.count(), 1);
        drop(leader);
        assert_idle(&handle);
    }
}

#[tokio::test]
async fn a_follower_that_begins_after_the_end_has_the_same_frames_and_hints() {
    for known in [true, false] {
        for has_trailers in [true, false] {
            let (mut service, mut origin, handle) = stack(&layer());
            let [leader, mut late] = leader_and_follower(&mut service);
            let mut early = service.call(get("/page"));
            let feed = origin.call().begin_of(known.then_some(4));
            settle().await;
            let mut early = now(&mut early).into_body();
            feed.send("pa");
            feed.send("ge");
            if has_trailers {
                feed.trailers(HeaderMap::new());
            }
            feed.end();
            settle().await;
            let mut late = now(&mut late).into_body();
            for at in 0.. {
                assert_eq!(late.size_hint().lower(), early.size_hint().lower());
                assert_eq!(late.size_hint().upper(), early.size_hint().upper());
                assert_eq!(late.is_end_stream(), early.is_end_stream());
                // Not the last frame's fault: HTTP/1.1 has no trailers behind a length.
                assert_eq!(late.size_hint().exact().is_some(), known || !has_trailers);
                let got = frame(&mut late);
                assert_eq!(got, frame(&mut early));
                if got == Polled::End {
                    assert_eq!(at, if has_trailers { 3 } else { 2 });
                    break;
                }
            }
            drop(leader);
            assert_idle(&handle);
        }
    }
}

#[tokio::test]
async fn trailers_come_last_for_all() {
    for known in [true, false] {
        let (mut service, mut origin, handle) = stack(&layer());
        let [mut leader, mut follower] = leader_and_follower(&mut service);
        let feed = origin.call().begin_of(known.then_some(4));
        let mut trailers = HeaderMap::new();
        trailers.append("checksum", "1".parse().unwrap());
        trailers.append("checksum", "2".parse().unwrap());
        feed.send("page");
        settle().await;
        let mut leader = now(&mut leader).into_body();
        assert_eq!(frame(&mut leader), data("page"));
        assert!(!leader.is_end_stream());
        feed.trailers(trailers.clone());
        feed.end();
        settle().await;
        let mut follower = now(&mut follower).into_body();
        assert_eq!(frame(&mut follower), data("page"));
        assert!(!follower.is_end_stream());
        for body in [&mut leader, &mut follower] {
            assert_eq!(frame(body), Polled::Trailers(trailers.clone()));
            assert!(body.is_end_stream());
            assert_eq!(frame(body), Polled::End);
        }
        assert_idle(&handle);
    }
}

#[tokio::test]
async fn a_size_hint_is_the_sources_and_what_is_unread() {
    let (mut service, mut origin, handle) = stack(&layer());
    let mut leader = service.call(get("/page"));
    assert_pending(&mut leader);
    let mut hint = SizeHint::new();
    hint.set_upper(100);
    hint.set_lower(10);
    let _feed = origin.call().begin_with(Response::builder(), hint);
    let leader = now(&mut leader).into_body();
    let hint = leader.size_hint();
    assert_eq!((hint.lower(), hint.upper()), (10, Some(100)));
    drop(leader);
    assert_idle(&handle);
}

/// A request with another method; its key is of no interest.
fn with(method: Method) -> Request<Empty<Bytes>> {
    let mut request = get("/page");
    *request.method_mut() = method;
    request
}

#[tokio::test]
async fn empty_bodies_and_those_of_head_204_and_304_are_at_their_end_at_once() {
    let cases = [
        (Method::GET, StatusCode::OK, None),
        (Method::GET, StatusCode::OK, Some(0)),
        (Method::HEAD, StatusCode::OK, Some(1_000)),
        // More than may be copied: but it will not come.
        (Method::HEAD, StatusCode::OK, Some(100 << 20)),
        (Method::GET, StatusCode::NO_CONTENT, None),
        (Method::GET, StatusCode::NOT_MODIFIED, Some(1_000)),
    ];
    for (method, status, length) in cases {
        for company in [false, true] {
            let (inner, handle) = {
                let layer = layer();
                let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
                let opened = gate.clone();
                let service = layer.layer(service_fn(move |_: Req| {
                    let opened = opened.clone();
                    async move {
                        opened.acquire().await.unwrap().forget();
                        let mut response = Response::builder().status(status);
                        if let Some(length) = length {
                            response = response.header(header::CONTENT_LENGTH, length);
                        }
                        Ok::<_, Infallible>(response.body(Empty::<Bytes>::new()).unwrap())
                    }
                }));
                ((service, gate), layer.handle())
            };
            let (mut service, gate) = inner;
            let mut calls = vec![service.call(with(method.clone()))];
            if company {
                calls.push(service.call(with(method.clone())));
            }
            gate.add_permits(1);
            for call in calls {
                let response = call.await.unwrap();
                assert_eq!(
                    response.headers().get(header::CONTENT_LENGTH).is_some(),
                    length.is_some()
                );
                let body = response.into_body();
                assert!(body.is_end_stream(), "{method} {status} {company}");
                assert_eq!(body.size_hint().exact(), Some(0));
                assert!(body.collect().await.unwrap().to_bytes().is_empty());
            }
            assert_eq!(handle.stats().led, 1);
            assert_idle(&handle);
        }
    }
}

/// Data in two pieces.
struct TwoPieces(Bytes, Bytes);

impl Buf for TwoPieces {
    fn remaining(&self) -> usize {
        self.0.remaining() + self.1.remaining()
    }

    fn chunk(&self) -> &[u8] {
        if self.0.has_remaining() {
            self.0.chunk()
        } else {
            self.1.chunk()
        }
    }

    fn advance(&mut self, count: usize) {
        let first = count.min(self.0.remaining());
        self.0.advance(first);
        self.1.advance(count - first);
    }
}

#[tokio::test]
async fn data_of_another_type_becomes_bytes() {
    for company in [false, true] {
        let layer = layer();
        let handle = layer.handle();
        let mut service = layer.layer(service_fn(|_: Req| async {
            tokio::task::yield_now().await;
            let pieces = TwoPieces(Bytes::from_static(b"pa"), Bytes::from_static(b"ge"));
            let frames = futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(pieces))]);
            Ok::<_, Infallible>(Response::new(StreamBody::new(frames)))
        }));
        let mut calls = vec![service.call(get("/page"))];
        if company {
            calls.push(service.call(get("/page")));
        }
        for call in calls {
            let body = call.await.unwrap().into_body();
            assert_eq!(body.collect().await.unwrap().to_bytes(), "page");
        }
        assert_idle(&handle);
    }
}

#[tokio::test]
async fn a_copy_has_its_own_role_and_a_clone_of_the_other_extensions() {
    #[derive(Clone, Debug, PartialEq)]
    struct Note(&'static str);
    let (mut service, mut origin, handle) = stack(&layer());
    let [mut leader, mut follower] = leader_and_follower(&mut service);
    let head = Response::builder()
        .status(203)
        .version(http::Version::HTTP_2)
        .header("x-kept", "1")
        .header("connection", "close, x-hop")
        .header("x-hop", "1")
        .extension(Note("kept"));
    let feed = origin.call().begin_with(head, SizeHint::with_exact(4));
    feed.send("page");
    feed.end();
    settle().await;
    let (leader, follower) = (now(&mut leader), now(&mut follower));
    assert_eq!(role(&leader), Role::Leader);
    assert_eq!(role(&follower), Role::Follower);
    assert_eq!(follower.extensions().get(), Some(&Note("kept")));
    assert_eq!(follower.status(), 203);
    assert_eq!(follower.version(), http::Version::HTTP_2);
    assert_eq!(follower.headers()["x-kept"], "1");
    assert!(!follower.headers().contains_key("connection"));
    assert!(!follower.headers().contains_key("x-hop"));
    drop((leader, follower));
    assert_idle(&handle);
}

#[tokio::test]
async fn endless_types_are_never_shared_and_never_delayed() {
    for kind in [
        "text/event-stream",
        "text/event-stream; charset=utf-8",
        "multipart/x-mixed-replace; boundary=x",
        "application/grpc+proto",
    ] {
        let (mut service, mut origin, handle) = stack(&layer());
        let [mut leader, mut follower] = leader_and_follower(&mut service);
        assert_pending(&mut follower);
        let head = || Response::builder().header(header::CONTENT_TYPE, kind);
        let first = origin.call().begin_with(head(), SizeHint::new());
        settle().await;
        assert_eq!(handle.in_flight(), 0);
        assert_pending(&mut follower);
        let second = origin.call().begin_with(head(), SizeHint::new());
        let mut bodies = [&mut leader, &mut follower].map(|call| now(call).into_body());
        for (body, feed) in bodies.iter_mut().zip([&first, &second]) {
            feed.send("data: 1");
            assert_eq!(frame(body), data("data: 1"));
            assert_eq!(frame(body), Polled::Pending);
        }
        // Their clients' leaving is the origin's to see.
        drop(bodies);
        assert!(first.is_dropped() && second.is_dropped());
        assert_idle(&handle);
    }
}

#[test]
fn a_default_body_is_empty() {
    let mut body = ResponseBody::<Empty<Bytes>>::default();
    assert!(body.is_end_stream());
    assert_eq!(body.size_hint().exact(), Some(0));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(matches!(
        Pin::new(&mut body).poll_frame(&mut cx),
        Poll::Ready(None)
    ));
}

#[tokio::test]
async fn a_reader_of_much_that_lies_ready_lets_others_have_their_turn() {
    let (mut service, mut origin, handle) = stack(&layer().max_body(4 << 20));
    let [mut leader, mut follower] = leader_and_follower(&mut service);
    settle().await;
    let feed = origin.call().begin();
    settle().await;
    let mut leader = now(&mut leader).into_body();
    let mut body = now(&mut follower).into_body();
    let part = vec![b'-'; 64 << 10];
    for number in 0..33 {
        feed.bytes(part.clone().into());
        settle().await;
        while frame(&mut leader) != Polled::Pending {}
        if number == 0 {
            // What it has read before it waited does not count.
            while frame(&mut body) != Polled::Pending {}
        }
    }
    let mut body = tokio_test::task::spawn(body);
    let (mut read, mut turns) = (0, 0);
    while read < 2 << 20 {
        match body.enter(|cx, body| body.poll_frame(cx)) {
            Poll::Ready(frame) => {
                let data = frame.unwrap().unwrap().into_data().unwrap();
                read += data.len();
            }
            Poll::Pending => {
                assert!(body.is_woken(), "it goes on by itself");
                turns += 1;
            }
        }
    }
    assert_eq!(turns, 31);
    // What is left of a body that has ended is nobody's obstacle.
    feed.end();
    settle().await;
    drop((leader, body, follower));
    assert_idle(&handle);
}

#[tokio::test]
async fn a_head_that_nobody_can_join_any_more_is_not_kept() {
    for outgrows in [false, true] {
        let (mut service, mut origin, handle) = stack(&layer().max_body(8));
        let mut leader = service.call(get("/page"));
        assert_pending(&mut leader);
        let held = Arc::new(());
        let head = Response::builder().extension(Arc::clone(&held));
        let feed = origin.call().begin_with(head, SizeHint::new());
        let (head, mut body) = now(&mut leader).into_parts();
        drop(head);
        assert_eq!(Arc::strong_count(&held), 2, "for those who may come");
        feed.send("four");
        assert_eq!(frame(&mut body), data("four"));
        if outgrows {
            feed.send("much longer");
            assert_eq!(frame(&mut body), data("much longer"));
        } else {
            feed.end();
            assert_eq!(frame(&mut body), Polled::End);
        }
        assert_eq!(Arc::strong_count(&held), 1);
        drop(body);
        assert_idle(&handle);
    }
}

#[tokio::test]
async fn a_flight_is_over_no_later_than_its_last_byte_is_read() {
    for (says_so, company) in [(false, false), (true, false), (false, true), (true, true)] {
        let (mut service, mut origin, handle) = stack(&layer());
        let mut leader = service.call(get("/page"));
        assert_pending(&mut leader);
        let follower = company.then(|| service.call(get("/page")));
        let feed = origin.call().begin_known(4);
        settle().await;
        let mut body = now(&mut leader).into_body();
        feed.send("page");
        if says_so {
            feed.end();
        }
        settle().await;
        assert_eq!(frame(&mut body), data("page"));
        assert_eq!(handle.in_flight(), 0);
        assert_eq!(
            (body.is_end_stream(), feed.is_dropped()),
            (says_so, says_so)
        );
        drop((body, follower));
        assert_idle(&handle);
    }
}

/// Data whose drop looks at the table.
struct Looking(Handle<Key>, mpsc::Sender<usize>);

impl AsRef<[u8]> for Looking {
    fn as_ref(&self) -> &[u8] {
        b"ge"
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.1.send(self.0.in_flight()).unwrap();
    }
}

/// Gives these frames, and says with the last one that it is at its end.
struct SaysSo(VecDeque<Bytes>);

impl Body for SaysSo {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

/// The copy of a small frame takes the place of the original, which is dropped while the copy can be read.
#[tokio::test]
async fn nobody_joins_a_flight_whose_last_frame_can_be_read_though_its_length_is_unknown() {
    let (looks, seen) = mpsc::channel();
    let layer = layer();
    let handle = layer.handle();
    let table = handle.clone();
    let mut service = layer.layer(service_fn(move |_: Req| {
        let last = Bytes::from_owner(Looking(table.clone(), looks.clone()));
        let body = SaysSo([Bytes::from("pa"), last].into());
        async { Ok::<_, BoxError>(Response::new(body)) }
    }));
    let calls = [(); 2].map(|()| tokio::spawn(service.call(get("/page"))));
    for call in calls {
        let body = call.await.unwrap().unwrap().into_body();
        assert_eq!(body.collect().await.unwrap().to_bytes(), "page");
    }
    assert_eq!(seen.recv(), Ok(0));
    assert_idle(&handle);
}

/// Gives its four bytes, and looks at the table when it is polled again and when it is dropped.
struct Looks {
    data: Option<Bytes>,
    handle: Handle<Key>,
    seen: mpsc::Sender<usize>,
}

impl Body for Looks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.data.is_none() {
            self.seen.send(self.handle.in_flight()).unwrap();
        }
        Poll::Ready(self.data.take().map(|data| Ok(Frame::data(data))))
    }
}

impl Drop for Looks {
    fn drop(&mut self) {
        self.seen.send(self.handle.in_flight()).unwrap();
    }
}

/// Whoever has read what there is may look at that moment, from another thread.
#[tokio::test]
async fn the_key_is_free_before_the_last_byte_or_the_end_can_be_read() {
    for is_known in [false, true] {
        let (seen, saw) = mpsc::channel();
        let layer = layer();
        let handle = layer.handle();
        let service = service_fn({
            let handle = handle.clone();
            move |_: Req| {
                let (handle, seen) = (handle.clone(), seen.clone());
                let data = Some(Bytes::from("page"));
                let head = Response::builder();
                let head = match is_known {
                    true => head.header(header::CONTENT_LENGTH, 4),
                    false => head,
                };
                let response = head.body(Looks { data, handle, seen }).unwrap();
                async { Ok::<_, BoxError>(response) }
            }
        });
        let mut service = layer.layer(service);
        let calls = [(); 2].map(|()| tokio::spawn(service.call(get("/page"))));
        for call in calls {
            let body = call.await.unwrap().unwrap().into_body();
            assert_eq!(body.collect().await.unwrap().to_bytes(), "page");
        }
        let [at_the_end, dropped] = [saw.recv().unwrap(), saw.recv().unwrap()];
        assert_eq!((at_the_end, dropped), (usize::from(!is_known), 0));
        assert_idle(&handle);
    }
}

/// Whoever asks while the body is dropped finds no flight whose answer has been given.
#[tokio::test]
async fn nobody_joins_a_leader_whose_whole_response_was_there_with_its_head() {
    let (mut service, mut origin, handle) = stack(&layer());
    let mut leader = service.call(get("/page"));
    assert_pending(&mut leader);
    let (feed, mut body) = body(SizeHint::with_exact(0));
    body.finish();
    let (asked, asks) = mpsc::channel();
    let mut inside = service.clone();
    feed.on_drop(move || asked.send(inside.call(get("/page"))).unwrap());
    origin.call().answer(Response::new(body));
    assert_eq!(role(&now(&mut leader)), Role::Leader);
    let newcomer = asks.recv().unwrap();
    assert_eq!((handle.stats().led, handle.stats().joined), (2, 0));
    drop(newcomer);
    assert_idle(&handle);
}
