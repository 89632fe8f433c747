//! Values that are not shared, or not in a message.

use replicas_tests::{Kind, Server, Settings};

use crate::{CALL, Fleet, SLACK, ms, one_at_a_time, show, slowest};

#[tokio::test]
async fn a_full_store_costs_calls_and_no_error() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(4, &Settings::new(&server.url())).await;
    server
        .command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"])
        .await;
    server.command(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
    let got = fleet.burst("a", 250, CALL, 100).await;
    show("full", &got);
    assert!(Fleet::made(&got) <= 4);
    assert!(slowest(&got) < CALL + SLACK);
}

#[tokio::test]
async fn a_large_value_goes_by_the_store_and_leaves_nothing() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(4, &Settings::new(&server.url()).patient()).await;
    for (key, len) in [("a", 70_000), ("b", 200_000)] {
        let got = fleet.gated(&[key.to_owned()], 20, len).await;
        assert_eq!(Fleet::made(&got), 1, "{:?}", fleet.stats().await);
        assert!(got.iter().all(|got| got.len >= len));
        server.is_empty_within(ms(1000)).await;
    }
}

#[tokio::test]
async fn a_value_over_the_cap_or_not_written_takes_two_calls_time() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(4, &Settings::new(&server.url())).await;
    for (key, len) in [("a", (1 << 20) + 1), ("b", 0)] {
        let before = fleet.calls();
        let got = fleet.burst(key, 20, CALL, len).await;
        assert!(fleet.calls() - before <= 4);
        show("not shared", &got);
        assert!(slowest(&got) < 2 * CALL + 2 * SLACK, "{:?}", slowest(&got));
    }
}
