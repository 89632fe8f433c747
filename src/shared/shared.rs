//! `Shared`.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use super::{flights::Flights, settings::Settings};
use crate::{
    key::{KeyExtractor, RequestKeyExtractor},
    rules::Fields,
};

/// Everything that a service needs, in one `Arc`, because servers clone services for each request.
///
/// The bound is there because `flights` names the key's type.
pub(crate) struct Shared<X: KeyExtractor> {
    pub(crate) extractor: Arc<X>,
    pub(crate) settings: Settings,
    pub(crate) flights: Arc<Flights<X::Key>>,
}

// ===== impl Shared =====

impl<X: KeyExtractor> Shared<X> {
    /// The default key, which holds the target and most fields of a request. We don't know what a user's key holds.
    pub(crate) fn default_key(&self) -> Option<&RequestKeyExtractor> {
        self.extractor.default_key()
    }

    /// Whether two requests of one key may differ in the field of this name.
    pub(crate) fn may_differ(&self, name: &HeaderName) -> bool {
        self.default_key().is_none_or(|key| key.may_leave_out(name))
    }

    /// The fields in which an identical request may differ.
    pub(crate) fn differing(&self, headers: &HeaderMap) -> Fields {
        Fields::of(headers, |name, _| self.may_differ(name))
    }
}

// Not derived, because `X` need not be `Clone`.
impl<X: KeyExtractor> Clone for Shared<X> {
    fn clone(&self) -> Self {
        Self {
            extractor: Arc::clone(&self.extractor),
            settings: self.settings.clone(),
            flights: Arc::clone(&self.flights),
        }
    }
}
