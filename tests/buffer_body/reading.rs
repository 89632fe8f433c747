//! Request bodies that are read before the service below is called.

use std::{
    convert::Infallible,
    fmt,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tokio::sync::mpsc;
use tower::BoxError;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_singleflight::{
    BodyBytes, BufferBodyLayer, BufferedBody, RequestKeyExtractor, Role, SingleflightLayer,
};

use crate::support::{self, Origin, assert_idle};

/// What the service below was called with: the bytes of the extensions, and the frames of the body.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    bytes: Option<Bytes>,
    hint: Option<u64>,
    frames: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    error: Option<String>,
}

type Calls = Arc<Mutex<Vec<Seen>>>;

async fn see<B>(request: Request<BufferedBody<B>>) -> Seen
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let (parts, body) = request.into_parts();
    let mut body = Box::pin(body);
    let mut seen = Seen {
        bytes: parts.extensions.get().map(|BodyBytes(bytes)| bytes.clone()),
        hint: body.size_hint().exact(),
        ..Seen::default()
    };
    loop {
        let is_over = body.is_end_stream();
        let Some(frame) = body.frame().await else {
            break;
        };
        assert!(!is_over, "there was one more");
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => seen.frames.push(data),
            Ok(Err(trailers)) => seen.trailers = trailers.into_trailers().ok(),
            Err(error) => seen.error = Some(error.to_string()),
        }
    }
    assert!(body.is_end_stream() || seen.bytes.is_none());
    seen
}

/// A service that reads what it is called with.
fn reader<B>(
    calls: &Calls,
) -> impl Service<Request<BufferedBody<B>>, Response = Response<()>, Error = Infallible> + Clone
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let calls = Arc::clone(calls);
    service_fn(move |request| {
        let calls = Arc::clone(&calls);
        async move {
            let seen = see(request).await;
            calls.lock().unwrap().push(seen);
            Ok(Response::new(()))
        }
    })
}

/// What the service below sees of a request.
async fn through<B>(layer: &BufferBodyLayer, request: Request<B>) -> Seen
where
    B: Body,
    B::Error: Into<BoxError> + fmt::Debug,
{
    let calls = Calls::default();
    let Ok(_) = layer.layer(reader(&calls)).oneshot(request).await;
    let seen = calls.lock().unwrap().pop();
    seen.expect("one call")
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

type Frames = Vec<Result<Frame<Bytes>, BoxError>>;

fn data(text_: &str) -> Result<Frame<Bytes>, BoxError> {
    Ok(Frame::data(text(text_)))
}

fn trailers(value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(
        http::HeaderName::from_static("checksum"),
        http::HeaderValue::from_static(value),
    )])
}

/// A body that is at hand, in these frames.
fn stream(frames: Frames) -> impl Body<Data = Bytes, Error = BoxError> + Send + 'static {
    StreamBody::new(futures_util::stream::iter(frames))
}

/// A body that gives what is sent.
fn channel() -> (
    mpsc::UnboundedSender<Result<Frame<Bytes>, BoxError>>,
    impl Body<Data = Bytes, Error = BoxError> + Send + 'static,
) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|frame| (frame, receiver))
    });
    (sender, StreamBody::new(stream))
}

fn post<B>(body: B) -> Request<B> {
    Request::post("/").body(body).unwrap()
}

#[tokio::test]
async fn a_body_that_comes_in_one_frame_is_in_the_extensions_and_still_the_body() {
    let sent = text("query");
    let seen = through(&BufferBodyLayer::new(5), post(Full::new(sent.clone()))).await;
    assert_eq!(seen.bytes, Some(sent.clone()));
    assert_eq!((seen.frames, seen.hint), (vec![sent.clone()], Some(5)));
    assert_eq!(seen.bytes.unwrap().as_ptr(), sent.as_ptr());
}

#[tokio::test]
async fn a_body_that_comes_in_several_frames_is_one() {
    let body = stream(vec![data("que"), data(""), data("r"), data("y")]);
    let seen = through(&BufferBodyLayer::new(5), post(body)).await;
    assert_eq!(seen.bytes, Some(text("query")));
    assert_eq!((seen.frames, seen.hint), (vec![text("query")], Some(5)));
}

