//! Panics of the user's code: they reach those who share the call, leave the table empty, and the next request works.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, request};
use http_body_util::{Empty, Full};
use tokio::sync::Semaphore;
use tower::{Layer, Service, service_fn};
use tower_singleflight::{KeyExtractor, ResponseBody, Role, SingleflightLayer};

use crate::support::{self, assert_idle, get, read};

type Page = Response<Full<Bytes>>;

/// Where the inner service panics.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Call,
    Future,
    Later,
    Nowhere,
}

/// Panics at the first `bombs` calls.
fn bomb(
    at: At,
    bombs: usize,
    gate: &Arc<Semaphore>,
) -> impl Service<Request<Empty<Bytes>>, Response = Page, Error = Infallible, Future: Send + 'static>
+ Clone
+ Send
+ Sync
+ 'static {
    let calls = Arc::new(AtomicUsize::new(0));
    let gate = Arc::clone(gate);
    service_fn(move |_: Request<Empty<Bytes>>| {
        let is_bomb = calls.fetch_add(1, Ordering::SeqCst) < bombs;
        assert!(!(is_bomb && at == At::Call), "bang");
        let gate = Arc::clone(&gate);
        async move {
            assert!(!(is_bomb && at == At::Future), "bang");
            gate.acquire().await.unwrap().forget();
            assert!(!(is_bomb && at == At::Later), "bang");
            Ok(Response::new(Full::new(Bytes::from_static(b"page"))))
        }
    })
}

fn message(payload: &(dyn std::any::Any + Send)) -> &str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .expect("a text")
}

/// Whether the next request works.
async fn works<S, X>(layer: &SingleflightLayer<X>, service: &mut S)
where
    S: Service<
            Request<Empty<Bytes>>,
            Response = Response<ResponseBody<Full<Bytes>>>,
            Error = Infallible,
        >,
    X: KeyExtractor,
{
    assert_idle(&layer.handle());
    let Ok(response) = service.call(get("/")).await;
    let got = read(response).await;
    assert_eq!((got.role, &got.body[..]), (Role::Leader, &b"page"[..]));
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_panic_in_call_is_the_callers_and_leaves_nothing() {
    let gate = Arc::new(Semaphore::new(10));
    let layer = SingleflightLayer::new();
    let mut service = layer.layer(bomb(At::Call, 1, &gate));
    let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| service.call(get("/"))));
    assert_eq!(message(&*panicked.unwrap_err()), "bang");
    works(&layer, &mut service).await;
}

#[tokio::test]
async fn a_panic_in_the_future_reaches_all_who_share_it() {
    for at in [At::Future, At::Later] {
        let gate = Arc::new(Semaphore::new(0));
        let layer = SingleflightLayer::new();
        let mut service = layer.layer(bomb(at, 1, &gate));
        let callers: Vec<_> = (0..5)
            .map(|_| tokio::spawn(service.call(get("/"))))
            .collect();
        gate.add_permits(10);
        for caller in callers {
            let payload = caller.await.unwrap_err().into_panic();
            assert_eq!(message(&*payload), "bang");
        }
        works(&layer, &mut service).await;
    }
}

#[tokio::test]
async fn a_panic_in_the_poll_in_which_somebody_joins_reaches_both() {
    type Joined = tokio::task::JoinHandle<Result<Response<ResponseBody<Full<Bytes>>>, Infallible>>;
    type Join = Box<dyn FnOnce() -> Joined + Send>;
    let join: Arc<Mutex<Option<Join>>> = Arc::default();
    let joined: Arc<Mutex<Option<Joined>>> = Arc::default();
    let inner = {
        let (join, joined) = (Arc::clone(&join), Arc::clone(&joined));
        service_fn(move |_: Request<Empty<Bytes>>| {
            let (join, joined) = (Arc::clone(&join), Arc::clone(&joined));
            async move {
                let join = join.lock().unwrap().take();
                if let Some(join) = join {
                    *joined.lock().unwrap() = Some(join());
                    panic!("bang");
                }
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"page"))))
            }
        })
    };
    let layer = SingleflightLayer::new();
    let mut service = layer.layer(inner);
    let mut other = service.clone();
    *join.lock().unwrap() = Some(Box::new(move || tokio::spawn(other.call(get("/")))));
    let leader = AssertUnwindSafe(service.call(get("/"))).catch_unwind();
    let leader = tokio::time::timeout(Duration::from_secs(20), leader).await;
    let payload = leader.expect("no hang").unwrap_err();
    assert_eq!(message(&*payload), "bang");
    let joined = joined.lock().unwrap().take().expect("it has joined");
    let payload = joined.await.unwrap_err().into_panic();
    assert_eq!(message(&*payload), "bang");
    works(&layer, &mut service).await;
}

