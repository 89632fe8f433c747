//! Whose work ran: `Outcome::led`.

use tower_singleflight::{Group, Outcome};

use crate::support::{Gate, block_on};

async fn all(calls: Vec<tower_singleflight::Run<&'static str, u32>>) -> Vec<Outcome<u32>> {
    let mut outcomes = Vec::new();
    for call in calls {
        outcomes.push(call.await);
    }
    outcomes
}

fn leaders(outcomes: &[Outcome<u32>]) -> usize {
    outcomes.iter().filter(|outcome| outcome.led).count()
}

#[tokio::test]
async fn of_five_callers_the_first_led_and_four_were_spared() {
    let group = Group::new();
    let work = || async {
        tokio::task::yield_now().await;
        1
    };
    let outcomes = all((0..5).map(|_| group.run("key", work)).collect()).await;
    assert!(outcomes[0].led);
    assert_eq!(leaders(&outcomes), 1);
    assert!(outcomes.iter().all(|outcome| outcome.shared));
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn outside_tokio_the_caller_that_drives_did_not_lead() {
    let group = Group::new();
    let leader = group.run("key", || async { 1 });
    let follower = group.run("key", || async { 2 });
    assert!(!block_on(follower).led);
    assert!(block_on(leader).led);
    assert_eq!(group.in_flight(), 0);
}

#[tokio::test]
async fn a_leader_that_leaves_makes_no_leader_of_a_follower() {
    let group = Group::new();
    let gate = Gate::new();
    let leader = group.run("key", || gate.clone().then(1));
    let followers = (0..3).map(|_| group.run("key", || async { 2 })).collect();
    drop(leader);
    gate.open();
    assert_eq!(leaders(&all(followers).await), 0);
    assert_eq!(group.in_flight(), 0);
}

#[tokio::test]
async fn the_caller_after_a_forget_leads_too() {
    let group = Group::new();
    let before = group.run("key", || async { 1 });
    assert!(group.forget("key"));
    let after = group.run("key", || async { 2 });
    assert_eq!(leaders(&all(vec![before, after]).await), 2);
    assert_eq!(group.in_flight(), 0);
}

#[tokio::test]
async fn spawned_work_is_led_by_who_spawned_it() {
    let group = Group::new();
    let gate = Gate::new();
    let alone = group.spawn("alone", || async { 1 }).await;
    assert!(alone.led && !alone.shared);
    let leader = group.spawn("key", || gate.clone().then(1));
    let follower = group.spawn("key", || async { 2 });
    gate.open();
    assert!(!follower.await.led);
    assert!(leader.await.led);
    assert_eq!(group.in_flight(), 0);
}
