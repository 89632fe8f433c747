//! A store that stops, is cut off, or loses what it had.

use std::time::Duration;

use replicas_tests::{Kind, Proxy, Server, Settings};
use tokio::time::{Instant, sleep};
use tower_singleflight::Role;

use crate::{
    CALL, SLACK,
    layer::{Fleet, Got, Takes, count, get, made, page, percentile, show, slowest},
    ms, one_at_a_time,
};

const LONG_CALL: Duration = ms(1000);

/// What a layer alone takes for a burst.
async fn local_burst() -> Vec<Got> {
    let local = Fleet::local(Takes::Time(CALL), page);
    local.burst(250, get).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_known_to_have_stopped_adds_at_most_10_ms() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let settings = Settings::new(&server.url());
    let fleet = Fleet::start(&settings, Takes::Time(CALL), page).await;
    server.stop(true);
    let first = fleet.burst(250, get).await;
    assert!(made(&first) <= 4 && fleet.calls() <= 4);
    let (second, local) = (fleet.burst(250, get).await, local_burst().await);
    show("stopped, second burst", &second);
    show("a layer alone", &local);
    assert!(made(&second) <= 4);
    assert_eq!(count(&second, Role::Replica), 0);
    let added = percentile(&second, 50).saturating_sub(percentile(&local, 50));
    assert!(added <= ms(10), "{added:?}");
    server.stop(false);
    fleet.nothing_is_left();
}

/// A burst whose call takes a second; in its middle `fail` happens, and a second later `mend`.
async fn a_failure_midway(fail: impl Fn(&Server, &Proxy), mend: impl Fn(&Server, &Proxy)) {
    let server = Server::start(Kind::Redis).await;
    let proxy = Proxy::start(server.port()).await;
    let settings = Settings::new(&proxy.url());
    let fleet = Fleet::start(&settings, Takes::Time(LONG_CALL), page).await;
    let burst = fleet.burst(250, get);
    let failing = async {
        fleet.origin.calls_reach(1).await;
        sleep(ms(300)).await;
        fail(&server, &proxy);
        sleep(ms(1000)).await;
        mend(&server, &proxy);
        Instant::now()
    };
    let (all, mended) = tokio::join!(burst, failing);
    show("fails midway in a call of 1 s", &all);
    assert!(made(&all) <= 4 && fleet.calls() <= 4, "{}", fleet.calls());
    assert!(slowest(&all) < ms(2000) + SLACK, "{:?}", slowest(&all));
    fleet
        .all_up_within((ms(1000) + SLACK).saturating_sub(mended.elapsed()))
        .await;
    let next = fleet.burst(250, get).await;
    assert_eq!(made(&next), 1, "{:?}", fleet.stats());
    // The other leaders' leases may have been left behind.
    server.is_empty_within(ms(2500)).await;
    fleet.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_stops_midway_sends_everybody_on() {
    let _turn = one_at_a_time().await;
    a_failure_midway(
        |server, _| server.stop(true),
        |server, _| server.stop(false),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_midway_sends_everybody_on() {
    let _turn = one_at_a_time().await;
    a_failure_midway(
        |_, proxy| proxy.black_hole(true),
        |_, proxy| proxy.black_hole(false),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_midway_sends_everybody_on() {
    let _turn = one_at_a_time().await;
    a_failure_midway(|_, proxy| proxy.cut(), |_, _| ()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_killed_and_comes_back_empty_is_in_use_again_within_1500_ms() {
    let _turn = one_at_a_time().await;
    let mut server = Server::start(Kind::Redis).await;
    let settings = Settings::new(&server.url());
    let fleet = Fleet::start(&settings, Takes::Time(LONG_CALL), page).await;
    let burst = fleet.burst(250, get);
    let failing = async {
        fleet.origin.calls_reach(1).await;
        sleep(ms(300)).await;
        server.restart().await;
        fleet.all_up_within(ms(1500)).await;
    };
    let (all, ()) = tokio::join!(burst, failing);
    show("killed midway in a call of 1 s", &all);
    assert!(made(&all) <= 4 && fleet.calls() <= 4);
    assert!(slowest(&all) < ms(2000) + SLACK, "{:?}", slowest(&all));
    let next = fleet.burst(250, get).await;
    assert_eq!(made(&next), 1, "{:?}", fleet.stats());
    fleet.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_is_lost_midway_costs_no_call() {
    let _turn = one_at_a_time().await;
    for flushes in [false, true] {
        let server = Server::start(Kind::Redis).await;
        let settings = Settings::new(&server.url());
        let fleet = Fleet::start(&settings, Takes::Time(LONG_CALL), page).await;
        let burst = fleet.burst(250, get);
        let failing = async {
            fleet.origin.calls_reach(1).await;
            sleep(ms(300)).await;
            let leases = server.names("*:f:*").await;
            assert_eq!(leases.len(), 1);
            match flushes {
                true => server.command(&["FLUSHALL"]).await,
                false => server.command(&["DEL", &leases[0]]).await,
            }
        };
        let (all, ()) = tokio::join!(burst, failing);
        assert_eq!((made(&all), fleet.calls()), (1, 1));
        server.is_empty_within(ms(1000)).await;
        fleet.nothing_is_left();
    }
}
