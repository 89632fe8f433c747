//! Work that is counted, and that waits until a test lets it go on.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Semaphore;

#[derive(Clone)]
pub(crate) struct Gate {
    runs: Arc<AtomicUsize>,
    permits: Arc<Semaphore>,
}

// ===== impl Gate =====

impl Gate {
    pub(crate) fn closed() -> Self {
        Self {
            runs: Arc::default(),
            permits: Arc::new(Semaphore::new(0)),
        }
    }

    /// Lets `n` runs go on.
    pub(crate) fn admit(&self, n: usize) {
        self.permits.add_permits(n);
    }

    /// Lets all runs go on, now and later.
    pub(crate) fn open(&self) {
        self.admit(1_000_000);
    }

    pub(crate) async fn run(&self) {
        self.runs.fetch_add(1, Ordering::SeqCst);
        self.permits
            .acquire()
            .await
            .expect("the gate stays")
            .forget();
    }

    pub(crate) fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }
}
