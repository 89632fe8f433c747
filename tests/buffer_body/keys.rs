//! Keys that hold the bytes of a body.

use std::{collections::HashSet, convert::Infallible};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, request};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use proptest::prelude::*;
use proptest::sample::select;
use tokio::task::JoinHandle;
use tower::BoxError;
use tower::{Layer, Service};
use tower_singleflight::{
    BodyBytes, BufferBodyLayer, BufferedBody, KeyExtractor, RequestKeyExtractor, ResponseBody,
    Role, SingleflightLayer,
};

use crate::support::{self, Fields, Got, Origin, all, assert_idle, roles, settle};

type Body = UnsyncBoxBody<Bytes, BoxError>;

fn whole(body: &'static str) -> Body {
    let body = Full::new(Bytes::from_static(body.as_bytes()));
    body.map_err(|never| match never {}).boxed_unsync()
}

fn stream(frames: Vec<Frame<Bytes>>) -> Body {
    let frames = frames.into_iter().map(Ok);
    StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
}

fn ask(method: &str, uri: &str, fields: Fields<'_>, body: Body) -> Request<Body> {
    support::request(method, uri, fields).map(|_| body)
}

/// Sends a request, and lets it go as far as it gets.
async fn send<S>(service: &S, request: Request<Body>) -> JoinHandle<Got>
where
    S: Service<
            Request<Body>,
            Response = Response<ResponseBody<Full<Bytes>>>,
            Error = Infallible,
            Future: Send + 'static,
        > + Clone,
{
    let asked = support::ask(service, request);
    settle().await;
    asked
}

/// What became of these requests, which come one after the other while the first call is not answered.
async fn together<X>(layer: &SingleflightLayer<X>, requests: Vec<Request<Body>>) -> Vec<Role>
where
    X: KeyExtractor,
{
    let origin = Origin::counting();
    let service = BufferBodyLayer::new(100).layer(layer.layer(origin.clone()));
    let mut asked = Vec::new();
    for request in requests {
        asked.push(send(&service, request).await);
    }
    origin.open();
    let got = all(asked).await;
    // The origin numbers its calls: two with one body had one call.
    let bodies: HashSet<_> = got.iter().map(|got| got.body.clone()).collect();
    let followers = support::count(&got, Role::Follower);
    assert_eq!(bodies.len() + followers, got.len());
    assert_idle(&layer.handle());
    roles(&got)
}

fn coalescing(method: &str) -> RequestKeyExtractor {
    RequestKeyExtractor::new().coalesce(method.parse().unwrap())
}

fn post_layer() -> SingleflightLayer {
    SingleflightLayer::with_extractor(coalescing("POST"))
}

use Role::{Bypassed, Follower, Leader};

#[tokio::test]
async fn requests_with_equal_bodies_share_and_with_different_ones_do_not() {
    for method in ["POST", "QUERY", "REPORT", "SEARCH", "PROPFIND", "X-FIND"] {
        let layer = SingleflightLayer::with_extractor(coalescing(method));
        let asked = ["a", "b", "a", "", ""].map(|body| ask(method, "/", &[], whole(body)));
        assert_eq!(
            together(&layer, asked.into()).await,
            [Leader, Leader, Follower, Leader, Follower],
            "{method}"
        );
    }
}

#[tokio::test]
async fn a_method_that_is_not_opted_in_makes_its_own_call() {
    let asked = ["PUT", "POST", "PUT", "QUERY"].map(|method| ask(method, "/", &[], whole("a")));
    let roles = together(&post_layer(), asked.into()).await;
    assert_eq!(roles, [Bypassed, Leader, Bypassed, Bypassed]);
}

#[tokio::test]
async fn two_methods_with_one_body_do_not_share() {
    let key = coalescing("POST").coalesce(Method::PUT);
    let asked = ["PUT", "POST", "PUT", "POST"].map(|method| ask(method, "/", &[], whole("a")));
    let roles = together(&SingleflightLayer::with_extractor(key), asked.into()).await;
    assert_eq!(roles, [Leader, Leader, Follower, Follower]);
}

#[tokio::test]
async fn a_get_or_head_with_a_body_makes_its_own_call_and_without_one_shares() {
    for method in ["GET", "HEAD"] {
        let key = coalescing(method).coalesce(Method::POST);
        let asked = ["a", "", "a", ""].map(|body| ask(method, "/", &[], whole(body)));
        let roles = together(&SingleflightLayer::with_extractor(key), asked.into()).await;
        assert_eq!(roles, [Bypassed, Leader, Bypassed, Follower]);
    }
}

