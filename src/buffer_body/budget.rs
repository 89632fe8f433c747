//! How many bytes all requests of a layer have read ahead.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// `max_buffered`, with a permit for each byte. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    #[expect(dead_code, reason = "shown")]
    max: usize,
    bytes: Arc<Semaphore>,
}

// ===== impl Budget =====

impl Budget {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            bytes: Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Takes so many, if they are there; a permit that is dropped gives them back.
    pub(super) fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).ok()?;
        Arc::clone(&self.bytes).try_acquire_many_owned(bytes).ok()
    }
}
