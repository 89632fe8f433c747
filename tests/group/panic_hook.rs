//! The panic hook, which is the process's: what other tests panic with is theirs.

use tower_singleflight::Group;

use crate::support::{Count, panic_of, poll_once, text};

#[test]
fn the_panic_hook_runs_once_for_all_callers() {
    let reports = Count::new();
    let count = reports.clone();
    let (usual, me) = (std::panic::take_hook(), std::thread::current().id());
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() == me {
            count.up();
        } else {
            usual(info);
        }
    }));
    let group: Group<&str, ()> = Group::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    // Polled by a caller, then by a task.
    for inside in [false, true] {
        let _in = inside.then(|| runtime.enter());
        let mut callers = vec![group.run("key", || async { panic!("boom") })];
        callers.extend((0..10).map(|_| group.run("key", || async {})));
        if inside {
            runtime.block_on(tokio::task::yield_now());
        }
        for caller in callers.iter_mut().rev() {
            assert_eq!(text(&*panic_of(|| poll_once(caller))), "boom");
        }
        assert_eq!(
            (reports.get(), group.in_flight()),
            (1 + usize::from(inside), 0)
        );
    }
    let _ = std::panic::take_hook();
}