#[tokio::test]
async fn a_body_that_was_not_read_is_in_no_key() {
    let long = "a".repeat(101);
    let frame = || stream(vec![Frame::data(Bytes::from(long.clone()))]);
    let asked = vec![
        ask("POST", "/", &[], frame()),
        ask("POST", "/", &[], frame()),
        ask("POST", "/", &[("expect", b"100-continue")], whole("a")),
        ask("POST", "/", &[("expect", b"100-continue")], whole("a")),
        ask("POST", "/", &[("content-length", b"2")], whole("a")),
        ask("POST", "/", &[("content-length", b"2")], whole("a")),
    ];
    assert_eq!(together(&post_layer(), asked).await, [Bypassed; 6]);
}

#[tokio::test]
async fn without_the_layer_that_reads_bodies_a_method_that_is_opted_in_has_no_key() {
    let (origin, layer) = (Origin::page(), post_layer());
    origin.open();
    let service = layer.layer(origin);
    for body in ["a", ""] {
        let got = support::ask(&service, ask("POST", "/", &[], whole(body)))
            .await
            .unwrap();
        assert_eq!(got.role, Bypassed);
    }
}

#[tokio::test]
async fn equal_trailers_share_and_different_ones_do_not() {
    let with = |trailer: Option<&'static str>| {
        let trailers = trailer.map(|value| {
            let mut trailers = HeaderMap::new();
            trailers.insert("checksum", value.parse().unwrap());
            Frame::trailers(trailers)
        });
        let frames = [Frame::data(Bytes::from_static(b"a"))]
            .into_iter()
            .chain(trailers);
        ask("POST", "/", &[], stream(frames.collect()))
    };
    let asked = || {
        [Some("1"), Some("2"), None, Some("1"), None]
            .map(with)
            .into()
    };
    assert_eq!(
        together(&post_layer(), asked()).await,
        [Leader, Leader, Leader, Follower, Follower]
    );
    // A key that can't see them does not decide about them.
    let users = SingleflightLayer::with_key(|request: &request::Parts| {
        request
            .extensions
            .get()
            .map(|BodyBytes(bytes)| bytes.clone())
    });
    assert_eq!(
        together(&users, asked()).await,
        [Bypassed, Bypassed, Leader, Bypassed, Follower]
    );
}

#[tokio::test]
async fn a_trailer_differs_from_a_field() {
    let with = |fields: Fields<'_>, trailers: &[&'static str]| {
        let trailers = trailers.iter().map(|name| {
            (
                http::HeaderName::from_static(name),
                http::HeaderValue::from_static("1"),
            )
        });
        let frames = [
            Frame::data(Bytes::from_static(b"a")),
            Frame::trailers(trailers.collect()),
        ];
        ask("POST", "/", fields, stream(frames.into()))
    };
    let (a, b): (Fields<'_>, Fields<'_>) = (&[("a", b"1")], &[("b", b"1")]);
    let asked = vec![
        with(&[a, b].concat(), &[]),
        with(b, &["a"]),
        with(&[], &["a", "b"]),
        with(b, &["a"]),
    ];
    assert_eq!(
        together(&post_layer(), asked).await,
        [Leader, Leader, Leader, Follower]
    );
}

#[tokio::test]
async fn trailers_that_a_layer_in_between_has_dropped_are_in_no_key() {
    let (origin, layer) = (Origin::page(), post_layer());
    let service = tower::ServiceBuilder::new()
        .layer(BufferBodyLayer::new(100))
        .map_request(|request: Request<BufferedBody<Body>>| request.map(|_| whole("a")))
        .layer(BufferBodyLayer::new(100))
        .layer(layer.clone())
        .service(origin.clone());
    let mut asked = Vec::new();
    for value in ["1", "2"] {
        let mut trailers = HeaderMap::new();
        trailers.insert("checksum", value.parse().unwrap());
        let body = stream(vec![Frame::trailers(trailers)]);
        asked.push(send(&service, ask("POST", "/", &[], body)).await);
    }
    origin.open();
    assert_eq!(roles(&all(asked).await), [Leader, Follower]);
    assert_idle(&layer.handle());
}

#[test]
fn no_field_that_speaks_of_framing_is_in_the_key_of_a_body() {
    let key = |name: Option<&str>| {
        let mut request = Request::post("/").extension(BodyBytes(Bytes::from_static(b"a")));
        if let Some(name) = name {
            request = request.header(name, "1");
        }
        let request = request.body(()).unwrap().into_parts().0;
        coalescing("POST").extract(&request).unwrap()
    };
    for name in ["content-length", "transfer-encoding", "expect"] {
        assert!(key(Some(name)) == key(None), "{name}");
    }
    for name in ["content-type", "content-encoding"] {
        assert!(key(Some(name)) != key(None), "{name}");
    }
}