#[tokio::test]
async fn a_panic_of_a_lone_callers_future_is_its_own() {
    for at in [At::Future, At::Later] {
        let gate = Arc::new(Semaphore::new(10));
        let layer = SingleflightLayer::new();
        let mut service = layer.layer(bomb(at, 1, &gate));
        let panicked = AssertUnwindSafe(service.call(get("/")))
            .catch_unwind()
            .await;
        assert_eq!(message(&*panicked.unwrap_err()), "bang");
        works(&layer, &mut service).await;
    }
}

#[tokio::test]
async fn the_key_is_free_before_anybody_sees_the_panic() {
    let gate = Arc::new(Semaphore::new(0));
    let layer = SingleflightLayer::new();
    let mut service = layer.layer(bomb(At::Later, 1, &gate));
    let callers: Vec<_> = (0..3)
        .map(|_| {
            let call = service.call(get("/"));
            let handle = layer.handle();
            tokio::spawn(async move {
                let panicked = AssertUnwindSafe(call).catch_unwind().await;
                (panicked.is_err(), handle.in_flight())
            })
        })
        .collect();
    gate.add_permits(10);
    for caller in callers {
        assert_eq!(caller.await.unwrap(), (true, 0));
    }
    works(&layer, &mut service).await;
}

#[tokio::test]
async fn a_panic_of_the_key_function_is_that_callers_alone() {
    let gate = Arc::new(Semaphore::new(0));
    let layer = SingleflightLayer::with_key(|request: &request::Parts| {
        assert!(!request.headers.contains_key("x-bomb"), "bang");
        Some(request.uri.path().to_owned())
    });
    let mut service = layer.layer(bomb(At::Nowhere, 0, &gate));
    let leader = tokio::spawn(service.call(get("/")));
    let bombed = std::panic::catch_unwind(AssertUnwindSafe(|| {
        service.call(support::request("GET", "/", &[("x-bomb", b"1")]))
    }));
    assert_eq!(message(&*bombed.unwrap_err()), "bang");
    let follower = tokio::spawn(service.call(get("/")));
    assert_eq!(
        (layer.handle().in_flight(), layer.handle().stats().waiters),
        (1, 2)
    );
    gate.add_permits(10);
    for caller in [leader, follower] {
        let Ok(response) = caller.await.unwrap();
        assert_eq!(read(response).await.body, "page");
    }
    works(&layer, &mut service).await;
}

#[tokio::test]
async fn a_panic_of_the_policy_is_a_panic_of_the_call() {
    for callers in [1, 4] {
        let gate = Arc::new(Semaphore::new(0));
        let bombs = AtomicUsize::new(1);
        let layer = SingleflightLayer::new().share_when(move |_| {
            let bomb = bombs.swap(0, Ordering::SeqCst) == 1;
            assert!(!bomb, "bang");
            true
        });
        let mut service = layer.layer(bomb(At::Nowhere, 0, &gate));
        let calls: Vec<_> = (0..callers)
            .map(|_| tokio::spawn(service.call(get("/"))))
            .collect();
        gate.add_permits(10);
        for call in calls {
            assert_eq!(message(&*call.await.unwrap_err().into_panic()), "bang");
        }
        works(&layer, &mut service).await;
    }
}

#[tokio::test]
async fn a_panic_of_the_policy_for_a_key_that_is_remembered_is_that_callers_alone() {
    let gate = Arc::new(Semaphore::new(10));
    let calls = AtomicUsize::new(0);
    let layer =
        SingleflightLayer::new().share_when(move |_| match calls.fetch_add(1, Ordering::SeqCst) {
            0 => false,
            1 => panic!("bang"),
            _ => true,
        });
    let mut service = layer.layer(bomb(At::Nowhere, 0, &gate));
    let Ok(first) = service.call(get("/")).await;
    assert_eq!(first.extensions().get(), Some(&Role::Leader));
    let known = tokio::spawn(service.call(get("/")));
    assert_eq!(message(&*known.await.unwrap_err().into_panic()), "bang");
    // It is still remembered; the next response clears it.
    let Ok(third) = service.call(get("/")).await;
    assert_eq!(third.extensions().get(), Some(&Role::Forwarded));
    works(&layer, &mut service).await;
}

/// Panics when it is compared, which it is with every other: all hash alike.
#[derive(Clone)]
struct BadKey(bool);

impl PartialEq for BadKey {
    fn eq(&self, other: &Self) -> bool {
        assert!(!self.0 && !other.0, "bang");
        true
    }
}

impl Eq for BadKey {}

impl std::hash::Hash for BadKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u8(0);
    }
}

