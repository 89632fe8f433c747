//! What the code of the ground floor uses under loom instead of Tokio's runtime and of what loom has no model of.

use std::{
    cell::Cell,
    future::Future,
    sync,
    task::{Context, Waker},
};

use loom::sync::atomic::{AtomicBool, Ordering};

loom::thread_local! {
    /// Where this thread of a model stands.
    static HERE: Cell<Location> = Cell::new(Location::Runtime);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    Runtime,
    /// A runtime that shuts down after one poll of the task.
    Dying,
    /// A task of the runtime, as [`Home::Task`](crate::group::runtime::Home) has it.
    Task,
    /// Outside any runtime.
    Nowhere,
}

/// A runtime whose tasks are threads.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    location: Location,
}

/// A `OnceLock` that loom sees.
pub(crate) struct OnceLock<T> {
    set: AtomicBool,
    value: sync::OnceLock<T>,
}

/// Does `there` with this thread at `location`.
#[cfg(test)]
pub(crate) fn at<T>(location: Location, there: impl FnOnce() -> T) -> T {
    let back = HERE.with(|here| here.replace(location));
    let done = there();
    HERE.with(|here| here.set(back));
    done
}

// ===== impl Runtime =====

impl Runtime {
    pub(crate) fn current() -> Option<Self> {
        let location = HERE.with(Cell::get);
        (location != Location::Nowhere).then_some(Self { location })
    }

    pub(crate) fn is_in_task() -> bool {
        HERE.with(Cell::get) == Location::Task
    }

    pub(crate) fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let location = self.location;
        loom::thread::spawn(move || {
            let mut task = Box::pin(task);
            if location == Location::Dying {
                let mut cx = Context::from_waker(Waker::noop());
                let _ = task.as_mut().poll(&mut cx);
            } else {
                loom::future::block_on(task);
            }
        });
    }
}

// ===== impl OnceLock =====

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self {
            set: AtomicBool::new(false),
            value: sync::OnceLock::new(),
        }
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        self.value.set(value)?;
        // What this orders `value` orders too, but loom does not see that.
        self.set.store(true, Ordering::Release);
        Ok(())
    }

    pub(crate) fn get(&self) -> Option<&T> {
        match self.set.load(Ordering::Acquire) {
            true => self.value.get(),
            false => None,
        }
    }

    pub(crate) fn into_inner(self) -> Option<T> {
        self.value.into_inner()
    }
}
