//! A flight that fails, fails for all alike: one failure, not N attempts.

use std::{
    convert::Infallible,
    error::Error,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use tokio::sync::Semaphore;
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt,
    limit::ConcurrencyLimitLayer,
    retry::{Policy, RetryLayer},
    service_fn,
    timeout::error::Elapsed,
};
use tower_singleflight::{Role, ShareError, SharedError, SingleflightLayer};

use crate::support::{self, Origin, assert_idle, get, request, settle};

type Asked = Request<Empty<Bytes>>;
type Page = Response<Full<Bytes>>;

#[derive(Debug, PartialEq)]
struct Broken(usize);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broken by call {}", self.0)
    }
}

impl Error for Broken {}

/// Fails each call with its number, once the gate lets it.
#[derive(Clone)]
struct Failing {
    gate: Arc<Semaphore>,
    calls: Arc<AtomicUsize>,
}

impl Failing {
    fn new() -> Self {
        Self {
            gate: Arc::new(Semaphore::new(0)),
            calls: Arc::default(),
        }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn service<E: Send + 'static>(
        &self,
        error: fn(Broken) -> E,
    ) -> impl Service<Asked, Response = Page, Error = E, Future: Send + 'static>
    + Clone
    + Send
    + Sync
    + 'static {
        let this = self.clone();
        service_fn(move |_: Asked| {
            let call = this.calls.fetch_add(1, Ordering::SeqCst) + 1;
            let gate = Arc::clone(&this.gate);
            async move {
                gate.acquire().await.unwrap().forget();
                Err(error(Broken(call)))
            }
        })
    }
}

