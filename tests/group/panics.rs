//! Panics of whatever is the user's, and that the group stays usable.

use std::{
    borrow::Borrow,
    future::poll_fn,
    hash::{Hash, Hasher},
    panic::panic_any,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Waker},
};

use tower_singleflight::Group;

use crate::support::{Alive, Count, Gate, block_on, panic_of, poll_once, poll_with, text};

const NO_TEXT: &str = "the work of a coalesced call panicked with a payload that is no text";

#[tokio::test]
async fn a_panic_of_the_work_reaches_all_callers_and_frees_the_key() {
    let group: Group<&str, ()> = Group::new();
    let gate = Gate::new();
    let pass = gate.clone();
    let leader = tokio::spawn(group.run("key", || async move {
        pass.pass().await;
        panic!("boom");
    }));
    let follower = tokio::spawn(group.run("key", || async {}));
    tokio::task::yield_now().await;
    gate.open();
    for caller in [leader, follower] {
        let payload = caller.await.unwrap_err().into_panic();
        assert_eq!(text(&*payload), "boom");
    }
    assert_eq!(group.in_flight(), 0);
    group.run("key", || async {}).await;
}

#[test]
fn a_lone_leader_gets_its_own_payload() {
    let group: Group<&str, ()> = Group::new();
    let mut leader = group.run("key", || async { panic_any(7_u64) });
    let payload = panic_of(|| poll_once(&mut leader));
    assert_eq!(payload.downcast_ref::<u64>(), Some(&7));
    assert_eq!(group.in_flight(), 0);
}

/// Polled by the task, whoever is polled first afterwards.
#[tokio::test]
async fn the_leader_gets_the_original_payload_and_followers_a_fixed_sentence() {
    let group: Group<&str, ()> = Group::new();
    let mut leader = group.run("key", || async { panic_any(7_u64) });
    let mut followers = [group.run("key", || async {}), group.run("key", || async {})];
    while group.in_flight() > 0 {
        tokio::task::yield_now().await;
    }
    let payload = panic_of(|| poll_once(&mut followers[0]));
    assert_eq!(text(&*payload), NO_TEXT);
    let payload = panic_of(|| poll_once(&mut leader));
    assert_eq!(payload.downcast_ref::<u64>(), Some(&7));
    let payload = panic_of(|| poll_once(&mut followers[1]));
    assert_eq!(text(&*payload), NO_TEXT);
}

#[test]
fn a_follower_that_polls_the_panic_leaves_the_payload_to_the_leader() {
    let group: Group<&str, ()> = Group::new();
    let mut leader = group.run("key", || async { panic_any(7_u64) });
    let mut follower = group.run("key", || async {});
    let payload = panic_of(|| poll_once(&mut follower));
    assert_eq!(text(&*payload), NO_TEXT);
    assert_eq!(group.in_flight(), 0);
    let payload = panic_of(|| poll_once(&mut leader));
    assert_eq!(payload.downcast_ref::<u64>(), Some(&7));
}

#[test]
fn a_formatted_message_reaches_followers_as_a_string() {
    let group: Group<&str, ()> = Group::new();
    let number = std::hint::black_box(3);
    let mut leader = group.run("key", || async move { panic!("boom {number}") });
    let mut follower = group.run("key", || async {});
    let payload = panic_of(|| poll_once(&mut follower));
    assert_eq!(payload.downcast_ref::<String>().unwrap(), "boom 3");
    let payload = panic_of(|| poll_once(&mut leader));
    assert_eq!(payload.downcast_ref::<String>().unwrap(), "boom 3");
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn a_panic_when_work_is_called_frees_the_key_before_the_leader_sees_it() {
    let group: Group<&str, ()> = Group::new();
    let payload = panic_of(|| group.run("key", || -> std::future::Ready<()> { panic_any(7_u64) }));
    assert_eq!(payload.downcast_ref::<u64>(), Some(&7));
    assert_eq!((group.in_flight(), group.waiters("key")), (0, 0));
    block_on(group.run("key", || async {}));
}

#[tokio::test]
async fn a_panic_when_work_is_called_reaches_who_joined_meanwhile() {
    let group: Group<&str, ()> = Group::new();
    let mut joined = None;
    let payload = panic_of(|| {
        group.run("key", || -> std::future::Ready<()> {
            joined = Some(group.run("key", || async {}));
            panic!("boom")
        })
    });
    assert_eq!(text(&*payload), "boom");
    assert_eq!(group.in_flight(), 0);
    let payload = panic_of(|| poll_once(joined.as_mut().unwrap()));
    assert_eq!(text(&*payload), "boom");
}

/// A future whose poll gives a value and whose drop panics.
struct BadDrop(bool);

impl Future for BadDrop {
    type Output = Arc<Alive>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        self.0 = true;
        ALIVE.with(|alive| std::task::Poll::Ready(Arc::new(Alive::new(alive))))
    }
}

