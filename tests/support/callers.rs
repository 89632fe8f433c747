//! Callers of the layer: what they send, what they get, and what they leave.

use std::{convert::Infallible, pin::Pin};

use bytes::Bytes;
use http::{Request, Response, response};
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use tokio::task::JoinHandle;
use tower::BoxError;
use tower::Service;
use tower_singleflight::{Handle, ResponseBody, Role};

/// What a caller got.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) role: Role,
    pub(crate) head: response::Parts,
    pub(crate) body: Bytes,
}

/// The values of all lines of a response field.
pub(crate) fn lines(head: &response::Parts, name: &str) -> Vec<String> {
    let lines = head.headers.get_all(name).iter();
    lines
        .map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned())
        .collect()
}

pub(crate) fn role<B>(response: &Response<B>) -> Role {
    *response
        .extensions()
        .get()
        .expect("every response has a role")
}

pub(crate) async fn read<B>(response: Response<ResponseBody<B>>) -> Got
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let role = role(&response);
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    Got { role, head, body }
}

/// Calls now, so that callers join in the order of the program; reads to the end in a task.
pub(crate) fn ask<S, Q, B>(service: &S, request: Request<Q>) -> JoinHandle<Got>
where
    S: Service<Request<Q>, Response = Response<ResponseBody<B>>, Error = Infallible> + Clone,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let call = service.clone().call(request);
    // Boxed, so that one kind of task is compiled and not one for each service.
    let got: Pin<Box<dyn Future<Output = Got> + Send>> = Box::pin(async move {
        let Ok(response) = call.await;
        read(response).await
    });
    tokio::spawn(got)
}

pub(crate) async fn all(asked: impl IntoIterator<Item = JoinHandle<Got>>) -> Vec<Got> {
    let mut got = Vec::new();
    for one in asked {
        got.push(one.await.expect("a caller that does not panic"));
    }
    got
}

pub(crate) fn roles(got: &[Got]) -> Vec<Role> {
    got.iter().map(|got| got.role).collect()
}

pub(crate) fn count(got: &[Got], role: Role) -> usize {
    got.iter().filter(|got| got.role == role).count()
}

pub(crate) type Fields<'a> = &'a [(&'a str, &'a [u8])];

pub(crate) fn request(method: &str, uri: &str, fields: Fields<'_>) -> Request<Empty<Bytes>> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Empty::new()).expect("a request")
}

pub(crate) fn get(uri: &str) -> Request<Empty<Bytes>> {
    request("GET", uri, &[])
}

/// Whether nobody is there and nothing is held. On several threads these come one after the other.
pub(crate) fn is_idle<K>(handle: &Handle<K>) -> bool {
    let stats = handle.stats();
    (stats.in_flight, stats.waiters, stats.buffered_bytes) == (0, 0, 0)
}

/// Nothing is left in the table, nobody counted, nothing held.
#[track_caller]
pub(crate) fn assert_idle<K>(handle: &Handle<K>) {
    let stats = handle.stats();
    assert_eq!(
        (stats.in_flight, stats.waiters, stats.buffered_bytes),
        (0, 0, 0),
        "{stats:?}"
    );
}
