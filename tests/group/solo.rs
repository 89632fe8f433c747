//! A leader that is alone, and the instant in which it no longer is: somebody joins or forgets its flight while the work
//! lies there, is being made, or is being polled.

use std::{
    hash::{Hash, Hasher},
    mem::ManuallyDrop,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
};

use tokio::runtime::{Builder, Runtime};
use tower_singleflight::{Group, Run};

use crate::support::{Alive, Cloned, Count, Gate, block_on, panic_of, poll_once, poll_with, text};

type Slot<T> = Arc<Mutex<Option<T>>>;

fn slot<T>(value: Option<T>) -> Slot<T> {
    Arc::new(Mutex::new(value))
}

fn runtime() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

/// Work whose first poll does `first`, and each later one `later`.
fn in_two_steps<T>(
    first: impl FnOnce() -> Poll<T> + Send + 'static,
    mut later: impl FnMut(&mut Context<'_>) -> Poll<T> + Send + 'static,
) -> impl Future<Output = T> + Send + 'static {
    let mut first = Some(first);
    std::future::poll_fn(move |cx| match first.take() {
        Some(first) => first(),
        None => later(cx),
    })
}

/// Keys of one hash lie behind one lock, the first beside it and the others in its table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key(u32);

impl Hash for Key {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Join,
    JoinAndLeave,
    Forget,
    ForgetAll,
    JoinAndForget,
}

const ACTS: [Act; 5] = [
    Act::Join,
    Act::JoinAndLeave,
    Act::Forget,
    Act::ForgetAll,
    Act::JoinAndForget,
];

impl Act {
    /// Gives who has joined and stays.
    fn on(self, group: &Group<Key, u32>, key: &Key) -> Option<Run<Key, u32>> {
        let join = || {
            let run = group.run(key.clone(), || -> std::future::Ready<u32> {
                unreachable!("somebody else leads")
            });
            assert_eq!(group.waiters(key), 2);
            run
        };
        match self {
            Self::Join => Some(join()),
            Self::JoinAndLeave => {
                drop(join());
                assert_eq!(group.waiters(key), 1);
                None
            }
            Self::Forget => {
                assert!(group.forget(key));
                assert!(!group.forget(key));
                assert_eq!(group.waiters(key), 0);
                None
            }
            Self::ForgetAll => {
                let there = group.in_flight();
                assert_eq!((group.forget_all(), group.in_flight()), (there, 0));
                None
            }
            Self::JoinAndForget => {
                let joined = join();
                assert!(group.forget(key));
                Some(joined)
            }
        }
    }

