//! Callers that leave, in any order: nobody else is harmed, and the last one out cancels.

use tower_singleflight::{Group, Run};

use crate::support::{Alive, Count, Gate, block_on, poll_once};

/// Work that never ends, and whether it is there.
fn endless(group: &Group<&'static str, ()>, alive: &Count) -> Run<&'static str, ()> {
    let inside = Alive::new(alive);
    group.run("key", || async move {
        let _inside = inside;
        std::future::pending().await
    })
}

fn follow(group: &Group<&'static str, ()>) -> Run<&'static str, ()> {
    group.run("key", || async { unreachable!() })
}

#[test]
fn a_lone_leader_that_leaves_unpolled_drops_the_work_and_frees_the_key() {
    let (group, alive) = (Group::new(), Count::new());
    let leader = endless(&group, &alive);
    assert_eq!((group.in_flight(), alive.get()), (1, 1));
    drop(leader);
    assert_eq!((group.in_flight(), alive.get()), (0, 0));
}

#[test]
fn a_lone_leader_that_leaves_polled_drops_the_work_and_frees_the_key() {
    let (group, alive) = (Group::new(), Count::new());
    let mut leader = endless(&group, &alive);
    assert!(poll_once(&mut leader).is_pending());
    drop(leader);
    assert_eq!((group.in_flight(), alive.get()), (0, 0));
}

/// Every order in which three callers leave, polled before or not, the task polled meanwhile or not, with a runtime and without.
fn leave_in_every_order(step: impl Fn()) {
    let orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    for (order, polled) in orders.iter().flat_map(|o| (0..8).map(move |p| (o, p))) {
        let (group, alive) = (Group::new(), Count::new());
        let mut callers = vec![Some(endless(&group, &alive))];
        callers.extend([Some(follow(&group)), Some(follow(&group))]);
        for (index, caller) in callers.iter_mut().enumerate() {
            if polled & (1 << index) != 0 {
                assert!(poll_once(caller.as_mut().unwrap()).is_pending());
            }
        }
        for (left, index) in order.iter().enumerate() {
            let waiting = (group.in_flight(), group.waiters("key"), alive.get());
            assert_eq!(waiting, (1, 3 - left, 1));
            callers[*index] = None;
            if left < 2 {
                step();
            }
        }
        let waiting = (group.in_flight(), group.waiters("key"), alive.get());
        assert_eq!(waiting, (0, 0, 0));
    }
}

#[test]
fn callers_leave_in_any_order_outside_tokio() {
    leave_in_every_order(|| {});
}

#[tokio::test]
async fn callers_leave_in_any_order_before_the_task_has_run() {
    leave_in_every_order(|| {});
}

#[test]
fn callers_leave_in_any_order_while_a_task_drives() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let _in = runtime.enter();
    leave_in_every_order(|| runtime.block_on(tokio::task::yield_now()));
}

#[tokio::test]
async fn a_leader_that_leaves_harms_no_follower() {
    let (group, gate) = (Group::new(), Gate::new());
    let mut leader = group.run("key", || gate.clone().then(1));
    assert!(poll_once(&mut leader).is_pending());
    let follower = group.run("key", || async { 2 });
    drop(leader);
    gate.open();
    let outcome = follower.await;
    assert_eq!((outcome.value, outcome.shared), (1, true));
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn outside_tokio_a_leader_that_leaves_harms_no_follower() {
    let (group, gate) = (Group::new(), Gate::new());
    let mut leader = group.run("key", || gate.clone().then(1));
    assert!(poll_once(&mut leader).is_pending());
    let follower = group.run("key", || async { 2 });
    drop(leader);
    gate.open();
    assert_eq!(block_on(follower).value, 1);
    assert_eq!(group.in_flight(), 0);
}

#[tokio::test]
async fn a_leader_that_is_polled_once_and_parked_stops_nobody() {
    let (group, gate) = (Group::new(), Gate::new());
    let mut leader = group.run("key", || gate.clone().then(1));
    assert!(poll_once(&mut leader).is_pending());
    let follower = group.run("key", || async { 2 });
    gate.open();
    assert_eq!(follower.await.value, 1);
    assert_eq!(group.in_flight(), 0);
    assert_eq!(leader.await.value, 1);
}

#[tokio::test]
async fn a_leader_and_followers_that_are_never_polled_stop_nobody() {
    let (group, gate) = (Group::new(), Gate::new());
    let _leader = group.run("key", || gate.clone().then(1));
    let _unpolled = group.run("key", || async { 2 });
    let follower = group.run("key", || async { 2 });
    gate.open();
    assert_eq!(follower.await.value, 1);
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn outside_tokio_callers_that_are_never_polled_stop_nobody() {
    let (group, gate) = (Group::new(), Gate::new());
    let _leader = group.run("key", || gate.clone().then(1));
    let _unpolled = group.run("key", || async { 2 });
    let follower = group.run("key", || async { 2 });
    gate.open();
    assert_eq!(block_on(follower).value, 1);
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn a_caller_that_leaves_after_the_end_changes_nothing() {
    let group = Group::new();
    let mut leader = group.run("key", || async { 1 });
    let (left, follower) = (
        group.run("key", || async { 2 }),
        group.run("key", || async { 2 }),
    );
    assert!(poll_once(&mut leader).is_ready());
    let next = group.run("key", || async { 3 });
    drop(left);
    assert_eq!((group.in_flight(), group.waiters("key")), (1, 1));
    assert_eq!(block_on(follower).value, 1);
    assert_eq!(block_on(next).value, 3);
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn a_caller_whose_join_comes_after_the_last_one_left_leads() {
    let (group, alive) = (Group::new(), Count::new());
    drop(endless(&group, &alive));
    block_on(group.run("key", || async {}));
    assert_eq!((group.in_flight(), alive.get()), (0, 0));
}

#[test]
fn a_thousand_cancelled_flights_leave_nothing() {
    let group: Group<u32, ()> = Group::new();
    let alive = Count::new();
    for key in 0..1_000 {
        let inside = Alive::new(&alive);
        drop(group.run(key, || async move {
            let _inside = inside;
            std::future::pending().await
        }));
    }
    assert_eq!((group.in_flight(), alive.get()), (0, 0));
}

/// Time out of one caller, with the clock paused: the others don't notice.
#[tokio::test(start_paused = true)]
async fn a_leader_that_times_out_fails_nobody_else() {
    use std::time::Duration;
    let group = Group::new();
    let work = || async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        1
    };
    let leader = tokio::time::timeout(Duration::from_secs(1), group.run("key", work));
    let follower = group.run("key", || async { 2 });
    let (leader, follower) = tokio::join!(leader, follower);
    assert!(leader.is_err());
    assert_eq!(follower.value, 1);
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn a_hundred_thousand_followers_join_and_leave() {
    let (group, alive) = (Group::new(), Count::new());
    let leader = endless(&group, &alive);
    let mut followers: Vec<_> = (0..100_000).map(|_| follow(&group)).collect();
    for follower in &mut followers {
        assert!(poll_once(follower).is_pending());
    }
    assert_eq!(group.waiters("key"), 100_001);
    // From both ends and the middle: a list that is searched would take minutes.
    let middle = followers.split_off(50_000);
    drop(middle);
    for follower in followers.into_iter().rev() {
        drop(follower);
    }
    assert_eq!((group.waiters("key"), alive.get()), (1, 1));
    drop(leader);
    assert_eq!((group.in_flight(), alive.get()), (0, 0));
}