#[tokio::test]
async fn a_key_whose_eq_panics_leaves_the_layer_usable() {
    let gate = Arc::new(Semaphore::new(0));
    let layer = SingleflightLayer::with_key(|request: &request::Parts| {
        let bad = request.headers.contains_key("x-bomb");
        Some(BadKey(bad))
    });
    let mut service = layer.layer(bomb(At::Nowhere, 0, &gate));
    let leader = tokio::spawn(service.call(get("/")));
    let bombed = std::panic::catch_unwind(AssertUnwindSafe(|| {
        service.call(support::request("GET", "/", &[("x-bomb", b"1")]))
    }));
    assert_eq!(message(&*bombed.unwrap_err()), "bang");
    let follower = tokio::spawn(service.call(get("/")));
    gate.add_permits(10);
    for caller in [leader, follower] {
        let Ok(response) = caller.await.unwrap();
        assert_eq!(read(response).await.body, "page");
    }
    works(&layer, &mut service).await;
}

/// A key whose drop panics, once each time that it is armed.
#[derive(Clone)]
struct BadDrop(Arc<AtomicBool>);

impl BadDrop {
    fn layer(armed: &Arc<AtomicBool>) -> SingleflightLayer<impl KeyExtractor<Key = Self>> {
        let armed = Arc::clone(armed);
        SingleflightLayer::with_key(move |_: &request::Parts| Some(Self(Arc::clone(&armed))))
    }
}

impl PartialEq for BadDrop {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for BadDrop {}

impl std::hash::Hash for BadDrop {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u8(0);
    }
}

impl Drop for BadDrop {
    fn drop(&mut self) {
        assert!(!self.0.swap(false, Ordering::SeqCst), "bang");
    }
}

/// Whatever of the user's is dropped with a lone flight panics, and its caller is counted out all the same.
#[tokio::test]
async fn a_lone_leader_whose_key_panics_when_it_is_dropped_panics_with_that() {
    let gate = Arc::new(Semaphore::new(0));
    let armed = Arc::new(AtomicBool::new(false));
    let layer = BadDrop::layer(&armed);
    let mut service = layer.layer(bomb(At::Nowhere, 0, &gate));
    // It gets its response, or it leaves before it is polled or after.
    for polls in [2, 0, 1] {
        let mut call = Box::pin(service.call(get("/")));
        if polls > 0 {
            assert!(support::poll_once(&mut call).is_pending());
        }
        armed.store(true, Ordering::SeqCst);
        let panicked = support::panic_of(|| match polls {
            2 => {
                gate.add_permits(1);
                support::poll_once(&mut call).is_ready()
            }
            _ => {
                drop(call);
                false
            }
        });
        assert_eq!(message(&*panicked), "bang", "{polls}");
        assert_idle(&layer.handle());
    }
    gate.add_permits(10);
    works(&layer, &mut service).await;
}

#[tokio::test]
async fn a_call_that_panics_when_it_is_dropped_is_counted_out() {
    struct Bomb(Arc<AtomicBool>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(!self.0.swap(false, Ordering::SeqCst), "bang");
        }
    }
    let armed = Arc::new(AtomicBool::new(false));
    let layer = SingleflightLayer::new();
    let mut service = layer.layer(service_fn({
        let armed = Arc::clone(&armed);
        move |_: Request<Empty<Bytes>>| {
            let bomb = Bomb(Arc::clone(&armed));
            async move {
                if bomb.0.load(Ordering::SeqCst) {
                    std::future::pending::<()>().await;
                }
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"page"))))
            }
        }
    }));
    for polled in [false, true] {
        for joined in [false, true] {
            armed.store(true, Ordering::SeqCst);
            let mut leader = Box::pin(service.call(get("/")));
            if polled {
                assert!(support::poll_once(&mut leader).is_pending());
            }
            if joined {
                drop(service.call(get("/")));
            }
            let panicked = support::panic_of(|| drop(leader));
            assert_eq!(message(&*panicked), "bang");
            assert_idle(&layer.handle());
        }
    }
    works(&layer, &mut service).await;
}

#[tokio::test]
async fn a_follower_whose_key_panics_when_it_is_dropped_is_a_follower_all_the_same() {
    let gate = Arc::new(Semaphore::new(0));
    let armed = Arc::new(AtomicBool::new(false));
    let layer = BadDrop::layer(&armed);
    let mut service = layer.layer(bomb(At::Nowhere, 0, &gate));
    let leader = support::ask(&service, get("/"));
    armed.store(true, Ordering::SeqCst);
    let call = service.call(get("/"));
    assert!(!armed.load(Ordering::SeqCst), "the key has panicked");
    let follower = tokio::spawn(async move {
        let Ok(response) = call.await;
        read(response).await
    });
    gate.add_permits(10);
    let got = support::all([leader, follower]).await;
    assert_eq!(support::roles(&got), [Role::Leader, Role::Follower]);
    works(&layer, &mut service).await;
}

