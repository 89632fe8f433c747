//! What one client sends in a field that is in no key, and what it is answered, decides nobody else's answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::{Fields, Got, Origin, all, ask, assert_idle, get, request, roles};
use bytes::Bytes;
use http::{HeaderName, Request, Response, request::Parts};
use http_body_util::Empty;
use tower::Layer;
use tower_singleflight::{
    KeyExtractor, RequestKeyExtractor, Role, SingleflightLayer, method_and_uri, rules,
};

fn text(request: &Parts, name: &str) -> String {
    let lines = request.headers.get_all(name).iter();
    let lines: Vec<_> = lines
        .map(|line| String::from_utf8_lossy(line.as_bytes()))
        .collect();
    lines.join("|")
}

/// Answers with what stands in a field, without a `Vary`.
fn echo(status: u16, name: &'static str) -> Origin {
    Origin::new(move |request| {
        let response = Response::builder().status(status);
        let body = Bytes::from(text(request, name));
        response.body(body).expect("a response")
    })
}

/// All ask before the first is answered.
async fn together<X: KeyExtractor>(
    layer: SingleflightLayer<X>,
    origin: &Origin,
    requests: impl IntoIterator<Item = Request<Empty<Bytes>>>,
) -> Vec<Got> {
    let service = layer.layer(origin.clone());
    let asked: Vec<_> = requests.into_iter().map(|one| ask(&service, one)).collect();
    origin.open();
    let got = all(asked).await;
    assert_idle(&layer.handle());
    got
}

fn with(fields: Fields<'_>) -> Request<Empty<Bytes>> {
    request("GET", "/", fields)
}

#[tokio::test]
async fn two_tenants_that_forwarded_alone_tells_apart_get_their_own_pages() {
    let rows: &[[&[u8]; 2]] = &[
        [
            b"by=3.0.0.1;for=198.51.100.7;host=acme.example;proto=https",
            b"by=3.0.0.1;for=198.51.100.7;host=other.example;proto=https",
        ],
        [b"for=192.0.2.1;proto=http", b"for=192.0.2.1;proto=https"],
        [b"for=192.0.2.1", b"for=192.0.2.1;host=evil.example"],
        [b"for=192.0.2.1", b"for=\"192.0.2.1;host=evil.example\""],
        [b"for=192.0.2.1", b"for=192.0.2.1, host=evil.example"],
    ];
    for row in rows {
        let origin = echo(200, "forwarded");
        let asked = row.map(|value| with(&[("forwarded", value)]));
        let got = together(SingleflightLayer::new(), &origin, asked).await;
        assert_eq!(roles(&got), [Role::Leader; 2]);
        for (value, got) in row.iter().zip(&got) {
            assert_eq!(&got.body, value);
        }
    }
}

#[tokio::test]
async fn clients_that_forwarded_names_by_their_addresses_alone_share_a_call() {
    let origin = Origin::page();
    let asked = [
        "for=192.0.2.1",
        "for=192.0.2.2;by=10.0.0.1",
        "For=1.2.3.4:80;;",
    ]
    .map(|value| with(&[("forwarded", value.as_bytes())]));
    let got = together(SingleflightLayer::new(), &origin, asked).await;
    assert_eq!(roles(&got), [Role::Leader, Role::Follower, Role::Follower]);
    assert_eq!(origin.calls(), 1);
}

#[tokio::test]
async fn fields_that_route_or_bind_a_service_keep_two_requests_apart() {
    for name in ["baggage", "tracestate", "sec-gpc", "dnt"] {
        let origin = echo(200, name);
        let asked = [b"a", b"b"].map(|value| with(&[(name, value)]));
        let got = together(SingleflightLayer::new(), &origin, asked).await;
        assert_eq!(
            (&got[0].body[..], &got[1].body[..]),
            (&b"a"[..], &b"b"[..]),
            "{name}"
        );
    }
}

/// The ignored fields that describe the client or hold its address.
const CLIENT: [&str; 10] = [
    "user-agent",
    "referer",
    "sec-fetch-site",
    "sec-fetch-anything",
    "sec-ch-ua",
    "sec-ch-anything",
    "x-forwarded-for",
    "x-real-ip",
    "forwarded",
    "Sec-CH-UA-Mobile",
];

