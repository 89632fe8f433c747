//! `Group`: Go's documented behaviour.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Semaphore;
use tower_singleflight::{Group, Outcome};

#[tokio::test]
async fn a_lone_caller_gets_its_value_unshared() {
    let group = Group::new();
    let outcome = group.run("key", || async { 7 }).await;
    assert_eq!(
        outcome,
        Outcome {
            value: 7,
            shared: false
        }
    );
    assert_eq!(group.in_flight(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_callers_cause_one_call() {
    let group = Group::new();
    let calls = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(Semaphore::new(0));
    let mut callers = Vec::new();
    for _ in 0..100 {
        let (group, calls, gate) = (group.clone(), calls.clone(), gate.clone());
        callers.push(tokio::spawn(async move {
            group
                .run("key", || async move {
                    calls.fetch_add(1, Ordering::SeqCst);
                    let _permit = gate.acquire().await.unwrap();
                    String::from("value")
                })
                .await
        }));
    }
    while group.waiters("key") < 100 {
        tokio::task::yield_now().await;
    }
    gate.add_permits(1);
    for caller in callers {
        let outcome = caller.await.unwrap();
        assert_eq!(outcome.value, "value");
        assert!(outcome.shared);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!(group.in_flight(), 0);
}

#[tokio::test]
async fn a_leader_that_is_polled_once_and_parked_stops_nobody() {
    let group = Group::new();
    let gate = Arc::new(Semaphore::new(0));
    let inside = gate.clone();
    let mut leader = tokio_test::task::spawn(group.run("key", || async move {
        let _permit = inside.acquire().await.unwrap();
        1
    }));
    assert!(leader.poll().is_pending());
    let follower = group.run("key", || async { 2 });
    gate.add_permits(1);
    assert_eq!(
        follower.await,
        Outcome {
            value: 1,
            shared: true
        }
    );
    assert_eq!(group.in_flight(), 0);
    assert_eq!(
        leader.await,
        Outcome {
            value: 1,
            shared: true
        }
    );
}

#[test]
fn outside_tokio_the_callers_drive() {
    let group = Group::new();
    let (tx, rx) = tokio::sync::oneshot::channel();
    let mut leader = tokio_test::task::spawn(group.run("key", || async { rx.await.unwrap() }));
    assert!(leader.poll().is_pending());
    let mut follower = tokio_test::task::spawn(group.run("key", || async { 2 }));
    assert!(follower.poll().is_pending());
    tx.send(1).unwrap();
    assert!(follower.is_woken());
    tokio_test::assert_ready_eq!(
        follower.poll(),
        Outcome {
            value: 1,
            shared: true
        }
    );
    drop(leader);
    assert_eq!(group.in_flight(), 0);
}

#[tokio::test]
async fn a_panic_reaches_all_callers_and_frees_the_key() {
    let group: Group<&str, ()> = Group::new();
    let gate = Arc::new(Semaphore::new(0));
    let inside = gate.clone();
    let leader = tokio::spawn(group.run("key", || async move {
        let _permit = inside.acquire().await.unwrap();
        panic!("boom");
    }));
    let follower = tokio::spawn(group.run("key", || async {}));
    tokio::task::yield_now().await;
    gate.add_permits(1);
    for caller in [leader, follower] {
        let payload = caller.await.unwrap_err().into_panic();
        assert_eq!(*payload.downcast_ref::<&str>().unwrap(), "boom");
    }
    assert_eq!(group.in_flight(), 0);
}

#[tokio::test]
async fn the_last_one_out_drops_the_work_and_frees_the_key() {
    let group: Group<&str, ()> = Group::new();
    let held = Arc::new(());
    let inside = held.clone();
    let mut leader = tokio_test::task::spawn(group.run("key", || async move {
        let _inside = inside;
        std::future::pending().await
    }));
    assert!(leader.poll().is_pending());
    let follower = group.run("key", || async {});
    drop(leader);
    assert_eq!((group.waiters("key"), Arc::strong_count(&held)), (1, 2));
    drop(follower);
    assert_eq!((group.in_flight(), Arc::strong_count(&held)), (0, 1));
}

#[tokio::test]
async fn a_spawned_flight_goes_on_without_callers() {
    let group = Group::new();
    let (tx, rx) = tokio::sync::oneshot::channel();
    drop(group.spawn("key", || async { rx.await.unwrap() }));
    assert_eq!((group.in_flight(), group.waiters("key")), (1, 0));
    let late = group.run("key", || async { 0 });
    tx.send(5).unwrap();
    assert_eq!(late.await.value, 5);
    assert_eq!(group.in_flight(), 0);
}