#[tokio::test]
async fn a_follower_whose_key_panics_while_it_moves_to_its_variant_gets_its_response() {
    let armed = Arc::new(AtomicBool::new(false));
    let layer = BadDrop::layer(&armed);
    let mut service = layer.layer(service_fn(|_: Request<Empty<Bytes>>| async {
        let page = Full::new(Bytes::from_static(b"page"));
        Ok::<_, Infallible>(
            Response::builder()
                .header("vary", "x-v")
                .body(page)
                .unwrap(),
        )
    }));
    let ask = |variant| support::ask(&service, support::request("GET", "/", &[("x-v", variant)]));
    let callers = [ask(b"a"), ask(b"b"), ask(b"b")];
    // The next key that is dropped is that of the third, when it joins the second.
    armed.store(true, Ordering::SeqCst);
    let got = support::all(callers).await;
    assert!(!armed.load(Ordering::SeqCst), "the key has panicked");
    let roles = [Role::Leader, Role::Forwarded, Role::Follower];
    assert_eq!(support::roles(&got), roles);
    assert!(got.iter().all(|got| got.body == "page"));
    works(&layer, &mut service).await;
}

/// A key whose clone panics, once each time that it is armed.
#[derive(Debug)]
struct BadClone(Arc<AtomicBool>);

impl Clone for BadClone {
    fn clone(&self) -> Self {
        if self.0.swap(false, Ordering::SeqCst) {
            std::panic::panic_any(BadPayload);
        }
        Self(Arc::clone(&self.0))
    }
}

/// What that panics with, whose drop panics too.
struct BadPayload;

impl Drop for BadPayload {
    fn drop(&mut self) {
        panic!("bang");
    }
}

impl PartialEq for BadClone {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for BadClone {}

impl std::hash::Hash for BadClone {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u8(0);
    }
}

#[tokio::test]
async fn a_key_that_panics_while_a_follower_moves_to_its_variant_harms_nobody() {
    let armed = Arc::new(AtomicBool::new(false));
    let layer = {
        let armed = Arc::clone(&armed);
        SingleflightLayer::with_key(move |_: &request::Parts| Some(BadClone(Arc::clone(&armed))))
    };
    let mut service = layer.layer(service_fn(|request: Request<Empty<Bytes>>| async move {
        let variant = request
            .headers()
            .get("x-v")
            .map(|variant| variant.as_bytes());
        let variant = Bytes::copy_from_slice(variant.unwrap_or(b"page"));
        let response = Response::builder().header("vary", "x-v");
        Ok::<_, Infallible>(response.body(Full::new(variant)).unwrap())
    }));
    let variants = [b"a", b"a", b"b", b"b", b"b"];
    let ask = |variant| support::ask(&service, support::request("GET", "/", &[("x-v", variant)]));
    let callers = variants.map(|variant| ask(variant));
    armed.store(true, Ordering::SeqCst);
    let got = support::all(callers).await;
    assert!(!armed.load(Ordering::SeqCst), "the key has panicked");
    assert!(
        got.iter()
            .zip(variants)
            .all(|(got, variant)| got.body == variant[..])
    );
    // One of them makes its own call, and of the others one leads.
    let moved = [Role::Forwarded, Role::Follower].map(|role| support::count(&got[2..], role));
    assert_eq!(support::roles(&got[..2]), [Role::Leader, Role::Follower]);
    assert_eq!(moved, [2, 1]);
    works(&layer, &mut service).await;
}

#[tokio::test]
async fn a_forwarded_callers_panic_is_its_own() {
    // The first call is answered for one client alone; of those that are sent on, the first panics.
    let gate = Arc::new(Semaphore::new(0));
    let calls = Arc::new(AtomicUsize::new(0));
    let layer = SingleflightLayer::new();
    let mut service = layer.layer(service_fn({
        let gate = gate.clone();
        move |_: Request<Empty<Bytes>>| {
            let call = calls.fetch_add(1, Ordering::SeqCst);
            let gate = gate.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                assert!(call != 1, "bang");
                let mut response = Response::new(Full::new(Bytes::from_static(b"page")));
                if call == 0 {
                    response
                        .headers_mut()
                        .insert("set-cookie", "id=1".parse().unwrap());
                }
                Ok::<_, Infallible>(response)
            }
        }
    }));
    let callers: Vec<_> = (0..4)
        .map(|_| tokio::spawn(service.call(get("/"))))
        .collect();
    gate.add_permits(10);
    let mut panics = 0;
    for caller in callers {
        match caller.await {
            Ok(Ok(response)) => assert_eq!(read(response).await.body, "page"),
            Err(error) => {
                assert_eq!(message(&*error.into_panic()), "bang");
                panics += 1;
            }
        }
    }
    assert_eq!(panics, 1);
    // The other two have got shareable answers, so the key is no longer remembered.
    works(&layer, &mut service).await;
}
