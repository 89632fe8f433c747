//! `LazyBuffer`.

use std::{
    cell::OnceCell,
    ops::{Deref, DerefMut},
    sync::Arc,
};

use super::{budget::Budget, shared_buffer::SharedBuffer};

/// A [`SharedBuffer`] that is made on first use. A lone leader whose body arrives with its head needs none, and a
/// flight without one is half the size.
pub(crate) struct LazyBuffer {
    budget: Arc<Budget>,
    made: OnceCell<Box<SharedBuffer>>,
}

// ===== impl LazyBuffer =====

impl LazyBuffer {
    #[inline]
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self {
            budget,
            made: OnceCell::new(),
        }
    }

    /// The buffer, if it has been used.
    pub(crate) fn get(&self) -> Option<&SharedBuffer> {
        self.made.get().map(Box::as_ref)
    }
}

impl Deref for LazyBuffer {
    type Target = SharedBuffer;

    fn deref(&self) -> &SharedBuffer {
        let make = || Box::new(SharedBuffer::new(Arc::clone(&self.budget)));
        self.made.get_or_init(make)
    }
}

impl DerefMut for LazyBuffer {
    fn deref_mut(&mut self) -> &mut SharedBuffer {
        let _: &SharedBuffer = self;
        self.made.get_mut().expect("made just now")
    }
}
