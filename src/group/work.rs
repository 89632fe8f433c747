//! The work of a flight, erased, and where it belongs.

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

/// A future, and where it belongs.
trait Placed<V>: Future<Output = V> + Send {
    fn home(&self) -> &Home;
    fn home_mut(self: Pin<&mut Self>) -> &mut Home;
}

pin_project! {
    struct At<F> {
        home: Home,
        #[pin]
        future: F,
    }
}

/// What became of a poll of the work.
pub(super) enum Polled<V> {
    Pending(Work<V>),
    Value(V),
    Panicked(Payload),
}

// ===== impl Work =====

impl<V> Work<V> {
    #[inline]
    pub(super) fn new<Fut>(future: Fut) -> Self
    where
        Fut: Future<Output = V> + Send + 'static,
    {
        Self(Box::pin(At {
            home: Home::of_maker(),
            future,
        }))
    }

    /// Polls the work, and drops it when that was its last poll.
    pub(super) fn poll(mut self, cx: &mut Context<'_>) -> Polled<V> {
        match caught(|| self.0.as_mut().poll(cx)) {
            Ok(Poll::Pending) => Polled::Pending(self),
            // A work whose drop panics has panicked for all, though it gave a value.
            Ok(Poll::Ready(value)) => match caught(|| drop(self)) {
                Ok(()) => Polled::Value(value),
                Err(payload) => {
                    drop_quietly(value);
                    Polled::Panicked(payload)
                }
            },
            Err(payload) => {
                drop_quietly(self);
                Polled::Panicked(payload)
            }
        }
    }

    /// Where a task that drives the work must run, as far as that is known.
    pub(super) fn runtime(&self) -> Option<Runtime> {
        match self.0.home() {
            Home::Runtime(runtime) => Some(runtime.clone()),
            _ => None,
        }
    }

    /// Whether only its leader may poll the work, which may need a runtime that nobody else knows yet.
    pub(super) fn is_leaders(&self) -> bool {
        matches!(self.0.home(), Home::Task)
    }

    /// The runtime that has driven the work has shut down. What is given is to be dropped outside any lock.
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
    F: Future + Send,
{
    fn home(&self) -> &Home {
        &self.home
    }

    fn home_mut(self: Pin<&mut Self>) -> &mut Home {
        self.project().home
    }
}
