//! Responses that are not for all, or not for other replicas.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::{HeaderValue, Response};
use replicas_tests::{Kind, Server, Settings};
use tower_singleflight::Role;

use super::{
    Fleet, Got, Says, Takes, by_agent, count, get, made, page, percentile, show, slowest,
    with_agent,
};
use crate::{CALL, SLACK, ms, one_at_a_time};

async fn burst_of(says: Says) -> (Fleet, Vec<Got>) {
    let server = Server::start(Kind::Redis).await;
    let settings = Settings::new(&server.url());
    let fleet = Fleet::start(&settings, Takes::Time(CALL), says).await;
    let all = fleet.burst(250, get).await;
    assert_eq!(all.len(), 1000);
    server.is_empty_within(ms(1000)).await;
    fleet.nothing_is_left();
    (fleet, all)
}

async fn everybody_has_its_own(says: Says) {
    let (fleet, all) = burst_of(says).await;
    show("everybody has its own", &all);
    let bodies: BTreeSet<_> = all.iter().map(|got| &got.body).collect();
    assert_eq!((bodies.len(), fleet.calls()), (1000, 1000));
    assert!(slowest(&all) < 2 * CALL + 2 * SLACK, "{:?}", slowest(&all));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_has_a_response_with_a_cookie_of_its_own_within_two_calls() {
    let _turn = one_at_a_time().await;
    everybody_has_its_own(|call, _| {
        let mut response = Response::new(Bytes::from(call.to_string()));
        let cookie = HeaderValue::from_str(&format!("id={call}")).expect("a value");
        response.headers_mut().insert("set-cookie", cookie);
        response
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_has_a_private_response_of_its_own_within_two_calls() {
    let _turn = one_at_a_time().await;
    everybody_has_its_own(|call, _| {
        let mut response = Response::new(Bytes::from(call.to_string()));
        let private = HeaderValue::from_static("private");
        response.headers_mut().insert("cache-control", private);
        response
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_over_the_limit_costs_a_call_at_each_replica_within_two_calls() {
    let _turn = one_at_a_time().await;
    let (fleet, all) = burst_of(|_, _| Response::new(vec![0; (1 << 20) + 1].into())).await;
    show("over the limit", &all);
    assert!(all.iter().all(|got| got.body.len() == (1 << 20) + 1));
    assert_eq!((fleet.calls(), count(&all, Role::Replica)), (4, 0));
    // A thousand copies of a megabyte keep the machine busy.
    assert!(
        percentile(&all, 50) < 2 * CALL + 2 * SLACK,
        "{:?}",
        percentile(&all, 50)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_with_an_error_status_costs_one_call() {
    let _turn = one_at_a_time().await;
    let (fleet, all) = burst_of(|_, _| {
        let mut response = Response::new(Bytes::from_static(b"no"));
        *response.status_mut() = http::StatusCode::BAD_GATEWAY;
        response
    })
    .await;
    assert!(all.iter().all(|got| got.head.status == 502));
    assert_eq!(fleet.calls(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_that_varies_costs_a_call_for_each_kind_of_request() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let settings = Settings::new(&server.url());
    let fleet = Fleet::start(&settings, Takes::Time(CALL), by_agent).await;
    // In the second burst it is known that the response varies.
    for burst in 1..=2 {
        let all = fleet.burst(250, with_agent).await;
        show("of two kinds", &all);
        for (caller, got) in all.iter().enumerate() {
            let request = with_agent(caller);
            assert_eq!(got.body, request.headers()["user-agent"].as_bytes());
        }
        assert_eq!(fleet.calls(), 2 * burst, "{:?}", fleet.stats());
        server.is_empty_within(ms(1000)).await;
        fleet.nothing_is_left();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_costs_calls_and_no_error() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let settings = Settings::new(&server.url());
    let fleet = Fleet::start(&settings, Takes::Time(CALL), page).await;
    server.command(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
    let all = fleet.burst(250, get).await;
    show("full", &all);
    assert!(made(&all) <= 4 && fleet.calls() <= 4);
    assert!(slowest(&all) < CALL + 2 * SLACK, "{:?}", slowest(&all));
    fleet.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_the_store_refuses_costs_calls_and_no_error() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let settings = Settings::new(&server.url());
    let large: Says = |_, _| Response::new(vec![b'a'; 900_000].into());
    let fleet = Fleet::start(&settings, Takes::Time(CALL), large).await;
    let room = server.used_memory().await + 500_000;
    server
        .command(&["CONFIG", "SET", "maxmemory", &room.to_string()])
        .await;
    let all = fleet.burst(25, get).await;
    show("a value is refused", &all);
    assert!(all.iter().all(|got| got.body.len() == 900_000));
    assert!(fleet.calls() <= 4);
    assert!(slowest(&all) < 2 * CALL + 2 * SLACK, "{:?}", slowest(&all));
    // It was asked for leases, and gave them.
    assert!(fleet.stats().iter().any(|stats| stats.alone_told > 0));
    fleet.nothing_is_left();
}
