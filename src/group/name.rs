//! A group's or a layer's name in metrics and spans.

use std::sync::{Arc, OnceLock};

/// Set once: a gauge that goes up under a name must go down under it.
#[derive(Debug, Default)]
pub(crate) struct Name(OnceLock<Arc<str>>);

impl Name {
    /// # Panics
    ///
    /// If there is a name already.
    pub(crate) fn set(&self, name: Arc<str>) {
        if let Err(name) = self.0.set(name) {
            let old = self.get().map_or("", |old| old);
            panic!("`name({name:?})`: this value, or one that it is a clone of, is named {old:?}");
        }
    }

    pub(crate) fn get(&self) -> Option<&Arc<str>> {
        self.0.get()
    }
}