#[tokio::test]
async fn an_empty_body_is_in_the_extensions_too() {
    for length in [None, Some("0")] {
        let mut request = post(Empty::<Bytes>::new());
        if let Some(length) = length {
            request
                .headers_mut()
                .insert("content-length", length.parse().unwrap());
        }
        let seen = through(&BufferBodyLayer::new(0), request).await;
        assert_eq!((seen.bytes, seen.hint), (Some(Bytes::new()), Some(0)));
        assert!(seen.frames.is_empty());
    }
    let seen = through(&BufferBodyLayer::new(0), post(stream(vec![]))).await;
    assert_eq!((seen.bytes, seen.hint), (Some(Bytes::new()), Some(0)));
}

#[tokio::test]
async fn a_get_without_a_body_passes_as_it_came() {
    for method in ["GET", "HEAD"] {
        let request = Request::builder()
            .method(method)
            .body(Empty::<Bytes>::new());
        let seen = through(&BufferBodyLayer::new(5), request.unwrap()).await;
        assert_eq!((seen.bytes, seen.hint), (None, Some(0)));
    }
}

#[tokio::test]
async fn a_get_with_a_body_is_read_as_any_other_request() {
    for method in ["GET", "HEAD"] {
        let request = Request::builder().method(method);
        let request = request.body(Full::new(text("query"))).unwrap();
        let seen = through(&BufferBodyLayer::new(5), request).await;
        assert_eq!(seen.bytes, Some(text("query")));
        assert_eq!((seen.frames, seen.hint), (vec![text("query")], Some(5)));
    }
}

#[tokio::test]
async fn trailers_come_after_the_bytes_and_forbid_an_exact_length() {
    let body = stream(vec![
        data("que"),
        data("ry"),
        Ok(Frame::trailers(trailers("a"))),
    ]);
    let seen = through(&BufferBodyLayer::new(5), post(body)).await;
    assert_eq!(seen.bytes, Some(text("query")));
    assert_eq!((seen.frames, seen.hint), (vec![text("query")], None));
    assert_eq!(seen.trailers, Some(trailers("a")));
}

#[tokio::test]
async fn a_body_over_the_limit_reaches_the_service_whole_and_in_order() {
    for frames in [
        vec![
            data("que"),
            data("ry"),
            data("!"),
            data("?"),
            Ok(Frame::trailers(trailers("a"))),
        ],
        vec![
            data("query!"),
            data("?"),
            Ok(Frame::trailers(trailers("a"))),
        ],
    ] {
        let seen = through(&BufferBodyLayer::new(5), post(stream(frames))).await;
        assert_eq!((seen.bytes, seen.hint), (None, None));
        assert_eq!(seen.frames.concat(), b"query!?");
        assert_eq!(seen.trailers, Some(trailers("a")));
    }
}

#[tokio::test]
async fn what_came_of_a_body_over_the_limit_is_not_copied_behind_it() {
    let large = Bytes::from(vec![7; 100]);
    let body = stream(vec![
        data("que"),
        data("ry"),
        Ok(Frame::data(large.clone())),
    ]);
    let seen = through(&BufferBodyLayer::new(99), post(body)).await;
    assert_eq!(seen.frames.len(), 2);
    assert_eq!(seen.frames[1].as_ptr(), large.as_ptr());
}

#[tokio::test]
async fn a_body_that_is_announced_as_too_long_is_not_touched() {
    let (_sender, body) = channel();
    let mut request = post(body);
    request
        .headers_mut()
        .insert("content-length", "6".parse().unwrap());
    let called = Arc::new(Mutex::new(false));
    let service = BufferBodyLayer::new(5).layer(service_fn(|request: Request<BufferedBody<_>>| {
        *called.lock().unwrap() = true;
        drop(request);
        async { Ok::<_, Infallible>(()) }
    }));
    // At once, since nothing of it has come.
    assert!(
        tokio_test::task::spawn(service.oneshot(request))
            .poll()
            .is_ready()
    );
    assert!(*called.lock().unwrap());

    let seen = through(&BufferBodyLayer::new(5), post(Full::new(text("query!")))).await;
    assert_eq!(
        (seen.bytes, seen.hint, seen.frames),
        (None, Some(6), vec![text("query!")])
    );
}

