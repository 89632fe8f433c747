//! Work that waits for another flight's value, whose work waits for another's, and so on.

use tokio::runtime::{Builder, Runtime};
use tower_singleflight::{Group, Run};

use crate::support::{Alive, Count, panic_of, text};

const LINKS: usize = 20_000;

struct Bad;

impl Drop for Bad {
    fn drop(&mut self) {
        panic!("bad drop");
    }
}

/// The first of `LINKS` flights, each of which is driven by a task, waits for the second, and that for the third. All of
/// them have been polled, and the runtime is idle. The drop of the link `bad` panics.
fn chain(
    group: &Group<usize, u32>,
    alive: &Count,
    bad: Option<usize>,
) -> (Runtime, Run<usize, u32>) {
    let runtime = Builder::new_current_thread().build().unwrap();
    let polled = Count::new();
    let mut first = group.run(0, std::future::pending);
    for link in 1..=LINKS {
        let (inner, inside, polled) = (first, Alive::new(alive), polled.clone());
        let bad = (bad == Some(link)).then(|| Bad);
        first = group.run(link, || async move {
            let (_inside, _bad) = (inside, bad);
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
    let (_runtime, first) = chain(&group, &alive, None);
    drop(first);
    assert_eq!((group.in_flight(), alive.get()), (0, 0));
}

#[test]
fn a_long_chain_of_flights_is_dropped_with_its_runtime() {
    let (group, alive) = (Group::new(), Count::new());
    let (runtime, first) = chain(&group, &alive, None);
    runtime.spawn(first);
    drop(runtime);
    assert_eq!((group.in_flight(), alive.get()), (0, 0));
}

/// A work whose drop panics leaves nothing of the chain that hangs on it, be it deep or near.
#[test]
fn a_panic_in_a_chain_of_drops_is_the_droppers_and_drops_the_rest() {
    for bad in [LINKS, LINKS - 1, LINKS / 2, 1] {
        let (group, alive) = (Group::new(), Count::new());
        let (_runtime, first) = chain(&group, &alive, Some(bad));
        assert_eq!(text(&*panic_of(|| drop(first))), "bad drop");
        assert_eq!((group.in_flight(), alive.get()), (0, 0));
        drop(group.run(0, std::future::pending));
    }
}
