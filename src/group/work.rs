//! The work of a flight: a boxed future, and the runtime to which it belongs.

use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use super::{
    panic::{Payload, caught, drop_quietly},
    runtime::{Home, Runtime},
};

pub(super) struct Work<V>(Pin<Box<dyn Placed<V>>>);

/// A future, and the runtime to which it belongs.
trait Placed<V>: Future<Output = V> + Send {
    fn home(&self) -> &Home;
    fn home_mut(self: Pin<&mut Self>) -> &mut Home;
    fn erase(self: Pin<Box<Self>>) -> Pin<Box<dyn Send>>;
}

pin_project! {
    struct At<F> {
        home: Home,
        #[pin]
        future: F,
    }
}

/// What became of work that was made or polled.
pub(super) enum Polled<V> {
    Pending(Work<V>),
    Ended(WorkResult<V>),
}

/// The work's result: its value or its panic.
pub(super) type WorkResult<V> = Result<V, Payload>;

// ===== impl Work =====

impl<V> Work<V> {
    /// Calls `work`, which may panic.
    #[inline]
    pub(super) fn make<F, Fut>(work: F) -> Polled<V>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = V> + Send + 'static,
    {
        let made = caught(|| {
            let future = work();
            Box::pin(At {
                home: Home::of_maker(),
                future,
            })
        });
        match made {
            Ok(work) => Polled::Pending(Self(work)),
            Err(payload) => Polled::Ended(Err(payload)),
        }
    }

    /// Polls the work, and drops it after its last poll.
    pub(super) fn poll(mut self, cx: &mut Context<'_>) -> Polled<V> {
        match caught(|| self.0.as_mut().poll(cx)) {
            Ok(Poll::Pending) => Polled::Pending(self),
            // If dropping the work panics, it counts as a panic for all callers, although there is a value.
            Ok(Poll::Ready(value)) => Polled::Ended(match caught(|| drop(self)) {
                Ok(()) => Ok(value),
                Err(payload) => {
                    drop_quietly(value);
                    Err(payload)
                }
            }),
            Err(payload) => {
                drop_quietly(self);
                Polled::Ended(Err(payload))
            }
        }
    }

    /// The runtime on which a task must drive the work, if there is such a one.
    pub(super) fn runtime(&self) -> Option<Runtime> {
        match self.0.home() {
            Home::Runtime(runtime) => Some(runtime.clone()),
            _ => None,
        }
    }

    /// Whether only the leader may poll the work, because it may need a runtime that nobody else knows yet.
    pub(super) fn must_be_polled_by_leader(&self) -> bool {
        matches!(self.0.home(), Home::Task)
    }

    /// The future, to be dropped.
    pub(super) fn erase(self) -> Pin<Box<dyn Send>> {
        self.0.erase()
    }

    /// Notes that the runtime that drove the work has shut down. Drop the result outside any lock.
    pub(super) fn lose_home(&mut self) -> Home {
        mem::replace(self.0.as_mut().home_mut(), Home::Nowhere)
    }
}

// ===== impl At =====

impl<F> Future for At<F>
where
    F: Future,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if let Poll::Ready(value) = this.future.poll(cx) {
            return Poll::Ready(value);
        }
        this.home.settle();
        Poll::Pending
    }
}

impl<F> Placed<F::Output> for At<F>
where
    F: Future + Send + 'static,
{
    fn home(&self) -> &Home {
        &self.home
    }

    fn home_mut(self: Pin<&mut Self>) -> &mut Home {
        self.project().home
    }

    fn erase(self: Pin<Box<Self>>) -> Pin<Box<dyn Send>> {
        self
    }
}
