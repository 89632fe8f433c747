//! `Group` beside its peers and beside the limit of what any such thing can do.
//!
//! ```text
//! cargo bench -p benches --bench group                    # everything, some three minutes
//! cargo bench -p benches --bench group -- fan-out         # scenarios whose name holds the word
//! GROUP_TABLE=only cargo bench -p benches --bench group   # the table alone, without criterion
//! BENCH_JSON=FILE cargo bench -p benches --bench group    # the table also as JSON, which `benches/plot.py` draws
//! ```
//!
//! First a table of ratios: the contestants of a scenario take turns, round by round, so that whatever else the machine
//! does meets all of them alike; a ratio is the median of the rounds' ratios to the scenario's limit (the first line).
//! Then criterion's own measurements, one contestant after the other.
//!
//! Solo scenarios run without a runtime: a contestant is polled, and nothing else. So nothing dilutes the ratio. A fan-out
//! begins when the gate is opened that the work waits at, so that it counts the work's end too, wherever a contestant
//! wakes its callers. Keys in common have work that waits a millisecond, as a call over a network does; what counts there
//! is processor time, since the wait is the same for all.

#![expect(
    clippy::disallowed_methods,
    reason = "what a bench reads is the real clock"
)]

mod counting;
mod peers;
mod polling;
mod results;
mod rounds;

use std::{
    cell::Cell,
    fs,
    future::{Future, poll_fn},
    hint::black_box,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Builder, Runtime},
    sync::{Notify, Semaphore},
};

use counting::counted;
use peers::{
    AsyncSingleflight, LimitShard, LimitShardBoxed, Moka, Peer, QuickCache, RsSingleflight,
    SharedMap, SingleflightAsync, ThisCrate, Uncoalesced, Value,
};
use polling::{poll_to_end, waker};
use results::Results;
use rounds::{Scenario, TURN, median, median_of};

/// The crates whose versions the numbers depend on.
const PEERS: &[&str] = &[
    "async_singleflight",
    "futures-util",
    "moka",
    "quick_cache",
    "rs-singleflight",
    "singleflight-async",
    "tokio",
];

/// How many tasks call at the same time where several do.
const TASKS: usize = 64;

/// Everybody who coalesces: `scenario.with(NAME, $timed::<P>(arguments))` for each.
macro_rules! peers {
    ($scenario:expr, $timed:ident($($argument:expr),*)) => {
        $scenario
            .with(ThisCrate::NAME, $timed::<ThisCrate>($($argument),*))
            .with(SharedMap::NAME, $timed::<SharedMap>($($argument),*))
            .with(SingleflightAsync::NAME, $timed::<SingleflightAsync>($($argument),*))
            .with(RsSingleflight::NAME, $timed::<RsSingleflight>($($argument),*))
            .with(AsyncSingleflight::NAME, $timed::<AsyncSingleflight>($($argument),*))
            .with(QuickCache::NAME, $timed::<QuickCache>($($argument),*))
            .with(Moka::NAME, $timed::<Moka>($($argument),*))
    };
}

// ===== a caller's surroundings =====

