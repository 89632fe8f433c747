//! What callers cost the store.

use std::time::Duration;

use replicas_tests::{Kind, Proxy, Server, Settings};
use tokio::time::sleep;

use crate::{CALL, Fleet, LONG, ms, one_at_a_time};

/// Commands that clients sent, beats left out as well as they can be told: a beat is a PUBLISH.
pub(crate) async fn counts(server: &Server) -> (u64, u64) {
    let counts = server.command_counts().await;
    let of = |name: &str| counts.get(name).copied().unwrap_or(0);
    (of("evalsha") + of("eval"), of("set") + of("get"))
}

#[tokio::test]
async fn a_solo_caller_costs_two_scripts_and_sends_no_body() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(2, &Settings::new(&server.url())).await;
    let solo = &fleet.replicas[0];
    // The scripts are known from here on.
    let asked = solo.ask("warm", 1, ms(20), 50_000).await;
    solo.got(asked, LONG).await;
    // The last script is behind that.
    server.is_empty_within(ms(1000)).await;
    let before = counts(&server).await;
    for round in 0..200 {
        let asked = solo.ask(&format!("solo{round}"), 1, ms(5), 50_000).await;
        let got = solo.got(asked, LONG).await.remove(0);
        assert!(got.led && !got.shared);
    }
    server.is_empty_within(ms(1000)).await;
    let after = counts(&server).await;
    assert_eq!(after.0 - before.0, 400, "two scripts for each");
    // A lease is read and set by the first script and read by the second; no body is.
    assert_eq!(after.1 - before.1, 600);
}

#[tokio::test]
async fn a_solo_caller_waits_for_one_round_trip() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let proxy = Proxy::start(server.port()).await;
    let fleet = Fleet::start(1, &Settings::new(&proxy.url())).await;
    let solo = &fleet.replicas[0];
    // The scripts are known from here on.
    let asked = solo.ask("warm", 1, ms(5), 50_000).await;
    solo.got(asked, LONG).await;
    let round_trip = ms(100);
    proxy.delay(round_trip);
    let mut took = Vec::new();
    for round in 0..10 {
        let asked = solo.ask(&format!("solo{round}"), 1, ms(5), 50_000).await;
        took.push(solo.got(asked, LONG).await[0].took());
    }
    let took = median(took);
    assert!(took >= round_trip, "it led without asking: {took:?}");
    assert!(took < 2 * round_trip, "{took:?}");
}

#[tokio::test]
async fn local_followers_cost_no_command() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(2, &Settings::new(&server.url())).await;
    let before = counts(&server).await;
    let asked = fleet.replicas[0].ask("a", 250, CALL, 100).await;
    let got = fleet.replicas[0].got(asked, LONG).await;
    assert_eq!(Fleet::made(&got), 1);
    sleep(ms(20)).await;
    // EVALSHA is refused once for each script, which is then sent.
    assert!(counts(&server).await.0 - before.0 <= 4);
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
