//! A gated service, for tests that decide when it answers.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use tokio::sync::Semaphore;
use tower::{Service, service_fn};

/// Answers each call when the gate gives a permit.
#[derive(Clone)]
pub(crate) struct Gated {
    pub(crate) gate: Arc<Semaphore>,
}

impl Gated {
    pub(crate) fn new() -> Self {
        Self {
            gate: Arc::new(Semaphore::new(0)),
        }
    }

    /// Answers with what `respond` makes.
    pub(crate) fn service<F>(
        &self,
        respond: F,
    ) -> impl Service<
        Request<Empty<Bytes>>,
        Response = Response<Full<Bytes>>,
        Error = Infallible,
        Future: Send + 'static,
    > + Clone
    + Send
    + 'static
    where
        F: Fn() -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
    {
        let gate = self.gate.clone();
        service_fn(move |_: Request<Empty<Bytes>>| {
            let (gate, respond) = (gate.clone(), respond.clone());
            async move {
                gate.acquire().await.expect("the gate stays").forget();
                Ok(respond())
            }
        })
    }
}

pub(crate) fn page() -> Response<Full<Bytes>> {
    Response::new(Full::new(Bytes::from_static(b"page")))
}

pub(crate) fn get(uri: &str) -> Request<Empty<Bytes>> {
    Request::get(uri).body(Empty::new()).expect("a request")
}
