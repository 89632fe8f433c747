//! The user's code - work, wakers, clones, drops - uses the group, and other callers of the same flight.

use std::{
    sync::{Arc, Mutex},
    task::{Poll, Wake, Waker},
};

use tower_singleflight::{Group, Run};

use crate::support::{Count, Gate, block_on, poll_once, poll_with};

type Slot<T> = Arc<Mutex<Option<T>>>;

fn slot<T>() -> Slot<T> {
    Arc::new(Mutex::new(None))
}

/// Does `self.0` once, when it is woken.
struct Then<F>(Mutex<Option<F>>);

impl<F: FnOnce() + Send + 'static> Then<F> {
    fn waker(then: F) -> Waker {
        Waker::from(Arc::new(Self(Mutex::new(Some(then)))))
    }
}

impl<F: FnOnce() + Send + 'static> Wake for Then<F> {
    fn wake(self: Arc<Self>) {
        let then = self.0.lock().unwrap().take();
        if let Some(then) = then {
            then();
        }
    }
}

/// Does `self.0` when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[tokio::test]
async fn work_uses_the_group_when_it_is_called() {
    let group = Group::new();
    let (inner, other) = (group.clone(), slot());
    let outer = group.run("outer", || {
        assert_eq!((inner.in_flight(), inner.waiters("outer")), (1, 1));
        *other.lock().unwrap() = Some(inner.run("inner", || async { 1 }));
        assert!(inner.forget("outer"));
        async { 2 }
    });
    assert_eq!((group.in_flight(), group.waiters("outer")), (1, 0));
    let inner = other.lock().unwrap().take().unwrap();
    assert_eq!((outer.await.value, inner.await.value), (2, 1));
    assert_eq!(group.in_flight(), 0);
}

#[tokio::test]
async fn work_awaits_another_key_of_the_group() {
    let group: Group<u32, u32> = Group::new();
    let inner = group.clone();
    let outer = group.run(1, || async move {
        inner.run(2, || async { 20 }).await.value + 1
    });
    assert_eq!(outer.await.value, 21);
    assert_eq!(group.in_flight(), 0);
}

#[tokio::test]
async fn work_forgets_its_own_key_and_runs_it_anew() {
    let group: Group<&str, u32> = Group::new();
    let inner = group.clone();
    let outer = group.run("key", || async move {
        assert!(inner.forget("key"));
        inner.run("key", || async { 1 }).await.value + 1
    });
    let outcome = outer.await;
    assert_eq!((outcome.value, outcome.shared), (2, false));
    assert_eq!(group.in_flight(), 0);
}

#[tokio::test]
async fn work_that_is_called_is_joined_by_its_own_call() {
    let group = Group::new();
    let joined = slot();
    let leader = group.run("key", || {
        *joined.lock().unwrap() = Some(group.run("key", || async { unreachable!() }));
        async { 1 }
    });
    let follower = joined.lock().unwrap().take().unwrap();
    assert_eq!(group.waiters("key"), 2);
    assert_eq!(follower.await.value, 1);
    let outcome = leader.await;
    assert_eq!((outcome.value, outcome.shared), (1, true));
    assert_eq!(group.in_flight(), 0);
}

/// While its leader polls it inline: the leader's waker is in nobody's hands yet.
#[tokio::test]
async fn work_that_is_polled_by_its_leader_is_joined_by_its_own_poll() {
    let group = Group::new();
    let joined = slot();
    let (inside, place) = (group.clone(), joined.clone());
    let leader = group.run("key", || {
        std::future::poll_fn(move |_| {
            let mut place = place.lock().unwrap();
            if place.is_some() {
                return Poll::Ready(1);
            }
            *place = Some(inside.run("key", std::future::pending));
            Poll::Pending
        })
    });
    assert_eq!(leader.await.value, 1);
    assert_eq!(group.in_flight(), 0);
    let follower: Run<_, _> = joined.lock().unwrap().take().unwrap();
    assert_eq!(follower.await.value, 1);
}

