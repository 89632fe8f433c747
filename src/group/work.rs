//! The work of a flight: boxed, with the runtime where it belongs.

use std::{
    any::Any,
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

pub(crate) struct Work<V>(Pin<Box<dyn Placed<V>>>);

/// What a flight does: any future, or something that wants to know who polls it.
pub(crate) trait Drive: Send {
    type Output;

    fn drive(self: Pin<&mut Self>, cx: &mut Context<'_>, by: PolledBy<'_>) -> Poll<Self::Output>;
}

/// Who polls a flight's work.
pub(crate) enum PolledBy<'a> {
    /// The leader of a [solo](super::solo) flight.
    #[cfg_attr(
        not(feature = "http"),
        expect(dead_code, reason = "only the layer's work asks")
    )]
    Solo(&'a mut dyn Any),
    /// A caller or the task of this flight, an `Arc`.
    #[cfg_attr(
        not(feature = "http"),
        expect(dead_code, reason = "only the layer's work asks")
    )]
    Whole(&'a dyn Any),
}

/// Work, and where it belongs.
trait Placed<V>: Drive<Output = V> {
    fn home(self: Pin<&mut Self>) -> &mut Home;
    fn erase(self: Pin<Box<Self>>) -> Pin<Box<dyn Send>>;
}

pin_project! {
    struct At<D> {
        home: Home,
        #[pin]
        work: D,
    }
}

/// What became of work that was made or polled.
pub(crate) enum Polled<V> {
    Pending(Work<V>),
    Ended(WorkResult<V>),
}

/// The work's result: its value or its panic.
pub(crate) type WorkResult<V> = Result<V, Payload>;

// ===== impl Work =====

impl<V> Work<V> {
    /// Calls `make`, which may panic.
    #[inline]
    pub(crate) fn make<F, D>(make: F) -> Polled<V>
    where
        F: FnOnce() -> D,
        D: Drive<Output = V> + 'static,
    {
        let made = caught(|| {
            let work = make();
            Box::pin(At {
                home: Home::of_maker(),
                work,
            })
        });
        match made {
            Ok(work) => Polled::Pending(Self(work)),
            Err(payload) => Polled::Ended(Err(payload)),
        }
    }

    /// Polls the work, and drops it after its last poll.
    pub(crate) fn poll(mut self, cx: &mut Context<'_>, by: PolledBy<'_>) -> Polled<V> {
        match caught(|| self.0.as_mut().drive(cx, by)) {
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
    pub(super) fn runtime(&mut self) -> Option<Runtime> {
        match self.0.as_mut().home() {
            Home::Runtime(runtime) => Some(runtime.clone()),
            _ => None,
        }
    }

    /// Whether only the leader may poll the work, because it may need a runtime that nobody else knows yet.
    pub(super) fn must_be_polled_by_leader(&mut self) -> bool {
        matches!(self.0.as_mut().home(), Home::Task)
    }

    /// The work, to be dropped.
    pub(super) fn erase(self) -> Pin<Box<dyn Send>> {
        self.0.erase()
    }

    /// Notes that the runtime that drove the work has shut down. Drop the result outside any lock.
    pub(super) fn lose_home(&mut self) -> Home {
        mem::replace(self.0.as_mut().home(), Home::Nowhere)
    }
}

// ===== impl Drive =====

impl<F: Future + Send> Drive for F {
    type Output = F::Output;

    #[inline]
    fn drive(self: Pin<&mut Self>, cx: &mut Context<'_>, _: PolledBy<'_>) -> Poll<F::Output> {
        self.poll(cx)
    }
}

// ===== impl At =====

impl<D: Drive> Drive for At<D> {
    type Output = D::Output;

    #[inline]
    fn drive(self: Pin<&mut Self>, cx: &mut Context<'_>, by: PolledBy<'_>) -> Poll<D::Output> {
        let this = self.project();
        if let Poll::Ready(value) = this.work.drive(cx, by) {
            return Poll::Ready(value);
        }
        this.home.settle();
        Poll::Pending
    }
}

impl<D: Drive + 'static> Placed<D::Output> for At<D> {
    fn home(self: Pin<&mut Self>) -> &mut Home {
        self.project().home
    }

    fn erase(self: Pin<Box<Self>>) -> Pin<Box<dyn Send>> {
        self
    }
}
