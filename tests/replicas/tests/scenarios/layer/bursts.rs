//! One call for a burst at all replicas.

use replicas_tests::{Kind, Server, Settings};
use tokio::time::sleep;
use tower_singleflight::Role;

use super::{Fleet, Takes, at, count, get, key_of, made, page, short};
use crate::{ms, one_at_a_time};

/// Gives back the fleet: its replicas are still cleaning up in the store.
pub(crate) async fn bursts_cost_one_call_each(settings: &Settings, rounds: usize) -> Fleet {
    let fleet = Fleet::start(&settings.clone().patient(), Takes::gate(), page).await;
    for round in 0..rounds {
        let all = fleet.gated(250, get).await;
        assert!(
            all.iter()
                .all(|got| got.head.status == 200 && got.body[..] == [round as u8; 100_000])
        );
        let roles = [Role::Leader, Role::Follower, Role::Replica].map(|role| count(&all, role));
        assert_eq!(roles, [1, 249, 750], "round {round}: {:?}", fleet.stats());
        assert_eq!(fleet.calls(), round + 1);
        fleet.nothing_is_left();
    }
    fleet
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_a_thousand_requests_costs_one_call() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let _fleet = bursts_cost_one_call_each(&Settings::new(&server.url()), 3).await;
    server.is_empty_within(ms(1000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_uris_cost_a_hundred_calls_and_leave_nothing() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let settings = Settings::new(&server.url()).patient();
    let fleet = Fleet::start(&settings, Takes::gate(), short).await;
    let request = |caller: usize| at(&format!("/page/{}", caller / 8));
    let asked = fleet.ask(200, request);
    for uri in 0..100 {
        // Two at each of four replicas, three of which are followers too.
        fleet.waiters_reach(&key_of(request(uri * 8)), 11).await;
    }
    // The last callers of each replica are announced within some milliseconds.
    sleep(ms(200)).await;
    fleet.origin.open();
    let all = asked.got().await;
    assert_eq!((all.len(), made(&all), fleet.calls()), (800, 100, 100));
    server.is_empty_within(ms(1000)).await;
    fleet.nothing_is_left();
}
