//! `Handle`.

use std::{fmt, sync::Arc};

use tokio::time::Instant;

use crate::shared::{Flights, Stats};

/// A way to the flights of a [`SingleflightLayer`](crate::SingleflightLayer), for code that is not a request.
///
/// It is cheap to clone and knows nothing of the services below the layer, so it can be axum's state. Keys are those of
/// the layer's extractor, [`RequestKey`](crate::RequestKey) by default; make one of those with
/// [`KeyExtractor::extract`](crate::KeyExtractor::extract), or use [`forget_if`](Self::forget_if).
///
/// ```
/// use tower_singleflight::SingleflightLayer;
///
/// let layer = SingleflightLayer::new();
/// let handle = layer.handle();
///
/// // After an import: whoever asks from now on gets an answer that was made from now on.
/// let forgotten = handle.forget_if(|key| key.uri().path().starts_with("/articles/"));
/// assert_eq!(forgotten, 0);
/// assert_eq!(handle.in_flight(), 0);
/// ```
pub struct Handle<K> {
    flights: Arc<Flights<K>>,
}

// ===== impl Handle =====

impl<K> Handle<K> {
    pub(crate) fn new(flights: Arc<Flights<K>>) -> Self {
        Self { flights }
    }

    /// Forgets the flights of `key`, in all their variants: later requests start anew rather than wait for an earlier call,
    /// as with Go's `Forget`. Those who have joined keep what they have joined. `true` if there was such a flight.
    ///
    /// Across replicas (feature `redis`) the others get a message, and forget theirs when it arrives.
    ///
    /// The default key is made of a whole request; to forget by URI is easier with [`forget_if`](Self::forget_if).
    ///
    /// After a write, call it when the write is done: a flight that began before that may have read the old state.
    ///
    /// ```
    /// use tower_singleflight::{SingleflightLayer, method_and_uri};
    ///
    /// let layer = SingleflightLayer::with_key(method_and_uri);
    /// let handle = layer.handle();
    /// let key = (http::Method::GET, "/articles/7".parse()?);
    /// assert!(!handle.forget(&key)); // nobody has asked
    /// # Ok::<(), http::uri::InvalidUri>(())
    /// ```
    pub fn forget(&self, key: &K) -> bool
    where
        K: std::hash::Hash + Eq,
    {
        #[cfg(feature = "redis")]
        if let Some(replicated) = self.flights.replicated() {
            replicated.forget(key);
        }
        let hash = self.flights.hash(key);
        let detached = self.flights.of(hash, key).filter(|flight| flight.detach());
        detached.count() > 0
    }

    /// Forgets the flights for whose key `f` says so, and gives their number.
    ///
    /// Across replicas (feature `redis`) the others get a message with the keys that are forgotten here.
    ///
    /// `f` runs under no lock, and sees the flights of one moment in each part of the table: this is not one atomic step.
    pub fn forget_if(&self, mut f: impl FnMut(&K) -> bool) -> usize {
        let now = Instant::now();
        let matching = self.flights.table.all().filter(|flight| {
            if !self.flights.can_be_joined(&flight.data, now) || !f(&flight.data.key) {
                return false;
            }
            #[cfg(feature = "redis")]
            if let Some(replicated) = self.flights.replicated() {
                replicated.forget(&flight.data.key);
            }
            flight.detach()
        });
        matching.count()
    }

    /// Forgets all flights, and gives the number of those that were in the air.
    #[expect(clippy::must_use_candidate, reason = "the count is a courtesy")]
    pub fn forget_all(&self) -> usize {
        #[cfg(feature = "redis")]
        if let Some(replicated) = self.flights.replicated() {
            replicated.client.forget_all();
        }
        self.forget_if(|_| true)
    }

    /// The number of flights that a new caller could join.
    ///
    /// It looks at every flight in the air, a part of the table at a time, and requests of that part wait meanwhile: for a
    /// scrape or a test, not for each request.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.flights.in_flight()
    }

    /// The number of callers of `key`'s flights, leaders included and in all variants; 0 if there is no such flight.
    #[must_use]
    pub fn waiters(&self, key: &K) -> usize
    where
        K: std::hash::Hash + Eq,
    {
        let hash = self.flights.hash(key);
        self.flights
            .of(hash, key)
            .map(|flight| flight.callers())
            .sum()
    }

    /// What the layer has done so far, and what it holds now.
    ///
    /// It is cheap: sums of a few counters, so it can be logged with each request. Its `in_flight` also counts a flight
    /// that is too old or too silent to be joined, until somebody asks for its key; [`in_flight`](Self::in_flight) does not.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.flights.stats()
    }

    /// Switches coalescing on and off, while requests go on: off, every request bypasses. What is in flight stays so,
    /// and nobody joins it. A new layer is on.
    pub fn set_enabled(&self, yes: bool) {
        self.flights.set_enabled(yes);
    }

    /// Audits this share of the requests that could follow, from now on: what
    /// [`SingleflightLayer::audit`](crate::SingleflightLayer::audit) sets, while requests go on.
    ///
    /// ```
    /// use tower_singleflight::SingleflightLayer;
    ///
    /// let layer = SingleflightLayer::new().audit(1.0); // watch, and coalesce nothing
    /// let handle = layer.handle();
    /// if handle.stats().audit_differed == 0 {
    ///     handle.set_audit(0.01); // coalesce, and keep watch
    /// }
    /// ```
    pub fn set_audit(&self, share: f64) {
        self.flights.audit.set(share);
    }

    /// What [`set_enabled`](Self::set_enabled) last set, by whichever handle; `true` if it never was.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.flights.is_enabled()
    }
}

impl<K> Clone for Handle<K> {
    fn clone(&self) -> Self {
        Self {
            flights: Arc::clone(&self.flights),
        }
    }
}

impl<K> fmt::Debug for Handle<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("name", &self.flights.counters.name.get())
            .field("stats", &self.flights.stats())
            .field("enabled", &self.flights.is_enabled())
            .finish_non_exhaustive()
    }
}