/// As above where the callers drive: who polls now is the only one there.
#[test]
fn outside_tokio_work_is_joined_by_its_own_poll() {
    let group = Group::new();
    let joined = slot();
    let (inside, place) = (group.clone(), joined.clone());
    let leader = group.run("key", || {
        std::future::poll_fn(move |_| {
            let mut place = place.lock().unwrap();
            if place.is_some() {
                return Poll::Ready(1);
            }
            *place = Some(inside.run("key", std::future::pending));
            Poll::Pending
        })
    });
    assert_eq!(block_on(leader).value, 1);
    assert_eq!(group.in_flight(), 0);
    let follower: Run<_, _> = joined.lock().unwrap().take().unwrap();
    assert_eq!(block_on(follower).value, 1);
}

#[test]
fn outside_tokio_work_polls_another_caller_of_its_own_flight() {
    let group = Group::new();
    let other: Slot<Run<&str, u32>> = slot();
    let place = other.clone();
    let mut polls = 0;
    let mut leader = group.run("key", || {
        std::future::poll_fn(move |cx| {
            polls += 1;
            let mut other = place.lock().unwrap();
            assert!(poll_once(other.as_mut().unwrap()).is_pending());
            if polls == 1 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(polls)
        })
    });
    *other.lock().unwrap() = Some(group.run("key", std::future::pending));
    let woken = Count::new();
    assert!(poll_with(&mut leader, &woken.waker()).is_pending());
    assert!(woken.get() > 0);
    assert!(poll_once(&mut leader).is_ready());
    assert_eq!(group.in_flight(), 0);
    assert!(poll_once(other.lock().unwrap().as_mut().unwrap()).is_ready());
}

/// The last caller leaves while a task polls the work: dropped as soon as that poll returns.
#[tokio::test]
async fn work_drops_all_its_callers_while_the_task_polls_it() {
    let group = Group::new();
    let dropped = Count::new();
    let callers: Slot<Vec<Run<&str, ()>>> = slot();
    let (inside, place, counted) = (group.clone(), callers.clone(), dropped.clone());
    let leader = group.run("key", || {
        let last = OnDrop(move || counted.up());
        let counted = dropped.clone();
        std::future::poll_fn(move |_| {
            let _last = &last;
            drop(place.lock().unwrap().take());
            assert_eq!((inside.in_flight(), counted.get()), (0, 0));
            Poll::Pending
        })
    });
    let follower = group.run("key", std::future::pending);
    *callers.lock().unwrap() = Some(vec![leader, follower]);
    while dropped.get() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(group.in_flight(), 0);
}

#[tokio::test]
async fn a_waker_polls_another_caller_of_the_flight_that_wakes_it() {
    let group = Group::new();
    let gate = Gate::new();
    let mut leader = group.run("key", || gate.clone().then(1));
    let mut follower = group.run("key", std::future::pending);
    assert!(poll_once(&mut leader).is_pending());
    let got = slot();
    let place = got.clone();
    let waker = Then::waker(move || {
        *place.lock().unwrap() = Some(poll_once(&mut leader));
    });
    assert!(poll_with(&mut follower, &waker).is_pending());
    gate.open();
    while group.in_flight() > 0 {
        tokio::task::yield_now().await;
    }
    let leaders = got.lock().unwrap().take().unwrap();
    assert!(matches!(leaders, Poll::Ready(outcome) if outcome.value == 1));
    assert_eq!(follower.await.value, 1);
}

#[tokio::test]
async fn a_waker_drops_other_callers_of_the_flight_that_wakes_it() {
    let group = Group::new();
    let gate = Gate::new();
    let leader = group.run("key", || gate.clone().then(1));
    let mut follower = group.run("key", std::future::pending);
    let mut others: Vec<_> = (0..10)
        .map(|_| group.run("key", std::future::pending))
        .collect();
    for other in &mut others {
        assert!(poll_once(other).is_pending());
    }
    let waker = Then::waker(move || drop((leader, others)));
    assert!(poll_with(&mut follower, &waker).is_pending());
    gate.open();
    while group.in_flight() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(follower.await.value, 1);
}

