//! Callers who leave.

use replicas_tests::{Kind, Server, Settings};
use tokio::time::sleep;
use tower_singleflight::Role;

use super::{Fleet, Takes, at, key_of, short};
use crate::{ms, one_at_a_time};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_goes_on_for_requests_elsewhere_and_is_dropped_within_100_ms_of_the_last() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(&Settings::new(&server.url()), Takes::gate(), short).await;
    // Two URIs: a call as short as the first one is not worth the store.
    for (path, all_leave) in [("/one", false), ("/two", true)] {
        let before = fleet.calls();
        let key = key_of(at(path));
        let leading = fleet.nodes[0].ask(at(path));
        fleet.origin.calls_reach(before + 1).await;
        let followers = fleet.nodes[1..].iter();
        let following: Vec<_> = followers.map(|node| node.ask(at(path))).collect();
        fleet.waiters_reach(&key, 7).await;
        leading.abort();
        fleet.waiters_reach(&key, 6).await;
        assert_eq!(fleet.origin.running(), 1);
        if all_leave {
            following.iter().for_each(|following| following.abort());
            sleep(ms(100)).await;
            assert_eq!(fleet.origin.running(), 0);
        } else {
            fleet.origin.open();
            for following in following {
                let got = following.await.expect("no panic");
                assert_eq!((got.role, got.call), (Role::Replica, before));
            }
            fleet.origin.shut();
        }
        assert_eq!(fleet.calls(), before + 1);
        server.is_empty_within(ms(500)).await;
        fleet.nothing_is_left();
    }
}
