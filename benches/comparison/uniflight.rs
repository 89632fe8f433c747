//! uniflight 0.8.

use std::{io, sync::Arc};

use uniflight::{LeaderPanicked, Merger};

use super::Store;

pub(crate) struct Pages {
    pub(crate) store: Arc<Store>,
    pub(crate) flights: Merger<String, Result<String, Arc<io::Error>>>,
}

impl Pages {
    pub(crate) async fn get(
        &self,
        name: &str,
    ) -> Result<Result<String, Arc<io::Error>>, LeaderPanicked> {
        if let Some(page) = self.store.cached(name) {
            return Ok(Ok(page));
        }
        let (store, owned) = (Arc::clone(&self.store), name.to_owned());
        let work = || async move { store.load(&owned).await.map_err(Arc::new) };
        self.flights.execute(name, work).await
    }
}
