//! Panics of user code, as values.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

/// What `catch_unwind` gives.
pub(crate) type Payload = Box<dyn Any + Send>;

/// A panic's message: its payload has one owner, the leader.
#[derive(Clone)]
pub(super) enum Message {
    Literal(&'static str),
    Text(String),
}

// ===== impl Message =====

impl Message {
    pub(super) fn of(payload: &Payload) -> Self {
        if let Some(text) = payload.downcast_ref::<&'static str>() {
            Self::Literal(text)
        } else if let Some(text) = payload.downcast_ref::<String>() {
            Self::Text(text.clone())
        } else {
            Self::Literal("the work of a coalesced call panicked with a payload that is no text")
        }
    }

    /// Panics with this message. The panic hook has reported the original and does not run again.
    pub(super) fn resume(self) -> ! {
        match self {
            Self::Literal(text) => resume_unwind(Box::new(text)),
            Self::Text(text) => resume_unwind(Box::new(text)),
        }
    }
}

/// Calls user code, and returns its panic as a value.
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Result<T, Payload> {
    // What a panic may have left inconsistent is only dropped, not used.
    catch_unwind(AssertUnwindSafe(call))
}

/// Calls user code whose panic must harm nobody else. The panic hook has reported it.
pub(super) fn quietly(call: impl FnOnce()) {
    if let Err(payload) = caught(call) {
        // The payload's drop may panic too.
        let _ = caught(|| drop(payload));
    }
}

/// Drops what belongs to the user, as [`quietly`] does.
pub(crate) fn drop_quietly<T>(value: T) {
    quietly(|| drop(value));
}
