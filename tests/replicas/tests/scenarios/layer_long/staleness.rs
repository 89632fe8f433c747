//! No response is of a call that had ended before the request was made.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Request};
use replicas_tests::{Kind, Proxy, Server, Settings};
use tokio::{task::JoinSet, time::sleep};
use tower_singleflight::Role;

use crate::{
    layer::{Fleet, Takes, at, by_agent, count, get, short},
    ms, one_at_a_time,
};

const CLIENTS: u64 = 40;

/// A response that varies, and a URI for every second round: in the first burst of each it is not known that it varies.
fn request(round: u64, random: u64) -> Request<String> {
    let mut request = at(&format!("/page/{}", round / 2));
    let agent = HeaderValue::from_static(["one", "two", "three"][random as usize % 3]);
    request.headers_mut().insert("user-agent", agent);
    request
}

async fn no_response_is_older_than_its_request(round_trip: Duration, call: Duration, varies: bool) {
    let server = Server::start(Kind::Redis).await;
    let proxy = Proxy::start(server.port()).await;
    let settings = Settings::new(&proxy.url());
    let says = if varies { by_agent } else { short };
    let fleet = Arc::new(Fleet::start(&settings, Takes::Time(call), says).await);
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
                let request = if varies {
                    request(round, random >> 16)
                } else {
                    get(0)
                };
                let agent = request.headers().get("user-agent").cloned();
                let got = node.ask(request).await.expect("no panic");
                assert!(agent.is_none_or(|agent| agent.as_bytes() == got.body));
                all.push(got);
            }
            all
        });
    }
    let all: Vec<_> = clients.join_all().await.into_iter().flatten().collect();
    assert_eq!(all.len() as u64, CLIENTS * rounds);
    let elsewhere = count(&all, Role::Replica);
    eprintln!(
        "{round_trip:?}, calls of {call:?}, varies {varies}: {} responses, {} calls, {elsewhere} from other replicas",
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
        no_response_is_older_than_its_request(ms(round_trip), ms(15), false).await;
    }
    // The last ones were too short to be shared between replicas.
    for round_trip in [5, 20] {
        no_response_is_older_than_its_request(ms(round_trip), ms(6 * round_trip), false).await;
    }
    for round_trip in [0, 5] {
        no_response_is_older_than_its_request(ms(round_trip), ms(30), true).await;
    }
}
