//! A store that is far away.

use replicas_tests::{Kind, Proxy, Server, Settings};
use tokio::time::sleep;

use crate::{CALL, Fleet, LONG, SLACK, ms, one_at_a_time, show, slowest};

#[tokio::test]
async fn a_store_farther_than_patience_is_left_alone() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let proxy = Proxy::start(server.port()).await;
    let settings = Settings {
        patience: ms(20),
        ..Settings::new(&proxy.url())
    };
    let fleet = Fleet::start(4, &settings).await;
    proxy.delay(ms(50));
    let first = fleet.burst("a", 250, CALL, 100).await;
    assert!(Fleet::made(&first) <= 4);
    sleep(ms(500)).await;
    let second = fleet.burst("b", 250, CALL, 100).await;
    show("farther than patience, first burst", &first);
    show("farther than patience, second burst", &second);
    assert!(Fleet::made(&second) <= 4);
    assert!(slowest(&second) < CALL + SLACK);
    assert!(!fleet.replicas[0].is_up().await);
}

#[tokio::test]
async fn a_store_within_patience_is_used() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let proxy = Proxy::start(server.port()).await;
    let fleet = Fleet::start(4, &Settings::new(&proxy.url())).await;
    proxy.delay(ms(50));
    sleep(ms(500)).await;
    let got = fleet.burst("a", 250, CALL, 100).await;
    show("50 ms away", &got);
    assert_eq!(Fleet::made(&got), 1);
}

#[tokio::test]
async fn calls_too_short_for_a_store_far_away_are_local_once_that_is_known() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let proxy = Proxy::start(server.port()).await;
    let fleet = Fleet::start(2, &Settings::new(&proxy.url())).await;
    proxy.delay(ms(20));
    sleep(ms(2000)).await;
    let one = &fleet.replicas[0];
    let mut times = Vec::new();
    for round in 0..100 {
        let asked = one.ask("a", 1, ms(5), 100).await;
        let got = one.got(asked, LONG).await.remove(0);
        if round > 2 {
            times.push(got.took());
        }
        sleep(ms(25)).await;
    }
    times.sort();
    eprintln!(
        "5 ms at 20 ms: p50 {:?}, p99 {:?}",
        times[times.len() / 2],
        times[times.len() - 2]
    );
    assert!(times[times.len() / 2] < ms(5 + 10));
    assert!(one.stats().await[6] > 90);
}
