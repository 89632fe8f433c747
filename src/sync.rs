//! The standard library's primitives, or loom's models of them under `--cfg loom`.
//!
//! `Arc` is always the standard one, because a `Waker` can only be made from that.

#[cfg(not(loom))]
use std::sync as primitives;
use std::sync::{OnceLock, PoisonError};

#[cfg(loom)]
use loom::sync as primitives;

pub(crate) use primitives::{
    MutexGuard,
    atomic::{AtomicBool, AtomicUsize},
};
pub(crate) use std::sync::atomic::Ordering;

/// A mutex that a panic does not poison. Its contents are consistent whenever user code (a key's `Eq`) can panic under
/// it, and one caller's panic must not become everyone's.
pub(crate) struct Mutex<T>(primitives::Mutex<T>);

/// A value that is set once and then read without a lock.
pub(crate) struct SetOnce<T> {
    set: AtomicBool,
    value: OnceLock<T>,
}

// ===== impl Mutex =====

impl<T> Mutex<T> {
    #[inline]
    pub(crate) fn new(value: T) -> Self {
        Self(primitives::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(feature = "http")]
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

// ===== impl SetOnce =====

impl<T> SetOnce<T> {
    pub(crate) fn new() -> Self {
        Self {
            set: AtomicBool::new(false),
            value: OnceLock::new(),
        }
    }

    /// Sets the value, or returns it if there already is one.
    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        self.value.set(value)?;
        // `OnceLock` orders this itself, but loom needs an atomic that it can see.
        self.set.store(true, Ordering::Release);
        Ok(())
    }

    pub(crate) fn get(&self) -> Option<&T> {
        if self.set.load(Ordering::Acquire) {
            self.value.get()
        } else {
            None
        }
    }

    pub(crate) fn into_inner(self) -> Option<T> {
        self.value.into_inner()
    }
}
