//! Failures: what went wrong for the leader went wrong for all, and nothing that was cut is passed off as whole.

use std::{
    convert::Infallible,
    error::Error,
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Response, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tower::{BoxError, Layer, Service, service_fn};
use tower_singleflight::{ResponseBody, Role, SharedError};

use crate::support::{
    assert_idle,
    body::{
        Mock, Polled, Req, assert_pending, body, data, frame, layer, leader_and_follower,
        lone_leader, now, ready, stack,
    },
    get, role, settle,
};

#[derive(Debug)]
struct Broken(u8);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken")
    }
}

impl Error for Broken {}

/// All frames that can be read now, and how it goes on.
fn read(body: &mut ResponseBody<Mock>) -> (String, Polled) {
    let mut text = String::new();
    loop {
        match frame(body) {
            Polled::Data(data) => text.push_str(std::str::from_utf8(&data).unwrap()),
            other => return (text, other),
        }
    }
}

#[tokio::test]
async fn a_failed_call_fails_for_all_with_an_error_that_leads_to_the_original() {
    for followers in [0, 2] {
        let (mut service, mut origin, handle) = stack(&layer());
        let mut calls = vec![service.call(get("/page"))];
        assert_pending(&mut calls[0]);
        calls.extend((0..followers).map(|_| service.call(get("/page"))));
        origin.call().fail(Broken(7));
        for call in calls {
            let error = call.await.err().unwrap();
            assert!(error.is::<SharedError>());
            assert_eq!(error.to_string(), "broken");
            assert!(SharedError::find::<Broken>(&*error).is_some_and(|error| error.0 == 7));
        }
        assert_eq!((origin.count(), handle.stats().forwarded), (1, 0));
        assert_idle(&handle);
    }
}

#[tokio::test]
async fn a_body_error_comes_after_the_frames_so_far_and_leads_to_the_original() {
    for known in [true, false] {
        for followers in [0, 2] {
            let (mut service, mut origin, handle) = stack(&layer());
            let mut calls = vec![service.call(get("/page"))];
            assert_pending(&mut calls[0]);
            calls.extend((0..followers).map(|_| service.call(get("/page"))));
            let feed = origin.call().begin_of(known.then_some(100));
            feed.send("pa");
            feed.send("ge");
            feed.fail(Broken(7));
            for call in calls {
                let mut body = call.await.unwrap().into_body();
                let mut text = String::new();
                let error = loop {
                    match body.frame().await.expect("no clean end") {
                        Ok(frame) => {
                            text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
                        }
                        Err(error) => break error,
                    }
                };
                assert_eq!(text, "page");
                assert!(error.is::<SharedError>());
                assert!(SharedError::find::<Broken>(&*error).is_some_and(|error| error.0 == 7));
                // And then no more.
                assert!(body.frame().await.is_none());
            }
            assert_eq!(origin.count(), 1);
            assert_idle(&handle);
        }
    }
}

#[tokio::test]
async fn a_body_that_fails_at_once_fails_for_a_leader_alone_too() {
    let (mut service, mut origin, handle) = stack(&layer());
    let mut leader = service.call(get("/page"));
    assert_pending(&mut leader);
    let feed = origin.call();
    let (source, mock) = body(SizeHint::with_exact(4));
    source.fail(Broken(7));
    feed.answer(Response::new(mock));
    let mut leader = now(&mut leader).into_body();
    assert_eq!(frame(&mut leader), Polled::Error("broken".into()));
    drop(leader);
    assert_idle(&handle);
}

