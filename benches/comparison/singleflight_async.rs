//! singleflight-async 0.2.

use std::{io, sync::Arc};

use singleflight_async::SingleFlight;

use super::Store;

pub(crate) struct Pages {
    pub(crate) store: Arc<Store>,
    pub(crate) flights: SingleFlight<String, Result<String, Arc<io::Error>>>,
}

impl Pages {
    pub(crate) async fn get(&self, name: &str) -> Result<String, Arc<io::Error>> {
        if let Some(page) = self.store.cached(name) {
            return Ok(page);
        }
        let work = || async { self.store.load(name).await.map_err(Arc::new) };
        self.flights.work(name.to_owned(), work).await
    }
}
