//! Who joins, who leads, and what each gets.

use std::cell::Cell;

use tower_singleflight::{Group, Outcome};

use crate::support::{Cloned, Count, Gate, block_on, panic_of, poll_once, text};

#[tokio::test]
async fn a_lone_caller_gets_its_value_unshared() {
    let group = Group::new();
    let outcome = group.run("key", || async { 7 }).await;
    let alone = Outcome {
        value: 7,
        shared: false,
        led: true,
    };
    assert_eq!(outcome, alone);
    assert_eq!(group.in_flight(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_callers_cause_one_call() {
    let group = Group::new();
    let (calls, gate) = (Count::new(), Gate::new());
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let (group, calls, gate) = (group.clone(), calls.clone(), gate.clone());
            tokio::spawn(async move {
                let work = || async move {
                    calls.up();
                    gate.then(String::from("value")).await
                };
                group.run("key", work).await
            })
        })
        .collect();
    while group.waiters("key") < 100 {
        tokio::task::yield_now().await;
    }
    gate.open();
    for caller in callers {
        let outcome = caller.await.unwrap();
        assert_eq!((outcome.value.as_str(), outcome.shared), ("value", true));
    }
    assert_eq!((calls.get(), group.in_flight()), (1, 0));
}

#[test]
fn a_caller_joins_when_it_calls_not_when_it_is_polled() {
    let group = Group::new();
    let called = Cell::new(0);
    let leader = group.run("key", || {
        called.set(called.get() + 1);
        async { 1 }
    });
    assert_eq!(called.get(), 1);
    let follower = group.run("key", || {
        called.set(called.get() + 1);
        async { 2 }
    });
    assert_eq!((called.get(), group.waiters("key")), (1, 2));
    assert_eq!(block_on(follower).value, 1);
    assert_eq!(block_on(leader).value, 1);
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn a_caller_that_comes_after_the_end_starts_anew() {
    let group = Group::new();
    let mut leader = group.run("key", || async { 1 });
    let unpolled = group.run("key", || async { 2 });
    assert!(poll_once(&mut leader).is_ready());
    assert_eq!((group.in_flight(), group.waiters("key")), (0, 0));
    let late = block_on(group.run("key", || async { 3 }));
    assert_eq!((late.value, late.shared), (3, false));
    assert_eq!(block_on(unpolled).value, 1);
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn shared_stays_true_for_the_leader_when_the_follower_has_left() {
    let group = Group::new();
    let leader = group.run("key", || async { 1 });
    drop(group.run("key", || async { 2 }));
    let outcome = block_on(leader);
    assert_eq!((outcome.value, outcome.shared), (1, true));
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn distinct_keys_share_nothing() {
    let group = Group::new();
    let (one, two) = (
        group.run(1, || async { "one" }),
        group.run(2, || async { "two" }),
    );
    assert_eq!(group.in_flight(), 2);
    let (one, two) = (block_on(one), block_on(two));
    assert_eq!((one.value, one.shared), ("one", false));
    assert_eq!((two.value, two.shared), ("two", false));
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn keys_of_one_hash_share_nothing() {
    #[derive(PartialEq, Eq)]
    struct Key(u32);
    impl std::hash::Hash for Key {
        fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
    }
    let group = Group::new();
    let callers: Vec<_> = (0..100)
        .map(|id| group.run(Key(id), move || async move { id }))
        .collect();
    assert_eq!((group.in_flight(), group.waiters(&Key(3))), (100, 1));
    for (id, caller) in (0..).zip(callers) {
        assert_eq!(block_on(caller).value, id);
        assert_eq!(group.waiters(&Key(id)), 0);
    }
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn clones_are_the_same_group_and_two_groups_are_not() {
    let (one, two) = (Group::new(), Group::new());
    let leader = one.run("key", || async { 1 });
    assert_eq!((one.clone().waiters("key"), two.waiters("key")), (1, 0));
    assert_eq!(block_on(two.run("key", || async { 2 })).value, 2);
    assert_eq!(block_on(one.clone().run("key", || async { 3 })).value, 1);
    assert_eq!(block_on(leader).value, 1);
    assert_eq!((one.in_flight(), two.in_flight()), (0, 0));
}

#[test]
fn a_flight_outlives_its_group() {
    let group = Group::new();
    let leader = group.run("key", || async { 1 });
    let follower = group.run("key", || async { 2 });
    drop(group);
    assert_eq!(block_on(follower).value, 1);
    assert_eq!(block_on(leader).value, 1);
}

#[test]
fn an_error_is_a_value_that_all_get() {
    let group: Group<&str, Result<u32, std::sync::Arc<std::io::Error>>> = Group::new();
    let leader = group.run("key", || async {
        Err(std::sync::Arc::new(std::io::Error::other("disk")))
    });
    let follower = group.run("key", || async { Ok(1) });
    let (one, two) = (block_on(follower), block_on(leader));
    assert!(std::sync::Arc::ptr_eq(
        &one.value.unwrap_err(),
        &two.value.unwrap_err()
    ));
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn an_unshared_value_is_never_cloned() {
    let group = Group::new();
    let clones = Count::new();
    let value = Cloned(clones.clone());
    assert!(!block_on(group.run("key", || async { value })).shared);
    assert_eq!((clones.get(), group.in_flight()), (0, 0));
}

#[test]
fn the_last_of_n_callers_takes_the_value_without_a_clone() {
    for callers in 2..10 {
        let group = Group::new();
        let clones = Count::new();
        let runs: Vec<_> = (0..callers)
            .map(|_| {
                let value = Cloned(clones.clone());
                group.run("key", || async { value })
            })
            .collect();
        for run in runs {
            block_on(run);
        }
        assert_eq!((clones.get(), group.in_flight()), (callers - 1, 0));
    }
}

#[test]
fn a_caller_that_leaves_costs_no_clone() {
    let group = Group::new();
    let clones = Count::new();
    let value = Cloned(clones.clone());
    let leader = group.run("key", || async { value });
    let follower = group.run("key", || async { unreachable!() });
    drop(leader);
    assert!(block_on(follower).shared);
    assert_eq!((clones.get(), group.in_flight()), (0, 0));
}

#[test]
fn a_caller_that_is_polled_after_its_end_panics() {
    let group = Group::new();
    let mut run = group.run("key", || async { 1 });
    assert!(poll_once(&mut run).is_ready());
    let payload = panic_of(|| poll_once(&mut run));
    assert_eq!(text(&*payload), "polled after completion");
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn work_may_borrow_and_need_not_be_send() {
    let group = Group::new();
    let text = String::from("borrowed");
    let counter = std::rc::Rc::new(Cell::new(0));
    let run = group.run("key", || {
        counter.set(counter.get() + text.len());
        let length = text.len();
        async move { length }
    });
    drop(text);
    assert_eq!((block_on(run).value, counter.get()), (8, 8));
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn a_key_need_not_be_sync_nor_clone() {
    #[derive(PartialEq, Eq)]
    struct Key(Cell<u32>);
    impl std::hash::Hash for Key {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            self.0.get().hash(state);
        }
    }
    let group = Group::new();
    let run = group.run(Key(Cell::new(1)), || async { 1 });
    let handle = std::thread::spawn({
        let group = group.clone();
        move || block_on(group.run(Key(Cell::new(1)), || async { 2 })).value
    });
    assert_eq!(handle.join().unwrap(), 1);
    assert_eq!(block_on(run).value, 1);
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn a_key_is_looked_up_by_what_it_borrows() {
    let group: Group<String, ()> = Group::new();
    let run = group.run(String::from("key"), || async {});
    assert_eq!((group.waiters("key"), group.waiters("other")), (1, 0));
    assert!(!group.forget("other"));
    assert!(group.forget("key"));
    drop(run);
    assert_eq!(group.in_flight(), 0);
}