#[tokio::test]
async fn a_body_shorter_than_promised_is_a_clean_end_for_nobody() {
    for by_header in [true, false] {
        for sent in ["", "pag"] {
            for followers in [0, 2] {
                for at_hand in [true, false] {
                    let (mut service, mut origin, handle) = stack(&layer());
                    let mut calls = vec![service.call(get("/page"))];
                    assert_pending(&mut calls[0]);
                    calls.extend((0..followers).map(|_| service.call(get("/page"))));
                    let (head, hint) = if by_header {
                        let head = Response::builder().header(header::CONTENT_LENGTH, 4);
                        (head, SizeHint::new())
                    } else {
                        (Response::builder(), SizeHint::with_exact(4))
                    };
                    let (feed, mock) = body(hint);
                    let give = || {
                        if !sent.is_empty() {
                            feed.send(sent);
                        }
                        feed.end();
                    };
                    if at_hand {
                        give();
                    }
                    origin.call().answer(head.body(mock).unwrap());
                    settle().await;
                    let bodies: Vec<_> = calls.iter_mut().map(now).collect();
                    if !at_hand {
                        give();
                    }
                    settle().await;
                    for response in bodies {
                        let (text, end) = read(&mut response.into_body());
                        assert_eq!(text, sent);
                        assert!(matches!(end, Polled::Error(_)), "{end:?}");
                    }
                    assert_idle(&handle);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_body_that_is_at_its_end_with_its_head_and_promised_more_is_a_clean_end_for_nobody() {
    for followers in [0, 1] {
        let (mut service, mut origin, handle) = stack(&layer());
        let mut calls = vec![service.call(get("/page"))];
        assert_pending(&mut calls[0]);
        calls.extend((0..followers).map(|_| service.call(get("/page"))));
        let head = Response::builder().header(header::CONTENT_LENGTH, 4);
        let (feed, mut mock) = body(SizeHint::new());
        feed.end();
        mock.finish();
        origin.call().answer(head.body(mock).unwrap());
        settle().await;
        for call in &mut calls {
            let (text, end) = read(&mut now(call).into_body());
            assert_eq!(text, "");
            assert!(matches!(end, Polled::Error(_)), "{end:?}");
        }
        drop(calls);
        assert_idle(&handle);
    }
}

#[tokio::test]
async fn a_body_longer_than_promised_fails_for_followers_and_its_leader_goes_on() {
    let (mut service, mut origin, handle) = stack(&layer().max_body(4));
    let [mut leader, mut follower] = leader_and_follower(&mut service);
    let head = Response::builder().header(header::CONTENT_LENGTH, 4);
    let feed = origin.call().begin_with(head, SizeHint::new());
    feed.send("pa");
    feed.send("ge");
    settle().await;
    let mut follower = now(&mut follower).into_body();
    assert_eq!(frame(&mut follower), data("pa"));
    assert_eq!(frame(&mut follower), data("ge"));
    // It waits for the end.
    assert_eq!(frame(&mut follower), Polled::Pending);
    assert_eq!(handle.in_flight(), 0);
    feed.send(" and more");
    feed.end();
    settle().await;
    assert!(matches!(frame(&mut follower), Polled::Error(_)));
    // The leader has read nothing yet, and loses nothing.
    let mut leader = now(&mut leader).into_body();
    for want in ["pa", "ge", " and more"] {
        assert_eq!(frame(&mut leader), data(want));
        settle().await;
    }
    // Frame by frame, as it asks.
    assert_eq!(frame(&mut leader), Polled::Pending);
    settle().await;
    assert_eq!(frame(&mut leader), Polled::End);
    drop(follower);
    assert_idle(&handle);
}

#[tokio::test]
async fn a_follower_that_takes_its_head_after_the_end_of_a_body_longer_than_promised_gets_an_error()
{
    let (mut service, mut origin, handle) = stack(&layer());
    let [mut leader, mut follower] = leader_and_follower(&mut service);
    let head = Response::builder().header(header::CONTENT_LENGTH, 4);
    let feed = origin.call().begin_with(head, SizeHint::new());
    settle().await;
    let mut leader = now(&mut leader).into_body();
    for part in ["page", " and more"] {
        assert_eq!(frame(&mut leader), Polled::Pending);
        feed.send(part);
        settle().await;
        assert_eq!(frame(&mut leader), data(part));
    }
    assert_eq!(frame(&mut leader), Polled::Pending);
    feed.end();
    settle().await;
    assert_eq!(frame(&mut leader), Polled::End);
    let mut follower = now(&mut follower).into_body();
    assert!(matches!(frame(&mut follower), Polled::Error(_)));
    drop(follower);
    assert_idle(&handle);
}

#[tokio::test]
async fn a_panic_of_the_body_reaches_all_after_the_frames_so_far() {
    for known in [true, false] {
        let (mut service, mut origin, handle) = stack(&layer());
        let mut leader = service.call(get("/page"));
        assert_pending(&mut leader);
        let follower = tokio::spawn(service.call(get("/page")));
        settle().await;
        let feed = origin.call().begin_of(known.then_some(4));
        settle().await;
        let leader = now(&mut leader);
        feed.send("pa");
        feed.panic("no ink");
        let read = |response: Response<ResponseBody<Mock>>| async move {
            let mut body = response.into_body();
            let first = body.frame().await.unwrap().unwrap();
            assert_eq!(first.into_data().unwrap(), "pa");
            let _ = body.frame().await;
            panic!("it went on");
        };
        let leader = tokio::spawn(read(leader));
        let message = |error: tokio::task::JoinError| {
            let payload = error.into_panic();
            payload.downcast_ref::<String>().unwrap().clone()
        };
        assert_eq!(message(leader.await.unwrap_err()), "no ink");
        let follower = tokio::spawn(read(follower.await.unwrap().unwrap()));
        assert_eq!(message(follower.await.unwrap_err()), "no ink");
        assert_idle(&handle);
    }
}

#[tokio::test]
async fn a_panic_of_the_policy_reaches_all_and_frees_the_key() {
    let (mut service, mut origin, handle) = stack(&layer().share_when(|_| panic!("no policy")));
    let leader = tokio::spawn(service.call(get("/page")));
    settle().await;
    let follower = tokio::spawn(service.call(get("/page")));
    settle().await;
    origin
        .call()
        .answer(Response::new(ready(&["page"], SizeHint::new())));
    for call in [leader, follower] {
        assert!(call.await.unwrap_err().is_panic());
    }
    assert_idle(&handle);
}

#[tokio::test]
async fn a_runtime_that_shuts_down_in_the_middle_of_a_body_harms_nobody_on_another() {
    let other = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let (mut service, mut origin, handle) = stack(&layer());
    let (feed, leader) = lone_leader(&mut service, &mut origin, Some(4));
    // The joiner's runtime drives from now on.
    let follower = {
        let _inside = other.enter();
        service.call(get("/page"))
    };
    let mut follower = { follower }.await.unwrap().into_body();
    feed.send("pa");
    let first = follower.frame().await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "pa");
    other.shutdown_background();
    let reading = tokio::spawn(leader.collect());
    settle().await;
    feed.send("ge");
    feed.end();
    assert_eq!(reading.await.unwrap().unwrap().to_bytes(), "page");
    let rest: Result<_, BoxError> = follower.collect().await;
    assert_eq!(rest.unwrap().to_bytes(), "ge");
    assert_idle(&handle);
}

#[tokio::test]
async fn an_io_error_is_found_as_what_it_is() {
    let (mut service, mut origin, handle) = stack(&layer());
    let mut leader = service.call(get("/page"));
    assert_pending(&mut leader);
    let feed = origin.call().begin();
    feed.fail(io::Error::from(io::ErrorKind::ConnectionReset));
    let body = now(&mut leader).into_body();
    let error = body.collect().await.unwrap_err();
    let found = SharedError::find::<io::Error>(&*error).unwrap();
    assert_eq!(found.kind(), io::ErrorKind::ConnectionReset);
    assert_idle(&handle);
}

/// An extension that can't be cloned.
struct Fragile;

/// What its clone panics with.
struct BadPayload;

impl Clone for Fragile {
    fn clone(&self) -> Self {
        std::panic::panic_any(BadPayload)
    }
}

impl Drop for BadPayload {
    fn drop(&mut self) {
        panic!("bad payload")
    }
}

#[tokio::test]
async fn a_leader_gets_its_response_though_an_extension_panics_when_it_is_cloned() {
    let layer = layer();
    let (mut service, mut origin, handle) = stack(&layer);
    let leader = tokio::spawn(service.call(get("/page")));
    settle().await;
    let follower = tokio::spawn(service.call(get("/page")));
    settle().await;
    let head = Response::builder().extension(Fragile);
    let feed = origin.call().begin_with(head, SizeHint::new());
    feed.send("whole");
    feed.end();
    let led = leader.await.unwrap().unwrap();
    assert_eq!(role(&led), Role::Leader);
    assert_eq!(led.into_body().collect().await.unwrap().to_bytes(), "whole");
    // There is no copy for those who wait: they make their own calls.
    settle().await;
    let answer = Response::new(ready(&["own"], SizeHint::new()));
    origin.call().answer(answer);
    let own = follower.await.unwrap().unwrap();
    assert_eq!(role(&own), Role::Forwarded);
    assert_eq!(own.into_body().collect().await.unwrap().to_bytes(), "own");
    assert_idle(&handle);
}

#[tokio::test]
async fn a_leader_whose_followers_were_sent_away_keeps_nothing_that_it_has_read() {
    let (mut service, mut origin, handle) = stack(&layer());
    let mut leader = service.call(get("/page"));
    let sent_away = service.call(get("/page"));
    let head = Response::builder().extension(Fragile);
    let feed = origin.call().begin_with(head, SizeHint::new());
    settle().await;
    let mut body = now(&mut leader).into_body();
    assert_eq!((handle.stats().waiters, handle.stats().in_flight), (1, 0));
    for text in ["once", "upon"] {
        feed.send(text);
        assert_eq!(frame(&mut body), data(text));
        assert_eq!(handle.stats().buffered_bytes, 0);
    }
    drop((body, sent_away));
    assert!(feed.is_dropped());
    assert_idle(&handle);
}

/// A body that has promised five bytes, and says with the third that it is at its end.
struct Cut(Option<Bytes>);

impl Body for Cut {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(if self.0.is_some() { 5 } else { 2 })
    }
}

#[tokio::test]
async fn a_body_whose_one_frame_is_shorter_than_promised_is_a_clean_end_for_nobody() {
    for company in [false, true] {
        let layer = layer();
        let service = layer.layer(service_fn(|_: Req| async {
            let body = Cut(Some(Bytes::from_static(b"abc")));
            Ok::<_, BoxError>(Response::new(body))
        }));
        let calls = [Some(()), company.then_some(())].into_iter().flatten();
        let calls: Vec<_> = calls.map(|()| service.clone().call(get("/page"))).collect();
        for call in calls.into_iter().map(tokio::spawn) {
            let mut body = call.await.unwrap().unwrap().into_body();
            let first = body.frame().await.unwrap().unwrap();
            assert_eq!(first.into_data().unwrap(), "abc");
            assert!(!body.is_end_stream());
            let error = body.frame().await.unwrap().unwrap_err();
            assert!(error.to_string().contains('5'), "{error}");
        }
        assert_idle(&layer.handle());
    }
}