#[tokio::test]
async fn all_callers_of_a_flight_get_the_same_failure() {
    let failing = Failing::new();
    let layer = SingleflightLayer::new();
    let mut service = layer.layer(failing.service(BoxError::from));
    let callers: Vec<_> = (0..5)
        .map(|_| tokio::spawn(service.call(get("/"))))
        .collect();
    settle().await;
    failing.gate.add_permits(10);
    let mut originals = Vec::new();
    for caller in callers {
        let error = caller.await.unwrap().unwrap_err();
        assert!(error.is::<SharedError>());
        assert_eq!(error.to_string(), "broken by call 1");
        let original = SharedError::find::<Broken>(&*error).expect("the original");
        assert_eq!(original, &Broken(1));
        assert!(error.source().is_some_and(|source| source.is::<Broken>()));
        originals.push(std::ptr::from_ref(original).addr());
    }
    originals.dedup();
    assert_eq!(
        (originals.len(), failing.calls()),
        (1, 1),
        "one error, one call"
    );
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_lone_callers_error_is_of_the_same_make() {
    let failing = Failing::new();
    failing.gate.add_permits(10);
    let layer = SingleflightLayer::new();
    let mut service = layer.layer(failing.service(BoxError::from));
    let error = service.call(get("/")).await.unwrap_err();
    assert!(error.is::<SharedError>() && !error.is::<Broken>());
    assert_eq!(SharedError::find(&*error), Some(&Broken(1)));
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_forwarded_callers_error_is_of_the_same_make() {
    let failing = Failing::new();
    failing.gate.add_permits(10);
    let layer = SingleflightLayer::new().max_waiters(1);
    let mut service = layer.layer(failing.service(BoxError::from));
    let leader = service.call(get("/"));
    let error = service.call(get("/")).await.unwrap_err();
    assert_eq!(layer.handle().stats().forwarded, 1);
    assert!(error.is::<SharedError>() && !error.is::<Broken>());
    assert_eq!(SharedError::find(&*error), Some(&Broken(2)));
    drop(leader);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn the_error_of_a_bypassed_request_is_the_inner_services_own() {
    let failing = Failing::new();
    failing.gate.add_permits(10);
    let layer = SingleflightLayer::new();
    let mut service = layer.layer(failing.service(BoxError::from));
    let error = service.call(request("POST", "/", &[])).await.unwrap_err();
    assert_eq!(SharedError::find(&*error), Some(&Broken(1)));
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_failed_flight_is_not_joined_and_the_next_request_tries_anew() {
    let failing = Failing::new();
    failing.gate.add_permits(10);
    let layer = SingleflightLayer::new();
    let mut service = layer.layer(failing.service(Arc::new));
    for call in 1..4 {
        assert_eq!(*service.call(get("/")).await.unwrap_err(), Broken(call));
        assert_idle(&layer.handle());
    }
}

#[tokio::test]
async fn an_error_in_an_arc_is_one_and_the_same() {
    let failing = Failing::new();
    let layer = SingleflightLayer::new();
    let mut service = layer.layer(failing.service(Arc::new));
    let callers = [(); 3].map(|()| tokio::spawn(service.call(get("/"))));
    failing.gate.add_permits(10);
    let [a, b, c] = callers;
    let (a, b, c) = (
        a.await.unwrap().unwrap_err(),
        b.await.unwrap().unwrap_err(),
        c.await.unwrap().unwrap_err(),
    );
    assert!(Arc::ptr_eq(&a, &b) && Arc::ptr_eq(&b, &c));
    assert_eq!(failing.calls(), 1);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_shared_error_that_passes_two_layers_is_wrapped_once() {
    let failing = Failing::new();
    failing.gate.add_permits(10);
    let (outer, inner) = (SingleflightLayer::new(), SingleflightLayer::new());
    let mut service = outer.layer(inner.layer(failing.service(BoxError::from)));
    let error = service.call(get("/")).await.unwrap_err();
    assert!(error.source().is_some_and(|source| source.is::<Broken>()));
    assert_idle(&outer.handle());
    assert_idle(&inner.handle());
}

/// An error type of the user's own.
#[derive(Clone, Debug, PartialEq)]
struct Own(usize);

impl ShareError for Own {
    fn share(&mut self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn two_services_whose_errors_differ_in_type_may_be_under_one_layer_value() {
    let (one, two) = (Failing::new(), Failing::new());
    let layer = SingleflightLayer::new();
    let mut boxed = layer.layer(one.service(BoxError::from));
    let mut own = layer.layer(two.service(|error| Own(error.0)));
    let leader = tokio::spawn(boxed.call(get("/")));
    let follower = tokio::spawn(boxed.call(get("/")));
    let stranger = tokio::spawn(own.call(get("/")));
    assert_eq!(layer.handle().stats().waiters, 3);
    one.gate.add_permits(1);
    for caller in [leader, follower] {
        assert!(caller.await.unwrap().is_err());
    }
    // It can't have that error, so it finds out for itself.
    two.gate.add_permits(1);
    assert_eq!(stranger.await.unwrap().unwrap_err(), Own(1));
    assert_eq!((one.calls(), two.calls()), (1, 1));
    assert_eq!(layer.handle().stats().forwarded, 1);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_response_is_shared_between_services_whose_errors_differ_in_type() {
    let origin = Origin::page();
    let layer = SingleflightLayer::new();
    let one = layer.layer(origin.clone());
    let boxed = ServiceExt::<Asked>::map_err(origin.clone(), |error: Infallible| -> BoxError {
        match error {}
    });
    let mut two = layer.layer(boxed);
    let leader = support::ask(&one, get("/"));
    let follower = tokio::spawn(two.call(get("/")));
    origin.open();
    assert_eq!(leader.await.unwrap().role, Role::Leader);
    let got = support::read(follower.await.unwrap().unwrap()).await;
    assert_eq!((got.role, &got.body[..]), (Role::Follower, &b"page"[..]));
    assert_eq!(origin.calls(), 1);
    assert_idle(&layer.handle());
}

#[derive(Clone)]
struct Twice(usize);

impl<E> Policy<Asked, Page, E> for Twice {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _: &mut Asked, result: &mut Result<Page, E>) -> Option<Self::Future> {
        let again = result.is_err() && self.0 > 0;
        self.0 = self.0.saturating_sub(1);
        again.then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, request: &Asked) -> Option<Asked> {
        Some(request.clone())
    }
}

#[tokio::test]
async fn a_retry_below_tries_once_for_all_and_not_for_each() {
    let failing = Failing::new();
    let layer = SingleflightLayer::new();
    let mut service = layer.layer(RetryLayer::new(Twice(1)).layer(failing.service(BoxError::from)));
    let callers: Vec<_> = (0..10)
        .map(|_| tokio::spawn(service.call(get("/"))))
        .collect();
    failing.gate.add_permits(100);
    for caller in callers {
        assert!(caller.await.unwrap().is_err());
    }
    assert_eq!(failing.calls(), 2);
    assert_idle(&layer.handle());
}

#[tokio::test(start_paused = true)]
async fn a_timeout_below_is_the_flights_and_one_for_all() {
    let origin = Origin::page();
    let layer = SingleflightLayer::new();
    let service = ServiceBuilder::new()
        .layer(layer.clone())
        .timeout(Duration::from_secs(1))
        .service(origin.clone());
    let callers: Vec<_> = (0..5)
        .map(|_| tokio::spawn(service.clone().oneshot(get("/"))))
        .collect();
    for caller in callers {
        let error = caller.await.unwrap().unwrap_err();
        assert!(
            !error.is::<Elapsed>(),
            "the usual idiom fails alone and in company alike"
        );
        assert!(SharedError::find::<Elapsed>(&*error).is_some());
    }
    assert_eq!((origin.calls(), origin.inside()), (1, 0));
    assert_idle(&layer.handle());
}

#[tokio::test(start_paused = true)]
async fn a_timeout_above_is_one_callers_and_harms_no_other() {
    let origin = Origin::page();
    let layer = SingleflightLayer::new();
    let service = layer.layer(origin.clone());
    let hasty = ServiceBuilder::new()
        .timeout(Duration::from_secs(1))
        .service(service.clone());
    let leader = tokio::spawn(hasty.oneshot(get("/")));
    settle().await;
    let follower = support::ask(&service, get("/"));
    let error = leader.await.unwrap().unwrap_err();
    assert!(error.is::<Elapsed>(), "this one has passed no flight");
    assert_eq!((layer.handle().in_flight(), origin.inside()), (1, 1));
    origin.open();
    let got = follower.await.unwrap();
    assert_eq!((got.role, &got.body[..]), (Role::Follower, &b"page"[..]));
    assert_eq!(origin.calls(), 1);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_limit_that_is_shut_fails_all_at_once() {
    // `LoadShed` below: one rejection for the flight.
    let origin = Origin::page();
    let layer = SingleflightLayer::new();
    let service = ServiceBuilder::new()
        .layer(layer.clone())
        .load_shed()
        .layer(ConcurrencyLimitLayer::new(0))
        .service(origin.clone());
    let error = service.oneshot(get("/")).await.unwrap_err();
    assert!(SharedError::find::<tower::load_shed::error::Overloaded>(&*error).is_some());
    assert_eq!(origin.calls(), 0);
    assert_idle(&layer.handle());
}

/// Each of the remedies against rustc's "implementation of `ShareError` is not general enough", which it says of the same
/// stack with `service_fn(|_| async { Ok::<_, BoxError>(..) })` and `oneshot` inside the block.
#[tokio::test]
async fn the_documented_ways_to_spawn_a_stack_of_boxed_errors_compile() {
    async fn page(_: Asked) -> Result<Page, BoxError> {
        Ok(Response::new(Full::from("page")))
    }

    let layer = SingleflightLayer::new();
    let closure = || {
        let service = service_fn(|_: Asked| async {
            Ok::<_, BoxError>(Response::new(Full::<Bytes>::from("page")))
        });
        layer.layer(service)
    };
    let named = layer.layer(service_fn(page));
    let named = tokio::spawn(async move { named.oneshot(get("/named")).await });
    let boxed = closure().boxed();
    let boxed = tokio::spawn(async move { boxed.oneshot(get("/boxed")).await });
    let itself = tokio::spawn(closure().oneshot(get("/itself")));
    for response in [named, itself] {
        assert!(response.await.unwrap().is_ok());
    }
    assert!(boxed.await.unwrap().is_ok());
    assert_idle(&layer.handle());
}

/// What an error does when it is shared.
type Hook = Box<dyn FnMut() + Send>;

/// An error with a hook.
#[derive(Clone)]
struct Hooked(Arc<Mutex<Hook>>);

impl Hooked {
    fn new(hook: impl FnMut() + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Box::new(hook))))
    }
}

impl ShareError for Hooked {
    fn share(&mut self) -> Self {
        let mut hook = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hook();
        self.clone()
    }
}

/// Fails each call with this error, once the gate lets it.
fn fails_with(
    error: &Hooked,
    gate: &Arc<Semaphore>,
) -> impl Service<Asked, Response = Page, Error = Hooked, Future: Send + 'static>
+ Clone
+ Send
+ Sync
+ 'static {
    let (error, gate) = (error.clone(), Arc::clone(gate));
    service_fn(move |_: Asked| {
        let (error, gate) = (error.clone(), Arc::clone(&gate));
        async move {
            gate.acquire().await.unwrap().forget();
            Err(error)
        }
    })
}

#[tokio::test]
async fn an_error_that_panics_when_it_is_shared_is_a_panic_for_all_and_keeps_nobody_waiting() {
    for callers in [1, 4] {
        // Once for each, also for the leader.
        for panics_at in 1..=callers {
            let mut shared = 0;
            let error = Hooked::new(move || {
                shared += 1;
                assert_ne!(shared, panics_at, "an error that is not for all");
            });
            let gate = Arc::new(Semaphore::new(0));
            let layer = SingleflightLayer::new();
            let mut service = layer.layer(fails_with(&error, &gate));
            let callers: Vec<_> = (0..callers)
                .map(|_| tokio::spawn(service.call(get("/"))))
                .collect();
            settle().await;
            gate.add_permits(1);
            settle().await;
            for caller in callers {
                assert!(caller.is_finished(), "it waits for ever");
                assert!(caller.await.is_err(), "it has panicked");
            }
            assert_idle(&layer.handle());
        }
    }
}

#[tokio::test]
async fn whoever_asks_while_an_error_is_shared_makes_a_new_call() {
    for company in [false, true] {
        let gate = Arc::new(Semaphore::new(0));
        let asks: Arc<Mutex<Option<Hook>>> = Arc::default();
        let error = {
            let asks = Arc::clone(&asks);
            Hooked::new(move || {
                let ask = asks.lock().unwrap().take();
                ask.into_iter().for_each(|mut ask| ask());
            })
        };
        let layer = SingleflightLayer::new();
        let mut service = layer.layer(fails_with(&error, &gate));
        let leader = tokio::spawn(service.call(get("/")));
        let follower = company.then(|| tokio::spawn(service.call(get("/"))));
        settle().await;
        let (sender, mut asked) = tokio::sync::mpsc::unbounded_channel();
        *asks.lock().unwrap() = Some(Box::new(move || {
            let _ = sender.send(service.call(get("/")));
        }));
        gate.add_permits(1);
        assert!(leader.await.unwrap().is_err());
        if let Some(follower) = follower {
            assert!(follower.await.unwrap().is_err());
        }
        let newcomer = asked.recv().await.unwrap();
        assert_eq!(layer.handle().stats().led, 2);
        gate.add_permits(1);
        assert!(newcomer.await.is_err());
        assert_idle(&layer.handle());
    }
}
