//! Where a shared flight is driven: Tokio's current runtime, or a thread of loom's.

use std::future::Future;

/// The runtime that a caller was in.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    #[cfg(not(loom))]
    handle: tokio::runtime::Handle,
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
    /// Whether this thread of a model stands inside a runtime.
    pub(crate) static INSIDE: std::cell::Cell<bool> = std::cell::Cell::new(true);
}

#[cfg(loom)]
impl Runtime {
    pub(crate) fn current() -> Option<Self> {
        INSIDE.with(std::cell::Cell::get).then_some(Self {})
    }

    pub(crate) fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        loom::thread::spawn(move || loom::future::block_on(task));
    }
}
