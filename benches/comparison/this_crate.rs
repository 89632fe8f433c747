//! This crate's `Group`.

use std::{io, sync::Arc};

use tower_singleflight::Group;

use super::Store;

pub(crate) struct Pages {
    pub(crate) store: Arc<Store>,
    pub(crate) flights: Group<String, Result<String, Arc<io::Error>>>,
}

impl Pages {
    pub(crate) async fn get(&self, name: &str) -> Result<String, Arc<io::Error>> {
        if let Some(page) = self.store.cached(name) {
            return Ok(page);
        }
        let (store, owned) = (Arc::clone(&self.store), name.to_owned());
        let work = || async move { store.load(&owned).await };
        self.flights.try_run(name, work).await
    }
}