#[tokio::test]
async fn a_denial_made_for_one_client_is_not_anothers() {
    use Role::{Follower, Forwarded, Leader};
    for status in [403, 451] {
        for name in CLIENT {
            let origin = echo(status, name);
            let values: [&[u8]; 5] = [b"for=a", b"for=b", b"for=a", b"for=b", b"for=c"];
            let asked = values.map(|value| with(&[(name, value)]));
            let got = together(SingleflightLayer::new(), &origin, asked).await;
            for (value, got) in values.iter().zip(&got) {
                assert_eq!(&got.body, value, "{status} {name}");
            }
            assert_eq!(
                roles(&got),
                [Leader, Forwarded, Follower, Follower, Forwarded]
            );
            assert_eq!(origin.calls(), 3, "{status} {name}");
        }
    }
}

#[tokio::test]
async fn a_denial_made_for_one_client_is_not_a_newcomers_either() {
    for status in [403, 451] {
        // The body is never over, so the flight stays open.
        let layer = SingleflightLayer::new();
        let service =
            layer.layer(tower::service_fn(move |request: Request<Empty<Bytes>>| {
                let agent = request.headers()["user-agent"].clone();
                let response = Response::builder()
                    .status(status)
                    .header("x-made-for", agent)
                    .header("content-length", "5");
                let body = http_body_util::StreamBody::new(futures_util::stream::pending::<
                    Result<http_body::Frame<Bytes>, std::convert::Infallible>,
                >());
                async move {
                    Ok::<_, std::convert::Infallible>(response.body(body).expect("a response"))
                }
            }));
        let ask = |agent: &'static str| {
            let call = tower::Service::call(
                &mut service.clone(),
                with(&[("user-agent", agent.as_bytes())]),
            );
            async move {
                let Ok(response) = call.await;
                response
            }
        };
        let first = ask("a").await;
        for agent in ["b", "a"] {
            assert_eq!(ask(agent).await.headers()["x-made-for"], agent);
        }
        drop(first);
        assert_idle(&layer.handle());
    }
}

#[tokio::test]
async fn a_denial_by_an_address_that_the_user_ignores_is_not_anothers() {
    let names: Vec<_> = RequestKeyExtractor::client_address_headers().collect();
    for name in &names {
        let denies = |status: u16| {
            let name = name.clone();
            Origin::new(move |request| {
                let response = Response::builder().status(status);
                let body = request.headers[&name].as_bytes().to_vec();
                response.body(body.into()).expect("a response")
            })
        };
        let layer = || {
            let extractor = RequestKeyExtractor::new();
            SingleflightLayer::with_extractor(extractor.ignore_headers(names.clone()))
        };
        let asked = || [b"1", b"2"].map(|value| with(&[(name.as_str(), value)]));
        for status in [403, 451] {
            let got = together(layer(), &denies(status), asked()).await;
            assert_eq!((&got[0].body[..], &got[1].body[..]), (&b"1"[..], &b"2"[..]));
        }
        let got = together(layer(), &denies(200), asked()).await;
        assert_eq!(roles(&got), [Role::Leader, Role::Follower], "{name}");
    }
}

#[tokio::test]
async fn a_denial_is_shared_by_those_who_describe_themselves_in_the_same_way() {
    let fields: Fields<'_> = &[
        ("user-agent", b"a"),
        ("sec-ch-ua", b"b"),
        ("sec-fetch-site", b"c"),
        ("x-forwarded-for", b"d"),
    ];
    for status in [403, 451] {
        let origin = echo(status, "user-agent");
        let asked = [fields; 3].map(with);
        let got = together(SingleflightLayer::new(), &origin, asked).await;
        assert_eq!(roles(&got), [Role::Leader, Role::Follower, Role::Follower]);
    }
}

