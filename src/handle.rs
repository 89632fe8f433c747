//! `Handle`.

use std::{fmt, sync::Arc};

use tokio::time::Instant;

use crate::shared::{Flights, Stats};

/// Access to the flights of a [`SingleflightLayer`](crate::SingleflightLayer) from outside of requests.
///
/// It is cheap to clone and independent of the services below the layer, so you can keep it in axum's state. Keys are
/// those of the layer's extractor, [`RequestKey`](crate::RequestKey) by default; make one of those with
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

    /// Forgets the flights of `key` in all variants: later requests make a new call rather than waiting for an earlier
    /// one, as with Go's `Forget`. Callers that have joined keep their flight. Returns `true` if there was such a
    /// flight.
    ///
    /// Other replicas (feature `redis`) forget theirs when they get the message.
    ///
    /// The default key is made from a whole request; to forget by URI, use [`forget_if`](Self::forget_if).
    ///
    /// After a write, call this once the write is done: a flight that began before may have read the old state.
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

    /// Forgets the flights whose key satisfies `f`, and returns their number.
    ///
    /// Other replicas (feature `redis`) get a message with the keys that are forgotten here.
    ///
    /// `f` runs under no lock and sees one part of the table after the other, so this is not one atomic step.
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

    /// Forgets all flights, and returns how many there were.
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
    /// It looks at every flight, one part of the table at a time, and requests in that part wait meanwhile. Call it for
    /// a scrape or in a test, not for each request.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        let now = Instant::now();
        let can_be_joined = |data: &_| self.flights.can_be_joined(data, now);
        self.flights.table.count(can_be_joined)
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
    /// It is cheap, a sum of a few counters, so you can log it with each request. Its `in_flight` also counts a flight
    /// that is too old or too silent to be joined, until the next request for its key; [`in_flight`](Self::in_flight)
    /// does not.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.flights.stats()
    }

    /// Switches coalescing on or off at run time. While it is off, every request bypasses the layer; flights go on, but
    /// nobody joins them. A new layer is on.
    pub fn set_enabled(&self, yes: bool) {
        self.flights.set_enabled(yes);
    }

    /// Audits this share of the requests that could follow, from now on. It changes what
    /// [`SingleflightLayer::audit`](crate::SingleflightLayer::audit) has set.
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

    /// What any handle last set with [`set_enabled`](Self::set_enabled); `true` by default.
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
            .field("stats", &self.stats())
            .field("enabled", &self.flights.is_enabled())
            .finish_non_exhaustive()
    }
}
