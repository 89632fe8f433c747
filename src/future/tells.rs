//! What a response that came to its caller alone tells the layer.

use std::sync::Arc;

use http::{Method, response};

use crate::{
    flights::{Shared, Target},
    key::KeyExtractor,
    rules,
};

pub(super) enum Tells<K> {
    Nothing,
    /// Whether a key that is remembered as unshareable still is.
    Shareable(Known<K>),
    /// That a write has succeeded.
    Written(Target, Method),
}

/// A request whose key is remembered as unshareable.
pub(crate) struct Known<K> {
    pub(crate) hash: u64,
    pub(crate) key: K,
    pub(crate) method: Method,
    pub(crate) has_credentials: bool,
}

// ===== impl Shared =====

impl<X: KeyExtractor> Shared<X> {
    /// The layer, if a response needs it on its way out. Most don't, and all cores write the count of this `Arc`.
    pub(super) fn if_needed(self: &Arc<Self>, tells: &Tells<X::Key>) -> Option<Arc<Self>> {
        let needed = !matches!(tells, Tells::Nothing) || self.settings.cache_status.is_some();
        needed.then(|| Arc::clone(self))
    }

    /// A response that came to this caller alone tells the layer what its key, or its method, is about.
    pub(super) fn hear(&self, tells: &Tells<X::Key>, response: &response::Parts) {
        match tells {
            Tells::Nothing => {}
            Tells::Written(target, method) => {
                if rules::invalidates(method, response.status) {
                    self.flights.stamps.write(*target);
                }
            }
            Tells::Shareable(known) => {
                if rules::may_share(&known.method, known.has_credentials, response)
                    && (self.settings.policy)(response)
                {
                    self.flights.memory.clear(known.hash, &known.key);
                }
            }
        }
    }
}
