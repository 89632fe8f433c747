//! How many wait, for how long, and for how much.

#[cfg(feature = "metrics")]
use super::tell::tell;

pub(crate) fn waiter_came() {
    #[cfg(feature = "metrics")]
    tell(|| metrics::gauge!("singleflight_waiters").increment(1.0));
}

pub(crate) fn waiter_went() {
    #[cfg(feature = "metrics")]
    tell(|| metrics::gauge!("singleflight_waiters").decrement(1.0));
}

#[cfg(feature = "metrics")]
thread_local! {
    /// Bytes that no recorder has been told of. A copy is charged, and gives back, under its flight's lock, where nothing of
    /// the user's is called.
    static UNTOLD: std::cell::Cell<i64> = const { std::cell::Cell::new(0) };
}

pub(crate) fn buffered(bytes: usize) {
    #[cfg(feature = "metrics")]
    UNTOLD.set(UNTOLD.get() + bytes as i64);
}

pub(crate) fn released(bytes: usize) {
    #[cfg(feature = "metrics")]
    UNTOLD.set(UNTOLD.get() - bytes as i64);
}

/// Tells of the bytes that this thread has charged and given back. Under no lock; whoever has changed a copy calls it when
/// it has left the lock.
pub(crate) fn settle() {
    #[cfg(feature = "metrics")]
    {
        let bytes = UNTOLD.replace(0);
        if bytes != 0 {
            tell(|| metrics::gauge!("singleflight_buffered_bytes").increment(bytes as f64));
        }
    }
}

/// How long a follower waits; no clock is read where nobody wants to know.
pub(crate) struct Wait {
    #[cfg(feature = "metrics")]
    since: tokio::time::Instant,
}

impl Wait {
    pub(crate) fn begin() -> Self {
        Self {
            #[cfg(feature = "metrics")]
            since: tokio::time::Instant::now(),
        }
    }

    pub(crate) fn ended(&self) {
        #[cfg(feature = "metrics")]
        tell(|| metrics::histogram!("singleflight_wait_seconds").record(self.since.elapsed()));
    }
}
