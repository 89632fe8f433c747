//! tower-resilience-coalesce 0.14, a layer: over a service that loads.

use std::{io, sync::Arc};

use tower::{Layer, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_resilience_coalesce::{CoalesceError, CoalesceLayer};

use super::Store;

type Error = CoalesceError<Arc<io::Error>>;

pub(crate) struct Pages {
    pub(crate) store: Arc<Store>,
    pub(crate) flights: BoxCloneSyncService<String, String, Error>,
}

impl Pages {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        let loader = Arc::clone(&store);
        let service = service_fn(move |name: String| {
            let store = Arc::clone(&loader);
            async move { store.load(&name).await.map_err(Arc::new) }
        });
        let layer = CoalesceLayer::new(|name: &String| name.clone());
        let flights = BoxCloneSyncService::new(layer.layer(service));
        Self { store, flights }
    }

    pub(crate) async fn get(&self, name: &str) -> Result<String, Error> {
        if let Some(page) = self.store.cached(name) {
            return Ok(page);
        }
        self.flights.clone().oneshot(name.to_owned()).await
    }
}
