//! One call for a burst at all replicas.

use replicas_tests::{Cluster, Kind, Server, Settings};

use crate::{Fleet, ms, one_at_a_time};

async fn bursts_cost_one_call_each(settings: &Settings) {
    let fleet = Fleet::start(4, &settings.clone().patient()).await;
    for round in 0..10 {
        let got = fleet.gated(&[format!("round{round}")], 250, 100).await;
        assert_eq!(got.len(), 1000);
        assert_eq!(
            Fleet::made(&got),
            1,
            "round {round}: {:?}",
            fleet.stats().await
        );
        assert_eq!(got.iter().filter(|got| got.led).count(), 1);
    }
    assert_eq!(fleet.calls(), 10);
}

#[tokio::test]
async fn a_burst_of_a_thousand_costs_one_call_on_redis() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    bursts_cost_one_call_each(&Settings::new(&server.url())).await;
    server.is_empty_within(ms(1000)).await;
}

#[tokio::test]
async fn a_burst_of_a_thousand_costs_one_call_on_valkey() {
    let _turn = one_at_a_time().await;
    if !Kind::Valkey.is_installed() {
        eprintln!("skipped: no valkey-server here; VALKEY_SERVER names one");
        return;
    }
    let server = Server::start(Kind::Valkey).await;
    bursts_cost_one_call_each(&Settings::new(&server.url())).await;
    server.is_empty_within(ms(1000)).await;
}

#[tokio::test]
async fn a_burst_of_a_thousand_costs_one_call_on_a_cluster() {
    let _turn = one_at_a_time().await;
    let cluster = Cluster::start(Kind::Redis).await;
    let settings = Settings {
        is_cluster: true,
        ..Settings::new(&cluster.urls())
    };
    bursts_cost_one_call_each(&settings).await;
    cluster.is_empty_within(ms(1000)).await;
}

#[tokio::test]
async fn a_hundred_keys_cost_a_hundred_calls_and_leave_nothing() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(4, &Settings::new(&server.url()).patient()).await;
    let keys: Vec<_> = (0..100).map(|key| format!("key{key}")).collect();
    let got = fleet.gated(&keys, 2, 100).await;
    assert_eq!(got.len(), 800);
    assert_eq!(fleet.calls(), 100, "{:?}", fleet.stats().await);
    server.is_empty_within(ms(1000)).await;
}
