//! Methods other than GET and HEAD that a key function opts in.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, request};
use http_body::{Body, Frame};
use tower::Layer;
use tower_singleflight::{Role, SingleflightLayer};

use crate::support::{self, Origin, all, ask, assert_idle, roles};

/// Counts who reads it and who drops it.
#[derive(Clone, Debug, Default)]
struct Watch {
    reads: Arc<AtomicUsize>,
    drops: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Watched(Watch);

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.drops.fetch_add(1, Ordering::SeqCst);
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.reads.fetch_add(1, Ordering::SeqCst);
        Poll::Ready(None)
    }
}

fn post(uri: &str, watch: &Watch) -> Request<Watched> {
    Request::post(uri).body(Watched(watch.clone())).unwrap()
}

#[tokio::test]
async fn a_followers_request_body_is_dropped_unread() {
    let origin = Origin::page();
    let layer =
        SingleflightLayer::with_key(|request: &request::Parts| Some(request.uri.path().to_owned()));
    let service = layer.layer(origin.clone());
    let watch = Watch::default();
    let asked = [(); 3].map(|()| ask(&service, post("/search", &watch)));
    assert_eq!(origin.calls(), 1);
    // The leader's was given to the origin, which drops it; the others are kept for the case that they are sent on.
    assert_eq!(watch.drops.load(Ordering::SeqCst), 1);
    origin.open();
    let got = all(asked).await;
    assert_eq!(roles(&got), [Role::Leader, Role::Follower, Role::Follower]);
    assert_eq!(watch.drops.load(Ordering::SeqCst), 3);
    assert_eq!(watch.reads.load(Ordering::SeqCst), 0);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_key_may_opt_in_some_and_leave_the_rest() {
    let origin = Origin::page();
    let layer = SingleflightLayer::with_key(|request: &request::Parts| {
        let path = request.uri.path();
        path.starts_with("/search").then(|| path.to_owned())
    });
    let service = layer.layer(origin.clone());
    let watch = Watch::default();
    let asked = ["/search", "/buy", "/search", "/buy"].map(|uri| ask(&service, post(uri, &watch)));
    origin.open();
    use Role::{Bypassed, Follower, Leader};
    assert_eq!(
        roles(&all(asked).await),
        [Leader, Bypassed, Follower, Bypassed]
    );
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn two_methods_never_share_though_a_key_makes_them_one() {
    let origin = Origin::page();
    let layer = SingleflightLayer::with_key(|_| Some(()));
    let service = layer.layer(origin.clone());
    let asked = ["POST", "QUERY", "POST", "QUERY"]
        .map(|method| ask(&service, support::request(method, "/", &[])));
    origin.open();
    use Role::{Follower, Leader};
    assert_eq!(
        roles(&all(asked).await),
        [Leader, Leader, Follower, Follower]
    );
    assert_eq!(origin.calls(), 2);
    assert_idle(&layer.handle());
}
