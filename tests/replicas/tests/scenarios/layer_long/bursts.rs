//! One call for a burst, ten times, on all kinds of stores.

use replicas_tests::{Cluster, Kind, Server, Settings};

use crate::{layer::bursts::bursts_cost_one_call_each, ms, one_at_a_time};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_a_thousand_requests_costs_one_call_on_redis_and_on_valkey() {
    let _turn = one_at_a_time().await;
    for kind in [Kind::Redis, Kind::Valkey] {
        if !kind.is_installed() {
            eprintln!("skipped: no valkey-server here; VALKEY_SERVER names one");
            return;
        }
        let server = Server::start(kind).await;
        let _fleet = bursts_cost_one_call_each(&Settings::new(&server.url()), 10).await;
        server.is_empty_within(ms(1000)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_a_thousand_requests_costs_one_call_on_a_cluster() {
    let _turn = one_at_a_time().await;
    let cluster = Cluster::start(Kind::Redis).await;
    let settings = Settings {
        is_cluster: true,
        ..Settings::new(&cluster.urls())
    };
    let _fleet = bursts_cost_one_call_each(&settings, 10).await;
    cluster.is_empty_within(ms(1000)).await;
}
