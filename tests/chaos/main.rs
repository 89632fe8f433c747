//! Chaos: random requests, random ends, random interleavings, and a checker that knows what each response may be.
//!
//! | file | what it does |
//! | --- | --- |
//! | `world` | the calls that were made, and the checker |
//! | `origin` | the inner service, which does what each call's plan says |
//! | `scheduler` | many short episodes on one thread: a seeded scheduler polls, parks and drops, and steps the origin |
//! | `threads` | the same requests on several threads |
//! | `sockets` | an axum and a hyper server over loopback, with clients on HTTP/1.1 and HTTP/2 |
//! | `rules` | pairs of requests and a response, and who shares: beside an account from the RFCs |
//! | `wire` | raw origins and raw clients: every byte beside that of the same stack without the layer |
//!
//! A change to the checker is worth a look at what it no longer finds: break `src/` on purpose and see.
//!
//! Each prints its seed first. `CHAOS_SEED` repeats a run (on one thread to the letter, elsewhere as far as the machine
//! lets), `CHAOS_SECS` sets how long all of them take together. By default 20 s where `CI` is set, else 5 s.
#![cfg(feature = "http")]
#![expect(
    clippy::disallowed_methods,
    reason = "threads and sockets go by the real time, and so does a run's length"
)]

#[path = "../support/mod.rs"]
mod support;

mod origin;
mod rules;
mod scheduler;
mod sockets;
mod threads;
mod wire;
mod world;

use std::{
    alloc::System,
    any::Any,
    env, panic,
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cap::Cap;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

static HUSHED: AtomicBool = AtomicBool::new(false);

/// The memory that one test holds must not be another's: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // Those that the origin's plan asks for say nothing new, nor do those of a failure that is being cut short.
            if !text_of(info.payload()).starts_with("chaos call ") && !HUSHED.load(Relaxed) {
                usual(info);
            }
        }));
    });
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let literal = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned());
    literal
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}

fn seed() -> u64 {
    let given = env::var("CHAOS_SEED").ok();
    given.map_or_else(
        || {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap()
                .as_nanos() as u64
        },
        |seed| seed.parse().expect("CHAOS_SEED is a number"),
    )
}

/// This part's share of the time, in percent.
fn time(share: u64) -> Duration {
    let default = if env::var_os("CI").is_some_and(|ci| !ci.is_empty()) {
        20
    } else {
        5
    };
    let secs = env::var("CHAOS_SECS").map_or(default, |secs| {
        secs.parse().expect("CHAOS_SECS is a number")
    });
    Duration::from_millis(secs * 10 * share)
}