#[tokio::test]
async fn a_body_that_the_client_keeps_until_it_is_asked_for_is_not_touched() {
    let mut request = post(Full::new(text("query")));
    request
        .headers_mut()
        .insert("expect", "100-continue".parse().unwrap());
    let seen = through(&BufferBodyLayer::new(5), request).await;
    assert_eq!((seen.bytes, seen.frames), (None, vec![text("query")]));
}

#[tokio::test]
async fn a_connect_is_not_touched() {
    let request = Request::connect("a:1")
        .body(Full::new(text("query")))
        .unwrap();
    let seen = through(&BufferBodyLayer::new(5), request).await;
    assert_eq!((seen.bytes, seen.frames), (None, vec![text("query")]));
}

#[tokio::test]
async fn a_body_that_fails_is_what_came_and_then_the_error() {
    for frames in [vec![], vec![data("qu")], vec![data("q"), data("u")]] {
        let sent = frames.len();
        let failing = frames.into_iter().chain([Err("reset".into())]);
        let seen = through(&BufferBodyLayer::new(5), post(stream(failing.collect()))).await;
        assert_eq!((seen.bytes, seen.hint), (None, None));
        assert_eq!(
            seen.frames.concat(),
            &b"qu"[..if sent == 0 { 0 } else { 2 }]
        );
        assert_eq!(seen.error.as_deref(), Some("reset"));
    }
}