impl Drop for BadDrop {
    fn drop(&mut self) {
        if self.0 {
            panic!("bad drop");
        }
    }
}

thread_local! {
    static ALIVE: Count = Count::new();
}

#[test]
fn a_work_whose_drop_panics_after_its_value_has_panicked_for_all() {
    let group = Group::new();
    let mut leader = group.run("key", || BadDrop(false));
    let mut follower = group.run("key", || BadDrop(false));
    for caller in [&mut follower, &mut leader] {
        assert_eq!(text(&*panic_of(|| poll_once(caller))), "bad drop");
    }
    assert_eq!((group.in_flight(), ALIVE.with(Count::get)), (0, 0));
}

#[test]
fn a_work_whose_drop_panics_when_the_last_caller_leaves_frees_the_key() {
    let group = Group::new();
    let alone = group.run("key", || BadDrop(true));
    assert_eq!(text(&*panic_of(|| drop(alone))), "bad drop");
    assert_eq!(group.in_flight(), 0);
    block_on(group.run("key", || async { Arc::new(Alive::new(&Count::new())) }));
}

struct BadClone(Count);

impl Clone for BadClone {
    fn clone(&self) -> Self {
        self.0.up();
        if self.0.get() == 1 {
            panic!("bad clone");
        }
        Self(self.0.clone())
    }
}

#[test]
fn a_clone_that_panics_is_the_panic_of_the_caller_that_cloned() {
    let group = Group::new();
    let clones = Count::new();
    let value = BadClone(clones.clone());
    let mut leader = group.run("key", || async { value });
    let mut first = group.run("key", || async { unreachable!() });
    let mut second = group.run("key", || async { unreachable!() });
    assert_eq!(text(&*panic_of(|| poll_once(&mut first))), "bad clone");
    assert_eq!(group.in_flight(), 0);
    assert!(poll_once(&mut second).is_ready());
    assert!(poll_once(&mut leader).is_ready());
    assert_eq!(clones.get(), 2);
}

/// A key that panics where it is told to.
#[derive(Clone)]
struct BadKey {
    id: u32,
    eq: Arc<AtomicBool>,
    hash: Arc<AtomicBool>,
    drop: Arc<AtomicBool>,
}

impl BadKey {
    fn new() -> Self {
        Self {
            id: 1,
            eq: Arc::default(),
            hash: Arc::default(),
            drop: Arc::default(),
        }
    }
}

impl PartialEq for BadKey {
    fn eq(&self, other: &Self) -> bool {
        assert!(!self.eq.load(Ordering::SeqCst), "bad eq");
        self.id == other.id
    }
}

impl Eq for BadKey {}

impl Hash for BadKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        assert!(!self.hash.load(Ordering::SeqCst), "bad hash");
        self.id.hash(state);
    }
}

impl Drop for BadKey {
    fn drop(&mut self) {
        if self.drop.swap(false, Ordering::SeqCst) {
            panic!("bad key drop");
        }
    }
}

