//! Auto traits and `Debug` of the public types.

use std::fmt::Debug;

use bytes::Bytes;
use http::Method;
use http_body_util::{Empty, Full};
use tower::Layer;
use tower_singleflight::{
    BodyBytes, BufferBody, BufferBodyLayer, BufferedBody, KeyExtractor, RequestKeyExtractor,
    buffer_body::future::ResponseFuture,
};

use crate::support::Origin;

fn anywhere<T: Send + Sync + Unpin + 'static + Debug>() {}

#[test]
fn every_public_type_goes_anywhere() {
    anywhere::<BufferBodyLayer>();
    anywhere::<BufferBody<()>>();
    anywhere::<BufferedBody<Full<Bytes>>>();
    anywhere::<BodyBytes>();
    fn of<X: KeyExtractor + Unpin + Debug>(_: X) {
        anywhere::<X>();
    }
    of(RequestKeyExtractor::new().and(|_| Some(())));
    fn sent<T: Send + 'static + Debug>() {}
    sent::<ResponseFuture<Origin, Full<Bytes>>>();
}

#[test]
fn what_is_shown_holds_no_content_of_a_body() {
    assert_eq!(
        format!("{:?}", BodyBytes(Bytes::from_static(b"secret"))),
        "BodyBytes { len: 6, .. }"
    );
    let key = RequestKeyExtractor::new().coalesce(Method::POST);
    assert_eq!(
        format!("{key:?}"),
        "RequestKeyExtractor { ignored: [], coalesced: [POST], .. }"
    );
    let body = BufferedBody::<Empty<Bytes>>::default();
    assert_eq!(format!("{body:?}"), "BufferedBody { .. }");
    let layer = BufferBodyLayer::new(5).max_buffered(10);
    let shown = format!("{layer:?} {:?}", layer.layer(()));
    assert!(
        shown.contains("max: 5") && shown.contains("max: 10"),
        "{shown}"
    );
}
