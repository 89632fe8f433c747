//! Who shares a response that varies, against a slow and plain account of it: those of one key who agree, byte for byte, in
//! every field that `Vary` names.

use bytes::Bytes;
use http::{HeaderName, Request, Response, request::Parts};
use http_body_util::Empty;
use proptest::prelude::*;
use proptest::sample::select;
use tower::Layer;
use tower_singleflight::{
    KeyExtractor, RequestKeyExtractor, Role, SingleflightLayer, method_and_uri,
};

use crate::support::{Got, Origin, all, ask, assert_idle};

/// In the default key, on its list, on the user's list, or of the connection.
const NAMES: [&str; 11] = [
    "accept",
    "authorization",
    "cookie",
    "user-agent",
    "forwarded",
    "sec-ch-ua",
    "x-forwarded-for",
    "x-b3-traceid",
    "x-noise",
    "te",
    "connection",
];

type Field = (&'static str, Vec<u8>);

#[derive(Clone, Debug)]
struct Case {
    status: u16,
    vary: Vec<&'static str>,
    /// As many lines as this stand before the others, the same in each request.
    filler: usize,
    requests: Vec<Vec<Field>>,
}

/// All that an answer could depend on.
fn told(request: &Parts, vary: &[&'static str]) -> Vec<u8> {
    let mut told = Vec::new();
    for name in vary {
        for value in request.headers.get_all(*name) {
            told.extend_from_slice(name.as_bytes());
            told.push(b'=');
            told.extend_from_slice(value.as_bytes());
            told.push(b'\n');
        }
    }
    told
}

fn names_of(status: u16, vary: &[&'static str]) -> Vec<&'static str> {
    let mut names = vary.to_vec();
    if status == 403 {
        names.extend(["authorization", "cookie"]);
    }
    if matches!(status, 403 | 451) {
        names.extend(["user-agent", "forwarded", "sec-ch-ua", "x-forwarded-for"]);
    }
    names
}

impl Case {
    fn request(&self, at: usize) -> Request<Empty<Bytes>> {
        let mut request = Request::get("/");
        for _ in 0..self.filler {
            request = request.header("filler", "some");
        }
        for (name, value) in &self.requests[at] {
            request = request.header(*name, value.as_slice());
        }
        request.body(Empty::new()).expect("a request")
    }

    fn origin(&self) -> Origin {
        let Self { status, vary, .. } = self.clone();
        let names = names_of(status, &vary);
        Origin::new(move |request| {
            let response = Response::builder().status(status);
            response
                .header("vary", vary.join(","))
                .body(Bytes::from(told(request, &names)))
                .expect("a response")
        })
    }

    /// Runs it with requests that are all there before the first is answered.
    async fn run<X: KeyExtractor>(&self, extractor: X, layer: SingleflightLayer<X>) {
        let origin = self.origin();
        let service = layer.layer(origin.clone());
        let names = names_of(self.status, &self.vary);
        // The calls that there must be: of each the key, what the answer depends on, and whether it may be shared.
        let mut calls: Vec<(X::Key, Vec<u8>, bool)> = Vec::new();
        let (mut asked, mut expected) = (Vec::new(), Vec::new());
        for at in 0..self.requests.len() {
            let (parts, _) = self.request(at).into_parts();
            let key = extractor.extract(&parts).expect("a key");
            let told = told(&parts, &names);
            let refused = self.status == 403
                && ["authorization", "cookie"]
                    .iter()
                    .any(|name| parts.headers.contains_key(*name));
            let shares = calls
                .iter()
                .any(|(other, others, alone)| *other == key && *others == told && !alone);
            if !shares {
                calls.push((key, told.clone(), refused));
            }
            expected.push((told, shares));
            asked.push(ask(&service, self.request(at)));
        }
        origin.open();
        let got = all(asked).await;
        for (Got { role, body, .. }, (told, shares)) in got.iter().zip(&expected) {
            assert_eq!(body, told, "another's answer");
            // Once a response of the key was refused to all, each makes its own call.
            if self.status != 403 {
                assert_eq!(*role == Role::Follower, *shares, "{role:?}");
            }
        }
        if self.status != 403 {
            assert_eq!(origin.calls(), calls.len());
        }
        assert_idle(&layer.handle());
    }
}

fn fields() -> impl Strategy<Value = Vec<Field>> {
    let value = prop_oneof![
        6 => select(vec!["", "a", "b", "A", "a,b"]).prop_map(|text| text.as_bytes().to_vec()),
        1 => Just(vec![0xff]),
        // Of which few fit into what holds the leader's fields.
        1 => (1..3_u8).prop_map(|byte| vec![b'0' + byte; 400]),
    ];
    let field = (select(NAMES.to_vec()), value).prop_map(|(name, value)| {
        // Garbled, it would be a request that makes its own call.
        let garbled = name == "connection" && value == [0xff];
        (name, if garbled { b"accept".to_vec() } else { value })
    });
    proptest::collection::vec(field, 0..7)
}

fn case() -> impl Strategy<Value = Case> {
    let vary = proptest::collection::vec(select(NAMES.to_vec()), 0..4);
    let filler = prop_oneof![2 => Just(0_usize), 1 => 58..66_usize];
    let status = prop_oneof![4 => Just(200_u16), 1 => Just(403), 1 => Just(451)];
    let requests = proptest::collection::vec(fields(), 1..3).prop_flat_map(|few| {
        // The same few, again and again, so that some agree.
        proptest::collection::vec(select(few), 2..6)
    });
    (status, vary, filler, requests).prop_map(|(status, vary, filler, requests)| Case {
        status,
        vary,
        filler,
        requests,
    })
}

fn block_on(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn those_of_one_default_key_share_who_agree_in_what_vary_names(case in case()) {
        let extractor = || RequestKeyExtractor::new().ignore_headers([
            HeaderName::from_static("x-noise"),
            http::header::COOKIE,
        ]);
        block_on(case.run(extractor(), SingleflightLayer::with_extractor(extractor())));
    }

    #[test]
    fn those_of_one_key_of_the_users_share_who_agree_in_what_vary_names(case in case()) {
        block_on(case.run(method_and_uri, SingleflightLayer::with_key(method_and_uri)));
    }
}