#[tokio::test]
async fn a_denial_varies_by_the_client_under_a_users_key_as_well() {
    for name in CLIENT.into_iter().chain(["true-client-ip"]) {
        let origin = echo(451, name);
        let asked = [b"a", b"b"].map(|value| with(&[(name, value)]));
        let layer = SingleflightLayer::with_key(method_and_uri);
        let got = together(layer, &origin, asked).await;
        assert_eq!(
            (&got[0].body[..], &got[1].body[..]),
            (&b"a"[..], &b"b"[..]),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_redirect_back_leads_everybody_to_where_they_came_from() {
    let back = |status: u16| {
        Origin::new(move |request| {
            let response = Response::builder().status(status);
            let response = response.header("location", text(request, "referer"));
            response.body(Bytes::new()).expect("a response")
        })
    };
    for status in [301, 302, 303, 307, 308] {
        let (a, b) = ("https://a.example/1?x", "https://a.example/2");
        let referers = [a, b, a, b];
        let asked = referers.map(|referer| with(&[("referer", referer.as_bytes())]));
        let origin = back(status);
        let got = together(SingleflightLayer::new(), &origin, asked).await;
        for (referer, got) in referers.iter().zip(&got) {
            assert_eq!(got.head.headers["location"], referer, "{status}");
        }
        assert_eq!(origin.calls(), 2, "{status}");
    }
}

#[tokio::test]
async fn a_redirect_to_elsewhere_is_shared_wherever_the_callers_came_from() {
    let origin = Origin::new(|_| {
        let response = Response::builder().status(302).header("location", "/login");
        response.body(Bytes::new()).expect("a response")
    });
    let asked = ["https://a.example/1", "https://a.example/2"]
        .map(|referer| with(&[("referer", referer.as_bytes())]));
    let got = together(SingleflightLayer::new(), &origin, asked).await;
    assert_eq!(roles(&got), [Role::Leader, Role::Follower]);
}

// ===== one client's answer, and everybody's herd =====

/// Answers with a status of the caller's choice to whoever names one.
fn judging(fields: Fields<'static>) -> Origin {
    Origin::new(move |request| match request.headers.get("x-request-id") {
        Some(status) => {
            let status = std::str::from_utf8(status.as_bytes()).expect("text");
            let mut response = Response::builder().status(status);
            for (name, value) in fields {
                response = response.header(*name, *value);
            }
            response.body(Bytes::new()).expect("a response")
        }
        None => Response::new(Bytes::from_static(b"page")),
    })
}

/// What a herd does after one client, whose request has the same key, was answered so.
async fn herd_after<X: KeyExtractor>(
    layer: SingleflightLayer<X>,
    status: u16,
    fields: Fields<'static>,
) -> Vec<Role> {
    let origin = judging(fields);
    let service = layer.layer(origin.clone());
    origin.admit(1);
    let status = status.to_string();
    let one = ask(&service, with(&[("x-request-id", status.as_bytes())]));
    assert_eq!(one.await.unwrap().head.status.as_str(), status);
    let herd = [(); 3].map(|()| ask(&service, get("/")));
    origin.open();
    let got = all(herd).await;
    assert!(got.iter().all(|got| got.body == "page"));
    assert_idle(&layer.handle());
    roles(&got)
}

const COALESCED: [Role; 3] = [Role::Leader, Role::Follower, Role::Follower];

const OF_ONE_CLIENT: [u16; 22] = [
    400, 408, 411, 413, 415, 417, 419, 421, 425, 426, 428, 429, 431, 440, 494, 495, 496, 497, 498,
    499, 505, 511,
];

#[tokio::test]
async fn an_answer_to_one_client_does_not_switch_coalescing_off_for_the_others() {
    for status in OF_ONE_CLIENT {
        let default = SingleflightLayer::new();
        assert_eq!(
            herd_after(default, status, &[]).await,
            COALESCED,
            "{status}"
        );
        let policy = SingleflightLayer::new()
            .share_when(|it| it.status.is_success() && rules::shareable(it));
        assert_eq!(herd_after(policy, status, &[]).await, COALESCED, "{status}");
        let tenants = SingleflightLayer::with_key(method_and_uri);
        assert_eq!(
            herd_after(tenants, status, &[]).await,
            COALESCED,
            "{status}"
        );
    }
}

#[tokio::test]
async fn a_field_that_forbids_sharing_makes_such_an_answers_key_remembered() {
    let fields: &[Fields<'static>] = &[
        &[("set-cookie", b"a=b")],
        &[("cache-control", b"private")],
        &[("cdn-cache-control", b"no-store")],
        &[("x-accel-expires", b"0")],
        &[("vary", b"*")],
        &[("www-authenticate", b"Basic")],
    ];
    for status in OF_ONE_CLIENT {
        for fields in fields {
            let roles = herd_after(SingleflightLayer::new(), status, fields).await;
            assert_eq!(roles, [Role::Forwarded; 3], "{status} {fields:?}");
        }
    }
}

#[tokio::test]
async fn every_other_answer_that_may_not_be_shared_makes_its_key_remembered() {
    for status in [401, 402, 406, 407, 409, 422, 423, 424] {
        let roles = herd_after(SingleflightLayer::new(), status, &[]).await;
        assert_eq!(roles, [Role::Forwarded; 3], "{status}");
    }
    let policy = SingleflightLayer::new().share_when(|it| !it.status.is_server_error());
    assert_eq!(herd_after(policy, 503, &[]).await, [Role::Forwarded; 3]);
}

#[tokio::test(start_paused = true)]
async fn one_client_over_its_limit_does_not_multiply_the_calls_for_the_others() {
    /// How many of the calls of 50 ms are made for 20 callers who ask for ten seconds.
    async fn calls(refused_every: Option<Duration>) -> f64 {
        let for_others = Arc::new(AtomicUsize::new(0));
        let layer = SingleflightLayer::new();
        let origin = Origin::new(|request| {
            let status = match request.headers.contains_key("x-forwarded-for") {
                true => 429,
                false => 200,
            };
            let response = Response::builder().status(status);
            response
                .body(Bytes::from_static(b"page"))
                .expect("a response")
        });
        let inner = {
            let (origin, for_others) = (origin.clone(), Arc::clone(&for_others));
            tower::service_fn(move |request: Request<Empty<Bytes>>| {
                let refused = request.headers().contains_key("x-forwarded-for");
                let call = tower::Service::call(&mut origin.clone(), request);
                if !refused {
                    for_others.fetch_add(1, Ordering::SeqCst);
                }
                async move {
                    if !refused {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    call.await
                }
            })
        };
        origin.open();
        let service = layer.layer(inner);
        let refused_calls = match refused_every {
            Some(every) => 10_000 / every.as_millis() as usize,
            None => 0,
        };
        let mut tasks = Vec::new();
        for caller in 0..20_u64 {
            let service = service.clone();
            tasks.push(tokio::spawn(async move {
                for turn in 0..200 {
                    let pause = 20 + (caller * 7919 + turn * 104_729) % 60;
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                    ask(&service, get("/")).await.unwrap();
                }
            }));
        }
        for _ in 0..refused_calls {
            let field: Fields<'_> = &[("x-forwarded-for", b"203.0.113.66")];
            drop(ask(&service, with(field)));
            tokio::time::sleep(refused_every.expect("there are some")).await;
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_idle(&layer.handle());
        for_others.load(Ordering::SeqCst) as f64
    }
    let alone = calls(None).await;
    for every in [200, 20, 5] {
        let with = calls(Some(Duration::from_millis(every))).await;
        assert!(
            with < 2.0 * alone,
            "{with} calls, {alone} without the client, each {every} ms"
        );
    }
}

#[tokio::test]
async fn a_key_of_the_users_names_a_header_of_its_own() {
    // The counterpart: what a user takes into the key keeps apart.
    let agent = HeaderName::from_static("user-agent");
    let default = RequestKeyExtractor::new();
    let key = move |request: &Parts| {
        let agent = request.headers.get(&agent).cloned();
        Some((default.extract(request)?, agent))
    };
    let origin = echo(200, "user-agent");
    let asked = [b"a", b"b"].map(|value| with(&[("user-agent", value)]));
    let got = together(SingleflightLayer::with_key(key), &origin, asked).await;
    assert_eq!((&got[0].body[..], &got[1].body[..]), (&b"a"[..], &b"b"[..]));
}
