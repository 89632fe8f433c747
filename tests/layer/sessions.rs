//! Where a layer of sessions belongs: visitors without a cookie never get the page of another's new session.

use std::{
    collections::HashSet,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::support::{assert_idle, get, request};
use bytes::Bytes;
use http::{Request, Response, header::COOKIE, request::Parts};
use http_body_util::{BodyExt, Empty, Full};
use tokio::sync::Semaphore;
use tower::{Layer, Service, service_fn};
use tower_singleflight::{KeyExtractor, RequestKeyExtractor, SingleflightLayer};

type Req = Request<Empty<Bytes>>;

#[derive(Clone)]
struct Session(String);

/// Finds the session of a request's cookie, or begins one and sets the cookie in the response.
fn with_sessions<S, B>(
    inner: S,
) -> impl Service<Req, Response = Response<B>, Error = Infallible, Future: Send> + Clone
where
    S: Service<Req, Response = Response<B>, Error = Infallible, Future: Send> + Clone,
{
    let begun = Arc::new(AtomicUsize::new(0));
    service_fn(move |mut request: Req| {
        let known = request.headers().get(COOKIE).cloned();
        let session = match &known {
            Some(cookie) => String::from_utf8_lossy(cookie.as_bytes()).into_owned(),
            None => format!("id={}", begun.fetch_add(1, Ordering::SeqCst)),
        };
        request.extensions_mut().insert(Session(session.clone()));
        let call = inner.clone().call(request);
        async move {
            let Ok(mut response) = call.await;
            if known.is_none() {
                let cookie = session.parse().expect("a value");
                response.headers_mut().insert("set-cookie", cookie);
            }
            Ok(response)
        }
    })
}

/// A form with the token of the visitor's session.
fn form(
    gate: &Arc<Semaphore>,
) -> impl Service<Req, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static
+ use<> {
    let gate = Arc::clone(gate);
    service_fn(move |request: Req| {
        let gate = Arc::clone(&gate);
        async move {
            drop(gate.acquire().await.expect("an open gate"));
            let Some(Session(id)) = request.extensions().get() else {
                panic!("there is a session");
            };
            Ok(Response::new(Full::from(format!("token of {id}"))))
        }
    })
}

/// Ten visitors ask for the form at the same time: each gets a token of the session that its cookie names.
async fn each_gets_its_own_token<S, B>(service: S, gate: &Semaphore, requests: Vec<Req>)
where
    S: Service<Req, Response = Response<B>, Error = Infallible, Future: Send + 'static> + Clone,
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug> + Send + 'static,
{
    let asked: Vec<_> = requests
        .into_iter()
        .map(|request| {
            let known = request.headers().get(COOKIE).cloned();
            (known, tokio::spawn(service.clone().call(request)))
        })
        .collect();
    crate::support::settle().await;
    gate.add_permits(Semaphore::MAX_PERMITS / 2);
    let mut sessions = HashSet::new();
    for (known, response) in asked {
        let Ok(response) = response.await.expect("a caller that does not panic");
        let session = known.or_else(|| response.headers().get("set-cookie").cloned());
        let session = session.expect("a session");
        let session = session.to_str().expect("text").to_owned();
        let body = response.into_body().collect().await.expect("a body");
        assert_eq!(body.to_bytes(), format!("token of {session}"));
        sessions.insert(session);
    }
    assert_eq!(sessions.len(), 10);
}

fn strangers() -> Vec<Req> {
    (0..10).map(|_| get("/form")).collect()
}

#[tokio::test]
async fn sessions_below_give_each_visitor_a_token_of_its_own() {
    let gate = Arc::new(Semaphore::new(0));
    let layer = SingleflightLayer::new();
    let service = layer.layer(with_sessions(form(&gate)));
    each_gets_its_own_token(service, &gate, strangers()).await;
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn sessions_above_need_a_key_that_is_none_without_a_cookie() {
    let default = RequestKeyExtractor::new();
    let key = move |request: &Parts| match request.headers.contains_key(COOKIE) {
        true => default.extract(request),
        false => None,
    };
    let known = || {
        let cookies = (0..10).map(|visitor| format!("id=known-{visitor}"));
        let requests =
            cookies.map(|cookie| request("GET", "/form", &[("cookie", cookie.as_bytes())]));
        requests.collect()
    };
    for requests in [strangers(), known()] {
        let gate = Arc::new(Semaphore::new(0));
        let layer = SingleflightLayer::with_key(key.clone());
        let service = with_sessions(layer.layer(form(&gate)));
        each_gets_its_own_token(service, &gate, requests).await;
        assert_idle(&layer.handle());
    }
}