/// The task that drives the flight still holds it: that is no reason to clone.
#[tokio::test]
async fn a_waker_that_polls_its_own_unshared_flight_gets_the_value_uncloned() {
    let group = Group::new();
    let clones = Count::new();
    let gate = Gate::new();
    let value = crate::support::Cloned(clones.clone());
    let caller = Arc::new(Mutex::new(group.spawn("key", || gate.clone().then(value))));
    let (place, got) = (caller.clone(), slot());
    let result = got.clone();
    let waker = Then::waker(move || {
        *result.lock().unwrap() = Some(poll_once(&mut *place.lock().unwrap()));
    });
    assert!(poll_with(&mut *caller.lock().unwrap(), &waker).is_pending());
    gate.open();
    while got.lock().unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    assert!(matches!(*got.lock().unwrap(), Some(Poll::Ready(ref outcome)) if !outcome.shared));
    assert_eq!((clones.get(), group.in_flight()), (0, 0));
}

/// A value whose clone polls another caller, and whose drop starts a new flight.
struct Busy {
    other: Slot<Run<u32, Busy>>,
    got: Count,
    group: Group<u32, Busy>,
}

impl Clone for Busy {
    fn clone(&self) -> Self {
        let other = self.other.lock().unwrap().take();
        if let Some(mut other) = other {
            assert!(poll_once(&mut other).is_ready());
            self.got.up();
        }
        Self {
            other: self.other.clone(),
            got: self.got.clone(),
            group: self.group.clone(),
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        drop(self.group.run(9, std::future::pending));
    }
}

#[test]
fn a_clone_polls_another_caller_and_a_drop_uses_the_group() {
    let group = Group::new();
    let (other, got) = (slot(), Count::new());
    let value = Busy {
        other: other.clone(),
        got: got.clone(),
        group: group.clone(),
    };
    let mut leader = group.run(1, || async { value });
    let mut follower = group.run(1, std::future::pending);
    *other.lock().unwrap() = Some(group.run(1, std::future::pending));
    assert!(poll_once(&mut follower).is_ready());
    assert_eq!(got.get(), 1);
    assert!(poll_once(&mut leader).is_ready());
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn dropping_the_work_runs_the_same_key_anew() {
    let group: Group<&str, u32> = Group::new();
    let (inside, next) = (group.clone(), slot());
    let place = next.clone();
    let last = OnDrop(move || {
        *place.lock().unwrap() = Some(inside.run("key", || async { 2 }));
    });
    let alone = group.run("key", || async move {
        let _last = last;
        std::future::pending().await
    });
    drop(alone);
    assert_eq!((group.in_flight(), group.waiters("key")), (1, 1));
    let next: Run<_, _> = next.lock().unwrap().take().unwrap();
    assert_eq!(block_on(next).value, 2);
    assert_eq!(group.in_flight(), 0);
}

/// Keys are dropped under no lock, not even when they are all forgotten.
#[test]
fn dropping_a_key_uses_the_group() {
    #[derive(Clone)]
    struct Key(u32, Slot<Group<Key, ()>>);
    impl PartialEq for Key {
        fn eq(&self, other: &Self) -> bool {
            self.0 == other.0
        }
    }
    impl Eq for Key {}
    impl std::hash::Hash for Key {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            self.0.hash(state);
        }
    }
    impl Drop for Key {
        fn drop(&mut self) {
            let group = self.1.lock().unwrap().clone();
            if let Some(group) = group {
                let _ = group.in_flight();
            }
        }
    }
    let group: Group<Key, ()> = Group::new();
    let place = slot();
    *place.lock().unwrap() = Some(group.clone());
    let key = |id| Key(id, place.clone());
    let leader = group.run(key(1), || async {});
    let follower = group.run(key(1), || async {});
    block_on(leader);
    drop(follower);
    let cancelled = group.run(key(2), || async {});
    drop(cancelled);
    let forgotten = group.run(key(3), || async {});
    assert!(group.forget(&key(3)));
    let all = group.run(key(4), || async {});
    assert_eq!(group.forget_all(), 1);
    drop((forgotten, all));
    assert_eq!(group.in_flight(), 0);
    *place.lock().unwrap() = None;
}
