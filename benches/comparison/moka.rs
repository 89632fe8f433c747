//! moka 0.12, which is the cache too.

use std::{io, sync::Arc};

use moka::future::Cache;

use super::Store;

pub(crate) struct Pages {
    pub(crate) store: Arc<Store>,
    pub(crate) pages: Cache<String, String>,
}

impl Pages {
    pub(crate) async fn get(&self, name: &str) -> Result<String, Arc<io::Error>> {
        let work = self.store.load(name);
        self.pages.try_get_with_by_ref(name, work).await
    }
}
