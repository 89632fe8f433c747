//! Random histories of a few threads, checked against what a group may do one operation at a time.
//!
//! Every work carries the number of its flight, which is its value and the text of its panic. A logical clock orders what
//! the threads see: an operation took effect somewhere between its two ticks. Checked are
//!
//! * one call: two works of a key overlap only if the first was forgotten or cancelled;
//! * freshness: nobody gets the end of a flight that somebody had already got, or that had been forgotten, before it asked;
//! * no mix: an end is that of the caller's own key, and all callers of a flight get the same one;
//! * `shared`: true for all if it is for one, and never false for two;
//! * `spawn`: what it leads is never cancelled;
//! * at rest nothing is in flight, waited for or alive.
//!
//! `GROUP_SEED=<n>` repeats a run's choices (not the scheduler's), `GROUP_ROUNDS=<n>` makes it longer.
//!
//! Tried by hand: finding an entry by its hash alone in `unlink`, counting the last caller out before the lock in
//! `count_out`, and publishing before unlinking in `land` and `land_here` each fail it.

use std::{
    collections::HashMap,
    env,
    hash::{Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::Poll,
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::runtime::{Builder, Handle};
use tower_singleflight::{Group, Run};

use crate::support::{Rng, block_on, poll_once, text};

const THREADS: u64 = 4;
const KEYS: u64 = 3;
const STEPS: usize = 150;

/// In every other round all keys have one hash, so that their flights lie behind one lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    id: u64,
    hash: u64,
}

impl Key {
    fn new(id: u64, alike: bool) -> Self {
        let hash = if alike { 0 } else { id };
        Self { id, hash }
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

type Tick = u64;
type Id = usize;

#[derive(Clone, Debug)]
struct Flight {
    key: u64,
    /// Before its leader called, and in `work`: it was linked in between, and may have been forgotten there too.
    called: Tick,
    started: Tick,
    /// In its last poll; `None` if it was cancelled.
    finished: Option<Tick>,
    by_spawn: bool,
}

#[derive(Debug)]
struct Receipt {
    key: u64,
    flight: Id,
    called: Tick,
    got: Tick,
    /// `None` for a panic.
    shared: Option<bool>,
}

#[derive(Debug)]
struct Forget {
    /// `None` for all.
    key: Option<u64>,
    begun: Tick,
    done: Tick,
}

#[derive(Default)]
struct World {
    clock: AtomicU64,
    alive: AtomicUsize,
    flights: Mutex<Vec<Flight>>,
    receipts: Mutex<Vec<Receipt>>,
    forgets: Mutex<Vec<Forget>>,
}

impl World {
    fn tick(&self) -> Tick {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }
}

/// A work that is counted while it lives.
struct Alive(Arc<World>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Caller {
    key: u64,
    called: Tick,
    run: Run<Key, Id>,
}

struct Actor {
    group: Group<Key, Id>,
    alike: bool,
    world: Arc<World>,
    random: Rng,
    runtime: Handle,
    callers: Vec<Caller>,
}

impl Actor {
    fn call(&mut self, spawn: bool) {
        let key = self.random.below(KEYS);
        let polls = self.random.below(4);
        let panics = self.random.below(5) == 0;
        // Half of the callers stand outside the runtime.
        let inside = spawn || self.random.below(2) == 0;
        let _in = inside.then(|| self.runtime.enter());
        let world = Arc::clone(&self.world);
        let called = world.tick();
        let work = || {
            let id = {
                let mut flights = world.flights.lock().unwrap();
                flights.push(Flight {
                    key,
                    called,
                    started: world.tick(),
                    finished: None,
                    by_spawn: spawn,
                });
                flights.len() - 1
            };
            world.alive.fetch_add(1, Ordering::SeqCst);
            let alive = Alive(Arc::clone(&world));
            let mut left = polls;
            std::future::poll_fn(move |cx| {
                let world = &alive.0;
                if left > 0 {
                    left -= 1;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                world.flights.lock().unwrap()[id].finished = Some(world.tick());
                if panics {
                    // The hook has nothing to say about it.
                    resume_unwind(Box::new(id.to_string()));
                }
                Poll::Ready(id)
            })
        };
        let run = match spawn {
            true => self.group.spawn(Key::new(key, self.alike), work),
            false => self.group.run(Key::new(key, self.alike), work),
        };
        self.callers.push(Caller { key, called, run });
    }

    fn forget(&mut self) {
        let key = (self.random.below(4) > 0).then(|| self.random.below(KEYS));
        let begun = self.world.tick();
        match key {
            Some(key) => drop(self.group.forget(&Key::new(key, self.alike))),
            None => drop(self.group.forget_all()),
        }
        let done = self.world.tick();
        let mut forgets = self.world.forgets.lock().unwrap();
        forgets.push(Forget { key, begun, done });
    }

    fn pick(&mut self) -> Option<usize> {
        let callers = self.callers.len() as u64;
        (callers > 0).then(|| self.random.below(callers) as usize)
    }

    fn poll(&mut self) {
        let Some(index) = self.pick() else { return };
        let caller = &mut self.callers[index];
        let polled = catch_unwind(AssertUnwindSafe(|| poll_once(&mut caller.run)));
        if !matches!(polled, Ok(Poll::Pending)) {
            let caller = self.callers.swap_remove(index);
            self.receive(&caller, polled.map(|polled| polled.map(Some)));
        }
    }

    fn finish(&mut self, mut caller: Caller) {
        let ended = catch_unwind(AssertUnwindSafe(|| block_on(&mut caller.run)));
        self.receive(&caller, ended.map(|outcome| Poll::Ready(Some(outcome))));
    }

    fn receive(
        &self,
        caller: &Caller,
        ended: thread::Result<Poll<Option<tower_singleflight::Outcome<Id>>>>,
    ) {
        let (flight, shared) = match ended {
            Ok(Poll::Ready(Some(outcome))) => (outcome.value, Some(outcome.shared)),
            Ok(_) => unreachable!("it has ended"),
            Err(payload) => (text(&*payload).parse().unwrap(), None),
        };
        let receipt = Receipt {
            key: caller.key,
            flight,
            called: caller.called,
            got: self.world.tick(),
            shared,
        };
        self.world.receipts.lock().unwrap().push(receipt);
    }

    fn act(mut self) {
        for _ in 0..STEPS {
            match self.random.below(16) {
                0..6 => self.call(false),
                6 => self.call(true),
                7..12 => self.poll(),
                12..15 => {
                    if let Some(index) = self.pick() {
                        drop(self.callers.swap_remove(index));
                    }
                }
                _ => self.forget(),
            }
            let key = Key::new(self.random.below(KEYS), self.alike);
            let waiting = self.group.waiters(&key);
            assert!(waiting <= THREADS as usize * STEPS);
        }
        for caller in std::mem::take(&mut self.callers) {
            match self.random.below(3) {
                0 => drop(caller),
                _ => self.finish(caller),
            }
        }
    }
}

fn check(world: &World) {
    let flights = world.flights.lock().unwrap();
    let receipts = world.receipts.lock().unwrap();
    let forgets = world.forgets.lock().unwrap();
    let of = |forget: &Forget, key| forget.key.is_none_or(|forgotten| forgotten == key);

    for (id, first) in flights.iter().enumerate() {
        assert!(
            first.finished.is_some() || !first.by_spawn,
            "flight {id} was led by spawn and cancelled"
        );
        // Work that was cancelled while it was polled may have finished in that poll, with its key free already.
        let landed = first.by_spawn || receipts.iter().any(|receipt| receipt.flight == id);
        let Some(finished) = first.finished.filter(|_| landed) else {
            continue;
        };
        for (other, second) in flights.iter().enumerate() {
            let overlap = second.key == first.key
                && first.started < second.called
                && second.started < finished;
            let forgotten = forgets.iter().any(|forget| {
                of(forget, first.key) && first.called < forget.done && forget.begun < second.started
            });
            assert!(
                !overlap || forgotten,
                "{second:?} began while {first:?} was in the air: {:?}",
                receipts
                    .iter()
                    .filter(|receipt| [id, other].contains(&receipt.flight))
                    .collect::<Vec<_>>(),
            );
        }
    }

    let mut by_flight: HashMap<Id, Vec<&Receipt>> = HashMap::new();
    for receipt in receipts.iter() {
        let flight = &flights[receipt.flight];
        assert_eq!(receipt.key, flight.key, "{receipt:?} of {flight:?}");
        assert!(flight.finished.is_some(), "{receipt:?} of {flight:?}");
        let stale = forgets.iter().any(|forget| {
            of(forget, flight.key) && flight.started < forget.begun && forget.done < receipt.called
        });
        assert!(
            !stale,
            "{receipt:?} of {flight:?}, which had been forgotten"
        );
        by_flight.entry(receipt.flight).or_default().push(receipt);
    }
    for (id, receipts) in by_flight {
        let ended = receipts.iter().map(|receipt| receipt.got).min().unwrap();
        for receipt in &receipts {
            assert!(receipt.called < ended, "{receipt:?}: flight {id} had ended");
            assert_eq!(receipt.shared, receipts[0].shared, "flight {id}");
        }
        assert!(
            receipts.len() == 1 || receipts[0].shared != Some(false),
            "flight {id}"
        );
    }
}

#[test]
fn random_histories_are_linearizable() {
    let seed = match env::var("GROUP_SEED") {
        Ok(seed) => seed.parse().expect("GROUP_SEED is a number"),
        Err(_) => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64),
    };
    let rounds = env::var("GROUP_ROUNDS").map_or(150, |rounds| rounds.parse().unwrap());
    println!("GROUP_SEED={seed}");
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let mut seeds = Rng::new(seed);
    for round in 0..rounds {
        let alike = round % 2 == 1;
        let (group, world) = (Group::new(), Arc::new(World::default()));
        thread::scope(|scope| {
            for _ in 0..THREADS {
                let actor = Actor {
                    group: group.clone(),
                    alike,
                    world: Arc::clone(&world),
                    random: Rng::new(seeds.below(u64::MAX)),
                    runtime: runtime.handle().clone(),
                    callers: Vec::new(),
                };
                scope.spawn(|| actor.act());
            }
        });
        // Kept flights end by themselves.
        while group.in_flight() > 0 || world.alive.load(Ordering::SeqCst) > 0 {
            thread::yield_now();
        }
        for key in 0..KEYS {
            assert_eq!(group.waiters(&Key::new(key, alike)), 0);
        }
        check(&world);
    }
}
