//! Waiting callers, how long they wait, and buffered bytes.

#[cfg(feature = "metrics")]
use std::cell::RefCell;
use std::sync::Arc;

#[cfg(feature = "metrics")]
use super::metrics::{BUFFERED_BYTES, WAIT_SECONDS, WAITERS, of_layer};
use crate::group::Name;

/// So many callers have come, or gone.
pub(crate) fn waiters(layer: &Name, change: f64) {
    #[cfg(feature = "metrics")]
    of_layer(layer, |layer| {
        metrics::gauge!(WAITERS, "layer" => layer).increment(change);
    });
}

#[cfg(feature = "metrics")]
thread_local! {
    /// Bytes of each layer that have not been reported yet. A copy reserves and frees bytes under its flight's lock,
    /// where we call no user code.
    static UNREPORTED: RefCell<Vec<(Arc<Name>, i64)>> = const { RefCell::new(Vec::new()) };
}

/// So many bytes have been reserved, or freed.
pub(crate) fn buffered(layer: &Arc<Name>, bytes: i64) {
    // A thread that ends reports nothing.
    #[cfg(feature = "metrics")]
    let _ = UNREPORTED.try_with(|unreported| {
        let mut unreported = unreported.borrow_mut();
        match unreported
            .iter_mut()
            .find(|(other, _)| Arc::ptr_eq(other, layer))
        {
            Some((_, sum)) => *sum += bytes,
            None => unreported.push((Arc::clone(layer), bytes)),
        }
    });
}

/// Reports the bytes that this thread has reserved and freed. Call it under no lock, after changing a copy.
pub(crate) fn settle() {
    #[cfg(feature = "metrics")]
    while let Ok(Some((layer, bytes))) =
        UNREPORTED.try_with(|unreported| unreported.borrow_mut().pop())
    {
        if bytes != 0 {
            of_layer(&layer, |layer| {
                metrics::gauge!(BUFFERED_BYTES, "layer" => layer).increment(bytes as f64);
            });
        }
    }
}

/// How long a follower waits; reads no clock unless `metrics` is on.
pub(crate) struct WaitTimer {
    #[cfg(feature = "metrics")]
    layer: Arc<Name>,
    #[cfg(feature = "metrics")]
    since: tokio::time::Instant,
}

impl WaitTimer {
    pub(crate) fn begin(layer: &Arc<Name>) -> Self {
        Self {
            #[cfg(feature = "metrics")]
            layer: Arc::clone(layer),
            #[cfg(feature = "metrics")]
            since: tokio::time::Instant::now(),
        }
    }

    pub(crate) fn ended(&self) {
        #[cfg(feature = "metrics")]
        of_layer(&self.layer, |layer| {
            metrics::histogram!(WAIT_SECONDS, "layer" => layer).record(self.since.elapsed());
        });
    }
}
