//! Where a shared flight is driven: Tokio's current runtime, or a thread of loom's.

use std::future::Future;

/// The runtime that a caller was in.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    #[cfg(not(loom))]
    handle: tokio::runtime::Handle,
    #[cfg(loom)]
    place: Place,
}

#[cfg(not(loom))]
impl Runtime {
    /// `None` outside Tokio: the callers then drive the work themselves.
    pub(crate) fn current() -> Option<Self> {
        let handle = tokio::runtime::Handle::try_current().ok()?;
        Some(Self { handle })
    }

    /// Where the runtime has shut down, `task` is dropped before this returns: never call it under a lock.
    pub(crate) fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(self.handle.spawn(task));
    }
}

#[cfg(loom)]
loom::thread_local! {
    /// Where this thread of a model stands.
    static HERE: std::cell::Cell<Place> = std::cell::Cell::new(Place::Runtime);
}

#[cfg(loom)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Runtime,
    /// A runtime that shuts down after one poll of the task.
    Dying,
    /// Outside any runtime.
    Nowhere,
}

/// Does `there` with this thread at `place`.
#[cfg(all(test, loom))]
pub(crate) fn at<T>(place: Place, there: impl FnOnce() -> T) -> T {
    let back = HERE.with(|here| here.replace(place));
    let done = there();
    HERE.with(|here| here.set(back));
    done
}

#[cfg(loom)]
impl Runtime {
    pub(crate) fn current() -> Option<Self> {
        let place = HERE.with(std::cell::Cell::get);
        (place != Place::Nowhere).then_some(Self { place })
    }

    pub(crate) fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let place = self.place;
        loom::thread::spawn(move || {
            let mut task = Box::pin(task);
            if place == Place::Dying {
                let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
                let _ = task.as_mut().poll(&mut cx);
            } else {
                loom::future::block_on(task);
            }
        });
    }
}
