//! The standard library's primitives, or loom's models of them under `--cfg loom`.
//!
//! `Arc` is always the standard one, because a `Waker` can only be made from that.

#[cfg(not(loom))]
use std::sync::Mutex as Raw;
use std::sync::PoisonError;

#[cfg(loom)]
use loom::sync::Mutex as Raw;

#[cfg(loom)]
pub(crate) use crate::group::OnceLock;
#[cfg(loom)]
pub(crate) use loom::sync::{
    MutexGuard,
    atomic::{AtomicBool, AtomicUsize},
};
pub(crate) use std::sync::atomic::Ordering;
#[cfg(not(loom))]
pub(crate) use std::sync::{
    MutexGuard, OnceLock,
    atomic::{AtomicBool, AtomicUsize},
};

/// A mutex that a panic does not poison. Its contents are consistent whenever user code (a key's `Eq`) can panic under
/// it, and one caller's panic must not become everyone's.
#[derive(Default)]
pub(crate) struct Mutex<T>(Raw<T>);

// ===== impl Mutex =====

impl<T> Mutex<T> {
    #[inline]
    pub(crate) fn new(value: T) -> Self {
        Self(Raw::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(feature = "http")]
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}
