//! The layer's settings, which its services share.

use std::{fmt, sync::Arc, time::Duration};

use http::response;

use crate::{buffer::Limits, cache_status::CacheStatus, rules};

/// The function that `share_when` sets.
pub(crate) type Policy = Arc<dyn Fn(&response::Parts) -> bool + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) policy: Policy,
    pub(crate) limits: Limits,
    pub(crate) max_waiters: usize,
    pub(crate) max_age: Duration,
    pub(crate) max_silence: Duration,
    pub(crate) wait_timeout: Option<Duration>,
    pub(crate) finish_abandoned: bool,
    pub(crate) cache_status: Option<CacheStatus>,
}

// ===== impl Settings =====

impl Default for Settings {
    fn default() -> Self {
        Self {
            policy: Arc::new(rules::shareable),
            limits: Limits {
                max_body: 2 << 20,
                max_buffered: 256 << 20,
            },
            max_waiters: usize::MAX,
            max_age: Duration::from_secs(30),
            max_silence: Duration::from_secs(1),
            wait_timeout: None,
            finish_abandoned: false,
            cache_status: None,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("limits", &self.limits)
            .field("max_waiters", &self.max_waiters)
            .field("max_age", &self.max_age)
            .field("max_silence", &self.max_silence)
            .field("wait_timeout", &self.wait_timeout)
            .field("finish_abandoned", &self.finish_abandoned)
            .field("cache_status", &self.cache_status.is_some())
            .finish_non_exhaustive()
    }
}
