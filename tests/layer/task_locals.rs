//! What a layer sets in the caller's task is there for a lone caller alone; what is set below, or carried by the request, is
//! there for all.

use std::{convert::Infallible, sync::Arc};

use crate::support::{all, ask, assert_idle, get};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use tokio::sync::Semaphore;
use tower::{Layer, Service, service_fn};
use tower_singleflight::SingleflightLayer;

tokio::task_local! { static LOCALE: &'static str; }

#[derive(Clone, Copy)]
struct Locale(&'static str);

type Req = Request<Empty<Bytes>>;

/// Answers with the task-local that it finds once the gate is open, and with the request's extension.
fn origin(
    gate: &Arc<Semaphore>,
) -> impl Service<Req, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ use<> {
    let gate = Arc::clone(gate);
    service_fn(move |request: Req| {
        let gate = Arc::clone(&gate);
        async move {
            let permit = gate.acquire().await.expect("an open gate");
            drop(permit);
            let local = LOCALE.try_with(|locale| *locale).unwrap_or("none");
            let carried = request.extensions().get().map_or("none", |Locale(it)| *it);
            Ok(Response::new(Full::from(format!("{local}, {carried}"))))
        }
    })
}

fn request() -> Req {
    let mut request = get("/");
    request.extensions_mut().insert(Locale("de"));
    request
}

/// What so many callers get, each of whom has set the task-local above the layer.
async fn set_above(callers: usize) -> Vec<Bytes> {
    let gate = Arc::new(Semaphore::new(0));
    let layer = SingleflightLayer::new();
    let service = layer.layer(origin(&gate));
    let asked: Vec<_> = (0..callers)
        .map(|_| {
            let mut service = service.clone();
            tokio::spawn(LOCALE.scope("de", async move {
                let Ok(response) = service.call(request()).await;
                crate::support::read(response).await.body
            }))
        })
        .collect();
    while layer.handle().stats().waiters < callers {
        tokio::task::yield_now().await;
    }
    crate::support::settle().await;
    gate.add_permits(1);
    let mut bodies = Vec::new();
    for one in asked {
        bodies.push(one.await.expect("a caller that does not panic"));
    }
    assert_idle(&layer.handle());
    bodies
}

#[tokio::test]
async fn a_task_local_of_a_layer_above_is_there_for_a_lone_caller_alone() {
    assert_eq!(set_above(1).await, ["de, de"]);
    assert_eq!(set_above(3).await, ["none, de"; 3]);
}

#[tokio::test]
async fn a_task_local_of_a_layer_below_is_there_for_all() {
    for callers in [1, 3] {
        let gate = Arc::new(Semaphore::new(1));
        let inner = origin(&gate);
        let layer = SingleflightLayer::new();
        let service = layer.layer(service_fn(move |request: Req| {
            let Locale(locale) = *request.extensions().get().expect("a locale");
            LOCALE.scope(locale, inner.clone().call(request))
        }));
        let got = all((0..callers)
            .map(|_| ask(&service, request()))
            .collect::<Vec<_>>())
        .await;
        assert!(got.iter().all(|got| got.body == "de, de"));
        assert_idle(&layer.handle());
    }
}