#[tokio::test]
async fn a_body_whose_length_is_announced_wrongly_is_in_no_key() {
    for fields in [
        &[("content-length", "4")][..],
        &[("content-length", "")],
        &[("content-length", "5"), ("content-length", "4")],
        &[("content-length", "5"), ("transfer-encoding", "chunked")],
        &[("transfer-encoding", "gzip, chunked")],
    ] {
        let mut request = post(Full::new(text("query")));
        for (name, value) in fields {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        let seen = through(&BufferBodyLayer::new(5), request).await;
        assert_eq!(
            (seen.bytes, seen.frames),
            (None, vec![text("query")]),
            "{fields:?}"
        );
    }
}

#[tokio::test]
async fn an_empty_body_of_which_more_is_announced_is_in_no_key() {
    for fields in [("content-length", "5"), ("transfer-encoding", "gzip")] {
        let (name, value) = fields;
        let mut request = post(Empty::<Bytes>::new());
        request.headers_mut().append(name, value.parse().unwrap());
        let seen = through(&BufferBodyLayer::new(5), request).await;
        assert_eq!((seen.bytes, seen.frames), (None, vec![]), "{fields:?}");
    }
}

/// A body that says with its last bytes that it is at its end, and whose connection says so much later.
struct Lasting(Option<Bytes>);

impl Body for Lasting {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.take() {
            Some(data) => std::task::Poll::Ready(Some(Ok(Frame::data(data)))),
            None => std::task::Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_read_when_its_last_byte_is_there() {
    let began = tokio::time::Instant::now();
    let request = post(Lasting(Some(text("query"))));
    let layer = BufferBodyLayer::new(5);
    let calls = Arc::new(Mutex::new(None));
    let service = service_fn(|request: Request<BufferedBody<Lasting>>| {
        let bytes = request
            .extensions()
            .get()
            .map(|BodyBytes(bytes)| bytes.clone());
        *calls.lock().unwrap() = bytes;
        async { Ok::<_, Infallible>(Response::new(())) }
    });
    let Ok(_) = layer.layer(service).oneshot(request).await;
    assert_eq!(*calls.lock().unwrap(), Some(text("query")));
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn what_an_outer_layer_read_is_not_taken_for_a_body_that_was_not_read() {
    let mut request = post(Full::new(text("query")));
    request.extensions_mut().insert(BodyBytes(text("another")));
    let seen = through(&BufferBodyLayer::new(4), request).await;
    assert_eq!((seen.bytes, seen.frames), (None, vec![text("query")]));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_takes_too_long_is_what_came_and_then_the_rest() {
    let (sender, body) = channel();
    sender.send(data("que")).unwrap();
    let calls = Calls::default();
    let service = BufferBodyLayer::new(5).layer(reader(&calls));
    let mut call = tokio_test::task::spawn(service.oneshot(post(body)));
    assert!(call.poll().is_pending());
    tokio::time::advance(Duration::from_millis(600)).await;
    sender.send(data("r")).unwrap();
    assert!(call.poll().is_pending());
    tokio::time::advance(Duration::from_millis(600)).await;
    // Now it is with the service below, which waits for the rest.
    assert!(call.is_woken() && call.poll().is_pending());
    sender.send(data("y")).unwrap();
    drop(sender);
    assert!(call.is_woken() && call.poll().is_ready());
    let seen = calls.lock().unwrap().pop().unwrap();
    assert_eq!((seen.bytes, seen.hint), (None, None));
    assert_eq!(seen.frames, [text("quer"), text("y")]);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_always_ready_lets_others_have_their_turn_and_does_not_go_on_for_ever() {
    let frames = futures_util::stream::repeat_with(|| data(""));
    let service = BufferBodyLayer::new(5).layer(service_fn(async |_: Request<BufferedBody<_>>| {
        Ok::<_, Infallible>(())
    }));
    let mut call = tokio_test::task::spawn(service.oneshot(post(StreamBody::new(frames))));
    assert!(call.poll().is_pending() && call.is_woken());
    tokio::time::advance(Duration::from_millis(1100)).await;
    assert!(call.poll().is_ready());
}

#[test]
fn without_a_runtime_a_body_may_take_as_long_as_it_takes() {
    let (sender, body) = channel();
    let calls = Calls::default();
    let service = BufferBodyLayer::new(5).layer(reader(&calls));
    let mut call = tokio_test::task::spawn(service.oneshot(post(body)));
    assert!(call.poll().is_pending());
    sender.send(data("query")).unwrap();
    assert!(call.poll().is_pending());
    drop(sender);
    assert!(call.is_woken() && call.poll().is_ready());
    assert_eq!(calls.lock().unwrap()[0].bytes, Some(text("query")));
}

#[tokio::test]
async fn a_request_that_is_dropped_while_it_is_read_makes_no_call() {
    let layer = BufferBodyLayer::new(5).max_buffered(3);
    let (sender, body) = channel();
    sender.send(data("que")).unwrap();
    let calls = Calls::default();
    let mut call = tokio_test::task::spawn(layer.layer(reader(&calls)).oneshot(post(body)));
    assert!(call.poll().is_pending());
    drop(call);
    assert!(calls.lock().unwrap().is_empty());
    // What it had taken of the budget is there again.
    let seen = through(&layer, post(Full::new(text("abc")))).await;
    assert_eq!(seen.bytes, Some(text("abc")));
}

#[tokio::test]
async fn bodies_for_which_there_is_no_room_pass_unread_until_there_is() {
    let layer = BufferBodyLayer::new(5).max_buffered(6);
    let (sender, body) = channel();
    sender.send(data("quer")).unwrap();
    let calls = Calls::default();
    let mut slow = tokio_test::task::spawn(layer.layer(reader(&calls)).oneshot(post(body)));
    assert!(slow.poll().is_pending());

    // A clone of the layer counts with it.
    let seen = through(&layer.clone(), post(Full::new(text("abc")))).await;
    assert_eq!((seen.bytes, seen.frames), (None, vec![text("abc")]));
    let seen = through(&layer, post(stream(vec![data("a"), data("bc")]))).await;
    assert_eq!(
        (seen.bytes, seen.frames),
        (None, vec![text("a"), text("bc")])
    );
    let seen = through(&layer, post(Full::new(text("ab")))).await;
    assert_eq!(seen.bytes, Some(text("ab")));

    drop(sender);
    assert!(slow.poll().is_ready());
    let seen = through(&layer, post(Full::new(text("abcde")))).await;
    assert_eq!(seen.bytes, Some(text("abcde")));
}

#[tokio::test]
async fn a_slow_sender_holds_neither_a_flight_nor_a_permit_and_leads_when_its_body_is_there() {
    let origin = Origin::page();
    origin.open();
    let layer =
        SingleflightLayer::with_extractor(RequestKeyExtractor::new().coalesce(http::Method::POST));
    let (flights, inner) = (layer.handle(), origin.clone());
    let service = tower::ServiceBuilder::new()
        .layer(BufferBodyLayer::new(5))
        .layer(layer)
        .concurrency_limit(1)
        .service(inner);
    let (sender, body) = channel();
    sender.send(data("que")).unwrap();
    let mut slow = tokio_test::task::spawn(service.clone().oneshot(post(body.boxed_unsync())));
    assert!(slow.poll().is_pending());
    assert_eq!((flights.in_flight(), origin.calls()), (0, 0));

    let whole = Full::new(text("query"))
        .map_err(|never| match never {})
        .boxed_unsync();
    let fast = service.oneshot(post(whole)).await.unwrap();
    assert_eq!(support::read(fast).await.role, Role::Leader);

    sender.send(data("ry")).unwrap();
    drop(sender);
    let slow = slow.await.unwrap();
    assert_eq!(support::read(slow).await.role, Role::Leader);
    assert_eq!(origin.calls(), 2);
    assert_idle(&flights);
}

#[tokio::test]
async fn a_service_that_is_not_ready_is_called_when_it_is() {
    let (mut service, mut handle) = tower_test::mock::spawn_with(|mock| {
        BufferBodyLayer::new(5).layer(tower::buffer::Buffer::new(mock, 1))
    });
    handle.allow(0);
    for request in [
        Request::new(Full::new(Bytes::new())),
        post(Full::new(Bytes::new())),
        post(Full::new(text("query"))),
    ] {
        assert!(service.poll_ready().is_ready());
        let mut call = tokio_test::task::spawn(service.call(request));
        assert!(call.poll().is_pending());
        handle.allow(1);
        let (_, send) = handle.next_request().await.unwrap();
        send.send_response(());
        call.await.unwrap();
    }
}

#[tokio::test]
async fn a_panic_of_a_body_is_its_callers_alone() {
    let layer = BufferBodyLayer::new(5).max_buffered(5);
    let frames = futures_util::stream::iter([1, 2]).map(|at| match at {
        1 => data("que"),
        _ => panic!("a body that panics"),
    });
    let calls = Calls::default();
    let service = layer.layer(reader(&calls));
    let call = service.oneshot(post(StreamBody::new(frames)));
    assert!(AssertUnwindSafe(call).catch_unwind().await.is_err());
    let seen = through(&layer, post(Full::new(text("query")))).await;
    assert_eq!(seen.bytes, Some(text("query")));
}

#[tokio::test]
async fn what_is_read_is_held_until_the_service_takes_it() {
    let layer = BufferBodyLayer::new(5).max_buffered(5);
    let held = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&held);
    let service = layer.layer(service_fn(
        move |request: Request<BufferedBody<Full<Bytes>>>| {
            *keep.lock().unwrap() = Some(request.into_body());
            async { Ok::<_, Infallible>(()) }
        },
    ));
    service
        .oneshot(post(Full::new(text("query"))))
        .await
        .unwrap();
    let mut body = held.lock().unwrap().take().unwrap();
    assert_eq!(
        through(&layer, post(Full::new(text("a")))).await.bytes,
        None
    );
    // It shrinks as it is read.
    assert_eq!(body.size_hint().exact(), Some(5));
    assert!(!body.is_end_stream());
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "query");
    assert_eq!(body.size_hint().exact(), Some(0));
    assert!(body.is_end_stream());
    assert_eq!(
        through(&layer, post(Full::new(text("a")))).await.bytes,
        Some(text("a"))
    );
}

#[tokio::test]
async fn the_size_hint_of_a_body_that_was_read_in_part_counts_both_parts() {
    let hints = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&hints);
    let service =
        BufferBodyLayer::new(5).layer(service_fn(move |request: Request<BufferedBody<Hinted>>| {
            let keep = Arc::clone(&keep);
            async move {
                let mut body = request.into_body();
                loop {
                    let hint = body.size_hint();
                    keep.lock().unwrap().push((hint.lower(), hint.upper()));
                    if body.frame().await.is_none() {
                        return Ok::<_, Infallible>(());
                    }
                }
            }
        }));
    service.oneshot(post(Hinted(3))).await.unwrap();
    assert_eq!(
        *hints.lock().unwrap(),
        [(6, Some(10)), (2, Some(6)), (0, Some(4))]
    );
}

/// So many frames of two, four and so on bytes; it knows little of its length.
#[derive(Debug)]
struct Hinted(u64);

impl Body for Hinted {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let left = self.0;
        self.0 = left.saturating_sub(1);
        std::task::Poll::Ready((left > 0).then(|| Ok(Frame::data(Bytes::from(vec![0; 2])))))
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_lower(0);
        hint.set_upper(4 + 2 * self.0);
        hint
    }
}
