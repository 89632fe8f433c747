//! Auto traits, sizes and `Debug` of every public type.

use std::{
    cell::Cell,
    convert::Infallible,
    fmt::Debug,
    future::Pending,
    marker::PhantomData,
    mem::size_of,
    panic::{RefUnwindSafe, UnwindSafe},
    rc::Rc,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use tower::{BoxError, Layer};
use tower_singleflight::{
    Group, Handle, KeyExtractor, Outcome, RequestKey, RequestKeyExtractor, ResponseBody, Role, Run,
    SharedError, Singleflight, SingleflightLayer, Stats, TryRun, future::ResponseFuture,
    method_and_uri,
};

use crate::support::{self, Fields, Origin, all, ask, assert_idle, get, request};

type Body = Empty<Bytes>;
type InFlight = ResponseFuture<Origin, RequestKeyExtractor, Body, Full<Bytes>>;

fn send<T: Send>() {}
fn sync<T: Sync>() {}
fn unpin<T: Unpin>() {}
fn lasting<T: 'static>() {}
fn cloned<T: Clone>() {}
fn shown<T: Debug>() {}

fn anywhere<T: Send + Sync + Unpin + 'static + Debug>() {}

#[test]
fn every_public_type_goes_anywhere() {
    anywhere::<Group<String, String>>();
    anywhere::<Run<String, String>>();
    anywhere::<TryRun<String, String, String>>();
    anywhere::<Outcome<String>>();
    anywhere::<SingleflightLayer>();
    anywhere::<RequestKeyExtractor>();
    anywhere::<RequestKey>();
    anywhere::<Handle<RequestKey>>();
    anywhere::<Stats>();
    anywhere::<Role>();
    anywhere::<ResponseBody<Full<Bytes>>>();
    anywhere::<SharedError>();
    sync::<Singleflight<Origin, RequestKeyExtractor>>();
    send::<Singleflight<Origin, RequestKeyExtractor>>();
    unpin::<Singleflight<Origin, RequestKeyExtractor>>();
    send::<InFlight>();
    unpin::<InFlight>();
    lasting::<InFlight>();
    shown::<InFlight>();
}

/// `Send`, and nothing else.
#[derive(Clone)]
struct SendOnly(PhantomData<Cell<u8>>);

impl tower::Service<Request<Body>> for SendOnly {
    type Response = Response<SendOnlyBody>;
    type Error = Infallible;
    type Future = Pending<Result<Self::Response, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        std::future::pending()
    }
}

struct SendOnlyBody(PhantomData<Cell<u8>>);

impl http_body::Body for SendOnlyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        std::task::Poll::Ready(None)
    }
}

#[test]
fn an_inner_service_and_body_need_not_be_sync() {
    let layer = SingleflightLayer::new();
    let service = layer.layer(SendOnly(PhantomData));
    fn takes<S: tower::Service<Request<Body>, Future: Send> + Send>(_: S) {}
    takes(service);
    send::<ResponseBody<SendOnlyBody>>();
    unpin::<ResponseBody<SendOnlyBody>>();
}

/// Whether a key's or a value's type is `Sync` or not, a layer is `Clone` and a handle too.
#[test]
fn clones_ask_nothing_of_what_they_hold() {
    struct NotClone;
    impl KeyExtractor for NotClone {
        type Key = u8;
        fn extract(&self, _: &http::request::Parts) -> Option<u8> {
            None
        }
    }
    cloned::<SingleflightLayer<NotClone>>();
    cloned::<Singleflight<Origin, NotClone>>();
    cloned::<Handle<Rc<u8>>>();
    cloned::<Group<Rc<u8>, Rc<u8>>>();
    cloned::<SharedError>();
    cloned::<Role>();
    cloned::<Stats>();
}

#[test]
fn what_holds_no_secret_state_of_the_user_is_unwind_safe_enough_to_be_caught() {
    fn safe<T: UnwindSafe + RefUnwindSafe>() {}
    safe::<Role>();
    safe::<Stats>();
    safe::<RequestKey>();
    safe::<RequestKeyExtractor>();
}

