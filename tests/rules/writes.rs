//! Who asks after a successful write does not join a flight that began before it (RFC 9111 section 4.4).

use bytes::Bytes;
use http::{Response, StatusCode};
use tower::Layer;
use tower_singleflight::{
    KeyExtractor, RequestKeyExtractor, Role, SingleflightLayer, method_and_uri,
};

use crate::support::{self, Origin, ask, assert_idle, request};

type Ask<'a> = (&'a str, &'a str, Option<&'a str>);

/// GETs wait at the gate; whatever else is asked is answered at once, with `status`.
fn written<X: KeyExtractor>(
    layer: &SingleflightLayer<X>,
    status: u16,
) -> (Origin, impl Ours + use<X>) {
    let reads = Origin::counting();
    let writes = Origin::new(move |_| {
        let response = Response::builder().status(status);
        response.body(Bytes::new()).expect("a response")
    });
    writes.open();
    let both = {
        let reads = reads.clone();
        tower::service_fn(
            move |request: http::Request<http_body_util::Empty<Bytes>>| {
                let origin = match *request.method() {
                    http::Method::GET => &reads,
                    _ => &writes,
                };
                tower::Service::call(&mut origin.clone(), request)
            },
        )
    };
    (reads, layer.layer(both))
}

/// A service as `ask` wants it.
trait Ours:
    tower::Service<
        http::Request<http_body_util::Empty<Bytes>>,
        Response = Response<tower_singleflight::ResponseBody<http_body_util::Full<Bytes>>>,
        Error = std::convert::Infallible,
        Future: Send + 'static,
    > + Clone
{
}

impl<S> Ours for S where
    S: tower::Service<
            http::Request<http_body_util::Empty<Bytes>>,
            Response = Response<tower_singleflight::ResponseBody<http_body_util::Full<Bytes>>>,
            Error = std::convert::Infallible,
            Future: Send + 'static,
        > + Clone
{
}

fn asked((method, uri, host): Ask<'_>) -> http::Request<http_body_util::Empty<Bytes>> {
    match host {
        Some(host) => request(method, uri, &[("host", host.as_bytes())]),
        None => request(method, uri, &[]),
    }
}

/// A read is in flight when a write is answered: may the same read that comes after it join?
async fn joins_after_write<X: KeyExtractor>(
    layer: SingleflightLayer<X>,
    read: Ask<'_>,
    write: Ask<'_>,
    status: u16,
) -> bool {
    let (reads, service) = written(&layer, status);
    let handle = layer.handle();
    let first = ask(&service, asked(read));
    let early = ask(&service, asked(read));
    reads.until_inside(1).await;
    let answer = ask(&service, asked(write)).await.unwrap();
    assert_eq!(answer.head.status.as_u16(), status);
    let open = handle.in_flight();
    let late = ask(&service, asked(read));
    support::settle().await;
    let calls = reads.calls();
    reads.open();
    let (first, early, late) = (
        first.await.unwrap(),
        early.await.unwrap(),
        late.await.unwrap(),
    );
    assert_eq!((first.role, early.role), (Role::Leader, Role::Follower));
    assert_eq!((&first.body[..], &early.body[..]), (&b"1"[..], &b"1"[..]));
    assert_idle(&handle);
    match late.role {
        Role::Follower => {
            assert_eq!((open, calls, &late.body[..]), (1, 1, &b"1"[..]));
            true
        }
        role => {
            assert_eq!(role, Role::Leader);
            assert_eq!((open, calls, &late.body[..]), (0, 2, &b"2"[..]));
            false
        }
    }
}

const READ: Ask<'_> = ("GET", "/a", Some("example.org"));

#[tokio::test]
async fn a_successful_unsafe_request_detaches_the_flights_of_its_uri() {
    for method in ["POST", "PUT", "PATCH", "DELETE", "PROPPATCH"] {
        for status in [200, 201, 204, 299, 301, 303, 304] {
            let write = (method, READ.1, READ.2);
            let joins = joins_after_write(SingleflightLayer::new(), READ, write, status).await;
            assert!(!joins, "{method} {status}");
        }
    }
}

#[tokio::test]
async fn a_failed_write_detaches_nothing() {
    for status in [400, 403, 404, 409, 500, 503] {
        let write = ("POST", READ.1, READ.2);
        assert!(joins_after_write(SingleflightLayer::new(), READ, write, status).await);
    }
}

