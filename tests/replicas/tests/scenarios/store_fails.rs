//! A store that is absent, stops, or loses what it had.

use replicas_tests::{Kind, Proxy, Server, Settings};
use tokio::time::{Instant, sleep};

use crate::{CALL, Fleet, SLACK, ms, one_at_a_time, show, slowest};

#[tokio::test]
async fn a_store_that_is_absent_at_start_is_not_waited_for() {
    let _turn = one_at_a_time().await;
    let fleet = Fleet::launch(4, &Settings::new("redis://127.0.0.1:1"));
    let got = fleet.burst("a", 250, CALL, 100).await;
    show("absent at start", &got);
    assert!(Fleet::made(&got) <= 4);
    assert!(slowest(&got) < CALL + SLACK);
}

#[tokio::test]
async fn a_store_that_has_stopped_costs_patience_once() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(4, &Settings::new(&server.url())).await;
    server.stop(true);
    let first = fleet.burst("a", 250, CALL, 100).await;
    show("stopped, first burst", &first);
    assert!(Fleet::made(&first) <= 4);
    assert!(slowest(&first) < CALL + ms(250) + SLACK);
    // By now it is known.
    sleep(ms(300)).await;
    let second = fleet.burst("b", 250, CALL, 100).await;
    show("stopped, second burst", &second);
    assert!(Fleet::made(&second) <= 4);
    assert!(slowest(&second) < CALL + SLACK, "{:?}", slowest(&second));
    server.stop(false);
    let mended = Instant::now();
    fleet.all_up_within(ms(1000) + SLACK).await;
    eprintln!("in use again {:?} after it went on", mended.elapsed());
    let third = fleet.burst("c", 250, CALL, 100).await;
    assert_eq!(Fleet::made(&third), 1);
}

/// A burst whose call takes a second; in its middle `fail` happens, and after `lasts` `mend`.
async fn a_failure_midway(fail: impl Fn(&Server, &Proxy), mend: impl Fn(&Server, &Proxy)) {
    let server = Server::start(Kind::Redis).await;
    let proxy = Proxy::start(server.port()).await;
    let fleet = Fleet::start(4, &Settings::new(&proxy.url())).await;
    let call = ms(1000);
    let burst = fleet.burst("a", 250, call, 100);
    let failing = async {
        fleet.calls_reach(1).await;
        sleep(ms(300)).await;
        fail(&server, &proxy);
        sleep(ms(1000)).await;
        mend(&server, &proxy);
    };
    let (got, ()) = tokio::join!(burst, failing);
    show("fails midway in a call of 1 s", &got);
    assert!(Fleet::made(&got) <= 4, "{} calls", Fleet::made(&got));
    // Sent on within down_after and a beat, they make calls of a second.
    assert!(slowest(&got) < ms(2000) + SLACK, "{:?}", slowest(&got));
    fleet.all_up_within(ms(2000)).await;
    let next = fleet.burst("b", 250, CALL, 100).await;
    assert_eq!(Fleet::made(&next), 1);
    // The other leaders' leases may have been left behind.
    server.is_empty_within(ms(2500)).await;
}

#[tokio::test]
async fn a_store_that_stops_midway_sends_everybody_on() {
    let _turn = one_at_a_time().await;
    a_failure_midway(
        |server, _| server.stop(true),
        |server, _| server.stop(false),
    )
    .await;
}

#[tokio::test]
async fn a_black_hole_midway_sends_everybody_on() {
    let _turn = one_at_a_time().await;
    a_failure_midway(
        |_, proxy| proxy.black_hole(true),
        |_, proxy| proxy.black_hole(false),
    )
    .await;
}

#[tokio::test]
async fn a_cut_connection_midway_sends_everybody_on() {
    let _turn = one_at_a_time().await;
    a_failure_midway(|_, proxy| proxy.cut(), |_, _| ()).await;
}

#[tokio::test]
async fn a_store_that_is_killed_and_comes_back_empty_is_in_use_again_soon() {
    let _turn = one_at_a_time().await;
    let mut server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(4, &Settings::new(&server.url())).await;
    let burst = fleet.burst("a", 250, ms(1000), 100);
    let failing = async {
        fleet.calls_reach(1).await;
        sleep(ms(300)).await;
        server.restart().await;
        let mended = Instant::now();
        fleet.all_up_within(ms(1500)).await;
        eprintln!("in use again {:?} after the restart", mended.elapsed());
    };
    let (got, ()) = tokio::join!(burst, failing);
    show("killed midway in a call of 1 s", &got);
    assert!(Fleet::made(&got) <= 4);
    let next = fleet.burst("b", 250, CALL, 100).await;
    assert_eq!(Fleet::made(&next), 1);
}

#[tokio::test]
async fn a_lease_that_is_deleted_midway_costs_no_call() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(4, &Settings::new(&server.url())).await;
    let burst = fleet.burst("a", 250, ms(1000), 100);
    let failing = async {
        fleet.calls_reach(1).await;
        sleep(ms(300)).await;
        server.command(&["FLUSHALL"]).await;
    };
    let (got, ()) = tokio::join!(burst, failing);
    show("flushed midway in a call of 1 s", &got);
    assert_eq!(Fleet::made(&got), 1);
}
