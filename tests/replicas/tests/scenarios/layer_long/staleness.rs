//! No response is of a call that had ended before the request was made.

use std::{sync::Arc, time::Duration};

use replicas_tests::{Kind, Proxy, Server, Settings};
use tokio::{task::JoinSet, time::sleep};
use tower_singleflight::Role;

use crate::{
    layer::{Fleet, Takes, count, get, short},
    ms, one_at_a_time,
};

const CLIENTS: u64 = 40;

async fn no_response_is_older_than_its_request(round_trip: Duration, call: Duration) {
    let server = Server::start(Kind::Redis).await;
    let proxy = Proxy::start(server.port()).await;
    let settings = Settings::new(&proxy.url());
    let fleet = Arc::new(Fleet::start(&settings, Takes::Time(call), short).await);
    proxy.delay(round_trip);
    let rounds = std::env::var("REPLICAS_ROUNDS").ok();
    let rounds = rounds.and_then(|n| n.parse().ok()).unwrap_or(50);
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let fleet = Arc::clone(&fleet);
        clients.spawn(async move {
            let mut all = Vec::new();
            for round in 0..rounds {
                // At moments, and at replicas, that have nothing to do with those of the others.
                let random = (client * 7919 + round * 104_729).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                let node = &fleet.nodes[(random >> 62) as usize];
                sleep(Duration::from_micros((random >> 32) % 20_000)).await;
                all.push(node.ask(get(0)).await.expect("no panic"));
            }
            all
        });
    }
    let all: Vec<_> = clients.join_all().await.into_iter().flatten().collect();
    assert_eq!(all.len() as u64, CLIENTS * rounds);
    let elsewhere = count(&all, Role::Replica);
    eprintln!(
        "{round_trip:?}, calls of {call:?}: {} responses, {} calls, {elsewhere} from other replicas",
        all.len(),
        fleet.calls()
    );
    let stale = all.iter().filter(|got| {
        let ended = fleet.origin.ended(got.call);
        ended.is_some_and(|ended| ended < got.asked)
    });
    assert_eq!(stale.count(), 0, "of {}", all.len());
    if call > 4 * round_trip {
        assert!(elsewhere > 0);
    }
    server.is_empty_within(ms(1000)).await;
    fleet.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_response_is_of_a_call_that_had_ended_before_the_request() {
    let _turn = one_at_a_time().await;
    for round_trip in [0, 5, 20] {
        no_response_is_older_than_its_request(ms(round_trip), ms(15)).await;
    }
    // The last ones were too short to be shared between replicas.
    for round_trip in [5, 20] {
        no_response_is_older_than_its_request(ms(round_trip), ms(6 * round_trip)).await;
    }
}
