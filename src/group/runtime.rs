//! Where a shared flight is driven: a Tokio runtime, or a thread of loom's.

#[cfg(not(loom))]
use std::future::Future;

#[cfg(loom)]
pub(crate) use super::loom::Runtime;

/// The runtime in which a caller was.
#[cfg(not(loom))]
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    handle: tokio::runtime::Handle,
}

/// The runtime to which work belongs: it may need the timers and sockets of the runtime in which it was made or first
/// polled.
#[derive(Debug)]
pub(super) enum Home {
    /// It was made outside Tokio, and has not been polled.
    Unpolled,
    /// It was made in a Tokio task, and has not been polled. The first poll gets the runtime. To get it for each call
    /// would be costly: a `Handle` is a reference count that all threads of the runtime would write to.
    Task,
    Runtime(Runtime),
    /// It was polled outside Tokio, or its runtime has shut down.
    Nowhere,
}

// ===== impl Home =====

impl Home {
    /// The home of work that is made here.
    pub(super) fn of_maker() -> Self {
        match Runtime::is_in_task() {
            true => Self::Task,
            false => Runtime::current().map_or(Self::Unpolled, Self::Runtime),
        }
    }

    /// Notes that the work was polled here.
    pub(super) fn settle(&mut self) {
        if let Self::Unpolled | Self::Task = self {
            *self = Runtime::current().map_or(Self::Nowhere, Self::Runtime);
        }
    }
}

// ===== impl Runtime =====

#[cfg(not(loom))]
impl Runtime {
    /// `None` outside Tokio.
    pub(crate) fn current() -> Option<Self> {
        let handle = tokio::runtime::Handle::try_current().ok()?;
        Some(Self { handle })
    }

    fn is_in_task() -> bool {
        tokio::task::try_id().is_some()
    }

    /// If the runtime has shut down, `task` is dropped before this returns, so never call this under a lock.
    pub(crate) fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(self.handle.spawn(task));
    }
}