#[tokio::test]
async fn a_key_of_ones_own_sees_the_bytes() {
    let layer = SingleflightLayer::with_key(|request: &request::Parts| {
        let BodyBytes(bytes) = request.extensions.get()?;
        // Case does not matter to this service, and it can be told to forget.
        (!bytes.starts_with(b"forget")).then(|| bytes.to_ascii_lowercase())
    });
    let asked = ["A", "a", "forget", "b", "forget"].map(|body| ask("POST", "/", &[], whole(body)));
    assert_eq!(
        together(&layer, asked.into()).await,
        [Leader, Follower, Bypassed, Leader, Bypassed]
    );
}

#[tokio::test]
async fn a_key_of_ones_own_that_opts_a_method_in_goes_on_as_before() {
    let layer =
        SingleflightLayer::with_key(|request: &request::Parts| Some(request.uri.path().to_owned()));
    let asked = ["a", "b"].map(|body| ask("POST", "/", &[], whole(body)));
    assert_eq!(together(&layer, asked.into()).await, [Leader, Follower]);
}

#[tokio::test]
async fn what_a_function_adds_to_the_default_key_keeps_requests_apart() {
    #[derive(Clone, PartialEq, Eq, Hash)]
    struct Tenant(u8);
    let key = coalescing("POST").and(|request| request.extensions.get::<Tenant>().cloned());
    let layer = SingleflightLayer::with_extractor(key);
    let asked = [Some(1), Some(2), None, Some(1), None].map(|tenant| {
        let mut request = ask("POST", "/", &[], whole("a"));
        if let Some(tenant) = tenant {
            request.extensions_mut().insert(Tenant(tenant));
        }
        request
    });
    assert_eq!(
        together(&layer, asked.into()).await,
        [Leader, Leader, Bypassed, Follower, Bypassed]
    );
    // And the default key is in it.
    let asked = ["a", "b"].map(|body| {
        let mut request = ask("POST", "/", &[], whole(body));
        request.extensions_mut().insert(Tenant(1));
        request
    });
    assert_eq!(together(&layer, asked.into()).await, [Leader, Leader]);
}

