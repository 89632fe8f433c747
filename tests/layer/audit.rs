//! `SingleflightLayer::audit`: requests that could follow make their own calls, and their answers are compared.

use http::{HeaderMap, HeaderValue, Response, response::Builder};
use http_body::{Body, SizeHint};
use tower::{BoxError, Layer, Service, service_fn};
use tower_singleflight::{
    Handle, RequestKeyExtractor, Role, SingleflightLayer, Stats, method_and_uri, rules,
};

use crate::support::{
    Origin, Rng, all, ask, assert_idle,
    body::{
        Call, Calls, Copied, Key, KeyOf, Polled, Req, assert_pending, body, data, frame, layer,
        lone_leader, now, ready, stack,
    },
    count, get, hush, panic_of, poll_once, read, request, role, settle,
};

/// A layer that coalesces nothing.
fn audited() -> SingleflightLayer<KeyOf> {
    layer().audit(1.0)
}

/// Same, differed, unknown.
fn audits(stats: Stats) -> [u64; 3] {
    let audits = [stats.audit_same, stats.audit_differed, stats.audit_unknown];
    assert_eq!(stats.audited, audits.iter().sum::<u64>());
    audits
}

const NONE: [u64; 3] = [0, 0, 0];
const SAME: [u64; 3] = [1, 0, 0];
const DIFFERED: [u64; 3] = [0, 1, 0];
const UNKNOWN: [u64; 3] = [0, 0, 1];

/// A flight and an audited request beside it, both called.
struct Pair<F> {
    leader: F,
    auditor: F,
    calls: (Call, Call),
    _origin: Calls,
    handle: Handle<Key>,
}

fn pair_of(
    layer: &SingleflightLayer<KeyOf>,
    one: Req,
    two: Req,
) -> Pair<impl Future<Output = Result<Copied, BoxError>> + Unpin + use<>> {
    let (mut service, mut origin, handle) = stack(layer);
    let leader = service.call(one);
    let auditor = service.call(two);
    assert_eq!(handle.waiters(&super::support::body::key()), 1);
    Pair {
        leader,
        auditor,
        calls: (origin.call(), origin.call()),
        _origin: origin,
        handle,
    }
}

fn pair() -> Pair<impl Future<Output = Result<Copied, BoxError>> + Unpin + use<>> {
    pair_of(&audited(), get("/page"), get("/page"))
}