    fn joins(self) -> bool {
        !matches!(self, Self::Forget | Self::ForgetAll)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Made,
    Idle,
    Polled,
    PolledLast,
}

/// Three lone leaders behind one lock. Whatever happens to the flight of one of them, at whichever moment: it gets its
/// value, as does who has joined, the two others get theirs, and nothing is left.
#[test]
fn whatever_happens_to_a_lone_flight_all_behind_its_lock_get_their_values() {
    for act in ACTS {
        for when in [When::Made, When::Idle, When::Polled, When::PolledLast] {
            for place in 0..3 {
                let (group, alive, joined) = (Group::new(), Count::new(), slot(None));
                let mut leaders: Vec<_> = (0..3)
                    .map(|id| {
                        let it = move || id == place;
                        let (inside, keep) = (group.clone(), joined.clone());
                        let act = move || {
                            *keep.lock().unwrap() = act.on(&inside, &Key(id));
                        };
                        let made = act.clone();
                        let inside = Alive::new(&alive);
                        let run = group.run(Key(id), move || {
                            if it() && when == When::Made {
                                made();
                            }
                            in_two_steps(
                                move || {
                                    let _inside = &inside;
                                    if it() && matches!(when, When::Polled | When::PolledLast) {
                                        act();
                                    }
                                    match when {
                                        When::PolledLast => Poll::Ready(id),
                                        _ => Poll::Pending,
                                    }
                                },
                                move |_| Poll::Ready(id),
                            )
                        });
                        Some(run)
                    })
                    .collect();
                let polled = leaders[place as usize].as_mut().unwrap();
                if when == When::Idle {
                    *joined.lock().unwrap() = act.on(&group, &Key(place));
                }
                let mut first = poll_once(polled);
                if first.is_pending() {
                    first = poll_once(polled);
                }
                let Poll::Ready(outcome) = first else {
                    panic!("{act:?}, {when:?}: it is over by the second poll");
                };
                assert_eq!((outcome.value, outcome.shared), (place, act.joins()));
                assert_eq!(group.waiters(&Key(place)), 0);
                if let Some(joined) = joined.lock().unwrap().take() {
                    let outcome = block_on(joined);
                    assert_eq!((outcome.value, outcome.shared), (place, true));
                }
                leaders[place as usize] = None;
                for (id, leader) in leaders.into_iter().enumerate() {
                    let Some(mut leader) = leader else { continue };
                    let ended =
                        poll_once(&mut leader).is_ready() || poll_once(&mut leader).is_ready();
                    assert!(ended, "{act:?}, {when:?}, {place}: {id}");
                }
                assert_eq!((group.in_flight(), alive.get()), (0, 0));
            }
        }
    }
}

/// As above, and the leader leaves, or its work panics.
#[test]
fn a_leader_that_leaves_or_panics_behind_a_lock_takes_only_its_own_flight_along() {
    for act in ACTS {
        for (panics, place) in [(false, 0), (false, 1), (true, 0), (true, 2)] {
            let (group, alive) = (Group::new(), Count::new());
            let mut leaders: Vec<_> = (0..3)
                .map(|id| {
                    let inside = Alive::new(&alive);
                    group.run(Key(id), move || async move {
                        let _inside = inside;
                        if panics && id == place {
                            std::panic::resume_unwind(Box::new("boom"));
                        }
                        id
                    })
                })
                .collect();
            let joined = act.on(&group, &Key(place));
            let mut leader = leaders.remove(place as usize);
            if panics {
                assert_eq!(text(&*panic_of(|| poll_once(&mut leader))), "boom");
                let again = panic_of(|| poll_once(&mut leader));
                assert_eq!(text(&*again), "polled after completion");
            }
            drop(leader);
            assert_eq!(
                group.waiters(&Key(place)),
                usize::from(matches!(act, Act::Join) && !panics)
            );
            if let Some(joined) = joined {
                match panics {
                    true => assert_eq!(text(&*panic_of(|| block_on(joined))), "boom"),
                    false => assert_eq!(block_on(joined).value, place),
                }
            }
            assert_eq!(alive.get(), 2);
            for leader in leaders {
                assert!(!block_on(leader).shared);
            }
            assert_eq!((group.in_flight(), alive.get()), (0, 0));
        }
    }
}

#[test]
fn a_lone_flight_outlives_its_group() {
    let alive = Count::new();
    for ends in [true, false] {
        let group = Group::new();
        let (inside, value) = (Alive::new(&alive), Arc::new(Alive::new(&alive)));
        let leader = group.run("key", || async move {
            let _inside = inside;
            value
        });
        drop(group);
        assert_eq!(alive.get(), 2);
        if ends {
            assert!(!block_on(leader).shared);
        } else {
            drop(leader);
        }
        assert_eq!(alive.get(), 0);
    }
}

/// Its waker lies in the table; the one of its last poll, on whichever thread, goes along when somebody joins.
#[tokio::test]
async fn the_waker_of_a_lone_leaders_last_poll_is_woken_at_the_end_of_the_flight_that_it_shares() {
    let group = Group::new();
    let gate = Gate::new();
    let (first, last) = (Count::new(), Count::new());
    let mut leader = group.run("key", || gate.clone().then(1));
    assert!(poll_with(&mut leader, &first.waker()).is_pending());
    let waker = last.waker();
    let mut leader = thread::spawn(move || {
        assert!(poll_with(&mut leader, &waker).is_pending());
        leader
    })
    .join()
    .unwrap();
    let follower = group.run("key", || async { 2 });
    // The task polls the work, whose wake-ups are that one's from now on.
    tokio::task::yield_now().await;
    gate.open();
    assert_eq!(follower.await.value, 1);
    assert_eq!((first.get(), last.get(), group.in_flight()), (0, 1, 0));
    assert!(poll_once(&mut leader).is_ready());
}

#[test]
fn a_leader_that_is_leaked_stops_nobody() {
    let (group, gate, clones) = (Group::new(), Gate::new(), Count::new());
    let value = Cloned(clones.clone());
    let mut leader = ManuallyDrop::new(group.run("key", || gate.clone().then(value)));
    assert!(poll_once(&mut *leader).is_pending());
    let follower = group.run("key", std::future::pending);
    gate.open();
    assert!(block_on(follower).shared);
    assert_eq!((group.in_flight(), group.waiters("key")), (0, 0));
    assert_eq!(clones.get(), 1);
}

// ===== no task before it is needed =====

/// Joined from within `runtime` while its work is made or polled.
fn joined_within(
    group: &Group<&'static str, u32>,
    runtime: &Runtime,
    spawn: bool,
) -> Run<&'static str, u32> {
    let _in = runtime.enter();
    match spawn {
        true => group.spawn("key", std::future::pending),
        false => group.run("key", std::future::pending),
    }
}

