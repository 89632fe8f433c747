//! tower's own layers above and below.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{Empty, Full};
use tokio::task::JoinHandle;
use tower::{
    BoxError, Service, ServiceBuilder, ServiceExt,
    buffer::BufferLayer,
    limit::{ConcurrencyLimitLayer, GlobalConcurrencyLimitLayer},
    load_shed::{LoadShedLayer, error::Overloaded},
    retry::{Policy, RetryLayer},
};
use tower_singleflight::{ResponseBody, Role, SharedError, SingleflightLayer};

use crate::support::{self, Got, Origin, assert_idle, count, get, read, roles, settle};

type Asked = Request<Empty<Bytes>>;

fn ask<S>(service: &S, request: Asked) -> JoinHandle<Result<Got, BoxError>>
where
    S: Service<Asked, Response = Response<ResponseBody<Full<Bytes>>>> + Clone + Send + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send,
{
    let call = service.clone().oneshot(request);
    tokio::spawn(async move { Ok(read(call.await.map_err(Into::into)?).await) })
}

async fn all(asked: Vec<JoinHandle<Result<Got, BoxError>>>) -> Vec<Got> {
    let mut got = Vec::new();
    for one in asked {
        got.push(one.await.unwrap().unwrap());
    }
    got
}

#[tokio::test]
async fn a_buffer_below_is_given_one_request_for_all() {
    let (origin, layer) = (Origin::page(), SingleflightLayer::new());
    let stack = ServiceBuilder::new()
        .layer(layer.clone())
        .layer(BufferLayer::new(1))
        .service(origin.clone());
    let asked = (0..10).map(|_| ask(&stack, get("/"))).collect();
    settle().await;
    assert_eq!(origin.calls(), 1);
    origin.open();
    assert_eq!(count(&all(asked).await, Role::Follower), 9);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_full_buffer_below_keeps_no_follower_from_joining() {
    let (origin, layer) = (Origin::page(), SingleflightLayer::new());
    // The buffer's worker is stuck behind the limit, and its one place is taken.
    let stack = ServiceBuilder::new()
        .layer(layer.clone())
        .layer(BufferLayer::new(1))
        .layer(ConcurrencyLimitLayer::new(1))
        .service(origin.clone());
    let mut asked: Vec<_> = ["/a", "/b", "/c", "/d"]
        .iter()
        .map(|uri| ask(&stack, get(uri)))
        .collect();
    settle().await;
    asked.extend((0..5).map(|_| ask(&stack, get("/d"))));
    settle().await;
    assert_eq!((origin.calls(), layer.handle().stats().waiters), (1, 9));
    origin.open();
    assert_eq!(count(&all(asked).await, Role::Leader), 4);
    assert_eq!(origin.calls(), 4);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_buffer_above_coalesces_what_it_passes() {
    let (origin, layer) = (Origin::page(), SingleflightLayer::new());
    let stack = ServiceBuilder::new()
        .layer(BufferLayer::new(16))
        .layer(layer.clone())
        .service(origin.clone());
    let asked = (0..10).map(|_| ask(&stack, get("/"))).collect();
    settle().await;
    origin.open();
    assert_eq!(count(&all(asked).await, Role::Follower), 9);
    assert_eq!(origin.calls(), 1);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_limit_above_counts_followers_and_below_counts_calls() {
    let (origin, layer) = (Origin::page(), SingleflightLayer::new());
    let above = ServiceBuilder::new()
        .layer(GlobalConcurrencyLimitLayer::new(3))
        .layer(layer.clone())
        .layer(GlobalConcurrencyLimitLayer::new(1))
        .service(origin.clone());
    let asked = (0..10).map(|_| ask(&above, get("/"))).collect();
    settle().await;
    assert_eq!((origin.calls(), layer.handle().stats().waiters), (1, 3));
    origin.open();
    assert_eq!(all(asked).await.len(), 10);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn load_shed_below_sheds_flights_and_never_followers() {
    let (origin, layer) = (Origin::page(), SingleflightLayer::new());
    let stack = ServiceBuilder::new()
        .layer(layer.clone())
        .layer(LoadShedLayer::new())
        .layer(ConcurrencyLimitLayer::new(1))
        .service(origin.clone());
    let hot = (0..10).map(|_| ask(&stack, get("/hot"))).collect();
    settle().await;
    let cold = [(); 3].map(|()| ask(&stack, get("/cold")));
    for one in cold {
        let error = one.await.unwrap().unwrap_err();
        assert!(SharedError::find::<Overloaded>(&*error).is_some());
    }
    origin.open();
    assert_eq!(count(&all(hot).await, Role::Follower), 9);
    assert_eq!(origin.calls(), 1);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn load_shed_above_sheds_nothing_since_the_layer_is_always_ready() {
    let (origin, layer) = (Origin::page(), SingleflightLayer::new());
    let stack = ServiceBuilder::new()
        .layer(LoadShedLayer::new())
        .layer(layer.clone())
        .layer(ConcurrencyLimitLayer::new(1))
        .service(origin.clone());
    let asked = ["/a", "/b", "/b", "/c"].map(|uri| ask(&stack, get(uri)));
    settle().await;
    origin.open();
    assert_eq!(all(asked.into()).await.len(), 4);
    assert_eq!(origin.calls(), 3);
    assert_idle(&layer.handle());
}

/// Tries once more after a 503.
#[derive(Clone)]
struct Again(bool);

impl<B, E> Policy<Asked, Response<B>, E> for Again {
    type Future = std::future::Ready<()>;

    fn retry(
        &mut self,
        _: &mut Asked,
        result: &mut Result<Response<B>, E>,
    ) -> Option<Self::Future> {
        let failed = matches!(result, Ok(response) if response.status().is_server_error());
        let again = failed && std::mem::take(&mut self.0);
        again.then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, request: &Asked) -> Option<Asked> {
        Some(request.clone())
    }
}

/// Fails its first call.
fn recovering() -> Origin {
    Origin::new(|request| {
        let support::Number(call) = *request.extensions.get().unwrap();
        let status = if call == 1 {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::OK
        };
        let response = Response::builder().status(status);
        response.body(Bytes::from_static(b"page")).unwrap()
    })
}

#[tokio::test]
async fn a_retry_above_leads_or_joins_a_new_flight_each_time() {
    let (origin, layer) = (recovering(), SingleflightLayer::new());
    let stack = ServiceBuilder::new()
        .layer(RetryLayer::new(Again(true)))
        .layer(layer.clone())
        .service(origin.clone());
    let asked = (0..5).map(|_| ask(&stack, get("/"))).collect();
    settle().await;
    assert_eq!(origin.calls(), 1);
    origin.admit(1);
    settle().await;
    // All five try again, together.
    assert_eq!((origin.calls(), layer.handle().stats().waiters), (2, 5));
    origin.open();
    let got = all(asked).await;
    assert!(got.iter().all(|got| got.head.status == StatusCode::OK));
    assert_eq!(count(&got, Role::Leader), 1);
    assert_eq!(origin.calls(), 2);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_retry_below_is_part_of_the_flight() {
    let (origin, layer) = (recovering(), SingleflightLayer::new());
    let stack = ServiceBuilder::new()
        .layer(layer.clone())
        .layer(RetryLayer::new(Again(true)))
        .service(origin.clone());
    let asked = (0..5).map(|_| ask(&stack, get("/"))).collect();
    settle().await;
    origin.open();
    let got = all(asked).await;
    assert!(got.iter().all(|got| got.head.status == StatusCode::OK));
    let [leader, followers @ ..] = &roles(&got)[..] else {
        unreachable!("five")
    };
    assert_eq!(
        (*leader, followers),
        (Role::Leader, &[Role::Follower; 4][..])
    );
    assert_eq!(origin.calls(), 2);
    assert_idle(&layer.handle());
}

#[tokio::test(start_paused = true)]
async fn timeouts_above_and_below_work_together() {
    let (origin, layer) = (Origin::page(), SingleflightLayer::new());
    let below = ServiceBuilder::new()
        .layer(layer.clone())
        .timeout(Duration::from_secs(10))
        .service(origin.clone());
    let above = ServiceBuilder::new()
        .timeout(Duration::from_secs(1))
        .service(below.clone());
    let hasty = ask(&above, get("/"));
    let patient = [ask(&below, get("/")), ask(&below, get("/"))];
    let start = tokio::time::Instant::now();
    let error = hasty.await.unwrap().unwrap_err();
    assert!(error.is::<tower::timeout::error::Elapsed>());
    assert_eq!(start.elapsed().as_secs(), 1);
    for one in patient {
        let error = one.await.unwrap().unwrap_err();
        assert!(SharedError::find::<tower::timeout::error::Elapsed>(&*error).is_some());
    }
    assert_eq!(
        (start.elapsed().as_secs(), origin.calls(), origin.inside()),
        (10, 1, 0)
    );
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn an_infallible_stack_of_followers_stays_infallible() {
    let (origin, layer) = (Origin::page(), SingleflightLayer::new());
    let stack = ServiceBuilder::new()
        .layer(layer.clone())
        .concurrency_limit(2)
        .service(origin.clone());
    fn infallible<S: Service<Asked, Error = Infallible>>(_: &S) {}
    infallible(&stack);
    origin.open();
    assert_eq!(all(vec![ask(&stack, get("/"))]).await.len(), 1);
    assert_idle(&layer.handle());
}