/// Both answer, and both are read to the end.
async fn compared(
    layer: &SingleflightLayer<KeyOf>,
    one: (Builder, &[&'static str]),
    two: (Builder, &[&'static str]),
) -> [u64; 3] {
    let Pair {
        leader,
        auditor,
        calls: (first, second),
        handle,
        ..
    } = pair_of(layer, get("/page"), get("/page"));
    for (call, (head, body)) in [(first, one), (second, two)] {
        call.answer(head.body(ready(body, SizeHint::new())).unwrap());
    }
    let leader = read(leader.await.unwrap()).await;
    assert_eq!(leader.role, Role::Leader);
    let auditor = read(auditor.await.unwrap()).await;
    assert_eq!(auditor.role, Role::Forwarded);
    assert_idle(&handle);
    audits(handle.stats())
}

fn plain() -> Builder {
    Response::builder()
}

// ===== what becomes of an audited request =====

#[tokio::test]
async fn an_audited_request_makes_its_own_call_and_gets_its_own_answer() {
    let mut pair = pair();
    let (first, second) = pair.calls;
    let feed = first.begin();
    let other = second.begin_with(plain().header("x-a", "1"), SizeHint::with_exact(5));
    let mut leader = now(&mut pair.leader);
    let mut auditor = now(&mut pair.auditor);
    assert_eq!(
        (role(&leader), role(&auditor)),
        (Role::Leader, Role::Forwarded)
    );
    assert_eq!(auditor.headers()["x-a"], "1");
    assert_eq!(auditor.body().size_hint().exact(), Some(5));
    feed.send("page");
    other.send("other");
    assert_eq!(frame(leader.body_mut()), data("page"));
    assert_eq!(frame(auditor.body_mut()), data("other"));
    assert_eq!(auditor.body().size_hint().exact(), Some(0));
    let mut trailers = HeaderMap::new();
    trailers.insert("x-t", HeaderValue::from_static("1"));
    feed.end();
    other.trailers(trailers.clone());
    assert_eq!(frame(leader.body_mut()), Polled::End);
    assert!(!auditor.body().is_end_stream());
    assert_eq!(frame(auditor.body_mut()), Polled::Trailers(trailers));
    other.end();
    assert_eq!(frame(auditor.body_mut()), Polled::End);
    assert!(auditor.body().is_end_stream());
    drop((leader, auditor));

    let stats = pair.handle.stats();
    assert_eq!((stats.led, stats.joined, stats.forwarded), (1, 0, 1));
    assert_eq!(audits(stats), DIFFERED);
    assert_idle(&pair.handle);
}

#[tokio::test]
async fn an_audited_request_waits_for_nothing_that_the_flight_does() {
    let mut pair = pair();
    let (first, second) = pair.calls;
    // The flight has not answered, and the auditor has all.
    let feed = second.begin();
    let mut auditor = now(&mut pair.auditor).into_body();
    feed.send("page");
    assert_eq!(frame(&mut auditor), data("page"));
    feed.end();
    assert_eq!(frame(&mut auditor), Polled::End);
    drop(auditor);
    assert_eq!(audits(pair.handle.stats()), NONE);
    assert_pending(&mut pair.leader);
    first.answer(Response::new(ready(&["page"], SizeHint::new())));
    read(pair.leader.await.unwrap()).await;
    assert_eq!(audits(pair.handle.stats()), SAME);
    assert_idle(&pair.handle);
}

#[tokio::test]
async fn the_leader_waits_for_nothing_that_an_audited_request_does() {
    let mut pair = pair();
    let (first, second) = pair.calls;
    let feed = first.begin();
    let mut leader = now(&mut pair.leader).into_body();
    feed.send("pa");
    assert_eq!(frame(&mut leader), data("pa"));
    feed.send("ge");
    assert_eq!(frame(&mut leader), data("ge"));
    feed.end();
    assert_eq!(frame(&mut leader), Polled::End);
    drop(leader);
    assert_idle(&pair.handle);
    assert_pending(&mut pair.auditor);
    second.answer(Response::new(ready(&["page"], SizeHint::new())));
    read(pair.auditor.await.unwrap()).await;
    assert_eq!(audits(pair.handle.stats()), SAME);
}

#[tokio::test]
async fn an_audited_request_keeps_no_flight_alive_and_frees_no_key() {
    let Pair {
        leader,
        mut auditor,
        calls: (first, second),
        handle,
        ..
    } = pair();
    drop(leader);
    assert!(first.is_cancelled());
    assert_idle(&handle);
    assert!(!second.is_cancelled());
    assert_pending(&mut auditor);
    drop(auditor);
    assert!(second.is_cancelled());
    assert_eq!(audits(handle.stats()), UNKNOWN);
}

// ===== what is compared =====

#[tokio::test]
async fn equal_answers_are_the_same_however_their_bodies_are_framed() {
    let head = || plain().status(404).header("x-a", "1").header("x-a", "2");
    let one = (head(), &["pa", "ge"][..]);
    let two = (head(), &["p", "", "age"][..]);
    assert_eq!(compared(&audited(), one, two).await, SAME);
    let empty = (plain(), &[][..]);
    assert_eq!(compared(&audited(), empty, (plain(), &[])).await, SAME);
}

#[tokio::test]
async fn fields_that_differ_by_nature_are_not_compared() {
    for name in [
        "date",
        "age",
        "via",
        "server-timing",
        "cache-status",
        "expires",
        "x-request-id",
        "traceparent",
        "cf-ray",
        "keep-alive",
    ] {
        let one = (plain().header(name, "1"), &["page"][..]);
        let two = (plain().header(name, "2"), &["page"][..]);
        assert_eq!(compared(&audited(), one, two).await, SAME, "{name}");
        let one = (plain(), &["page"][..]);
        let two = (plain().header(name, "2"), &["page"][..]);
        assert_eq!(compared(&audited(), one, two).await, SAME, "{name}");
    }
    let named = |value| plain().header("connection", "x-hop").header("x-hop", value);
    let (one, two) = ((named("1"), &["page"][..]), (named("2"), &["page"][..]));
    assert_eq!(compared(&audited(), one, two).await, SAME);
}

#[tokio::test]
async fn a_field_that_the_users_key_ignores_is_not_compared() {
    let compare = async |key: RequestKeyExtractor| {
        let origin = Origin::new(|request| {
            let number: &crate::support::Number = request.extensions.get().expect("a number");
            let head = Response::builder().header("x-attempt", number.0.to_string());
            head.body("page".into()).expect("a response")
        });
        let layer = SingleflightLayer::with_extractor(key).audit(1.0);
        let service = layer.layer(origin.clone());
        let asked = [ask(&service, get("/")), ask(&service, get("/"))];
        origin.open();
        all(asked).await;
        assert_idle(&layer.handle());
        audits(layer.handle().stats())
    };
    let ignored = http::HeaderName::from_static("x-attempt");
    let key = RequestKeyExtractor::new();
    assert_eq!(compare(key.clone()).await, DIFFERED);
    assert_eq!(compare(key.ignore_header(ignored)).await, SAME);
}

#[tokio::test]
async fn another_status_field_or_body_is_a_difference() {
    let page = || (plain(), &["page"][..]);
    for (case, other) in [
        ("status", (plain().status(404), &["page"][..])),
        ("a field more", (plain().header("x-user", "a"), &["page"])),
        ("a cookie", (plain().header("set-cookie", "a=b"), &["page"])),
        (
            "a length",
            (plain().header("content-length", "4"), &["page"]),
        ),
        ("bytes", (plain(), &["pago"])),
        ("a longer body", (plain(), &["page", "s"])),
        ("a shorter body", (plain(), &["pag"])),
        ("no body", (plain(), &[])),
    ] {
        assert_eq!(
            compared(&audited(), page(), other).await,
            DIFFERED,
            "{case}"
        );
    }
    let values = |values: [&'static str; 2]| {
        let [one, two] = values;
        (plain().header("x-a", one).header("x-a", two), &[][..])
    };
    let (one, two) = (values(["1", "2"]), values(["2", "1"]));
    assert_eq!(compared(&audited(), one, two).await, DIFFERED, "order");
}

#[tokio::test]
async fn other_trailers_are_a_difference() {
    let trailers = |value| {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", HeaderValue::from_static(value));
        trailers
    };
    for (one, two, expected) in [
        (Some("1"), Some("1"), SAME),
        (Some("1"), Some("2"), DIFFERED),
        (None, Some("1"), DIFFERED),
        (Some("1"), None, DIFFERED),
    ] {
        let pair = pair();
        for (call, value) in [(pair.calls.0, one), (pair.calls.1, two)] {
            let feed = call.begin();
            feed.send("page");
            if let Some(value) = value {
                feed.trailers(trailers(value));
            }
            feed.end();
        }
        read(pair.auditor.await.unwrap()).await;
        read(pair.leader.await.unwrap()).await;
        assert_eq!(audits(pair.handle.stats()), expected, "{one:?} {two:?}");
        assert_idle(&pair.handle);
    }
}

#[tokio::test]
async fn whoever_comes_midway_through_a_body_is_compared_with_all_of_it() {
    for (body, expected) in [
        (["pa", "ge"], SAME),
        (["po", "ge"], DIFFERED),
        (["pa", "go"], DIFFERED),
    ] {
        let (mut service, mut origin, handle) = stack(&audited());
        let (feed, mut leader) = lone_leader(&mut service, &mut origin, None);
        feed.send("pa");
        assert_eq!(frame(&mut leader), data("pa"));
        let auditor = service.call(get("/page"));
        origin
            .call()
            .answer(Response::new(ready(&body, SizeHint::new())));
        assert_eq!(
            read(auditor.await.unwrap()).await.body,
            body.concat().as_bytes()
        );
        feed.send("ge");
        feed.end();
        assert_eq!(frame(&mut leader), data("ge"));
        assert_eq!(frame(&mut leader), Polled::End);
        drop(leader);
        assert_eq!(audits(handle.stats()), expected, "{body:?}");
        assert_idle(&handle);
    }
}

#[tokio::test]
async fn a_body_that_outgrows_its_limit_is_compared_to_its_end() {
    for (other, expected) in [("9", SAME), ("x", DIFFERED)] {
        let small = audited().max_body(4);
        let mut long = vec!["0123"; 9];
        let one = (plain(), &[&long[..], &["9"]].concat()[..]);
        long.push(other);
        let two = (plain(), &long[..]);
        assert_eq!(compared(&small, one, two).await, expected);
    }
}

#[tokio::test]
async fn all_audited_requests_are_compared_with_the_one_flight() {
    let (mut service, mut origin, handle) = stack(&audited());
    let leader = service.call(get("/page"));
    let auditors: Vec<_> = (0..6).map(|_| service.call(get("/page"))).collect();
    let feed = origin.call().begin();
    for (index, auditor) in auditors.into_iter().enumerate() {
        let body = if index % 3 == 0 { "pago" } else { "page" };
        let body = ready(&[body], SizeHint::new());
        origin.call().answer(Response::new(body));
        read(auditor.await.unwrap()).await;
    }
    feed.send("page");
    feed.end();
    read(leader.await.unwrap()).await;
    assert_eq!(audits(handle.stats()), [4, 2, 0]);
    assert_eq!(handle.stats().forwarded, 6);
    assert_idle(&handle);
}

// ===== what can't be compared =====

#[tokio::test]
async fn an_answer_that_its_caller_cuts_short_is_unknown() {
    for cut in 0..6 {
        let pair = pair();
        let (first, second) = pair.calls;
        let (feed, other) = (first.begin(), second.begin());
        let (mut leader, mut auditor) = (Some(pair.leader), Some(pair.auditor));
        match cut {
            0 => drop(leader.take()),
            1 => drop(auditor.take()),
            _ => {}
        }
        let mut leader = leader.map(|mut leader| now(&mut leader).into_body());
        let mut auditor = auditor.map(|mut auditor| now(&mut auditor).into_body());
        for feed in [&feed, &other] {
            feed.send("page");
        }
        match cut {
            2 => drop(leader.take()),
            3 => drop(auditor.take()),
            _ => {}
        }
        for body in [&mut leader, &mut auditor].into_iter().flatten() {
            assert_eq!(frame(body), data("page"));
        }
        match cut {
            4 => drop(leader.take()),
            5 => drop(auditor.take()),
            _ => {}
        }
        for feed in [&feed, &other] {
            feed.end();
        }
        for body in [&mut leader, &mut auditor].into_iter().flatten() {
            assert_eq!(frame(body), Polled::End);
        }
        drop((leader, auditor));
        assert_eq!(audits(pair.handle.stats()), UNKNOWN, "{cut}");
        assert_idle(&pair.handle);
        pair.handle.forget_all();
    }
}

#[tokio::test]
async fn a_call_or_a_body_that_fails_is_unknown() {
    for failing in 0..4 {
        let pair = pair();
        let (first, second) = pair.calls;
        let fine = || Response::new(ready(&["page"], SizeHint::new()));
        let broken = || {
            let (feed, body) = body(SizeHint::new());
            feed.send("page");
            feed.fail("broken");
            Response::new(body)
        };
        match failing {
            0 => first.fail("broken"),
            1 => first.answer(broken()),
            _ => first.answer(fine()),
        }
        match failing {
            2 => second.fail("broken"),
            3 => second.answer(broken()),
            _ => second.answer(fine()),
        }
        let answers = [pair.auditor.await, pair.leader.await];
        for answer in answers.into_iter().flatten() {
            let mut body = answer.into_body();
            while let Polled::Data(_) = frame(&mut body) {}
        }
        assert_eq!(audits(pair.handle.stats()), UNKNOWN, "{failing}");
        assert_idle(&pair.handle);
    }
}

#[tokio::test]
async fn a_source_that_breaks_its_word_is_unknown() {
    for body in [&["pa"][..], &["pages"]] {
        let pair = pair();
        let known = SizeHint::with_exact(4);
        let (feed, mock) = crate::support::body::body(known);
        body.iter().for_each(|part| feed.send(part));
        feed.end();
        pair.calls.0.answer(Response::new(mock));
        pair.calls.1.answer(Response::new(ready(&["page"], known)));
        read(pair.auditor.await.unwrap()).await;
        let mut leader = pair.leader.await.unwrap().into_body();
        while let Polled::Data(_) = frame(&mut leader) {}
        drop(leader);
        assert_eq!(audits(pair.handle.stats()), UNKNOWN, "{body:?}");
        assert_idle(&pair.handle);
    }
}

#[tokio::test]
async fn whoever_reads_all_bytes_of_a_known_length_need_not_ask_for_the_end() {
    for is_stated in [false, true] {
        let mut pair = pair();
        let head = || match is_stated {
            true => plain().header("content-length", "4"),
            false => plain(),
        };
        let hint = || match is_stated {
            true => SizeHint::new(),
            false => SizeHint::with_exact(4),
        };
        let body = ready(&["page"], hint());
        pair.calls.0.answer(head().body(body).unwrap());
        let feed = pair.calls.1.begin_with(head(), hint());
        feed.send("page");
        let mut auditor = now(&mut pair.auditor).into_body();
        assert_eq!(frame(&mut auditor), data("page"));
        drop(auditor);
        read(pair.leader.await.unwrap()).await;
        assert_eq!(audits(pair.handle.stats()), SAME);
        assert_idle(&pair.handle);
    }
}

#[tokio::test]
async fn an_audited_call_that_panics_is_unknown_and_its_callers_alone() {
    const MEANT: &str = "an audited call that panics";
    hush(MEANT);
    let mut calls = 0;
    let layer = SingleflightLayer::new().audit(1.0);
    let mut service = layer.layer(service_fn(move |_: Req| {
        calls += 1;
        let call = calls;
        async move {
            assert!(call == 1, "{MEANT}");
            tokio::task::yield_now().await;
            Ok::<_, BoxError>(Response::new(ready(&["page"], SizeHint::new())))
        }
    }));
    let leader = service.call(get("/"));
    let mut auditor = Box::pin(service.call(get("/")));
    panic_of(|| poll_once(&mut auditor));
    drop(auditor);
    assert_eq!(read(leader.await.unwrap()).await.body, "page");
    assert_eq!(audits(layer.handle().stats()), UNKNOWN);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_flight_that_panics_is_unknown() {
    const MEANT: &str = "a flight that panics under an audit";
    hush(MEANT);
    let pair = pair();
    let (feed, mock) = body(SizeHint::new());
    feed.send("page");
    feed.panic(MEANT);
    pair.calls.0.answer(Response::new(mock));
    pair.calls
        .1
        .answer(Response::new(ready(&["page"], SizeHint::new())));
    read(pair.auditor.await.unwrap()).await;
    let mut leader = pair.leader;
    panic_of(|| {
        let mut body = now(&mut leader).into_body();
        while let Polled::Data(_) = frame(&mut body) {}
    });
    drop(leader);
    assert_eq!(audits(pair.handle.stats()), UNKNOWN);
    assert_idle(&pair.handle);
}

#[tokio::test]
async fn a_flight_that_panics_is_unknown_before_its_callers_look() {
    const MEANT: &str = "a shared flight that panics under an audit";
    hush(MEANT);
    let (mut service, mut origin, handle) = stack(&layer());
    let callers = [(); 2].map(|()| service.call(get("/page")));
    handle.set_audit(1.0);
    let auditor = service.call(get("/page"));
    let [first, second] = [origin.call(), origin.call()];
    second.answer(Response::new(ready(&["page"], SizeHint::new())));
    read(auditor.await.unwrap()).await;
    let (feed, mock) = body(SizeHint::new());
    feed.panic(MEANT);
    first.answer(Response::new(mock));
    settle().await;
    assert_eq!(audits(handle.stats()), UNKNOWN);
    drop(callers);
    assert_idle(&handle);
}

// ===== what does not count =====

#[tokio::test]
async fn an_answer_that_may_not_be_shared_is_no_audit() {
    let other = || (plain().status(404), &["other"][..]);
    for (name, value) in [
        ("cache-control", "private"),
        ("set-cookie", "a=b"),
        ("vary", "*"),
    ] {
        let private = (plain().header(name, value), &["page"][..]);
        assert_eq!(compared(&audited(), private, other()).await, NONE, "{name}");
    }
    let policy =
        audited().share_when(|head| rules::shareable(head) && !head.headers.contains_key("x-mine"));
    let mine = (plain().header("x-mine", "1"), &["page"][..]);
    assert_eq!(compared(&policy, mine, other()).await, NONE);
    let full = audited().max_buffered(0);
    assert_eq!(compared(&full, (plain(), &["page"]), other()).await, NONE);
}

/// An extension of which there is no copy.
struct Fragile;

impl Clone for Fragile {
    fn clone(&self) -> Self {
        panic!("a fragile extension")
    }
}

#[tokio::test]
async fn an_answer_of_whose_head_there_can_be_no_copy_is_no_audit() {
    let pair = pair();
    let feed = (pair.calls.0).begin_with(plain().extension(Fragile), SizeHint::new());
    let other = Response::new(ready(&["other"], SizeHint::new()));
    pair.calls.1.answer(other);
    read(pair.auditor.await.unwrap()).await;
    let leader = pair.leader.await.unwrap();
    feed.send("page");
    feed.end();
    assert_eq!(read(leader).await.body, "page");
    assert_eq!(audits(pair.handle.stats()), NONE);
    assert_idle(&pair.handle);
}

#[tokio::test]
async fn an_audited_request_that_is_cut_short_beside_an_answer_that_may_not_be_shared_is_no_audit()
{
    let Pair {
        leader,
        auditor,
        calls: (first, _second),
        handle,
        ..
    } = pair();
    drop(auditor);
    let private = plain().header("cache-control", "private");
    first.answer(private.body(ready(&["page"], SizeHint::new())).unwrap());
    read(leader.await.unwrap()).await;
    assert_eq!(audits(handle.stats()), NONE);
    assert_idle(&handle);
}

#[tokio::test]
async fn trailers_for_the_leader_alone_are_no_audit() {
    let pair = pair();
    let feed = pair.calls.0.begin();
    feed.send("page");
    let mut trailers = HeaderMap::new();
    trailers.insert("set-cookie", HeaderValue::from_static("a=b"));
    feed.trailers(trailers);
    let other = Response::new(ready(&["page"], SizeHint::new()));
    pair.calls.1.answer(other);
    read(pair.auditor.await.unwrap()).await;
    read(pair.leader.await.unwrap()).await;
    assert_eq!(audits(pair.handle.stats()), NONE);
    assert_idle(&pair.handle);
}

#[tokio::test]
async fn a_request_of_another_variant_is_no_audit() {
    let ask = |coding: &'static [u8]| request("GET", "/page", &[("accept-encoding", coding)]);
    for (coding, expected) in [(&b"br"[..], NONE), (b"gzip", DIFFERED)] {
        // At hand, or as a stream.
        for hint in [SizeHint::with_exact(4), SizeHint::new()] {
            let pair = pair_of(&audited(), ask(b"gzip"), ask(coding));
            let head = || plain().header("vary", "accept-encoding");
            let (one, two) = (ready(&["page"], hint), ready(&["other"], SizeHint::new()));
            pair.calls.0.answer(head().body(one).unwrap());
            pair.calls.1.answer(head().body(two).unwrap());
            read(pair.leader.await.unwrap()).await;
            read(pair.auditor.await.unwrap()).await;
            assert_eq!(audits(pair.handle.stats()), expected);
            assert_idle(&pair.handle);
        }
    }
}

#[tokio::test]
async fn whoever_could_not_have_joined_is_not_audited() {
    // A flight that is full.
    let (mut service, _origin, handle) = stack(&audited().max_waiters(1));
    let both = (service.call(get("/page")), service.call(get("/page")));
    drop(both);
    assert_eq!(handle.stats().forwarded, 1);
    assert_eq!(audits(handle.stats()), NONE);
    // Another key, a method that is not coalesced, a layer that is switched off.
    let (mut service, _origin, handle) = stack(&audited());
    let first = service.call(get("/page"));
    let others = [
        service.call(get("/other")),
        service.call(request("POST", "/page", &[])),
    ];
    handle.set_enabled(false);
    let off = service.call(get("/page"));
    drop((first, others, off));
    let stats = handle.stats();
    assert_eq!((stats.led, stats.bypassed, stats.forwarded), (2, 2, 0));
    assert_eq!(audits(stats), NONE);
    assert_idle(&handle);
}

// ===== which requests =====

#[tokio::test]
async fn the_share_says_how_many_of_those_who_could_follow_are_audited() {
    for (share, expected) in [(0.0, 0), (0.5, 50), (0.1, 10), (1.0, 100)] {
        let origin = Origin::page();
        let layer = SingleflightLayer::new().audit(share);
        let service = layer.layer(origin.clone());
        let callers: Vec<_> = (0..101).map(|_| ask(&service, get("/"))).collect();
        origin.open();
        let got = all(callers).await;
        let forwarded = count(&got, Role::Forwarded);
        assert!(forwarded.abs_diff(expected) <= 2, "{share}: {forwarded}");
        assert_eq!(count(&got, Role::Follower), 100 - forwarded);
        assert_eq!(origin.calls(), 1 + forwarded);
        let stats = layer.handle().stats();
        assert_eq!(audits(stats), [forwarded as u64, 0, 0]);
        assert_eq!(stats.joined, 100 - forwarded as u64);
        assert_idle(&layer.handle());
    }
}

#[tokio::test]
async fn without_a_share_nobody_is_audited() {
    let origin = Origin::page();
    let layer = SingleflightLayer::new();
    let service = layer.layer(origin.clone());
    let callers: Vec<_> = (0..100).map(|_| ask(&service, get("/"))).collect();
    origin.open();
    assert_eq!(count(&all(callers).await, Role::Follower), 99);
    assert_eq!(audits(layer.handle().stats()), NONE);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn the_share_changes_at_run_time_for_all_clones() {
    let (mut service, _origin, handle) = stack(&layer());
    let mut ask = || {
        let before = handle.stats().forwarded;
        let callers = (service.call(get("/page")), service.call(get("/page")));
        drop(callers);
        handle.stats().forwarded - before
    };
    assert_eq!(ask(), 0);
    handle.clone().set_audit(1.0);
    assert_eq!(ask(), 1);
    handle.set_audit(0.0);
    assert_eq!(ask(), 0);
    for (share, audited) in [(f64::NAN, 0), (-1.0, 0), (7.0, 1)] {
        handle.set_audit(share);
        assert_eq!(ask(), audited, "{share}");
    }
    assert_idle(&handle);

    let one = SingleflightLayer::with_key(method_and_uri);
    let two = one.clone().audit(1.0);
    let mut service = one.layer(Origin::page());
    drop((service.call(get("/")), service.call(get("/"))));
    assert_eq!(two.handle().stats().forwarded, 1);
}

#[tokio::test]
async fn followers_and_auditors_share_one_flight() {
    let (mut service, mut origin, handle) = stack(&layer());
    let leader = service.call(get("/page"));
    let follower = service.call(get("/page"));
    handle.set_audit(1.0);
    let auditor = service.call(get("/page"));
    handle.set_audit(0.0);
    let late = service.call(get("/page"));
    for _ in 0..2 {
        let body = ready(&["page"], SizeHint::new());
        origin.call().answer(Response::new(body));
    }
    settle().await;
    for (caller, expected) in [
        (leader, Role::Leader),
        (follower, Role::Follower),
        (auditor, Role::Forwarded),
        (late, Role::Follower),
    ] {
        let got = read(caller.await.unwrap()).await;
        assert_eq!((got.role, &got.body[..]), (expected, &b"page"[..]));
    }
    assert_eq!(origin.count(), 2);
    assert_eq!(audits(handle.stats()), SAME);
    assert_idle(&handle);
}

// ===== whatever comes first =====

/// How an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    Failed,
    Cut,
}

/// In whatever order frames, ends and callers come, an audit is what the two answers say.
#[tokio::test]
async fn an_audit_is_what_the_two_answers_say_in_whatever_order_they_come() {
    for seed in 0..2000 {
        let mut rng = Rng::new(seed);
        let len = rng.index(300);
        let page: Vec<u8> = (0..len).map(|_| rng.below(256) as u8).collect();
        let mut other = page.clone();
        match rng.below(4) {
            0 if len > 0 => other[rng.index(len)] ^= 1,
            1 if len > 0 => other.truncate(rng.index(len)),
            _ => {}
        }
        let ends = [(); 2].map(|()| match rng.below(8) {
            0 => End::Failed,
            1 => End::Cut,
            _ => End::Whole,
        });
        let max_body = rng.pick(&[0, 16, 1 << 20]);
        let expected = match ends {
            [End::Whole, End::Whole] if page == other => SAME,
            [End::Whole, End::Whole] => DIFFERED,
            _ => UNKNOWN,
        };

        let (mut service, mut origin, handle) = stack(&audited().max_body(max_body));
        let mut leader = service.call(get("/page"));
        assert_pending(&mut leader);
        let feed = origin.call().begin();
        let mut leader = Some(now(&mut leader).into_body());
        let mut rest = [&page[..], &other[..]];
        // Some of the body comes before the auditor, as long as it may be joined.
        if max_body > 300 && rng.chance(50) {
            let (some, after) = rest[0].split_at(rng.index(len + 1));
            feed.bytes(some.to_vec().into());
            rest[0] = after;
            let _ = frame(leader.as_mut().unwrap());
        }
        let mut auditor = service.call(get("/page"));
        let feeds = [feed, origin.call().begin()];
        let mut auditor = Some(now(&mut auditor).into_body());
        let mut open = [true; 2];
        while open != [false; 2] {
            let side = rng.index(2);
            if !open[side] {
                continue;
            }
            let (some, after) = rest[side].split_at(rng.index(rest[side].len() + 1));
            feeds[side].bytes(some.to_vec().into());
            rest[side] = after;
            let body = if side == 0 { &mut leader } else { &mut auditor };
            if !after.is_empty() {
                if rng.chance(50) {
                    let _ = frame(body.as_mut().unwrap());
                }
                continue;
            }
            open[side] = false;
            match ends[side] {
                End::Whole => feeds[side].end(),
                End::Failed => feeds[side].fail("broken"),
                End::Cut => drop(body.take()),
            }
            if let Some(mut body) = body.take() {
                while let Polled::Data(_) = frame(&mut body) {}
            }
        }
        let case = format!("{seed}: {ends:?} {max_body} {len}");
        assert_eq!(audits(handle.stats()), expected, "{case}");
        assert_idle(&handle);
        // Tokio lets a task poll only so much.
        tokio::task::yield_now().await;
    }
}

/// Frames come, callers join midway, and audits end on four threads at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_several_threads_no_byte_escapes_an_audit() {
    /// The same ten frames, with pauses.
    struct Slow(usize);
    impl Body for Slow {
        type Data = bytes::Bytes;
        type Error = BoxError;
        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, BoxError>>> {
            self.0 += 1;
            if self.0 % 2 == 1 {
                cx.waker().wake_by_ref();
                return std::task::Poll::Pending;
            }
            let text = bytes::Bytes::from(format!("frame {}", self.0));
            let frame = http_body::Frame::data(text);
            std::task::Poll::Ready((self.0 <= 20).then_some(Ok(frame)))
        }
    }
    let layer = SingleflightLayer::new().audit(0.5).max_body(40);
    let service = layer.layer(service_fn(async |_: Req| {
        tokio::task::yield_now().await;
        Ok::<_, std::convert::Infallible>(Response::new(Slow(0)))
    }));
    let callers = (0..4).map(|_| {
        let service = service.clone();
        tokio::spawn(async move {
            for _ in 0..500 {
                ask(&service, get("/")).await.expect("no panic");
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.expect("no panic");
    }
    let stats = layer.handle().stats();
    assert!(stats.audited > 0, "{stats:?}");
    assert_eq!(audits(stats), [stats.audit_same, 0, 0], "{stats:?}");
    assert_idle(&layer.handle());
}
