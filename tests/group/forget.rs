//! `forget` and `forget_all`.

use tower_singleflight::Group;

use crate::support::{Alive, Count, Gate, block_on, poll_once};

#[test]
fn callers_after_forget_start_anew_and_earlier_ones_keep_the_old_flight() {
    let (group, gate) = (Group::new(), Gate::new());
    let leader = group.run("key", || gate.clone().then(1));
    let follower = group.run("key", || async { 0 });
    assert!(group.forget("key"));
    assert_eq!((group.in_flight(), group.waiters("key")), (0, 0));
    let next = group.run("key", || gate.clone().then(2));
    let nexts = group.run("key", || async { 0 });
    gate.open();
    for (run, value) in [(leader, 1), (nexts, 2), (follower, 1), (next, 2)] {
        let outcome = block_on(run);
        assert_eq!((outcome.value, outcome.shared), (value, true));
    }
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn the_end_of_a_forgotten_flight_leaves_its_successor() {
    let group = Group::new();
    let mut old = group.run("key", || async { 1 });
    group.forget("key");
    let new = group.run("key", || async { 2 });
    assert!(poll_once(&mut old).is_ready());
    assert_eq!((group.in_flight(), group.waiters("key")), (1, 1));
    assert_eq!(block_on(new).value, 2);
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn the_cancellation_of_a_forgotten_flight_leaves_its_successor() {
    let (group, alive) = (Group::new(), Count::new());
    let inside = Alive::new(&alive);
    let old = group.run("key", || async move {
        let _inside = inside;
        std::future::pending().await
    });
    group.forget("key");
    let new = group.run("key", || async { 2 });
    drop(old);
    assert_eq!((group.in_flight(), alive.get()), (1, 0));
    assert_eq!(block_on(new).value, 2);
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn the_panic_of_a_forgotten_flight_leaves_its_successor() {
    let group = Group::new();
    let mut old = group.run("key", || async {
        std::panic::resume_unwind(Box::new("boom"))
    });
    group.forget("key");
    let new = group.run("key", || async { 2 });
    crate::support::panic_of(|| poll_once(&mut old));
    assert_eq!(group.in_flight(), 1);
    assert_eq!(block_on(new).value, 2);
    assert_eq!(group.in_flight(), 0);
}

#[tokio::test]
async fn a_forgotten_flight_that_is_kept_goes_on_to_its_end() {
    let group = Group::new();
    let (gate, done) = (Gate::new(), Gate::new());
    let (pass, end) = (gate.clone(), done.clone());
    drop(group.spawn("key", || async move {
        pass.pass().await;
        end.open();
    }));
    assert!(group.forget("key"));
    assert_eq!(group.in_flight(), 0);
    gate.open();
    done.pass().await;
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn forget_says_whether_there_was_a_flight() {
    let group = Group::new();
    assert!(!group.forget("key"));
    let run = group.run("key", || async {});
    assert!(group.forget("key"));
    assert!(!group.forget("key"));
    block_on(run);
    assert!(!group.forget("key"));
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn forget_all_forgets_and_counts_all() {
    let group = Group::new();
    let old: Vec<_> = (0..1_000)
        .map(|key| group.run(key, move || async move { key }))
        .collect();
    assert_eq!(group.forget_all(), 1_000);
    assert_eq!((group.in_flight(), group.forget_all()), (0, 0));
    let new: Vec<_> = (0..1_000)
        .map(|key| group.run(key, move || async move { key + 1 }))
        .collect();
    for (key, run) in (0..).zip(old) {
        assert_eq!(block_on(run).value, key);
    }
    assert_eq!(group.in_flight(), 1_000);
    for (key, run) in (0..).zip(new) {
        assert_eq!(block_on(run).value, key + 1);
    }
    assert_eq!(group.in_flight(), 0);
}
