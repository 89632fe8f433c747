//! A leading process that dies or stalls.

use replicas_tests::{Kind, Server, Settings};
use tokio::time::{Instant, sleep};

use crate::{Fleet, LONG, SLACK, ms, one_at_a_time};

#[tokio::test]
async fn a_leader_that_is_killed_costs_one_call_more() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(4, &Settings::new(&server.url())).await;
    let leader = &fleet.replicas[0];
    let began = Instant::now();
    leader.ask("a", 250, ms(1000), 100).await;
    fleet.calls_reach(1).await;
    let mut asked = Vec::new();
    for replica in &fleet.replicas[1..] {
        asked.push((replica, replica.ask("a", 250, ms(1000), 100).await));
    }
    sleep(ms(300)).await;
    leader.signal("KILL");
    let mut got = Vec::new();
    for (replica, asked) in asked {
        got.extend(replica.got(asked, LONG).await);
    }
    assert_eq!(got.len(), 750);
    assert_eq!(Fleet::made(&got), 1);
    assert_eq!(fleet.calls(), 2);
    eprintln!(
        "a killed leader's followers had their answer after {:?}",
        began.elapsed()
    );
    // A probe, and the call.
    assert!(began.elapsed() < ms(300 + 500 + 1000) + 2 * SLACK);
    server.is_empty_within(ms(1000)).await;
}

#[tokio::test]
async fn a_leader_that_stalls_costs_one_call_more_and_its_late_answer_reaches_nobody() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(4, &Settings::new(&server.url())).await;
    let leader = &fleet.replicas[0];
    let stalled = leader.ask("a", 10, ms(1000), 100).await;
    fleet.calls_reach(1).await;
    let mut asked = Vec::new();
    for replica in &fleet.replicas[1..] {
        asked.push((replica, replica.ask("a", 250, ms(1000), 100).await));
    }
    sleep(ms(300)).await;
    let began = Instant::now();
    leader.signal("STOP");
    let mut got = Vec::new();
    for (replica, asked) in &asked {
        got.extend(replica.got(*asked, LONG).await);
    }
    eprintln!(
        "a stalled leader's followers had their answer after {:?}",
        began.elapsed()
    );
    assert_eq!(Fleet::made(&got), 1);
    // The lease, a probe, and the call.
    assert!(
        began.elapsed() < ms(2000 + 500 + 1000) + 2 * SLACK,
        "{:?}",
        began.elapsed()
    );
    sleep(ms(6000).saturating_sub(began.elapsed())).await;
    leader.signal("CONT");
    let late = leader.got(stalled, LONG).await;
    assert_eq!(Fleet::made(&late), 1);
    assert_ne!(late[0].call, got[0].call);
    assert_eq!(fleet.calls(), 2);
    server.is_empty_within(ms(2500)).await;
}
