//! `BufferBodyLayer`.

use tower_layer::Layer;

use super::{budget::Budget, service::BufferBody};

/// Reads request bodies before the service below is called. See the [module docs](super).
///
/// Clones share the limit [`max_buffered`](Self::max_buffered); two calls of `new` do not.
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it is put around a service"]
pub struct BufferBodyLayer {
    max: usize,
    budget: Budget,
}

// ===== impl BufferBodyLayer =====

impl BufferBodyLayer {
    /// A layer that reads bodies of up to `max` bytes. A larger body reaches the service below as it arrives, and is
    /// part of no key.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            budget: Budget::new(64 << 20),
        }
    }

    /// How many bytes all requests together may hold. Default: 64 MiB. Call this before you clone the layer.
    ///
    /// This counts bytes that have arrived, not announced ones, until the service below takes them or the request is
    /// dropped. So a request that waits for another's response counts as well. A body for which there is no room
    /// reaches the service below as it arrives.
    pub fn max_buffered(mut self, bytes: usize) -> Self {
        self.budget = Budget::new(bytes);
        self
    }
}

impl<S> Layer<S> for BufferBodyLayer {
    type Service = BufferBody<S>;

    fn layer(&self, inner: S) -> Self::Service {
        BufferBody::new(inner, self.max, self.budget.clone())
    }
}