#[test]
fn sizes_do_not_grow_unnoticed() {
    let word = size_of::<usize>();
    assert_eq!(size_of::<SingleflightLayer>(), word);
    assert_eq!(size_of::<Handle<RequestKey>>(), word);
    assert_eq!(size_of::<Group<String, String>>(), word);
    assert_eq!(size_of::<Singleflight<(), RequestKeyExtractor>>(), word);
    assert_eq!(size_of::<RequestKeyExtractor>(), word);
    assert_eq!(size_of::<SharedError>(), 2 * word);
    assert_eq!(size_of::<Role>(), 1);
    let replicas = if cfg!(feature = "redis") {
        10 * word
    } else {
        0
    };
    assert_eq!(size_of::<Stats>(), 12 * word + replicas);
    assert!(size_of::<Run<String, String>>() <= 4 * word);
    assert!(size_of::<Outcome<u64>>() <= 2 * word);
    assert!(size_of::<RequestKey>() <= 16 * word);
    // No larger than what it replaces, but for the tag.
    assert!(size_of::<ResponseBody<[usize; 16]>>() <= 17 * word);
    // A frame that may be trailers is the largest thing in it.
    assert!(size_of::<ResponseBody<()>>() <= 14 * word);
    // A few hundred bytes at most; the request itself travels in the waiter or in the inner service's future.
    assert!(
        size_of::<InFlight>() <= 64 * word,
        "{}",
        size_of::<InFlight>()
    );
}

/// What must never be seen in a log.
const SECRET: &str = "hunter2";

#[tokio::test]
async fn debug_of_everything_says_something_and_no_secret() {
    let fields: Fields<'_> = &[("authorization", b"hunter2"), ("cookie", b"hunter2")];
    let origin = Origin::page();
    let layer = SingleflightLayer::new().cache_status("edge");
    let service = layer.layer(DebugOrigin(origin.clone()));
    let mut shown = vec![
        format!("{layer:?}"),
        format!("{:?}", layer.handle()),
        format!("{service:?}"),
    ];
    let mut calls = Vec::new();
    for method in ["GET", "GET", "POST"] {
        let call = tower::Service::call(&mut service.clone(), request(method, "/", fields));
        shown.push(format!("{call:?}"));
        calls.push(call);
    }
    shown.push(format!("{:?} {:?}", layer, layer.handle()));
    origin.open();
    for call in calls {
        let Ok(response) = call.await;
        shown.push(format!("{response:?}"));
    }
    let key = RequestKeyExtractor::new().extract(&request("GET", "/", fields).into_parts().0);
    shown.push(format!("{key:?} {:?}", RequestKeyExtractor::new()));
    shown.push(format!("{:?}", SingleflightLayer::with_key(method_and_uri)));
    shown.push(format!("{:?}", ResponseBody::<Full<Bytes>>::default()));
    shown.push(format!("{:?} {:?}", Role::Leader, layer.handle().stats()));
    let group: Group<&str, u8> = Group::new();
    let run = group.run(SECRET, || std::future::ready(1));
    shown.push(format!("{group:?} {run:?}"));
    shown.push(format!("{:?}", run.await));
    for text in &shown {
        assert!(!text.is_empty() && !text.contains(SECRET), "{text}");
    }
    assert!(shown[0].starts_with("SingleflightLayer") && shown[0].contains("RequestKeyExtractor"));
    assert!(shown[1].starts_with("Handle") && shown[2].starts_with("Singleflight"));
    assert_idle(&layer.handle());
}

#[derive(Clone)]
struct DebugOrigin(Origin);

impl Debug for DebugOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Origin")
    }
}

impl tower::Service<Request<Body>> for DebugOrigin {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = support::Call;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> support::Call {
        self.0.call(request)
    }
}

#[tokio::test]
async fn a_service_gives_access_to_what_is_inside() {
    let layer = SingleflightLayer::new();
    let mut service = layer.layer(Origin::page());
    service.get_mut().open();
    let got = all([ask(&service, get("/"))]).await;
    assert_eq!(service.get_ref().calls(), got.len());
    assert_eq!(service.into_inner().calls(), 1);
    assert_idle(&layer.handle());
}

/// What a program may import with a glob beside this crate has no name in common with it.
#[test]
fn glob_imports_beside_tower_and_http_are_not_ambiguous() {
    use http::*;
    use tower::*;
    use tower_singleflight::*;

    fn takes(_: BoxError, _: Request<Body>, _: SingleflightLayer, _: Role, _: Stats) {}
    fn calls<S: Service<Request<Body>>>(_: &S) {}
    let _ = (takes, calls::<Singleflight<Origin>>);
}