#[test]
fn work_that_ends_in_the_poll_in_which_it_is_joined_costs_no_task() {
    for spawn in [false, true] {
        let (group, runtime) = (Group::new(), Arc::new(runtime()));
        let joined = slot(None);
        let (inside, within, place) = (group.clone(), Arc::clone(&runtime), joined.clone());
        let mut leader = group.run("key", || async move {
            *place.lock().unwrap() = Some(joined_within(&inside, &within, spawn));
            1
        });
        assert!(matches!(poll_once(&mut leader), Poll::Ready(outcome) if outcome.shared));
        assert_eq!(group.in_flight(), 0);
        assert_eq!(runtime.metrics().num_alive_tasks(), 0);
        let joined = joined.lock().unwrap().take().unwrap();
        assert_eq!(block_on(joined).value, 1);
    }
}

#[test]
fn work_that_is_joined_while_it_is_made_or_polled_gets_one_task_when_that_is_done() {
    for polled in [false, true] {
        let (group, runtime) = (Group::new(), Arc::new(runtime()));
        let joined = slot(None);
        let join = {
            let (inside, within, place) = (group.clone(), Arc::clone(&runtime), joined.clone());
            move || {
                let joins = [false, true, false];
                let all = joins.map(|spawn| joined_within(&inside, &within, spawn));
                assert_eq!(within.metrics().num_alive_tasks(), 0);
                *place.lock().unwrap() = Some(all);
            }
        };
        let gate = Gate::new();
        let mut leader = group.run("key", || {
            let mut join = Some(join);
            if !polled {
                if let Some(join) = join.take() {
                    join();
                }
            }
            let gate = gate.clone();
            async move {
                if let Some(join) = join {
                    join();
                }
                gate.then(1).await
            }
        });
        if polled {
            assert!(poll_once(&mut leader).is_pending());
        }
        assert_eq!(runtime.metrics().num_alive_tasks(), 1);
        assert_eq!((group.in_flight(), group.waiters("key")), (1, 4));
        drop(leader);
        drop(joined.lock().unwrap().take());
        // Joined by `spawn`, so kept.
        assert_eq!((group.in_flight(), group.waiters("key")), (1, 0));
        gate.open();
        runtime.block_on(async {
            while group.in_flight() > 0 {
                tokio::task::yield_now().await;
            }
            tokio::task::yield_now().await;
        });
        assert_eq!(runtime.metrics().num_alive_tasks(), 0);
    }
}

// ===== the user's code =====

#[test]
fn a_panic_of_work_that_is_joined_in_that_poll_reaches_both() {
    let group: Group<&str, ()> = Group::new();
    let joined = slot(None);
    let (inside, place) = (group.clone(), joined.clone());
    let mut leader = group.run("key", || async move {
        *place.lock().unwrap() = Some(inside.run("key", std::future::pending));
        std::panic::panic_any(7_u64);
    });
    let payload = panic_of(|| poll_once(&mut leader));
    assert_eq!(payload.downcast_ref::<u64>(), Some(&7));
    assert_eq!(group.in_flight(), 0);
    let mut joined: Run<_, _> = joined.lock().unwrap().take().unwrap();
    assert!(text(&*panic_of(|| poll_once(&mut joined))).contains("no text"));
    let again = panic_of(|| poll_once(&mut leader));
    assert_eq!(text(&*again), "polled after completion");
}

/// Does what it holds when it is dropped or woken for the last time.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl<F: FnMut() + Send + Sync + 'static> Wake for OnDrop<F> {
    fn wake(self: Arc<Self>) {}
}

/// The work has given its value, which nobody has seen yet.
#[test]
fn work_that_is_dropped_after_its_value_joins_its_own_flight() {
    let group = Group::new();
    let joined = slot(None);
    let (inside, place) = (group.clone(), joined.clone());
    let last = OnDrop(move || {
        *place.lock().unwrap() = Some(inside.run("key", std::future::pending));
    });
    let mut leader = group.run("key", || {
        std::future::poll_fn(move |_| {
            let _last = &last;
            Poll::Ready(1)
        })
    });
    assert!(matches!(poll_once(&mut leader), Poll::Ready(outcome) if outcome.shared));
    assert_eq!(group.in_flight(), 0);
    let joined: Run<_, _> = joined.lock().unwrap().take().unwrap();
    assert_eq!(block_on(joined).value, 1);
}

