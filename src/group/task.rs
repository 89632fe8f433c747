//! The task that drives a flight whose leader is not alone.
//!
//! The invariants cited here are those of [`flight`](super::flight).

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    drive::{Polled, poll_work},
    ending::Message,
    flight::Flight,
    state::{Driver, WorkState},
};

/// The task that drives a shared flight. It borrows the work poll by poll, so that the last caller's leaving can drop it
/// at once; dropped by a runtime that shuts down, it gives the flight back to its callers.
pub(super) struct Task<K, V, C> {
    flight: Option<Arc<Flight<K, V, C>>>,
    polled: bool,
}

// ===== impl Task =====

impl<K, V, C> Task<K, V, C> {
    pub(super) fn new(flight: Arc<Flight<K, V, C>>) -> Self {
        Self {
            flight: Some(flight),
            polled: false,
        }
    }
}

impl<K, V, C> Future for Task<K, V, C>
where
    K: Send + 'static,
    V: Send + Sync + 'static,
    C: Send + Sync + 'static,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let first = !mem::replace(&mut self.polled, true);
        let flight = self.flight.as_ref().expect("task polled after completion");
        let polled = flight.poll_task(cx, first);
        if polled.is_ready() {
            self.flight = None;
        }
        polled
    }
}

impl<K, V, C> Drop for Task<K, V, C> {
    fn drop(&mut self) {
        let Some(flight) = self.flight.take() else {
            return;
        };
        let (task, wakers) = {
            let mut state = flight.state();
            let task = state.task.take();
            if state.driver == Driver::Task {
                if let Some(keeper) = state.take_keeper() {
                    drop(state);
                    drop(task);
                    // Onto the runtime of who keeps the flight. If that is the one that shuts down, the new task is dropped
                    // at once, and finds no keeper.
                    return (keeper.spawn)(&keeper.runtime, flight);
                }
                flight.set_driver(&mut state, Driver::Callers);
            }
            (task, state.places.take_all())
        };
        drop(task);
        flight.cancel_if_deserted();
        wakers.wake();
    }
}

// ===== impl Flight =====

impl<K, V, C> Flight<K, V, C>
where
    K: Send + 'static,
    V: Send + Sync + 'static,
    C: Send + Sync + 'static,
{
    /// The task's turn. Ready when it has nothing left to drive.
    fn poll_task(self: &Arc<Self>, cx: &mut Context<'_>, first: bool) -> Poll<()> {
        let waker = first.then(|| cx.waker().clone());
        let work = {
            let mut state = self.state();
            if let Some(waker) = waker {
                state.task = Some(waker);
            }
            match state.work {
                WorkState::Gone => return Poll::Ready(()),
                _ if state.driver != Driver::Task => return Poll::Ready(()),
                _ => state.take_work(),
            }
        };
        let Some(work) = work else {
            // Whoever has the work wakes this task after putting it back (F3).
            return Poll::Pending;
        };
        match poll_work(work, cx) {
            Polled::Pending(work) => {
                let (back, driver) = {
                    let mut state = self.state();
                    (state.put_back(work, Driver::Task), state.driver)
                };
                let over = back.cancelled.is_some() || driver != Driver::Task;
                self.finish(back);
                if over { Poll::Ready(()) } else { Poll::Pending }
            }
            Polled::Value(value) => {
                self.land(value);
                Poll::Ready(())
            }
            Polled::Panicked(payload) => {
                self.crash(Message::of(&payload), Some(payload));
                Poll::Ready(())
            }
        }
    }
}
