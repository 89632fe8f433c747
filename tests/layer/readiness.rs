//! Readiness: always ready outside, and the inner service is called on an instance that said so itself.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use tokio_test::{assert_pending, assert_ready_ok, task};
use tower::{Layer, Service, ServiceExt, limit::ConcurrencyLimitLayer};
use tower_singleflight::{Role, SharedError, SingleflightLayer};
use tower_test::mock;

use crate::support::{
    self, Origin, all, ask, assert_idle, count, get, request, role, roles, settle,
};

type Asked = Request<Empty<Bytes>>;
type Answer = Response<Full<Bytes>>;

fn page() -> Answer {
    Response::new(Full::new(Bytes::from_static(b"page")))
}

#[tokio::test]
async fn ten_identical_requests_over_a_limit_of_one_make_one_call() {
    let origin = Origin::page();
    let layer = SingleflightLayer::new();
    let service = layer.layer(ConcurrencyLimitLayer::new(1).layer(origin.clone()));
    let asked = [(); 10].map(|()| ask(&service, get("/")));
    settle().await;
    assert_eq!((origin.calls(), layer.handle().stats().waiters), (1, 10));
    origin.open();
    let got = all(asked).await;
    assert_eq!(
        (count(&got, Role::Leader), count(&got, Role::Follower)),
        (1, 9)
    );
    assert_eq!(origin.calls(), 1);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn followers_hold_no_permit() {
    let origin = Origin::page();
    let layer = SingleflightLayer::new();
    let service = layer.layer(ConcurrencyLimitLayer::new(2).layer(origin.clone()));
    let mut asked: Vec<_> = (0..10).map(|_| ask(&service, get("/hot"))).collect();
    settle().await;
    // One permit is left for an unrelated key, and is not held by one of the nine followers.
    asked.push(ask(&service, get("/other")));
    origin.until_inside(2).await;
    // The next one has to wait, also for the inner service alone.
    asked.push(ask(&service, get("/third")));
    settle().await;
    assert_eq!(origin.calls(), 2);
    origin.open();
    assert_eq!(count(&all(asked).await, Role::Leader), 3);
    assert_eq!(origin.calls(), 3);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_follower_that_is_sent_on_calls_the_instance_that_it_came_to() {
    let origin = Origin::page_with("set-cookie", "a=b");
    let layer = SingleflightLayer::new();
    let mut first = layer.layer(ConcurrencyLimitLayer::new(1).layer(origin.clone()));
    // The only permit is this instance's, which lives on.
    let mut limited = ConcurrencyLimitLayer::new(1).layer(origin.clone());
    ServiceExt::<Asked>::ready(&mut limited).await.unwrap();
    let mut second = layer.layer(limited);
    let leader = tokio::spawn(first.call(get("/")));
    let follower = tokio::spawn(second.call(get("/")));
    origin.open();
    assert_eq!(role(&leader.await.unwrap().unwrap()), Role::Leader);
    let follower = tokio::time::timeout(Duration::from_secs(20), follower).await;
    let follower = follower.expect("it has a permit").unwrap().unwrap();
    assert_eq!(role(&follower), Role::Forwarded);
    assert_eq!(origin.calls(), 2);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_leader_that_waits_for_capacity_can_be_joined() {
    let origin = Origin::page();
    let layer = SingleflightLayer::new();
    let service = layer.layer(ConcurrencyLimitLayer::new(1).layer(origin.clone()));
    let first = ask(&service, get("/a"));
    let waiting = [(); 3].map(|()| ask(&service, get("/b")));
    settle().await;
    assert_eq!((origin.calls(), layer.handle().in_flight()), (1, 2));
    origin.open();
    assert_eq!(first.await.unwrap().role, Role::Leader);
    assert_eq!(
        roles(&all(waiting).await),
        [Role::Leader, Role::Follower, Role::Follower]
    );
    assert_eq!(origin.calls(), 2);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_leader_that_goes_before_it_had_capacity_leaves_its_place_to_the_followers() {
    let origin = Origin::page();
    let layer = SingleflightLayer::new();
    let service = layer.layer(ConcurrencyLimitLayer::new(1).layer(origin.clone()));
    let first = ask(&service, get("/a"));
    let leader = ask(&service, get("/b"));
    let follower = ask(&service, get("/b"));
    settle().await;
    leader.abort();
    settle().await;
    assert_eq!((origin.calls(), layer.handle().in_flight()), (1, 2));
    origin.open();
    assert_eq!(first.await.unwrap().role, Role::Leader);
    assert_eq!(follower.await.unwrap().role, Role::Follower);
    assert_eq!(origin.calls(), 2);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_leader_that_waits_for_capacity_gets_it_though_the_service_that_it_came_to_lives_on() {
    let origin = Origin::page();
    let layer = SingleflightLayer::new();
    let mut service = layer.layer(ConcurrencyLimitLayer::new(1).layer(origin.clone()));
    let first = ask(&service, get("/a"));
    settle().await;
    // Nobody polls the service again: whatever waits for capacity there waits in vain, and gets it first.
    let second = tokio::spawn(service.call(get("/b")));
    settle().await;
    assert_eq!(origin.calls(), 1);
    origin.open();
    assert_eq!(first.await.unwrap().role, Role::Leader);
    let second = tokio::time::timeout(Duration::from_secs(20), second).await;
    let second = second.expect("it is the next").unwrap().unwrap();
    assert_eq!(role(&second), Role::Leader);
    drop((service, second));
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn callers_who_leave_before_they_had_capacity_give_up_their_place() {
    let origin = Origin::page();
    let layer = SingleflightLayer::new();
    let service = layer.layer(ConcurrencyLimitLayer::new(1).layer(origin.clone()));
    let first = ask(&service, get("/a"));
    let gone = [ask(&service, get("/b")), ask(&service, get("/b"))];
    settle().await;
    for one in gone {
        one.abort();
        assert!(one.await.unwrap_err().is_cancelled());
    }
    assert_eq!(layer.handle().in_flight(), 1);
    let next = ask(&service, get("/c"));
    origin.open();
    assert_eq!(all([first, next]).await.len(), 2);
    assert_eq!(origin.calls(), 2);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn forwarded_callers_claim_capacity_of_their_own() {
    let origin = Origin::new(|_| {
        let response = Response::builder().header("set-cookie", "id=1");
        response.body(Bytes::new()).unwrap()
    });
    let layer = SingleflightLayer::new();
    let service = layer.layer(ConcurrencyLimitLayer::new(2).layer(origin.clone()));
    let asked = [(); 5].map(|()| ask(&service, get("/")));
    origin.until_inside(1).await;
    origin.admit(1);
    origin.until_inside(2).await;
    settle().await;
    assert_eq!(origin.inside(), 2);
    origin.open();
    assert_eq!(count(&all(asked).await, Role::Forwarded), 4);
    assert_eq!(origin.calls(), 5);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn it_is_ready_though_the_inner_service_is_not() {
    let (inner, mut handle) = mock::pair::<Asked, Answer>();
    handle.allow(0);
    let layer = SingleflightLayer::new();
    let mut service = layer.layer(inner);
    let ready = Service::<Asked>::poll_ready(&mut service, &mut Context::from_waker(Waker::noop()));
    assert!(matches!(ready, Poll::Ready(Ok(()))));
    let mut leader = task::spawn(service.call(get("/")));
    let mut follower = task::spawn(service.call(get("/")));
    assert_pending!(leader.poll());
    assert_pending!(follower.poll());
    assert!(handle.poll_request().is_pending());
    handle.allow(1);
    settle().await;
    let (_, answer) = handle.next_request().await.expect("one call");
    answer.send_response(page());
    settle().await;
    assert!(leader.is_woken() && follower.is_woken());
    let (leader, follower) = (
        assert_ready_ok!(leader.poll()),
        assert_ready_ok!(follower.poll()),
    );
    assert_eq!(support::read(leader).await.role, Role::Leader);
    assert_eq!(support::read(follower).await.role, Role::Follower);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn every_kind_of_caller_waits_for_an_inner_service_that_is_not_ready() {
    for uri in ["leader", "bypassed", "known"] {
        let (inner, mut handle) = mock::pair::<Asked, Answer>();
        let layer = SingleflightLayer::new().share_when(|_| false);
        let mut service = layer.layer(inner);
        let path = || match uri {
            "bypassed" => request("POST", "/", &[]),
            _ => get("/"),
        };
        if uri == "known" {
            let first = tokio::spawn(service.call(path()));
            handle.next_request().await.unwrap().1.send_response(page());
            first.await.unwrap().unwrap();
        }
        handle.allow(0);
        let mut call = task::spawn(service.call(path()));
        assert_pending!(call.poll());
        handle.allow(1);
        assert!(call.is_woken(), "{uri}");
        assert_pending!(call.poll());
        handle.next_request().await.unwrap().1.send_response(page());
        assert_ready_ok!(call.poll());
        assert_idle(&layer.handle());
    }
}

#[tokio::test]
async fn an_error_of_readiness_reaches_all_who_share_the_flight() {
    let (inner, mut handle) = mock::pair::<Asked, Answer>();
    handle.allow(0);
    let layer = SingleflightLayer::new();
    let mut service = layer.layer(inner);
    let leader = tokio::spawn(service.call(get("/")));
    let follower = tokio::spawn(service.call(get("/")));
    settle().await;
    handle.send_error("out of order");
    for caller in [leader, follower] {
        let error = caller.await.unwrap().unwrap_err();
        assert!(error.is::<SharedError>());
        assert_eq!(error.to_string(), "out of order");
    }
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn an_error_of_readiness_at_once_leaves_nothing() {
    let (inner, mut handle) = mock::pair::<Asked, Answer>();
    let layer = SingleflightLayer::new();
    let mut service = layer.layer(inner);
    for _ in 0..2 {
        handle.send_error("out of order");
        let error = service.call(get("/")).await.unwrap_err();
        assert!(error.is::<SharedError>());
        assert_idle(&layer.handle());
    }
    handle.send_error("out of order");
    assert!(service.call(request("POST", "/", &[])).await.is_err());
    assert_idle(&layer.handle());
}

/// Asserts the contract of Tower: an instance is called only after that very instance has said that it is ready, and what
/// is reserved is used or given back.
struct Strict {
    reserved: Option<Permit>,
    open: Arc<AtomicUsize>,
    origin: Origin,
    /// How many times it says `Pending` before it is ready.
    busy: usize,
    left: usize,
}

struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Strict {
    fn new(origin: Origin, busy: usize) -> (Self, Arc<AtomicUsize>) {
        let open = Arc::new(AtomicUsize::new(0));
        let strict = Self {
            reserved: None,
            open: open.clone(),
            origin,
            busy,
            left: busy,
        };
        (strict, open)
    }
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self {
            reserved: None,
            open: self.open.clone(),
            origin: self.origin.clone(),
            busy: self.busy,
            left: self.busy,
        }
    }
}

impl Service<Asked> for Strict {
    type Response = Answer;
    type Error = Infallible;
    type Future = support::Call;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.left > 0 {
            self.left -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.reserved.is_none() {
            self.open.fetch_add(1, Ordering::SeqCst);
            self.reserved = Some(Permit(self.open.clone()));
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Asked) -> support::Call {
        let permit = self
            .reserved
            .take()
            .expect("called an instance that was not ready");
        self.left = self.busy;
        let call = self.origin.call(request);
        Box::pin(async move {
            let _permit = permit;
            call.await
        })
    }
}

#[tokio::test]
async fn the_inner_service_is_called_as_tower_demands_on_every_way() {
    for busy in [0, 1, 3] {
        for private in [false, true] {
            let origin = Origin::new(move |request| {
                let mut response = Response::builder();
                if private {
                    response = response.header("set-cookie", "id=1");
                } else {
                    response = response.header("vary", "user-agent");
                }
                let agent = request.headers.get("user-agent").cloned();
                let body =
                    agent.map_or_else(Bytes::new, |agent| Bytes::copy_from_slice(agent.as_bytes()));
                response.body(body).unwrap()
            });
            let (strict, reserved) = Strict::new(origin.clone(), busy);
            let layer = SingleflightLayer::new().max_waiters(6);
            let service = layer.layer(strict);
            let mut asked = Vec::new();
            for n in 0..9_u8 {
                let agent = [b'a' + n % 3];
                asked.push(ask(
                    &service,
                    request("GET", "/", &[("user-agent", &agent)]),
                ));
                asked.push(ask(&service, request("POST", "/", &[])));
            }
            settle().await;
            origin.open();
            let got = all(asked).await;
            assert_eq!(got.len(), 18);
            assert_eq!(
                reserved.load(Ordering::SeqCst),
                0,
                "no reservation is left behind"
            );
            assert_idle(&layer.handle());
        }
    }
}

#[tokio::test]
async fn a_caller_that_leaves_gives_back_what_it_reserved() {
    for busy in [0, 2] {
        let origin = Origin::page();
        let (strict, reserved) = Strict::new(origin.clone(), busy);
        let layer = SingleflightLayer::new();
        let service = layer.layer(strict);
        let asked = [get("/"), get("/"), request("POST", "/", &[])].map(|one| ask(&service, one));
        settle().await;
        assert_eq!(reserved.load(Ordering::SeqCst), 2);
        for one in asked {
            one.abort();
            assert!(one.await.unwrap_err().is_cancelled());
        }
        assert_eq!(reserved.load(Ordering::SeqCst), 0);
        assert_idle(&layer.handle());
    }
}

#[tokio::test]
async fn a_follower_drops_what_an_earlier_poll_of_the_service_had_reserved() {
    // `get_mut` lets a user reserve on the inner service; a follower must not carry that off with it.
    let origin = Origin::page();
    let (strict, reserved) = Strict::new(origin.clone(), 0);
    let layer = SingleflightLayer::new();
    let mut service = layer.layer(strict);
    let leader = ask(&service, get("/"));
    let _ = service
        .get_mut()
        .poll_ready(&mut Context::from_waker(Waker::noop()));
    assert_eq!(reserved.load(Ordering::SeqCst), 2);
    let follower = tokio::spawn(service.call(get("/")));
    drop(service);
    origin.open();
    assert_eq!(leader.await.unwrap().role, Role::Leader);
    support::read(follower.await.unwrap().unwrap()).await;
    assert_eq!(reserved.load(Ordering::SeqCst), 0);
    assert_idle(&layer.handle());
}
