//! The task that drives a flight whose leader is not alone.
//!
//! The invariants cited here are those of [`flight`](super::flight).

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    flight::Flight,
    runtime::Runtime,
    state::Driver,
    work::{Polled, PolledBy, Work},
};

/// Drives a shared flight. It holds the work only during a poll, so that the last caller can drop it at once when it
/// leaves. A runtime that shuts down drops the task, which then gives the flight back to its callers.
///
/// `None` once there is nothing left to drive.
struct Task<K, V, C>(Option<Arc<Flight<K, V, C>>>);

// ===== impl Task =====

impl<K, V, C> Future for Task<K, V, C>
where
    K: Send + 'static,
    V: Send + Sync + 'static,
    C: Send + Sync + 'static,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let flight = self.0.as_ref().expect("task polled after completion");
        let polled = flight.poll_task(cx);
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

impl<K, V, C> Drop for Task<K, V, C> {
    fn drop(&mut self) {
        let Some(flight) = self.0.take() else {
            return;
        };
        let dropped = {
            let mut state = flight.state();
            let task = state.task.take();
            if let Some(keeper) = state.keeper.take() {
                drop(state);
                // Move to the keeper's runtime. If that is the one that shuts down, the new task is dropped at once and
                // finds no keeper.
                return (keeper.spawn)(&keeper.runtime, flight);
            }
            let home = state.work.as_mut().map(Work::lose_home);
            flight.set_driver(&mut state, Driver::Callers);
            (task, home, state.slots.take_all())
        };
        flight.cancel_if_deserted();
        // Wakes the callers.
        drop(dropped);
    }
}

// ===== impl Flight =====

impl<K, V, C> Flight<K, V, C>
where
    K: Send + 'static,
    V: Send + Sync + 'static,
    C: Send + Sync + 'static,
{
    /// Lets a task on `runtime` drive the flight.
    pub(super) fn spawn(runtime: &Runtime, flight: Arc<Self>) {
        runtime.spawn(Task(Some(flight)));
    }

    /// One poll of the task. Ready when there is nothing left to drive.
    fn poll_task(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<()> {
        let (work, _old) = {
            let mut state = self.state();
            if state.is_over {
                return Poll::Ready(());
            }
            // The runtime's own, and the same for all polls: it may be cloned here (F6). An earlier task's, which a
            // leader that drove again has replaced, would wake nobody.
            let old = match &state.task {
                Some(task) if task.will_wake(cx.waker()) => None,
                _ => state.task.replace(cx.waker().clone()),
            };
            (state.work.take(), old)
        };
        let Some(work) = work else {
            // The thread that has the work wakes this task after it has put the work back (F3).
            return Poll::Pending;
        };
        match work.poll(cx, PolledBy::Whole(self)) {
            Polled::Pending(work) => match self.put_back(work, Driver::Task) {
                Some(Driver::Task) => Poll::Pending,
                _ => Poll::Ready(()),
            },
            Polled::Ended(result) => {
                let returned = self.end(result, false);
                debug_assert!(returned.is_none(), "it waits for the leader");
                Poll::Ready(())
            }
        }
    }
}

#[cfg(all(test, feature = "http", not(loom)))]
mod tests {
    use std::{
        future::poll_fn,
        sync::{
            Mutex,
            atomic::{AtomicUsize, Ordering},
        },
        task::Waker,
    };

    use super::*;
    use crate::group::{
        caller::Caller,
        flight::Entry,
        matching::{Admission, Match},
        panic::caught,
        table::Table,
    };

    /// Work whose drop panics.
    struct Bad;

    impl Drop for Bad {
        fn drop(&mut self) {
            panic!("bad work");
        }
    }

    /// Work that never ends, in a whole flight, and how often it was polled.
    fn counted(
        table: &Table<u32, (), ()>,
        kept_on: Option<Runtime>,
    ) -> (Caller<u32, (), ()>, Arc<AtomicUsize>) {
        let join = |_: &u32, (): &(), _: &Entry<u32, (), ()>| Match::Join(());
        let Admission::Leads(mut leader) = table.enter(&[0], 0, (), join) else {
            unreachable!("there is no other flight")
        };
        let mut leader = leader.make_whole();
        if let Some(runtime) = kept_on {
            leader.flight().keep_on(runtime);
        }
        let polls = Arc::new(AtomicUsize::new(0));
        let polled = Arc::clone(&polls);
        leader.start(|| {
            poll_fn(move |_| {
                polled.fetch_add(1, Ordering::SeqCst);
                Poll::Pending
            })
        });
        (leader, polls)
    }

    #[tokio::test]
    async fn a_task_is_woken_that_drives_after_another_task_and_the_leader() {
        let table = Table::new();
        let (leader, polls) = counted(&table, None);
        let flight = Arc::clone(leader.flight());
        for polled in [1, 3] {
            flight.promote();
            tokio::task::yield_now().await;
            assert_eq!(polls.load(Ordering::SeqCst), polled);
            flight.demote();
            flight.wake_driver();
            tokio::task::yield_now().await;
            assert_eq!(polls.load(Ordering::SeqCst), polled + 1);
        }
        drop(leader);
        assert_eq!(table.len(), 0);
    }

    #[tokio::test]
    async fn who_finds_only_under_the_lock_that_a_task_drives_spawns_no_other() {
        let table = Table::new();
        let (leader, polls) = counted(&table, None);
        // As another caller leaves it that has not said so outside the lock yet.
        leader.flight().state().driver = Driver::Task;
        leader.flight().promote();
        tokio::task::yield_now().await;
        assert_eq!(polls.load(Ordering::SeqCst), 0);
        drop(leader);
        assert_eq!(table.len(), 0);
    }

    #[tokio::test]
    async fn a_kept_flight_goes_on_after_its_leader_has_driven_again_and_left() {
        let table = Table::new();
        let (leader, polls) = counted(&table, Runtime::current());
        let flight = Arc::clone(leader.flight());
        flight.promote();
        tokio::task::yield_now().await;
        flight.demote();
        flight.wake_driver();
        tokio::task::yield_now().await;
        assert_eq!(polls.load(Ordering::SeqCst), 2);
        drop(leader);
        tokio::task::yield_now().await;
        assert_eq!((polls.load(Ordering::SeqCst), table.len()), (3, 1));
        flight.release();
        assert_eq!(table.len(), 0);
    }

    /// A panic of the task would end a runtime that shuts down.
    #[test]
    fn a_task_outlives_a_panic_of_work_that_was_cancelled_while_it_polled_that() {
        let table: Table<u32, (), ()> = Table::new();
        let join = |_: &u32, (): &(), _: &Entry<u32, (), ()>| Match::Join(());
        let Admission::Leads(mut leader) = table.enter(&[0], 0, (), join) else {
            unreachable!("there is no other flight")
        };
        let mut leader = leader.make_whole();
        let flight = Arc::clone(leader.flight());
        let last = Arc::new(Mutex::new(None));
        let work = {
            let (last, bad) = (Arc::clone(&last), Bad);
            poll_fn(move |_| {
                let _bad = &bad;
                drop(last.lock().unwrap().take());
                Poll::Pending
            })
        };
        leader.start(|| work);
        *last.lock().unwrap() = Some(leader);
        flight.set_driver(&mut flight.state(), Driver::Task);
        let mut task = Task(Some(flight));
        let mut cx = Context::from_waker(Waker::noop());
        let polled = caught(|| Pin::new(&mut task).poll(&mut cx));
        assert!(matches!(polled, Ok(Poll::Ready(()))));
        assert_eq!(table.len(), 0);
    }
}