#[test]
fn an_eq_that_panics_is_its_callers_alone() {
    let group = Group::new();
    let key = BadKey::new();
    let gate = Gate::new();
    let leader = group.run(key.clone(), || gate.clone().then(1));
    key.eq.store(true, Ordering::SeqCst);
    let payload = panic_of(|| group.run(key.clone(), || async { 2 }));
    assert_eq!(text(&*payload), "bad eq");
    assert_eq!(text(&*panic_of(|| group.forget(&key))), "bad eq");
    assert_eq!(text(&*panic_of(|| group.waiters(&key))), "bad eq");
    key.eq.store(false, Ordering::SeqCst);
    assert_eq!((group.in_flight(), group.waiters(&key)), (1, 1));
    let follower = group.run(key, || async { 2 });
    gate.open();
    assert_eq!(block_on(follower).value, 1);
    assert_eq!(block_on(leader).value, 1);
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn a_hash_that_panics_is_its_callers_alone() {
    let group = Group::new();
    let key = BadKey::new();
    let gate = Gate::new();
    let leader = group.run(key.clone(), || gate.clone().then(1));
    key.hash.store(true, Ordering::SeqCst);
    let payload = panic_of(|| group.run(key.clone(), || async { 2 }));
    assert_eq!(text(&*payload), "bad hash");
    assert_eq!(text(&*panic_of(|| group.forget(&key))), "bad hash");
    // The end of a flight hashes nothing.
    gate.open();
    assert_eq!(block_on(leader).value, 1);
    assert_eq!(group.in_flight(), 0);
}

/// A drop that panics while something panics already aborts the process.
#[test]
fn a_lone_leaders_key_is_dropped_before_its_works_panic_goes_on() {
    let group: Group<_, ()> = Group::new();
    let key = BadKey::new();
    let mut leader = group.run(key.clone(), || async { panic!("boom") });
    key.drop.store(true, Ordering::SeqCst);
    let payload = panic_of(|| poll_once(&mut leader));
    assert_eq!(text(&*payload), "bad key drop");
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn a_joiner_whose_key_panics_when_dropped_is_counted_out_again() {
    let group = Group::new();
    let key = BadKey::new();
    let leader = group.run(key.clone(), std::future::pending::<()>);
    let joining = key.clone();
    key.drop.store(true, Ordering::SeqCst);
    let payload = panic_of(|| group.run(joining, std::future::pending::<()>));
    assert_eq!(text(&*payload), "bad key drop");
    assert_eq!((group.in_flight(), group.waiters(&key)), (1, 1));
    drop(leader);
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn a_flight_whose_key_panics_when_dropped_has_ended_all_the_same() {
    let group = Group::new();
    let key = BadKey::new();
    let mut leader = group.run(key.clone(), || async { 1 });
    let mut follower = group.run(key.clone(), || async { 2 });
    key.drop.store(true, Ordering::SeqCst);
    let payload = panic_of(|| poll_once(&mut follower));
    assert_eq!(text(&*payload), "bad key drop");
    assert_eq!(group.in_flight(), 0);
    assert!(poll_once(&mut leader).is_ready());
}

/// Panics with this text when it is dropped.
struct Bad(&'static str);

impl Drop for Bad {
    fn drop(&mut self) {
        panic!("{}", self.0);
    }
}

#[tokio::test]
async fn a_joiner_whose_unused_work_panics_when_dropped_is_counted_out_again() {
    for spawns in [false, true] {
        let group = Group::new();
        let leader = group.run("key", std::future::pending::<()>);
        let bad = Bad("bad work");
        let work = move || {
            let _bad = bad;
            std::future::pending::<()>()
        };
        let payload = panic_of(|| match spawns {
            false => group.run("key", work),
            true => group.spawn("key", work),
        });
        assert_eq!(text(&*payload), "bad work");
        assert_eq!(group.waiters("key"), 1);
        drop(leader);
        assert_eq!(group.in_flight(), 0, "it keeps nothing");
    }
}

#[test]
fn a_work_whose_drop_panics_after_its_poll_or_with_its_value_has_ended_all_the_same() {
    for gives in [true, false] {
        let group: Group<&str, Arc<Bad>> = Group::new();
        let bad = Bad("bad work");
        let mut leader = group.run("key", || {
            poll_fn(move |_| {
                let _bad = &bad;
                match gives {
                    true => Poll::Ready(Arc::new(Bad("bad value"))),
                    false => panic!("bad poll"),
                }
            })
        });
        let mut follower = group.run("key", || async { unreachable!("the leader leads") });
        let want = if gives { "bad work" } else { "bad poll" };
        for caller in [&mut follower, &mut leader] {
            assert_eq!(text(&*panic_of(|| poll_once(caller))), want);
            assert_eq!(group.in_flight(), 0);
        }
    }
}

#[test]
fn a_payload_that_its_leader_has_left_and_whose_drop_panics_harms_no_follower() {
    let group: Group<&str, ()> = Group::new();
    let leader = group.run("key", || async { panic_any(Bad("bad payload")) });
    let mut followers = [(); 2].map(|()| group.run("key", || async {}));
    drop(leader);
    for follower in &mut followers {
        assert_eq!(text(&*panic_of(|| poll_once(follower))), NO_TEXT);
    }
    assert_eq!(group.in_flight(), 0);
}

/// It would abort the process if it were dropped while its follower unwinds.
#[test]
fn a_payload_whose_drop_panics_harms_no_follower() {
    struct Payload(Count);
    impl Drop for Payload {
        fn drop(&mut self) {
            self.0.up();
            panic!("bad payload");
        }
    }
    let group: Group<&str, ()> = Group::new();
    let drops = Count::new();
    let payload = Payload(drops.clone());
    let leader = group.run("key", || async move { panic_any(payload) });
    let mut follower = group.run("key", || async {});
    let mut last = group.run("key", || async {});
    assert_eq!(text(&*panic_of(|| poll_once(&mut follower))), NO_TEXT);
    drop(leader);
    assert_eq!(drops.get(), 1);
    assert_eq!(text(&*panic_of(|| poll_once(&mut last))), NO_TEXT);
    assert_eq!(group.in_flight(), 0);
}

/// Its wake panics.
fn bad_wake() -> Waker {
    struct Bad;
    impl std::task::Wake for Bad {
        fn wake(self: Arc<Self>) {
            panic!("bad wake");
        }
    }
    Waker::from(Arc::new(Bad))
}

#[test]
fn a_waker_that_panics_keeps_no_other_from_its_wake_up() {
    let group = Group::new();
    let woken = Count::new();
    let gate = Gate::new();
    let mut leader = group.run("key", || gate.clone().then(1));
    let mut bad = group.run("key", || async { 2 });
    let mut good = group.run("key", || async { 2 });
    assert!(poll_with(&mut leader, &woken.waker()).is_pending());
    assert!(poll_with(&mut bad, &bad_wake()).is_pending());
    assert!(poll_with(&mut good, &woken.waker()).is_pending());
    gate.open();
    assert_eq!(woken.get(), 2);
    assert!(poll_once(&mut bad).is_ready());
    assert!(poll_once(&mut good).is_ready());
    assert!(poll_once(&mut leader).is_ready());
    assert_eq!(group.in_flight(), 0);
}

#[tokio::test]
async fn a_waker_that_panics_at_the_end_keeps_no_other_from_its_value() {
    let group = Group::new();
    let gate = Gate::new();
    let mut leader = group.run("key", || gate.clone().then(1));
    let mut bad = group.run("key", || async { 2 });
    let good = group.run("key", || async { 2 });
    assert!(poll_with(&mut bad, &bad_wake()).is_pending());
    assert!(poll_once(&mut leader).is_pending());
    tokio::task::yield_now().await;
    gate.open();
    assert_eq!(good.await.value, 1);
    assert!(poll_once(&mut bad).is_ready());
    assert_eq!(leader.await.value, 1);
    assert_eq!(group.in_flight(), 0);
}

/// The runtime's end gives the flight back, and wakes its callers.
#[test]
fn a_waker_that_panics_when_the_runtime_shuts_down_keeps_no_flight_for_ever() {
    let group = Group::new();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let mut caller = {
        let _in = runtime.enter();
        group.spawn("key", std::future::pending::<()>)
    };
    assert!(poll_with(&mut caller, &bad_wake()).is_pending());
    drop(runtime);
    drop(caller);
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn borrowing_a_key_that_panics_is_its_callers_alone() {
    #[derive(PartialEq, Eq, Hash)]
    struct Key(String);
    impl Borrow<str> for Key {
        fn borrow(&self) -> &str {
            if self.0 == "bad" {
                panic!("bad borrow");
            }
            &self.0
        }
    }
    let group = Group::new();
    let leader = group.run(Key("bad".into()), std::future::pending::<()>);
    assert_eq!(text(&*panic_of(|| group.forget("bad"))), "bad borrow");
    assert_eq!(group.in_flight(), 1);
    drop(leader);
    assert_eq!(group.in_flight(), 0);
}
