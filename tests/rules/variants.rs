//! `Vary`: followers of another variant are regrouped, and nobody gets what was made for another.

use std::task::Poll;

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body::SizeHint;
use http_body_util::{BodyExt, Empty};
use tower::{BoxError, Layer, Service};
use tower_singleflight::{Role, SingleflightLayer, method_and_uri};

use crate::support::{
    self, Fields, Got, Origin, all, ask, assert_idle,
    body::{self, Copied},
    count, request, roles,
};

fn text(request: &Parts, name: &str) -> String {
    let lines = request.headers.get_all(name).iter();
    let lines: Vec<_> = lines
        .map(|line| String::from_utf8_lossy(line.as_bytes()))
        .collect();
    lines.join("|")
}

/// Answers with what it was asked for in these fields, and says so in `Vary`.
fn varying(status: u16, vary: &'static [&'static str], by: &'static [&'static str]) -> Origin {
    Origin::new(move |request| {
        let mut response = Response::builder().status(status);
        for line in vary {
            response = response.header("vary", *line);
        }
        let body: Vec<_> = by.iter().map(|name| text(request, name)).collect();
        response
            .body(Bytes::from(body.join(";")))
            .expect("a response")
    })
}

fn coding(coding: &str) -> Request<Empty<Bytes>> {
    request("GET", "/", &[("accept-encoding", coding.as_bytes())])
}

fn bodies(got: &[Got]) -> Vec<&str> {
    got.iter()
        .map(|got| std::str::from_utf8(&got.body).expect("text"))
        .collect()
}

/// The first `leader` leads; then all `followers` join; then the origin answers everything at once.
async fn herd(origin: &Origin, leader: &str, followers: &[&str]) -> Vec<Got> {
    let layer = SingleflightLayer::with_key(method_and_uri);
    let service = layer.layer(origin.clone());
    let mut asked = vec![ask(&service, coding(leader))];
    asked.extend(followers.iter().map(|one| ask(&service, coding(one))));
    assert_eq!(layer.handle().stats().waiters, asked.len());
    support::settle().await;
    origin.open();
    let got = all(asked).await;
    let wanted = std::iter::once(&leader).chain(followers);
    for (wanted, got) in wanted.zip(&got) {
        assert_eq!(got.body, *wanted, "somebody got another's variant");
    }
    assert_idle(&layer.handle());
    let stats = layer.handle().stats();
    assert_eq!(stats.joined, followers.len() as u64);
    assert_eq!(stats.forwarded, count(&got, Role::Forwarded) as u64);
    got
}

const CODING: &[&str] = &["accept-encoding"];