#[tokio::test]
async fn a_safe_method_detaches_nothing() {
    for method in ["OPTIONS", "TRACE"] {
        let write = (method, READ.1, READ.2);
        assert!(joins_after_write(SingleflightLayer::new(), READ, write, 200).await);
    }
}

#[tokio::test]
async fn another_uri_is_not_touched() {
    let others: [Ask<'_>; 5] = [
        ("POST", "/b", READ.2),
        ("POST", "/a/", READ.2),
        ("POST", "/a?b", READ.2),
        ("POST", "/a", Some("example.com")),
        ("POST", "http://example.com/a", None),
    ];
    for write in others {
        let joins = joins_after_write(SingleflightLayer::new(), READ, write, 200).await;
        assert!(joins, "{write:?}");
    }
}

#[tokio::test]
async fn origin_and_absolute_form_are_one_uri() {
    let forms: [(&str, Option<&str>); 6] = [
        ("/a?b=c", Some("example.org")),
        ("/a?b=c", Some("Example.ORG:80")),
        ("http://example.org/a?b=c", None),
        ("http://EXAMPLE.org:80/a?b=c", Some("example.org:80")),
        ("https://example.org/a?b=c", None),
        ("/a?b=c", None),
    ];
    for (read_uri, read_host) in forms {
        for (write_uri, write_host) in forms {
            let read = ("GET", read_uri, read_host);
            let write = ("PUT", write_uri, write_host);
            let joins = joins_after_write(SingleflightLayer::new(), read, write, 204).await;
            assert!(!joins, "{read:?} {write:?}");
        }
    }
}

#[tokio::test]
async fn an_empty_path_is_the_root() {
    for (read, write) in [
        ("http://example.org", "/"),
        ("/", "http://example.org"),
        ("http://example.org?q", "/?q"),
        ("/?q", "http://example.org?q"),
    ] {
        let read = ("GET", read, read.starts_with('/').then_some("example.org"));
        let write = (
            "PUT",
            write,
            write.starts_with('/').then_some("example.org"),
        );
        let joins = joins_after_write(SingleflightLayer::new(), read, write, 204).await;
        assert!(!joins, "{read:?} {write:?}");
    }
}

#[tokio::test]
async fn a_tuned_default_key_watches_writes_as_well() {
    let layer = SingleflightLayer::with_extractor(
        RequestKeyExtractor::new().ignore_header(http::header::ACCEPT),
    );
    assert!(!joins_after_write(layer, READ, ("POST", READ.1, READ.2), 200).await);
}

#[tokio::test]
async fn a_users_key_watches_no_writes() {
    let layer = SingleflightLayer::with_key(method_and_uri);
    assert!(joins_after_write(layer, READ, ("POST", READ.1, READ.2), 200).await);
}

