//! A store that is far away.

use std::time::Duration;

use replicas_tests::{Kind, Proxy, Server, Settings};
use tokio::time::sleep;
use tower_singleflight::Role;

use crate::{
    CALL, SLACK,
    layer::{Fleet, Got, Takes, count, get, made, page, percentile, short, show, slowest},
    ms, one_at_a_time,
};

/// A layer whose store is 50 ms away, and that is patient for so long.
async fn far(patience: Duration) -> (Server, Proxy, Fleet) {
    let server = Server::start(Kind::Redis).await;
    let proxy = Proxy::start(server.port()).await;
    let settings = Settings {
        patience,
        ..Settings::new(&proxy.url())
    };
    let fleet = Fleet::start(&settings, Takes::Time(CALL), page).await;
    proxy.delay(ms(50));
    (server, proxy, fleet)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_farther_than_patience_is_left_alone() {
    let _turn = one_at_a_time().await;
    let (_server, _proxy, fleet) = far(ms(20)).await;
    let first = fleet.burst(250, get).await;
    show("farther than patience, first burst", &first);
    assert!(made(&first) <= 4 && fleet.calls() <= 4);
    assert!(slowest(&first) < CALL + ms(20) + 2 * SLACK);
    // Three beats are late by then.
    sleep(ms(500)).await;
    let second = fleet.burst(250, get).await;
    let local = Fleet::local(Takes::Time(CALL), page);
    let local = local.burst(250, get).await;
    show("farther than patience, second burst", &second);
    show("a layer alone", &local);
    assert!(made(&second) <= 4);
    let added = percentile(&second, 50).saturating_sub(percentile(&local, 50));
    assert!(added <= ms(10), "{added:?}");
    assert!(fleet.stats().iter().all(|stats| !stats.is_up));
    fleet.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_within_patience_is_used() {
    let _turn = one_at_a_time().await;
    let (_server, _proxy, fleet) = far(ms(200)).await;
    sleep(ms(500)).await;
    let all = fleet.burst(250, get).await;
    show("50 ms away", &all);
    assert_eq!((made(&all), fleet.calls()), (1, 1), "{:?}", fleet.stats());
    assert!(count(&all, Role::Replica) > 0);
}

async fn one_after_the_other(fleet: &Fleet) -> Vec<Got> {
    let mut all = Vec::new();
    for _ in 0..100 {
        all.push(fleet.nodes[0].ask(get(0)).await.expect("no panic"));
        sleep(ms(5)).await;
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_too_short_for_a_store_far_away_are_local_once_that_is_known() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let proxy = Proxy::start(server.port()).await;
    let settings = Settings::new(&proxy.url());
    let fleet = Fleet::start(&settings, Takes::Time(ms(5)), short).await;
    proxy.delay(ms(20));
    sleep(ms(2000)).await;
    fleet.nodes[0].ask(get(0)).await.expect("no panic");
    let all = one_after_the_other(&fleet).await;
    let local = Fleet::local(Takes::Time(ms(5)), short);
    let local = one_after_the_other(&local).await;
    show("5 ms at 20 ms", &all);
    show("a layer alone", &local);
    let added = percentile(&all, 99).saturating_sub(percentile(&local, 99));
    assert!(added <= ms(10), "{added:?}");
    assert_eq!(fleet.stats()[0].alone_short, 100);
}
