//! What the layer's builder sets, and what its services share.

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderName, response};

use super::registry::Flights;
use crate::{
    buffer::Limits,
    cache_status::CacheStatus,
    key::{KeyExtractor, RequestKeyExtractor},
    rules,
};

/// `share_when`.
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

/// One `Arc` for all that a service needs, since servers clone services for each request.
///
/// The bound is there because `flights` names the key's type.
pub(crate) struct Shared<X: KeyExtractor> {
    pub(crate) extractor: Arc<X>,
    pub(crate) settings: Settings,
    pub(crate) flights: Arc<Flights<X::Key>>,
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

// ===== impl Shared =====

impl<X: KeyExtractor> Shared<X> {
    /// The default key, which is known to tell the target and most fields of a request. Of a user's key nothing is known.
    pub(crate) fn default_key(&self) -> Option<&RequestKeyExtractor> {
        self.extractor.default_key()
    }

    /// Whether two requests of one key may differ in the field of this name.
    pub(crate) fn may_differ(&self, name: &HeaderName) -> bool {
        self.default_key().is_none_or(|key| key.may_leave_out(name))
    }
}

// By hand: `X` need not be `Clone`.
impl<X: KeyExtractor> Clone for Shared<X> {
    fn clone(&self) -> Self {
        Self {
            extractor: Arc::clone(&self.extractor),
            settings: self.settings.clone(),
            flights: Arc::clone(&self.flights),
        }
    }
}
