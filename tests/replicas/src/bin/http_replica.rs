//! One replica that serves HTTP/2: a layer, and behind it the origin whose port is its last argument. It prints its own.

use std::sync::Arc;

use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Either, Full};
use hyper::{body::Incoming, service::service_fn};
use replicas_tests::{Settings, http as wire};
use tower::{BoxError, ServiceExt};
use tower_layer::Layer;
use tower_singleflight::{KeyExtractor, RequestKeyExtractor, Role, SingleflightLayer};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let (origin, settings) = args.split_last().expect("arguments");
    let replicas = Settings::from_args(settings).replicas();
    let origin = wire::connect::<Incoming>(origin.parse().expect("a port")).await;
    let layer = SingleflightLayer::new().replicas(replicas);
    let handle = layer.handle();
    let inner = tower::service_fn(move |request: Request<Incoming>| {
        let mut origin = origin.clone();
        async move { origin.send_request(request).await.map_err(Arc::new) }
    });
    let service = layer.layer(inner);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (service, handle) = (service.clone(), handle.clone());
        async move {
            if request.headers_mut().remove(wire::LOOK).is_some() {
                let (parts, _) = request.into_parts();
                let key = RequestKeyExtractor::new().extract(&parts).expect("a key");
                let is_up = handle.stats().replicas.expect("it has some").is_up;
                let text = format!("{} {is_up}", handle.waiters(&key));
                return Ok(Response::new(Either::Left(Full::from(text))));
            }
            let mut response = service.oneshot(request).await.map_err(BoxError::from)?;
            let role = response.extensions().get::<Role>().expect("a role");
            let role = HeaderValue::from_str(&format!("{role:?}")).expect("a value");
            response.headers_mut().insert(wire::ROLE, role);
            Ok::<_, BoxError>(response.map(|body| Either::Right(body.map_err(BoxError::from))))
        }
    });
    println!("{}", wire::serve(service).await);
    std::future::pending().await
}