/// `Pending` so many times, waking each time.
async fn yields(mut times: u32) {
    poll_fn(|cx| {
        if times == 0 {
            return Poll::Ready(());
        }
        times -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A peer that held calls may borrow.
fn leaked<P: Peer>() -> &'static P {
    Box::leak(Box::new(P::new()))
}

fn one_thread() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

fn workers(workers: usize) -> &'static Runtime {
    static RUNTIMES: [OnceLock<Runtime>; 5] = [const { OnceLock::new() }; 5];
    RUNTIMES[workers].get_or_init(|| {
        Builder::new_multi_thread()
            .worker_threads(workers)
            .enable_time()
            .build()
            .unwrap()
    })
}

// ===== solo =====

fn solo<P: Peer>(pending: u32) -> impl FnMut(u64) -> Duration {
    let (peer, waker, mut key) = (P::new(), waker(), 0);
    move |calls| {
        let start = Instant::now();
        for _ in 0..calls {
            key += 1;
            let call = peer.call(key, async move {
                yields(pending).await;
                Value(key)
            });
            black_box(poll_to_end(call, &waker));
        }
        start.elapsed()
    }
}

fn solo_ready<P: Peer>() -> impl FnMut(u64) -> Duration {
    let (peer, waker, mut key) = (P::new(), waker(), 0);
    move |calls| {
        let start = Instant::now();
        for _ in 0..calls {
            key += 1;
            let call = peer.call(key, async move { Value(key) });
            black_box(poll_to_end(call, &waker));
        }
        start.elapsed()
    }
}

/// Solo calls while `flights` other keys are in the air.
fn among_keys<P: Peer>(flights: u64) -> impl FnMut(u64) -> Duration {
    let mut held = None;
    move |calls| {
        let (peer, waker, _flights) = held.get_or_insert_with(|| {
            let (peer, waker) = (leaked::<P>(), waker());
            let mut cx = Context::from_waker(&waker);
            let held: Vec<_> = (0..flights)
                .map(|key| {
                    let mut call = Box::pin(peer.call(u64::MAX - key, std::future::pending()));
                    assert!(call.as_mut().poll(&mut cx).is_pending());
                    call
                })
                .collect();
            (peer, waker, held)
        });
        let start = Instant::now();
        for key in 0..calls {
            let call = peer.call(key, async move { Value(key) });
            black_box(poll_to_end(call, waker));
        }
        start.elapsed()
    }
}

/// A caller joins a flight for which `others` wait, is polled once, and leaves.
fn join_and_leave<P: Peer>(others: u64) -> impl FnMut(u64) -> Duration {
    let mut held = None;
    move |calls| {
        let (runtime, peer, waker, _waiters) = held.get_or_insert_with(|| {
            let (runtime, peer, waker) = (one_thread(), leaked::<P>(), waker());
            let guard = runtime.enter();
            let mut cx = Context::from_waker(&waker);
            let waiters: Vec<_> = (0..others)
                .map(|_| {
                    let mut call = Box::pin(peer.call(0, std::future::pending()));
                    assert!(call.as_mut().poll(&mut cx).is_pending());
                    call
                })
                .collect();
            drop(guard);
            (runtime, peer, waker, waiters)
        });
        let _guard = runtime.enter();
        let mut cx = Context::from_waker(waker);
        let start = Instant::now();
        for _ in 0..calls {
            let mut call = pin!(peer.call(0, std::future::pending()));
            assert!(call.as_mut().poll(&mut cx).is_pending());
        }
        start.elapsed()
    }
}

// ===== many callers of one flight =====

/// What the callers and the work of one flight tell the clock.
#[derive(Default)]
struct Watch {
    waiting: AtomicUsize,
    arrived: AtomicUsize,
    executions: AtomicUsize,
    began: Mutex<Option<Instant>>,
    ended: Mutex<Option<Instant>>,
}

impl Watch {
    fn begin(&self) {
        *self.began.lock().unwrap() = Some(Instant::now());
    }

    /// The last of `callers` stops the clock.
    fn arrive(&self, callers: usize) {
        if self.arrived.fetch_add(1, Ordering::Relaxed) + 1 == callers {
            *self.ended.lock().unwrap() = Some(Instant::now());
        }
    }

    fn elapsed(&self) -> Duration {
        let (began, ended) = (*self.began.lock().unwrap(), *self.ended.lock().unwrap());
        ended.unwrap() - began.unwrap()
    }
}

/// Counts the caller in once its future has been polled for the first time.
async fn watched<F: Future>(watch: &Watch, future: F) -> F::Output {
    let mut future = pin!(future);
    let mut polled = false;
    poll_fn(|cx| {
        let poll = future.as_mut().poll(cx);
        if !std::mem::replace(&mut polled, true) {
            watch.waiting.fetch_add(1, Ordering::Relaxed);
        }
        poll
    })
    .await
}

async fn all_wait(watch: &Watch, callers: usize) {
    while watch.waiting.load(Ordering::Relaxed) < callers {
        tokio::task::yield_now().await;
    }
    // The task that drives the work has its turn as well.
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
}

/// From the opened gate to the last of `callers`, each in a task of its own.
fn fan_out<P: Peer>(runtime: &'static Runtime, callers: usize) -> impl FnMut(u64) -> Duration {
    move |rounds| {
        let mut sum = Duration::ZERO;
        for _ in 0..rounds {
            let (peer, watch) = (P::new(), Arc::new(Watch::default()));
            let gate = Arc::new(Semaphore::new(0));
            runtime.block_on(async {
                let tasks: Vec<_> = (0..callers)
                    .map(|_| {
                        let (peer, watch, gate) = (peer.clone(), watch.clone(), gate.clone());
                        tokio::spawn(async move {
                            let work = async move {
                                let _permit = gate.acquire().await;
                                Value(0)
                            };
                            black_box(watched(&watch, peer.call(0, work)).await);
                            watch.arrive(callers);
                        })
                    })
                    .collect();
                all_wait(&watch, callers).await;
                watch.begin();
                gate.add_permits(1);
                for task in tasks {
                    task.await.unwrap();
                }
            });
            sum += watch.elapsed();
        }
        sum
    }
}

/// The limit of a fan-out: bare `Notify::notify_waiters`, no value.
fn fan_out_bare(runtime: &'static Runtime, callers: usize) -> impl FnMut(u64) -> Duration {
    move |rounds| {
        let mut sum = Duration::ZERO;
        for _ in 0..rounds {
            let (notify, watch) = (Arc::new(Notify::new()), Arc::new(Watch::default()));
            let gate = Arc::new(Semaphore::new(0));
            runtime.block_on(async {
                let tasks: Vec<_> = (0..callers)
                    .map(|_| {
                        let (notify, watch) = (notify.clone(), watch.clone());
                        tokio::spawn(async move {
                            watched(&watch, notify.notified()).await;
                            watch.arrive(callers);
                        })
                    })
                    .collect();
                let driver = tokio::spawn({
                    let (notify, gate) = (notify.clone(), gate.clone());
                    async move {
                        let _permit = gate.acquire().await;
                        notify.notify_waiters();
                    }
                });
                all_wait(&watch, callers).await;
                watch.begin();
                gate.add_permits(1);
                for task in tasks {
                    task.await.unwrap();
                }
                driver.await.unwrap();
            });
            sum += watch.elapsed();
        }
        sum
    }
}

/// The leader's task is aborted, and the work may end, while `callers` wait: from then to the last of them.
fn leader_aborted<P: Peer>(callers: usize) -> impl FnMut(u64) -> Duration {
    let runtime = one_thread();
    move |rounds| {
        (0..rounds)
            .map(|_| abort_leader::<P>(&runtime, callers).0)
            .sum()
    }
}

/// Also gives how often the work was begun.
fn abort_leader<P: Peer>(runtime: &Runtime, callers: usize) -> (Duration, usize) {
    let (peer, watch) = (P::new(), Arc::new(Watch::default()));
    let gate = Arc::new(Semaphore::new(0));
    runtime.block_on(async {
        let call = || {
            let (peer, watch, gate) = (peer.clone(), watch.clone(), gate.clone());
            let begun = watch.clone();
            let work = async move {
                begun.executions.fetch_add(1, Ordering::Relaxed);
                let _permit = gate.acquire().await;
                Value(0)
            };
            async move { watched(&watch, peer.call(0, work)).await }
        };
        let leader = tokio::spawn(call());
        all_wait(&watch, 1).await;
        let followers: Vec<_> = (0..callers)
            .map(|_| {
                let (call, watch) = (call(), watch.clone());
                tokio::spawn(async move {
                    black_box(call.await);
                    watch.arrive(callers);
                })
            })
            .collect();
        all_wait(&watch, 1 + callers).await;
        watch.begin();
        leader.abort();
        gate.add_permits(1);
        for follower in followers {
            follower.await.unwrap();
        }
    });
    (watch.elapsed(), watch.executions.load(Ordering::Relaxed))
}

// ===== many callers on several cores =====

/// How long work takes that waits for something else than the processor.
const WAIT: Duration = Duration::from_millis(1);

/// Real time since the first call.
fn real_time() -> Duration {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed()
}

/// What all threads of this process have had of a processor, by Linux.
fn processor_time() -> Duration {
    let threads = fs::read_dir("/proc/self/task").expect("Linux's /proc");
    let nanoseconds = threads.map(|thread| {
        let path = thread.expect("a thread").path().join("schedstat");
        // A thread that has ended meanwhile is none of the workers.
        let times = fs::read_to_string(path).unwrap_or_default();
        let time = times.split_whitespace().next().map(str::parse::<u64>);
        time.and_then(Result::ok).unwrap_or_default()
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// Turns of 64 tasks on so many workers, `turn` by task and number; by this clock.
fn crowd<F>(
    threads: usize,
    clock: fn() -> Duration,
    turn: impl Fn(usize, u64) -> F + Clone + Send + 'static,
) -> impl FnMut(u64) -> Duration
where
    F: Future + Send,
{
    let mut past = 0;
    move |calls| {
        let each = calls.div_ceil(TASKS as u64);
        let start = clock();
        workers(threads).block_on(async {
            let tasks: Vec<_> = (0..TASKS)
                .map(|task| {
                    let turn = turn.clone();
                    tokio::spawn(async move {
                        for number in past..past + each {
                            turn(task, number).await;
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
        past += each;
        // In proportion, where `calls` does not divide evenly.
        (clock() - start).mul_f64(calls as f64 / (each * TASKS as u64) as f64)
    }
}

fn distinct_keys<P: Peer>(threads: usize) -> impl FnMut(u64) -> Duration {
    let peer = P::new();
    crowd(threads, real_time, move |task, turn| {
        let (peer, key) = (peer.clone(), (task as u64) << 32 | (turn & 0xffff_ffff));
        async move { black_box(peer.call(key, async move { Value(key) }).await) }
    })
}

/// Work that waits, under keys that `key` gives by task and turn; `flights` counts how often it is begun.
fn waiting<P: Peer>(
    flights: Arc<AtomicU64>,
    key: impl Fn(usize, u64) -> u64 + Clone + Send + 'static,
) -> impl FnMut(u64) -> Duration {
    let peer = P::new();
    crowd(4, processor_time, move |task, turn| {
        let (peer, flights, key) = (peer.clone(), flights.clone(), key(task, turn));
        async move {
            let work = async move {
                flights.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(WAIT).await;
                Value(key)
            };
            black_box(peer.call(key, work).await)
        }
    })
}

fn hot_key<P: Peer>() -> impl FnMut(u64) -> Duration {
    waiting::<P>(Arc::default(), |_, _| 0)
}

/// Keys by Zipf's law, the exponent 1, over 10,000 of them.
fn zipf_keys() -> impl Fn(usize, u64) -> u64 + Clone + Send + 'static {
    const KEYS: usize = 10_000;
    const DRAWS: usize = 1 << 16;
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=KEYS)
        .map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        })
        .collect();
    // A fixed sequence, the same for all: the fractional parts of multiples of the golden ratio.
    let draws: Arc<[u64]> = (0..DRAWS)
        .map(|draw| {
            let uniform = (draw as f64 * 0.618_033_988_749_895).fract() * sum;
            sums.partition_point(|&sum| sum < uniform) as u64
        })
        .collect();
    move |task, turn| draws[(task * 1021 + turn as usize) % DRAWS]
}

fn zipf<P: Peer>() -> impl FnMut(u64) -> Duration {
    waiting::<P>(Arc::default(), zipf_keys())
}

/// The limit of a hot key: the same tasks wait for a bare `Notify`, which one more task wakes after each wait.
fn hot_key_bare() -> impl FnMut(u64) -> Duration {
    let notify = Arc::new(Notify::new());
    let mut wait = {
        let notify = notify.clone();
        crowd(4, processor_time, move |_, _| {
            let notify = notify.clone();
            async move { notify.notified().await }
        })
    };
    move |calls| {
        let (notify, over) = (notify.clone(), Arc::new(AtomicBool::new(false)));
        let driver = workers(4).spawn({
            let over = over.clone();
            async move {
                while !over.load(Ordering::Relaxed) {
                    tokio::time::sleep(WAIT).await;
                    notify.notify_waiters();
                }
            }
        });
        let time = wait(calls);
        over.store(true, Ordering::Relaxed);
        workers(4).block_on(driver).unwrap();
        time
    }
}

// ===== counts =====

struct Counts {
    name: &'static str,
    solo_allocations: f64,
    solo_clones: f64,
    pending_allocations: f64,
    follower_allocations: f64,
    flight_bytes: f64,
    follower_bytes: f64,
    /// Of a caller's own future, in neither of the two above.
    future_bytes: i64,
    follower_polls: usize,
    executions: usize,
    /// Of 64 tasks that want one key, whose work waits; of 64 whose keys follow Zipf's law.
    hot_calls_per_flight: f64,
    zipf_calls_per_flight: f64,
}

/// What can be counted exactly, on one thread.
fn counts<P: Peer>() -> Counts {
    const CALLS: u64 = 10_000;
    let runtime = one_thread();
    let _guard = runtime.enter();
    let waker = waker();
    let mut cx = Context::from_waker(&waker);
    let per = |count: i64| count as f64 / CALLS as f64;

    let mut ready = solo_ready::<P>();
    ready(CALLS);
    let clones = Value::clones();
    let (_, alone) = counted(|| ready(CALLS));
    let solo_clones = Value::clones() - clones;
    let mut yielding = solo::<P>(1);
    yielding(CALLS);
    let (_, pending) = counted(|| yielding(CALLS));

    // Each call's own future lies in a box, which is not counted.
    let mut hold = |key: fn(u64) -> u64| {
        let peer = leaked::<P>();
        let mut first = Box::pin(peer.call(0, std::future::pending()));
        assert!(first.as_mut().poll(&mut cx).is_pending());
        let mut second = Box::pin(peer.call(0, std::future::pending()));
        assert!(second.as_mut().poll(&mut cx).is_pending());
        let mut held: Vec<Pin<Box<_>>> = Vec::with_capacity(CALLS as usize);
        let ((), allocated) = counted(|| {
            for turn in 1..=CALLS {
                let mut call = Box::pin(peer.call(key(turn), std::future::pending()));
                assert!(call.as_mut().poll(&mut cx).is_pending());
                held.push(call);
            }
        });
        let own = size_of_val(&*held[0]) as i64;
        (
            per(allocated.calls as i64) - 1.0,
            per(allocated.bytes) - own as f64,
            own,
        )
    };
    let (_, flight_bytes, future_bytes) = hold(|turn| turn);
    let (follower_allocations, follower_bytes, _) = hold(|_| 0);

    Counts {
        name: P::NAME,
        solo_allocations: per(alone.calls as i64),
        solo_clones: per(solo_clones as i64),
        pending_allocations: per(pending.calls as i64),
        follower_allocations,
        flight_bytes,
        follower_bytes,
        future_bytes,
        follower_polls: follower_polls::<P>(&one_thread()),
        executions: abort_leader::<P>(&one_thread(), 100).1,
        hot_calls_per_flight: calls_per_flight::<P>(|_, _| 0),
        zipf_calls_per_flight: calls_per_flight::<P>(zipf_keys()),
    }
}

fn calls_per_flight<P: Peer>(key: impl Fn(usize, u64) -> u64 + Clone + Send + 'static) -> f64 {
    const CALLS: u64 = 200 * TASKS as u64;
    let flights = Arc::<AtomicU64>::default();
    waiting::<P>(flights.clone(), key)(CALLS);
    CALLS as f64 / flights.load(Ordering::Relaxed) as f64
}

/// How often a follower is polled while the work is woken 100 times, beside its first poll and its last.
fn follower_polls<P: Peer>(runtime: &Runtime) -> usize {
    thread_local!(static POLLS: Cell<usize> = const { Cell::new(0) });
    let (peer, gate) = (leaked::<P>(), Arc::new(Semaphore::new(0)));
    runtime.block_on(async {
        let work = {
            let gate = gate.clone();
            async move {
                let _permit = gate.acquire().await;
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                Value(0)
            }
        };
        let leader = tokio::spawn(peer.call(0, work));
        tokio::task::yield_now().await;
        let follower = tokio::spawn({
            let call = peer.call(0, async { Value(0) });
            async move {
                let mut call = pin!(call);
                poll_fn(|cx| {
                    POLLS.set(POLLS.get() + 1);
                    call.as_mut().poll(cx)
                })
                .await
            }
        });
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(1);
        leader.await.unwrap();
        follower.await.unwrap();
    });
    POLLS.replace(0).saturating_sub(2)
}

fn print_counts(filter: &str, results: &mut Results) {
    if !"counts".contains(filter) {
        return;
    }
    println!("\n## counts\n");
    println!(
        "| contestant | allocations, solo | value clones, solo | allocations, one Pending | allocations per follower \
         | bytes per flight | bytes per follower | bytes of a caller's future | polls of a follower for 100 wake-ups | executions, leader aborted \
         | calls per flight, hot key | calls per flight, Zipf |"
    );
    println!("| --- |{}", " --: |".repeat(11));
    let all = [
        counts::<ThisCrate>,
        counts::<SharedMap>,
        counts::<SingleflightAsync>,
        counts::<RsSingleflight>,
        counts::<AsyncSingleflight>,
        counts::<QuickCache>,
        counts::<Moka>,
    ];
    for count in all {
        let counts = count();
        println!(
            "| {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} | {} | {} | {} | {:.1} | {:.1} |",
            counts.name,
            counts.solo_allocations,
            counts.solo_clones,
            counts.pending_allocations,
            counts.follower_allocations,
            counts.flight_bytes,
            counts.follower_bytes,
            counts.future_bytes,
            counts.follower_polls,
            counts.executions,
            counts.hot_calls_per_flight,
            counts.zipf_calls_per_flight,
        );
        results.counted(
            counts.name,
            &[
                ("allocations, solo", counts.solo_allocations),
                ("value clones, solo", counts.solo_clones),
                ("allocations, one Pending", counts.pending_allocations),
                ("allocations per follower", counts.follower_allocations),
                ("bytes per flight", counts.flight_bytes),
                ("bytes per follower", counts.follower_bytes),
                ("bytes of a caller's future", counts.future_bytes as f64),
                (
                    "polls of a follower for 100 wake-ups",
                    counts.follower_polls as f64,
                ),
                ("executions, leader aborted", counts.executions as f64),
                ("calls per flight, hot key", counts.hot_calls_per_flight),
                ("calls per flight, Zipf", counts.zipf_calls_per_flight),
            ],
        );
    }
}

// ===== the scenarios =====

fn scenarios() -> Vec<Scenario> {
    let mut all = Vec::new();

    let limit = Scenario::new("solo, ready")
        .with(LimitShard::NAME, solo_ready::<LimitShard>())
        .with(LimitShardBoxed::NAME, solo_ready::<LimitShardBoxed>());
    let scenario = limit.with(Uncoalesced::NAME, solo_ready::<Uncoalesced>());
    all.push(peers!(scenario, solo_ready()));

    let limit = Scenario::new("solo, one yield")
        .with(LimitShard::NAME, solo::<LimitShard>(1))
        .with(LimitShardBoxed::NAME, solo::<LimitShardBoxed>(1));
    let scenario = limit.with(Uncoalesced::NAME, solo::<Uncoalesced>(1));
    all.push(peers!(scenario, solo(1)));

    let one: &'static Runtime = Box::leak(Box::new(one_thread()));
    for callers in [10, 100, 1_000, 10_000] {
        let scenario = Scenario::new(format!("fan-out from the gate to {callers}"))
            .with("notify_waiters", fan_out_bare(one, callers));
        all.push(peers!(scenario, fan_out(one, callers)));
    }

    let scenario = Scenario::new("fan-out from the gate to 1000, workers 4")
        .turn(10 * TURN)
        .with("notify_waiters", fan_out_bare(workers(4), 1_000));
    all.push(peers!(scenario, fan_out(workers(4), 1_000)));

    let scenario = Scenario::new("leader aborted while 100 wait")
        .with("notify_waiters", fan_out_bare(one, 100))
        .with(
            "tower-singleflight, fan-out",
            fan_out::<ThisCrate>(one, 100),
        );
    all.push(peers!(scenario, leader_aborted(100)));

    for threads in [1, 2, 4] {
        let name = format!("distinct keys, 64 tasks, workers {threads}");
        let scenario = Scenario::new(name)
            .turn(10 * TURN)
            .with(LimitShard::NAME, distinct_keys::<LimitShard>(threads))
            .with(
                LimitShardBoxed::NAME,
                distinct_keys::<LimitShardBoxed>(threads),
            )
            .with(Uncoalesced::NAME, distinct_keys::<Uncoalesced>(threads));
        all.push(peers!(scenario, distinct_keys(threads)));
    }

    let scenario = Scenario::new("hot key, work of 1 ms, 64 tasks, workers 4")
        .turn(50 * TURN)
        .with("notify_waiters", hot_key_bare())
        .with(Uncoalesced::NAME, hot_key::<Uncoalesced>());
    all.push(peers!(scenario, hot_key()));

    let scenario = Scenario::new("zipf keys, work of 1 ms, 64 tasks, workers 4")
        .turn(50 * TURN)
        .with(Uncoalesced::NAME, zipf::<Uncoalesced>());
    all.push(peers!(scenario, zipf()));

    for flights in [1, 1_000, 100_000, 1_000_000] {
        all.push(
            Scenario::new(format!("solo among {flights} keys in flight"))
                .with(LimitShard::NAME, among_keys::<LimitShard>(flights))
                .with(ThisCrate::NAME, among_keys::<ThisCrate>(flights)),
        );
    }

    for others in [2, 1_000, 100_000] {
        all.push(
            Scenario::new(format!("join and leave beside {others} waiters"))
                .with(ThisCrate::NAME, join_and_leave::<ThisCrate>(others))
                .with(SharedMap::NAME, join_and_leave::<SharedMap>(others)),
        );
    }
    all
}

// ===== measuring =====

fn print_table(scenario: &mut Scenario, results: &mut Results) {
    println!("\n## {}\n", scenario.name);
    println!("| contestant | ns per call | x limit |");
    println!("| --- | --: | --: |");
    let times = scenario.take_turns();
    for ((name, _), own) in scenario.contestants.iter().zip(&times) {
        results.timed(&scenario.name, name, own, &times[0]);
        let ratio = median_of(own, &times[0], |own, limit| own / limit);
        println!("| {name} | {:.1} | {ratio:.2} |", median(own.clone()));
    }
}

fn main() {
    let tables = |filter: &str| {
        let mut results = Results::new("group", PEERS);
        print_counts(filter, &mut results);
        for mut scenario in scenarios() {
            if scenario.name.contains(filter) {
                print_table(&mut scenario, &mut results);
            }
        }
        results.write();
    };
    rounds::run("GROUP_TABLE", tables, scenarios);
}
