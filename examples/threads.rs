//! Threads without a runtime: eight of them ask for the same report, one computes it.
//!
//! ```not_rust
//! cargo run --example threads
//! ```
//!
//! A [`Group`] needs no Tokio runtime. Each caller blocks its own thread, here with [`pollster`]; whichever of them is
//! polled drives the work, and its end wakes the others. Work that itself blocks, as this does, blocks the thread that
//! drives it and nobody else.
//!
//! The program prints what each thread got, and how often the report was computed.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use pollster::block_on;
use tower_singleflight::Group;

const THREADS: usize = 8;

static COMPUTED: AtomicU32 = AtomicU32::new(0);

fn main() {
    let group = Group::new();
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (group, start) = (&group, &start);
            scope.spawn(move || {
                start.wait();
                let outcome = block_on(group.run("report", || async { compute() }));
                let part = if outcome.led { "led" } else { "followed" };
                println!("thread {number}  {part:<8}  {:?}", outcome.value);
            });
        }
    });
    println!("computed  {}", COMPUTED.load(Ordering::Relaxed));
}

#[expect(clippy::disallowed_methods, reason = "work that blocks its thread")]
fn compute() -> String {
    thread::sleep(Duration::from_millis(200));
    let number = COMPUTED.fetch_add(1, Ordering::Relaxed) + 1;
    format!("the report, computation {number}")
}