#[tokio::test]
async fn one_gzip_and_ten_br_are_two_calls_though_the_upstream_answers_at_once() {
    let origin = varying(200, CODING, CODING);
    let got = herd(&origin, "gzip", &["br"; 10]).await;
    assert_eq!(origin.calls(), 2);
    assert_eq!(
        (count(&got, Role::Forwarded), count(&got, Role::Follower)),
        (1, 9)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_gzip_and_ten_br_are_two_calls_on_many_threads() {
    for _ in 0..200 {
        let origin = varying(200, CODING, CODING);
        let got = herd(&origin, "gzip", &["br"; 10]).await;
        assert_eq!(origin.calls(), 2, "{:?}", roles(&got));
        assert_eq!(
            (count(&got, Role::Forwarded), count(&got, Role::Follower)),
            (1, 9)
        );
    }
}

#[tokio::test]
async fn three_variants_are_three_calls() {
    let origin = varying(200, CODING, CODING);
    let got = herd(
        &origin,
        "gzip",
        &["br", "zstd", "gzip", "br", "zstd", "br", "gzip"],
    )
    .await;
    assert_eq!(origin.calls(), 3);
    use Role::{Follower, Forwarded, Leader};
    assert_eq!(
        roles(&got),
        [
            Leader, Forwarded, Forwarded, Follower, Follower, Follower, Follower, Follower
        ]
    );
}

#[tokio::test]
async fn the_variants_calls_are_in_the_inner_service_at_the_same_time() {
    let origin = varying(200, CODING, CODING);
    let layer = SingleflightLayer::with_key(method_and_uri);
    let service = layer.layer(origin.clone());
    let mut asked = vec![ask(&service, coding("gzip"))];
    for one in ["br", "zstd", "deflate", "br", "zstd", "deflate"] {
        asked.push(ask(&service, coding(one)));
    }
    origin.until_inside(1).await;
    origin.admit(1);
    origin.until_inside(3).await;
    // Of the gzip flight everything has been read; each of the others has two callers.
    let handle = layer.handle();
    let key = method_and_uri(&coding("br").into_parts().0).unwrap();
    assert_eq!((handle.in_flight(), handle.waiters(&key)), (3, 6));
    origin.open();
    let got = all(asked).await;
    assert_eq!(origin.calls(), 4);
    assert_eq!(
        bodies(&got),
        ["gzip", "br", "zstd", "deflate", "br", "zstd", "deflate"]
    );
    assert_idle(&handle);
}

#[tokio::test]
async fn a_newcomer_joins_the_flight_of_its_own_variant() {
    let origin = varying(200, CODING, CODING);
    let layer = SingleflightLayer::with_key(method_and_uri);
    let service = layer.layer(origin.clone());
    let mut asked = vec![ask(&service, coding("gzip")), ask(&service, coding("br"))];
    origin.until_inside(1).await;
    origin.admit(1);
    let gzip = asked.remove(0).await.unwrap();
    assert_eq!(gzip.body, "gzip");
    origin.until_inside(1).await;
    // The br flight is in the air. One more br joins it, and a zstd need not wait for its head to lead its own.
    asked.push(ask(&service, coding("br")));
    asked.push(ask(&service, coding("zstd")));
    asked.push(ask(&service, coding("zstd")));
    origin.until_inside(2).await;
    assert_eq!(layer.handle().in_flight(), 2);
    origin.open();
    let got = all(asked).await;
    assert_eq!(bodies(&got), ["br", "br", "zstd", "zstd"]);
    use Role::{Follower, Forwarded, Leader};
    assert_eq!(roles(&got), [Forwarded, Follower, Leader, Follower]);
    assert_eq!(origin.calls(), 3);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn forget_detaches_all_variants() {
    let origin = varying(200, CODING, CODING);
    let layer = SingleflightLayer::with_key(method_and_uri);
    let service = layer.layer(origin.clone());
    let asked = ["gzip", "br", "zstd"].map(|one| ask(&service, coding(one)));
    origin.until_inside(1).await;
    origin.admit(1);
    origin.until_inside(2).await;
    let handle = layer.handle();
    let key = method_and_uri(&coding("br").into_parts().0).unwrap();
    assert_eq!((handle.in_flight(), handle.waiters(&key)), (2, 2));
    assert!(handle.forget(&key));
    assert_eq!((handle.in_flight(), handle.waiters(&key)), (0, 0));
    assert!(!handle.forget(&key));
    origin.open();
    assert_eq!(bodies(&all(asked).await), ["gzip", "br", "zstd"]);
    assert_idle(&handle);
}

/// A request to an origin that is answered by hand.
fn asks(
    service: &body::Layered,
    coding: &str,
) -> tokio::task::JoinHandle<Result<Copied, BoxError>> {
    let fields = [("accept-encoding", coding.as_bytes())];
    tokio::spawn(service.clone().call(request("GET", "/page", &fields)))
}

fn varies() -> http::response::Builder {
    Response::builder().header("vary", "accept-encoding")
}

#[tokio::test]
async fn a_variants_flight_is_its_keys_though_its_own_response_varies_by_nothing() {
    let (service, mut calls, handle) = body::stack(&body::layer());
    let key = body::key();
    let (gzip, br) = (asks(&service, "gzip"), asks(&service, "br"));
    support::settle().await;
    calls.call().begin_with(varies(), SizeHint::new()).end();
    drop(gzip.await.unwrap().unwrap());
    support::settle().await;
    let feed = calls.call().begin();
    let br = br.await.unwrap().unwrap();
    assert_eq!((handle.in_flight(), handle.waiters(&key)), (1, 1));
    let again = asks(&service, "br").await.unwrap().unwrap();
    assert_eq!(support::role(&again), Role::Follower);
    assert_eq!((handle.waiters(&key), calls.count()), (2, 2));
    assert!(handle.forget(&key));
    assert!(!handle.forget(&key));
    feed.end();
    drop((br, again));
    assert_idle(&handle);
}

#[tokio::test]
async fn who_has_moved_is_counted_out_of_its_old_flight_once() {
    let (service, mut calls, handle) = body::stack(&body::layer());
    let (gzip, br) = (asks(&service, "gzip"), asks(&service, "br"));
    support::settle().await;
    let feed = calls.call().begin_with(varies(), SizeHint::new());
    let gzip = gzip.await.unwrap().unwrap();
    support::settle().await;
    br.abort();
    assert!(br.await.unwrap_err().is_cancelled());
    // The old flight goes on, for its leader.
    assert_eq!((handle.in_flight(), handle.waiters(&body::key())), (1, 1));
    feed.send("gzip");
    feed.end();
    assert_eq!(support::read(gzip).await.body, "gzip");
    assert_idle(&handle);
}

#[tokio::test]
async fn what_is_set_aside_for_a_response_is_given_back_when_its_last_caller_moves() {
    let (mut service, mut calls, handle) = body::stack(&body::layer());
    let leader = service.call(request("GET", "/page", &[("accept-encoding", b"gzip")]));
    // It is not polled, so it does not find out.
    let follower = service.call(request("GET", "/page", &[("accept-encoding", b"br")]));
    drop(leader);
    let feed = calls.call().begin_with(varies(), SizeHint::with_exact(100));
    support::settle().await;
    let stats = handle.stats();
    assert_eq!((stats.in_flight, stats.buffered_bytes), (1, 0));
    assert!(feed.is_dropped());
    drop(follower);
    assert_idle(&handle);
}

#[tokio::test]
async fn what_is_kept_of_a_body_is_given_back_at_its_end_where_its_last_caller_has_moved() {
    let layer = body::layer().finish_abandoned(true);
    let (mut service, mut calls, handle) = body::stack(&layer);
    let leader = service.call(request("GET", "/page", &[("accept-encoding", b"gzip")]));
    let follower = service.call(request("GET", "/page", &[("accept-encoding", b"br")]));
    drop(leader);
    let feed = calls.call().begin_with(varies(), SizeHint::new());
    feed.send("abandoned");
    support::settle().await;
    assert_eq!(handle.in_flight(), 2);
    feed.end();
    support::settle().await;
    let stats = handle.stats();
    assert_eq!((stats.in_flight, stats.buffered_bytes), (1, 0));
    drop(follower);
    assert_idle(&handle);
}

#[tokio::test]
async fn fields_from_several_lines_and_in_any_case_are_obeyed() {
    let origin = varying(
        200,
        &["Accept-Encoding ,, ", "X-A", "", "COOKIE"],
        &["accept-encoding", "x-a", "cookie"],
    );
    let layer = SingleflightLayer::with_key(method_and_uri);
    let service = layer.layer(origin.clone());
    let rows: [Fields<'_>; 6] = [
        &[("x-a", b"1")],
        &[("x-a", b"2")],
        &[("x-a", b"1"), ("cookie", b"c")],
        &[("x-a", b"1"), ("accept-encoding", b"br")],
        &[("x-a", b"1"), ("x-a", b"1")],
        &[("x-other", b"1"), ("x-a", b"1")],
    ];
    let asked = rows.map(|fields| ask(&service, request("GET", "/", fields)));
    origin.open();
    let got = all(asked).await;
    assert_eq!(
        bodies(&got),
        [";1;", ";2;", ";1;c", "br;1;", ";1|1;", ";1;"]
    );
    assert_eq!(got[5].role, Role::Follower);
    assert_eq!(origin.calls(), 5);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn vary_by_an_ignored_field_is_obeyed_under_the_default_key() {
    let origin = varying(200, &["user-agent"], &["user-agent"]);
    let layer = SingleflightLayer::new();
    let service = layer.layer(origin.clone());
    let agents: [&[u8]; 4] = [b"cat", b"dog", b"dog", b"cat"];
    let asked = agents.map(|agent| ask(&service, request("GET", "/", &[("user-agent", agent)])));
    origin.open();
    assert_eq!(bodies(&all(asked).await), ["cat", "dog", "dog", "cat"]);
    assert_eq!(origin.calls(), 2);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn an_asterisk_differs_always() {
    let origin = varying(200, &["*"], CODING);
    let got = herd(&origin, "gzip", &["gzip", "br"]).await;
    assert_eq!(
        roles(&got),
        [Role::Leader, Role::Forwarded, Role::Forwarded]
    );
    assert_eq!(origin.calls(), 3);
}

#[tokio::test]
async fn answers_to_conditions_and_ranges_go_to_those_alone_who_asked_for_the_same() {
    const FIELDS: &[&str] = &[
        "range",
        "if-range",
        "if-match",
        "if-none-match",
        "if-modified-since",
        "if-unmodified-since",
    ];
    for status in [200, 206, 304, 412, 416] {
        for name in FIELDS {
            let origin = varying(status, &[], FIELDS);
            let layer = SingleflightLayer::with_key(method_and_uri);
            let service = layer.layer(origin.clone());
            let one: Fields<'_> = &[(name, b"1")];
            let two: Fields<'_> = &[(name, b"2")];
            let rows = [one, two, &[], one, two];
            let asked = rows.map(|fields| ask(&service, request("GET", "/", fields)));
            origin.open();
            let got = all(asked).await;
            if status == 200 {
                assert_eq!(origin.calls(), 1, "{status} {name}");
            } else {
                assert_eq!(origin.calls(), 3, "{status} {name}");
                let bodies = bodies(&got);
                assert_eq!((bodies[0], bodies[1]), (bodies[3], bodies[4]));
                assert_ne!(bodies[0], bodies[1]);
                assert_eq!(bodies[2], ";;;;;");
            }
            assert_idle(&layer.handle());
        }
    }
}

#[tokio::test]
async fn a_variant_whose_callers_have_all_gone_is_not_called() {
    let origin = varying(200, CODING, CODING);
    let layer = SingleflightLayer::with_key(method_and_uri);
    let service = layer.layer(origin.clone());
    let leader = ask(&service, coding("gzip"));
    let gone = [(); 3].map(|()| ask(&service, coding("br")));
    support::settle().await;
    for one in gone {
        one.abort();
        assert!(one.await.unwrap_err().is_cancelled());
    }
    assert_eq!(layer.handle().stats().waiters, 1);
    origin.open();
    assert_eq!(leader.await.unwrap().body, "gzip");
    assert_eq!(origin.calls(), 1);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_variants_leader_that_goes_leaves_the_flight_to_its_followers() {
    let origin = varying(200, CODING, CODING);
    let layer = SingleflightLayer::with_key(method_and_uri);
    let service = layer.layer(origin.clone());
    let gzip = ask(&service, coding("gzip"));
    let mut br: Vec<_> = (0..3).map(|_| ask(&service, coding("br"))).collect();
    origin.until_inside(1).await;
    origin.admit(1);
    assert_eq!(gzip.await.unwrap().body, "gzip");
    origin.until_inside(1).await;
    let first = br.remove(0);
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!(layer.handle().stats().waiters, 2);
    origin.open();
    let got = all(br).await;
    assert_eq!(roles(&got), [Role::Follower; 2]);
    assert_eq!((bodies(&got), origin.calls()), (vec!["br"; 2], 2));
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_variant_is_called_by_the_first_of_its_callers_to_be_polled() {
    // The flight of the variant must not hang on the other.
    use tower::Service;
    let origin = varying(200, CODING, CODING);
    let layer = SingleflightLayer::with_key(method_and_uri);
    let mut service = layer.layer(origin.clone());
    let gzip = ask(&service, coding("gzip"));
    let parked = service.call(coding("br"));
    let awaited = ask(&service, coding("br"));
    origin.open();
    assert_eq!(gzip.await.unwrap().body, "gzip");
    let got = awaited.await.unwrap();
    assert_eq!((got.role, &got.body[..]), (Role::Forwarded, &b"br"[..]));
    let Ok(parked) = parked.await;
    let got = support::read(parked).await;
    assert_eq!(got.body, "br");
    assert_eq!(origin.calls(), 2);
    assert_idle(&layer.handle());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_follower_that_arrives_during_the_verdict_gets_its_own_variant() {
    for round in 0..3000 {
        let origin = varying(200, CODING, CODING);
        let layer = SingleflightLayer::with_key(method_and_uri);
        let service = layer.layer(origin.clone());
        let gzip = ask(&service, coding("gzip"));
        let first = ask(&service, coding("br"));
        // The verdict falls while these come, so that some are moved before they were ever polled.
        origin.open();
        let late: Vec<_> = (0..8).map(|_| ask(&service, coding("br"))).collect();
        assert_eq!(gzip.await.unwrap().body, "gzip", "{round}");
        for got in all([first]).await.into_iter().chain(all(late).await) {
            assert_eq!(got.body, "br", "{round} {:?}", got.role);
        }
        let handle = layer.handle();
        assert_eq!((handle.in_flight(), handle.stats().waiters), (0, 0));
    }
}

/// It is polled without a pause, so that it looks between any two steps of the verdict.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_follower_that_looks_all_the_time_during_the_verdict_gets_its_own_variant() {
    for round in 0..1000 {
        let origin = varying(200, CODING, CODING);
        let layer = SingleflightLayer::with_key(method_and_uri);
        let mut service = layer.layer(origin.clone());
        let gzip = ask(&service, coding("gzip"));
        let mut follower = service.call(coding("br"));
        origin.until_inside(1).await;
        let looking = std::thread::spawn(move || {
            loop {
                if let Poll::Ready(response) = support::poll_once(&mut follower) {
                    return response;
                }
            }
        });
        origin.open();
        let Ok(response) = looking.join().unwrap();
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "br", "{round}");
        assert_eq!(gzip.await.unwrap().body, "gzip", "{round}");
        assert_idle(&layer.handle());
    }
}
