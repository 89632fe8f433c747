//! A store that is not there.

use replicas_tests::{Kind, Server, Settings};
use tower_singleflight::Role;

use super::{Fleet, Takes, count, get, made, page, show, slowest};
use crate::{CALL, SLACK, ms, one_at_a_time};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_absent_at_start_is_not_waited_for() {
    let _turn = one_at_a_time().await;
    let settings = Settings::new("redis://127.0.0.1:1");
    let fleet = Fleet::launch(&settings, Takes::Time(CALL), page);
    let all = fleet.burst(250, get).await;
    show("absent at start", &all);
    assert!(fleet.calls() <= 4);
    assert_eq!(count(&all, Role::Replica), 0);
    assert!(slowest(&all) < CALL + 2 * SLACK, "{:?}", slowest(&all));
    fleet.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_has_stopped_costs_patience_once() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let settings = Settings::new(&server.url());
    let fleet = Fleet::start(&settings, Takes::Time(CALL), page).await;
    server.stop(true);
    let first = fleet.burst(250, get).await;
    show("stopped, first burst", &first);
    assert!(made(&first) <= 4 && fleet.calls() <= 4);
    assert_eq!(count(&first, Role::Replica), 0);
    assert!(
        slowest(&first) < CALL + ms(250) + 2 * SLACK,
        "{:?}",
        slowest(&first)
    );
    server.stop(false);
    // In use again within 1 s.
    fleet.all_up_within(ms(1000) + SLACK).await;
    let second = fleet.burst(250, get).await;
    assert_eq!(made(&second), 1, "{:?}", fleet.stats());
    fleet.nothing_is_left();
}
