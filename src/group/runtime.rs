//! Where a shared flight is driven: a Tokio runtime, or a thread of loom's.

use std::future::Future;

/// The runtime in which a caller was.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    #[cfg(not(loom))]
    handle: tokio::runtime::Handle,
    #[cfg(loom)]
    location: Location,
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

#[cfg(loom)]
loom::thread_local! {
    /// Where this thread of a model stands.
    static HERE: std::cell::Cell<Location> = std::cell::Cell::new(Location::Runtime);
}

#[cfg(loom)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    Runtime,
    /// A runtime that shuts down after one poll of the task.
    Dying,
    /// A task of the runtime, as [`Home::Task`] has it.
    Task,
    /// Outside any runtime.
    Nowhere,
}

/// Does `there` with this thread at `location`.
#[cfg(all(test, loom))]
pub(crate) fn at<T>(location: Location, there: impl FnOnce() -> T) -> T {
    let back = HERE.with(|here| here.replace(location));
    let done = there();
    HERE.with(|here| here.set(back));
    done
}

#[cfg(loom)]
impl Runtime {
    pub(crate) fn current() -> Option<Self> {
        let location = HERE.with(std::cell::Cell::get);
        (location != Location::Nowhere).then_some(Self { location })
    }

    fn is_in_task() -> bool {
        HERE.with(std::cell::Cell::get) == Location::Task
    }

    pub(crate) fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let location = self.location;
        loom::thread::spawn(move || {
            let mut task = Box::pin(task);
            if location == Location::Dying {
                let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
                let _ = task.as_mut().poll(&mut cx);
            } else {
                loom::future::block_on(task);
            }
        });
    }
}
