//! Panics of user code, as values.

use std::{
    any::Any,
    borrow::Cow,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

/// What `catch_unwind` gives.
pub(crate) type Payload = Box<dyn Any + Send>;

/// A panic's message: its payload has one owner, the leader.
#[derive(Clone)]
pub(super) struct Message(Cow<'static, str>);

// ===== impl Message =====

impl Message {
    pub(super) fn of(payload: &Payload) -> Self {
        const NO_TEXT: &str =
            "the work of a coalesced call panicked with a payload that is no text";
        Self(match payload.downcast_ref::<String>() {
            Some(text) => Cow::Owned(text.clone()),
            None => Cow::Borrowed(payload.downcast_ref().copied().unwrap_or(NO_TEXT)),
        })
    }

    /// Panics with this message. The panic hook has reported the original and does not run again.
    pub(super) fn resume(self) -> ! {
        match self.0 {
            Cow::Borrowed(text) => resume_unwind(Box::new(text)),
            Cow::Owned(text) => resume_unwind(Box::new(text)),
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
