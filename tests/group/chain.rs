//! Work that waits for another flight's value, whose work waits for another's, and so on.

use std::sync::Mutex;

use tokio::runtime::{Builder, Runtime};
use tower_singleflight::{Group, Run};

use crate::support::{Alive, Count, panic_of, text};

const LINKS: usize = 20_000;

/// The first of `LINKS` flights, each of which is driven by a task, waits for the second, and that for the third. All of
/// them have been polled, and the runtime is idle.
fn chain(group: &Group<usize, u32>, alive: &Count) -> (Runtime, Run<usize, u32>) {
    let runtime = Builder::new_current_thread().build().unwrap();
    let polled = Count::new();
    let mut first = group.run(0, std::future::pending);
    for link in 1..=LINKS {
        let (inner, inside, polled) = (first, Alive::new(alive), polled.clone());
        first = group.run(link, || async move {
            let _inside = inside;
            polled.up();
            inner.await.value
        });
        // Joined, so that a task drives it.
        let _in = runtime.enter();
        drop(group.run(link, std::future::pending));
    }
    runtime.block_on(async {
        while polled.get() < LINKS {
            tokio::task::yield_now().await;
        }
    });
    assert_eq!((group.in_flight(), alive.get()), (LINKS + 1, LINKS));
    (runtime, first)
}

#[test]
fn a_long_chain_of_flights_is_dropped_with_its_first_caller() {
    let (group, alive) = (Group::new(), Count::new());
    let (_runtime, first) = chain(&group, &alive);
    drop(first);
    assert_eq!((group.in_flight(), alive.get()), (0, 0));
}

#[test]
fn a_long_chain_of_flights_is_dropped_with_its_runtime() {
    let (group, alive) = (Group::new(), Count::new());
    let (runtime, first) = chain(&group, &alive);
    runtime.spawn(first);
    drop(runtime);
    assert_eq!((group.in_flight(), alive.get()), (0, 0));
}

/// A work whose drop panics leaves nothing of the chain that hangs on it.
#[test]
fn a_panic_in_a_chain_of_drops_is_the_droppers_and_drops_the_rest() {
    struct Bad(Mutex<Option<Run<usize, u32>>>);
    impl Drop for Bad {
        fn drop(&mut self) {
            drop(self.0.lock().unwrap().take());
            panic!("bad drop");
        }
    }
    let (group, alive) = (Group::new(), Count::new());
    let (runtime, first) = chain(&group, &alive);
    let bad = Bad(Mutex::new(Some(first)));
    let last = {
        let _in = runtime.enter();
        let last = group.run(LINKS + 1, || async move {
            let _bad = bad;
            std::future::pending().await
        });
        drop(group.run(LINKS + 1, std::future::pending));
        last
    };
    assert_eq!(text(&*panic_of(|| drop(last))), "bad drop");
    assert_eq!((group.in_flight(), alive.get()), (0, 0));
    drop(group.run(0, std::future::pending));
}