/// Each of the leader's wakers: replaced by another, and dropped with the flight, or by who forgets it.
#[test]
fn dropping_a_lone_leaders_waker_uses_the_group() {
    for forgotten in [false, true] {
        let group: Group<&str, ()> = Group::new();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let waker = || {
            let (inside, seen) = (group.clone(), Arc::clone(&seen));
            Waker::from(Arc::new(OnDrop(move || {
                let now = (inside.in_flight(), inside.waiters("key"));
                seen.lock().unwrap().push(now);
            })))
        };
        let mut leader = group.run("key", std::future::pending);
        assert!(poll_with(&mut leader, &waker()).is_pending());
        assert!(poll_with(&mut leader, &waker()).is_pending());
        assert_eq!(*seen.lock().unwrap(), [(1, 1)]);
        if forgotten {
            assert!(group.forget("key"));
        }
        drop(leader);
        assert_eq!(seen.lock().unwrap()[1..], [(0, 0)]);
        assert_eq!(group.in_flight(), 0);
    }
}

/// A key whose drop panics once, when told to.
#[derive(Clone)]
struct BadKey(Arc<AtomicBool>);

impl PartialEq for BadKey {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for BadKey {}

impl Hash for BadKey {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl Drop for BadKey {
    fn drop(&mut self) {
        if self.0.swap(false, Ordering::SeqCst) {
            panic!("bad key drop");
        }
    }
}

#[test]
fn a_lone_flight_whose_key_panics_when_dropped_leaves_nothing() {
    let alive = Count::new();
    let end: fn(_) = |leader| drop(block_on::<Run<BadKey, Arc<Alive>>>(leader));
    for end in [end, drop] {
        let (group, bad) = (Group::new(), Arc::default());
        let (inside, value) = (Alive::new(&alive), Arc::new(Alive::new(&alive)));
        let leader = group.run(BadKey(Arc::clone(&bad)), || async move {
            let _inside = inside;
            value
        });
        bad.store(true, Ordering::SeqCst);
        assert_eq!(text(&*panic_of(|| end(leader))), "bad key drop");
        assert_eq!((group.in_flight(), alive.get()), (0, 0));
    }
}

#[test]
fn a_key_that_panics_when_it_is_forgotten_harms_no_leader() {
    let (group, bad) = (Group::new(), Arc::default());
    let leader = group.run(BadKey(Arc::clone(&bad)), || async { 1 });
    bad.store(true, Ordering::SeqCst);
    assert_eq!(text(&*panic_of(|| group.forget_all())), "bad key drop");
    assert_eq!(group.in_flight(), 0);
    let outcome = block_on(leader);
    assert_eq!((outcome.value, outcome.shared), (1, false));
}

// ===== a runtime that shuts down before it gets the work =====

/// A leader whose work is joined from within a runtime in its first poll, and that runtime is gone when the poll returns.
fn joined_within_a_dying_runtime(
    group: &Group<&'static str, u32>,
    alive: &Count,
    spawn: bool,
) -> (Run<&'static str, u32>, Run<&'static str, u32>) {
    let joined = slot(None);
    let (inside, place) = (group.clone(), joined.clone());
    let last = Alive::new(alive);
    let mut leader = group.run("key", || {
        in_two_steps(
            move || {
                let runtime = runtime();
                *place.lock().unwrap() = Some(joined_within(&inside, &runtime, spawn));
                Poll::Pending
            },
            move |cx| {
                let _last = &last;
                cx.waker().wake_by_ref();
                Poll::Pending
            },
        )
    });
    assert!(poll_once(&mut leader).is_pending());
    let joined = joined.lock().unwrap().take().unwrap();
    (leader, joined)
}

#[test]
fn a_runtime_that_shuts_down_before_it_gets_the_work_leaves_it_to_the_callers() {
    for spawn in [false, true] {
        let (group, alive) = (Group::new(), Count::new());
        let (mut leader, mut joined) = joined_within_a_dying_runtime(&group, &alive, spawn);
        assert_eq!((group.in_flight(), group.waiters("key")), (1, 2));
        // Either drives: it is woken by what it polls.
        for caller in [&mut leader, &mut joined] {
            let woken = Count::new();
            assert!(poll_with(caller, &woken.waker()).is_pending());
            assert!(woken.get() > 0);
        }
        drop(leader);
        assert_eq!((group.in_flight(), alive.get()), (1, 1));
        drop(joined);
        assert_eq!((group.in_flight(), alive.get()), (0, 0));
    }
}
