//! No answer is of a call that had ended before the question.

use std::time::Duration;

use replicas_tests::{Kind, Proxy, Server, Settings};
use tokio::time::sleep;

use crate::{Fleet, LONG, ms, one_at_a_time};

async fn no_answer_is_older_than_its_question(round_trip: Duration) {
    let server = Server::start(Kind::Redis).await;
    let proxy = Proxy::start(server.port()).await;
    let fleet = Fleet::start(4, &Settings::new(&proxy.url())).await;
    proxy.delay(round_trip);
    let rounds = std::env::var("REPLICAS_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(50);
    let mut asked = Vec::new();
    // 40 clients, at moments that have nothing to do with each other.
    for round in 0..rounds {
        for client in 0..40_u64 {
            let at = (client * 7919 + round * 104_729) % 4;
            let replica = &fleet.replicas[at as usize];
            asked.push((at, replica.ask("page", 1, ms(15), 100).await));
            if client % 3 == 0 {
                sleep(Duration::from_micros((client * 613 + round * 331) % 2500)).await;
            }
        }
    }
    let mut stale = 0;
    let mut elsewhere = 0;
    for (at, asked) in &asked {
        for got in fleet.replicas[*at as usize].got(*asked, LONG).await {
            // A flight of the caller's own process ends a moment after its work.
            let is_local = got
                .call
                .starts_with(&format!("{}.", fleet.replicas[*at as usize].process()));
            stale += usize::from(got.ended < got.asked && !is_local);
            elsewhere += usize::from(!got.led);
        }
    }
    let stats = fleet.replicas[0].stats().await;
    eprintln!(
        "{round_trip:?}: {} answers, {} calls, {elsewhere} shared, stats {stats:?}",
        asked.len(),
        fleet.calls()
    );
    assert_eq!(stale, 0, "of {}", asked.len());
}

#[tokio::test]
async fn no_answer_is_of_a_call_that_had_ended_before_the_question() {
    let _turn = one_at_a_time().await;
    for round_trip in [ms(0), ms(5), ms(20)] {
        no_answer_is_older_than_its_question(round_trip).await;
    }
}