#[tokio::test]
async fn a_flight_that_began_during_the_write_is_detached_when_its_answer_comes() {
    let reads = Origin::counting();
    let writes = Origin::new(|_| Response::new(Bytes::new()));
    let both = {
        let (reads, writes) = (reads.clone(), writes.clone());
        tower::service_fn(
            move |request: http::Request<http_body_util::Empty<Bytes>>| {
                let is_read = *request.method() == http::Method::GET;
                let origin = if is_read { &reads } else { &writes };
                tower::Service::call(&mut origin.clone(), request)
            },
        )
    };
    let layer = SingleflightLayer::new();
    let service = layer.layer(both);
    let write = ask(&service, asked(("POST", READ.1, READ.2)));
    writes.until_inside(1).await;
    let during = ask(&service, asked(READ));
    assert_eq!(layer.handle().in_flight(), 1);
    writes.open();
    assert_eq!(write.await.unwrap().role, Role::Bypassed);
    assert_eq!(layer.handle().in_flight(), 0);
    let after = ask(&service, asked(READ));
    reads.open();
    assert_eq!(during.await.unwrap().body, "1");
    assert_eq!(after.await.unwrap().body, "2");
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn what_a_write_has_detached_neither_counts_nor_can_be_forgotten() {
    let layer = SingleflightLayer::new();
    let (reads, service) = written(&layer, 200);
    let handle = layer.handle();
    let first = ask(&service, asked(READ));
    let key = RequestKeyExtractor::new()
        .extract(&asked(READ).into_parts().0)
        .unwrap();
    assert_eq!((handle.in_flight(), handle.waiters(&key)), (1, 1));
    let write = ask(&service, asked(("DELETE", READ.1, READ.2)))
        .await
        .unwrap();
    assert_eq!(write.head.status, StatusCode::OK);
    assert_eq!((handle.in_flight(), handle.waiters(&key)), (0, 0));
    assert_eq!(
        handle.stats().waiters,
        1,
        "its caller is still owed an answer"
    );
    assert!(!handle.forget(&key));
    assert_eq!(handle.forget_all(), 0);
    reads.open();
    assert_eq!(first.await.unwrap().body, "1");
    assert_idle(&handle);
}

#[tokio::test]
async fn a_write_while_the_layer_is_switched_off_counts() {
    let layer = SingleflightLayer::new();
    let (reads, service) = written(&layer, 200);
    let first = ask(&service, asked(READ));
    layer.handle().set_enabled(false);
    ask(&service, asked(("DELETE", READ.1, READ.2)))
        .await
        .unwrap();
    layer.handle().set_enabled(true);
    let second = ask(&service, asked(READ));
    assert_eq!(reads.calls(), 2);
    reads.open();
    assert_eq!(
        (first.await.unwrap().role, second.await.unwrap().role),
        (Role::Leader, Role::Leader)
    );
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_write_detaches_a_flight_whose_body_is_still_coming() {
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};
    use tower::{Service, ServiceExt};
    let (send, receive) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
    let receive = std::sync::Arc::new(std::sync::Mutex::new(Some(receive)));
    let layer = SingleflightLayer::new();
    let mut service = layer.layer(tower::service_fn(
        move |request: http::Request<http_body_util::Empty<Bytes>>| {
            let taken = match *request.method() {
                http::Method::GET => receive.lock().unwrap().take(),
                _ => None,
            };
            async move {
                let stream = futures_util::stream::unfold(taken, |mut receive| async move {
                    let data = receive.as_mut()?.recv().await?;
                    Some((
                        Ok::<_, std::convert::Infallible>(Frame::data(data)),
                        receive,
                    ))
                });
                let response = Response::builder();
                Ok::<_, std::convert::Infallible>(
                    response.body(StreamBody::new(Box::pin(stream))).unwrap(),
                )
            }
        },
    ));
    let read = service
        .ready()
        .await
        .unwrap()
        .call(asked(READ))
        .await
        .unwrap();
    assert_eq!(layer.handle().in_flight(), 1);
    service.call(asked(("PUT", READ.1, READ.2))).await.unwrap();
    assert_eq!(layer.handle().in_flight(), 0);
    send.send(Bytes::from_static(b"whole")).unwrap();
    drop(send);
    assert_eq!(
        read.into_body().collect().await.unwrap().to_bytes(),
        "whole"
    );
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_flight_of_those_who_were_moved_to_their_variant_is_older_than_a_write_too() {
    let reads = Origin::page_with("vary", "x-variant");
    let writes = Origin::page();
    writes.open();
    let both = {
        let reads = reads.clone();
        tower::service_fn(
            move |request: http::Request<http_body_util::Empty<Bytes>>| {
                let origin = match *request.method() {
                    http::Method::GET => &reads,
                    _ => &writes,
                };
                tower::Service::call(&mut origin.clone(), request)
            },
        )
    };
    let key = RequestKeyExtractor::new().ignore_header("x-variant".parse().unwrap());
    let layer = SingleflightLayer::with_extractor(key);
    let service = layer.layer(both);
    let get = |variant: &[u8]| ask(&service, request("GET", "/", &[("x-variant", variant)]));
    let (leader, moved) = (get(b"a"), get(b"b"));
    reads.until_inside(1).await;
    reads.admit(1);
    assert_eq!(leader.await.unwrap().role, Role::Leader);
    // That of the moved one.
    reads.until_inside(1).await;
    let written = ask(&service, request("POST", "/", &[])).await.unwrap();
    assert_eq!(written.head.status, StatusCode::OK);
    let newcomer = get(b"b");
    reads.until_inside(2).await;
    reads.open();
    assert_eq!(moved.await.unwrap().role, Role::Forwarded);
    assert_eq!(newcomer.await.unwrap().role, Role::Leader);
    assert_idle(&layer.handle());
}
