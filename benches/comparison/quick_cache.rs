//! quick_cache 0.7, which is the cache too.

use std::{io, sync::Arc};

use quick_cache::sync::Cache;

use super::Store;

pub(crate) struct Pages {
    pub(crate) store: Arc<Store>,
    pub(crate) pages: Cache<String, String>,
}

impl Pages {
    pub(crate) async fn get(&self, name: &str) -> io::Result<String> {
        let work = self.store.load(name);
        self.pages.get_or_insert_async(name, work).await
    }
}