#[test]
fn the_key_of_an_extractor_with_more_is_a_pair() {
    let extractor = RequestKeyExtractor::new().and(|request| Some(request.uri.path().len()));
    let (get, ()) = Request::get("/abc").body(()).unwrap().into_parts();
    let (key, more) = extractor.extract(&get).unwrap();
    assert_eq!(Some(key), RequestKeyExtractor::new().extract(&get));
    assert_eq!(more, 4);
    let (post, ()) = Request::post("/abc").body(()).unwrap().into_parts();
    assert!(extractor.extract(&post).is_none());
    let shown = format!("{extractor:?}");
    assert!(
        shown.starts_with("RequestKeyAnd { default: RequestKeyExtractor"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_field_that_vary_names_keeps_two_framings_of_one_body_apart() {
    let origin = Origin::new(|_| {
        let response = Response::builder().header("vary", "content-length");
        response.body(Bytes::new()).unwrap()
    });
    let layer = post_layer();
    let service = BufferBodyLayer::new(100).layer(layer.layer(origin.clone()));
    let mut asked = Vec::new();
    for fields in [
        &[("content-length", &b"1"[..])][..],
        &[],
        &[("content-length", b"1")],
    ] {
        asked.push(send(&service, ask("POST", "/", fields, whole("a"))).await);
    }
    origin.open();
    assert_eq!(
        roles(&all(asked).await),
        [Leader, Role::Forwarded, Follower]
    );
    assert_idle(&layer.handle());
}

// ===== writes =====

/// Whether a request that comes after `write`, which is answered while an equal one is in flight, joins that.
async fn joins_after<X>(layer: SingleflightLayer<X>, read: &str, write: Request<Body>) -> bool
where
    X: KeyExtractor,
{
    let (reads, writes) = (Origin::counting(), Origin::page());
    writes.open();
    let both = {
        let reads = reads.clone();
        tower::service_fn(move |request: Request<_>| {
            let origin = match request.headers().contains_key("x-write") {
                true => &writes,
                false => &reads,
            };
            Service::call(&mut origin.clone(), request)
        })
    };
    let service = BufferBodyLayer::new(100).layer(layer.layer(both));
    let request = || {
        ask(
            read,
            "/page",
            &[],
            whole(if read == "GET" { "" } else { "a" }),
        )
    };
    let first = send(&service, request()).await;
    let (mut parts, body) = write.into_parts();
    parts.headers.insert("x-write", "1".parse().unwrap());
    let written = send(&service, Request::from_parts(parts, body))
        .await
        .await
        .unwrap();
    assert_eq!(written.head.status, StatusCode::OK);
    let second = send(&service, request()).await;
    reads.open();
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!(first.role, Leader);
    assert_idle(&layer.handle());
    second.role == Follower
}

#[tokio::test]
async fn a_write_detaches_the_flights_of_its_uri_whose_keys_hold_a_body() {
    for uri in ["/page", "http://a/page"] {
        let write = || ask("PUT", uri, &[], whole("b"));
        assert!(!joins_after(post_layer(), "POST", write()).await);
        let key = coalescing("POST").and(|_| Some(()));
        assert!(!joins_after(SingleflightLayer::with_extractor(key), "POST", write()).await);
    }
    let elsewhere = ask("PUT", "/other", &[], whole("b"));
    assert!(joins_after(post_layer(), "POST", elsewhere).await);
}

#[tokio::test]
async fn what_answers_a_method_that_is_opted_in_detaches_nothing() {
    // Nor where it makes its own call: a body that was not read, or a key that some have and some not.
    for read in ["GET", "POST"] {
        for body in [
            whole("b"),
            stream(vec![Frame::data(Bytes::from(vec![0; 101]))]),
        ] {
            let write = ask("POST", "/page", &[], body);
            assert!(joins_after(post_layer(), read, write).await);
        }
    }
    let key =
        coalescing("POST").and(|request| (!request.headers.contains_key("x-write")).then_some(()));
    let write = ask("POST", "/page", &[], whole("b"));
    assert!(joins_after(SingleflightLayer::with_extractor(key), "GET", write).await);
    // Without it a POST is a write.
    let write = ask("POST", "/page", &[], whole("b"));
    assert!(!joins_after(SingleflightLayer::new(), "GET", write).await);
}

#[tokio::test]
async fn a_key_is_forgotten_as_any_other() {
    let (origin, layer) = (Origin::counting(), post_layer());
    let handle = layer.handle();
    let service = BufferBodyLayer::new(100).layer(layer.layer(origin.clone()));
    let request = || ask("POST", "/", &[], whole("a"));
    let first = send(&service, request()).await;
    assert_eq!(
        handle.forget_if(|key| *key.method() == Method::POST && key.uri() == "/"),
        1
    );
    let second = send(&service, request()).await;
    origin.open();
    assert_eq!(roles(&all([first, second]).await), [Leader, Leader]);
    assert_idle(&handle);
}

// ===== any two requests =====

/// How a body is sent.
#[derive(Clone, Debug)]
struct Framing {
    /// The lengths of its frames.
    cuts: Vec<usize>,
    fields: Vec<(&'static str, Option<&'static str>)>,
    http_2: bool,
    /// Where among the other fields.
    at: usize,
}

#[derive(Clone, Debug)]
struct Asked {
    method: &'static str,
    uri: &'static str,
    body: Vec<u8>,
    fields: Vec<(&'static str, &'static str)>,
    ignored: Vec<(&'static str, &'static str)>,
    trailers: Vec<(&'static str, &'static str)>,
    framing: Framing,
}

fn framing() -> impl Strategy<Value = Framing> {
    let fields = select(vec![
        vec![],
        // `None` stands for the length.
        vec![("content-length", None)],
        vec![("transfer-encoding", Some("chunked"))],
        vec![("connection", Some("keep-alive")), ("content-length", None)],
    ]);
    let cuts = proptest::collection::vec(0..4_usize, 0..6);
    (cuts, fields, any::<bool>(), 0..4_usize).prop_map(|(cuts, fields, http_2, at)| Framing {
        cuts,
        fields,
        http_2,
        at,
    })
}

fn fields() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let name = select(vec![
        "content-type",
        "content-encoding",
        "accept",
        "x-user",
        "authorization",
    ]);
    proptest::collection::vec((name, select(vec!["", "a", "b", "a,b"])), 0..4)
}

fn asked() -> impl Strategy<Value = Asked> {
    let ignored = (
        select(vec!["user-agent", "via", "x-request-id"]),
        select(vec!["a", "b"]),
    );
    (
        select(vec!["POST", "QUERY"]),
        select(vec!["/", "/?a", "http://a/"]),
        proptest::collection::vec(select(vec![0, b'a', b'b', 0xff]), 0..5),
        fields(),
        proptest::collection::vec(ignored, 0..3),
        proptest::collection::vec((select(vec!["x", "y"]), select(vec!["", "a"])), 0..2),
        framing(),
    )
        .prop_map(
            |(method, uri, body, fields, ignored, trailers, framing)| Asked {
                method,
                uri,
                body,
                fields,
                ignored,
                trailers,
                framing,
            },
        )
}

/// Two requests that may be identical but for how they are sent, or differ in one thing.
fn pair() -> impl Strategy<Value = (Asked, Asked)> {
    (asked(), asked(), 0..8_usize).prop_map(|(one, other, differs)| {
        let mut two = Asked {
            ignored: other.ignored,
            framing: other.framing,
            ..one.clone()
        };
        match differs {
            0 => two.method = other.method,
            1 => two.uri = other.uri,
            2 => two.body = other.body,
            3 => two.fields = other.fields,
            4 => two.trailers = other.trailers,
            _ => {}
        }
        (one, two)
    })
}

// ===== impl Asked =====

impl Asked {
    /// All that two requests must have in common to share.
    fn identity(&self) -> impl PartialEq + use<> {
        let lines = |fields: &[(&'static str, &'static str)]| {
            // Lines of one name keep their order, names come as they were first met.
            let mut lines: Vec<(&'static str, Vec<&'static str>)> = Vec::new();
            for (name, value) in fields {
                match lines.iter_mut().find(|(other, _)| other == name) {
                    Some((_, values)) => values.push(value),
                    None => lines.push((name, vec![value])),
                }
            }
            lines
        };
        let (fields, trailers) = (lines(&self.fields), lines(&self.trailers));
        (self.method, self.uri, self.body.clone(), fields, trailers)
    }

    fn request(&self) -> Request<Body> {
        let mut request = Request::builder().method(self.method).uri(self.uri);
        let length = self.body.len().to_string();
        let framing = |request: &mut request::Builder| {
            for (name, value) in &self.framing.fields {
                let value = value.unwrap_or(&length).parse().unwrap();
                request.headers_mut().unwrap().append(*name, value);
            }
        };
        if self.framing.http_2 {
            request = request.version(http::Version::HTTP_2);
        }
        for (at, (name, value)) in self.ignored.iter().chain(&self.fields).enumerate() {
            if at == self.framing.at {
                framing(&mut request);
            }
            request = request.header(*name, *value);
        }
        if self.framing.at >= self.ignored.len() + self.fields.len() {
            framing(&mut request);
        }
        let mut frames = Vec::new();
        let mut rest = &self.body[..];
        for cut in &self.framing.cuts {
            let (frame, tail) = rest.split_at((*cut).min(rest.len()));
            frames.push(Frame::data(Bytes::copy_from_slice(frame)));
            rest = tail;
        }
        frames.push(Frame::data(Bytes::copy_from_slice(rest)));
        if !self.trailers.is_empty() {
            let mut trailers = HeaderMap::new();
            for (name, value) in &self.trailers {
                trailers.append(*name, value.parse().unwrap());
            }
            frames.push(Frame::trailers(trailers));
        }
        request.body(stream(frames)).unwrap()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn two_requests_share_if_and_only_if_they_differ_in_nothing_but_framing_and_ignored_fields(
        (one, two) in pair(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let key = coalescing("POST").coalesce("QUERY".parse().unwrap());
        let layer = SingleflightLayer::with_extractor(key);
        let roles = runtime.block_on(together(&layer, vec![one.request(), two.request()]));
        let equal = one.identity() == two.identity();
        prop_assert_eq!(roles, [Leader, if equal { Follower } else { Leader }]);
    }

    #[test]
    fn a_body_of_any_length_differs_from_another_in_any_of_its_bytes(
        mut body in proptest::collection::vec(any::<u8>(), 1..4000),
        at: prop::sample::Index,
        change in 1..=255_u8,
    ) {
        let extractor = coalescing("POST");
        let key = |body: &[u8]| {
            let bytes = BodyBytes(Bytes::copy_from_slice(body));
            let request = Request::post("/").extension(bytes).body(()).unwrap();
            extractor.extract(&request.into_parts().0).unwrap()
        };
        let first = key(&body);
        prop_assert!(first == key(&body));
        let at = at.index(body.len());
        body[at] ^= change;
        prop_assert!(first != key(&body));
        body[at] ^= change;
        prop_assert!(first != key(&body[..at]));
        body.push(0);
        prop_assert!(first != key(&body));
    }
}
