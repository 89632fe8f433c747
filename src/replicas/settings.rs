//! [`Replicas`]: the settings, and the client made from them.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    contest::Contest,
    driver,
    endpoint::Endpoint,
    error::ReplicasError,
    hub::{Hub, LocalFlight},
    id::Digest,
    message::INLINE,
    protocol::{EntryId, ProtocolSettings},
    redis::RedisStore,
    secret::{Digester, LEAST, Sealer, Secret},
    store::Store,
};

/// Lets replicas share one call, over a Redis or Valkey server.
///
/// Give it to `SingleflightLayer::replicas` or [`Group::replicas`](crate::Group::replicas). See [the guide](crate::guide::replicas) for when that is worth it,
/// what it costs and what is given up.
///
/// Creating it does not connect. The layer or group that you give it to connects in the background. It works at once,
/// and coalesces on its own whenever the store is not there.
///
/// ```
/// use std::time::Duration;
/// use tower_singleflight::Replicas;
///
/// # fn main() -> Result<(), tower_singleflight::ReplicasError> {
/// # let secret = "0123456789abcdef0123456789abcdef";
/// let replicas = Replicas::redis("redis://cache:6379")?
///     .namespace("shop-web/2026-11-26.3")
///     .secret(secret)
///     .patience(Duration::from_millis(50))
///     .lease(Duration::from_secs(3))
///     .max_body(1 << 20);
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct Replicas {
    endpoint: Endpoint,
    namespace: Option<String>,
    secret: Option<Secret>,
    settings: ProtocolSettings,
}

/// How the flights of one replica fared, and the state of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicaStats {
    /// Flights that led for all replicas.
    pub led: u64,
    /// Flights that got their answer from another replica.
    pub followed: u64,
    /// Flights among these that took the lead over from a replica that was gone.
    pub takeovers: u64,
    /// Flights that made their call alone because the store took longer than `patience`.
    pub alone_slow: u64,
    /// Flights that made their call alone because the store was not in use.
    pub alone_down: u64,
    /// Flights that made their call alone because calls of their key are too short for the store to be worth it.
    pub alone_short: u64,
    /// Flights that made their call alone because the leading replica could not share its answer, or because leaders
    /// were gone again and again.
    pub alone_told: u64,
    /// Whether the store is in use.
    pub is_up: bool,
    /// How long the store recently took to answer; `None` before its first answer.
    pub round_trip: Option<Duration>,
}

/// Connects the local flights of one layer or group to other replicas. Dropping it ends the connection.
pub(crate) struct ReplicaClient {
    hub: Arc<Hub>,
    /// Numbers the callers of this replica in the order in which they ask.
    numbers: AtomicU64,
    /// For keys.
    pub(crate) keys: Digester,
    /// For targets, by which flights can be forgotten.
    pub(crate) targets: Digester,
    #[cfg(feature = "http")]
    max_body: usize,
}

// ===== impl Replicas =====

impl Replicas {
    /// A single Redis or Valkey server: `redis://[user:password@]host[:port][/db]`, or `rediss://` for TLS.
    ///
    /// TLS needs the feature `redis-tls`. It uses rustls with the provider that your application has installed as the
    /// process's default, or else ring, and trusts the operating system's root certificates.
    ///
    /// # Errors
    ///
    /// If the address is invalid. It does not check whether a server is there.
    pub fn redis(url: &str) -> Result<Self, ReplicasError> {
        Endpoint::single(url).map(Self::at)
    }

    /// A cluster, given the addresses of some of its nodes.
    ///
    /// The client asks the nodes where keys are, so its user also needs the permission `+cluster|slots`.
    ///
    /// # Errors
    ///
    /// If there is no address, or one that is none.
    pub fn redis_cluster(urls: &[&str]) -> Result<Self, ReplicasError> {
        Endpoint::cluster(urls).map(Self::at)
    }

    /// The server that the sentinels call `master`, given the sentinels' addresses. The user, password and database in
    /// the first address are for the server.
    ///
    /// # Errors
    ///
    /// If there is no address, or one that is none.
    pub fn redis_sentinel(master: &str, urls: &[&str]) -> Result<Self, ReplicasError> {
        Endpoint::sentinel(master, urls).map(Self::at)
    }

    fn at(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            namespace: None,
            secret: None,
            settings: ProtocolSettings {
                patience: Duration::from_millis(50),
                lease: Duration::from_secs(3),
                probe: Duration::from_millis(500),
                beat: Duration::from_millis(200),
                down_after: Duration::from_secs(1),
                cover: Duration::from_millis(2),
                inline: INLINE,
                max_body: 1 << 20,
                value_life: Duration::from_secs(10),
            },
        }
    }

    /// The application and its version: replicas with different namespaces never share. All keys and channels in the
    /// store begin with it. Each layer or group of an application needs its own namespace.
    ///
    /// # Panics
    ///
    /// If it is empty, longer than 128 bytes, or contains characters other than letters, digits and `-_./:@`.
    pub fn namespace(mut self, namespace: &str) -> Self {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@".contains(&byte);
        assert!(
            (1..=128).contains(&namespace.len()) && namespace.bytes().all(allowed),
            "a namespace has 1 to 128 letters, digits and `-_./:@`"
        );
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// A secret that only the replicas know. It is used to hash the keys of flights and to encrypt everything that
    /// passes through the store. Replicas with different secrets never share.
    ///
    /// # Panics
    ///
    /// If it has fewer than 32 bytes.
    pub fn secret(mut self, secret: impl AsRef<[u8]>) -> Self {
        let secret = secret.as_ref();
        assert!(secret.len() >= LEAST, "a secret has at least {LEAST} bytes");
        self.secret = Some(Secret::new(secret));
        self
    }

    /// How long a caller waits for the store before it makes its own call; default 50 ms. While the store is known to
    /// be slower or down, nobody waits for it.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.settings.patience = patience;
        self
    }

    /// How long a leading replica that has gone silent keeps others from making the call; default 3 s. The lease is
    /// renewed while the call goes on, so calls may take longer.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease;
        self
    }

    /// How long the store may be silent before it counts as down and callers that wait for another replica make their
    /// own calls; default 1 s.
    pub fn down_after(mut self, silence: Duration) -> Self {
        self.settings.down_after = silence;
        self
    }

    /// The largest answer that is shared, in bytes; default 1 MiB. For a larger one each replica makes its own call.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.settings.max_body = bytes;
        self
    }

    /// Starts to use the store. `purpose` keeps owners of different kinds apart.
    ///
    /// # Panics
    ///
    /// If there is no namespace or no secret.
    pub(crate) fn open(self, purpose: &'static str) -> ReplicaClient {
        let namespace = self
            .namespace
            .expect("replicas need a namespace: `Replicas::namespace`");
        let secret = self
            .secret
            .expect("replicas need a secret: `Replicas::secret`");
        let store = RedisStore::new(self.endpoint, &namespace, &self.settings);
        ReplicaClient::new(store, &namespace, &secret, self.settings, purpose)
    }
}

#[cfg(test)]
impl ReplicaClient {
    /// One replica of those that share a store in memory; with `down_after` 300 ms and a lease of 2 s.
    pub(crate) fn in_memory(store: &super::memory::MemoryStore) -> Self {
        let replicas = Replicas::redis("redis://nowhere").expect("an address");
        let settings = ProtocolSettings {
            down_after: Duration::from_millis(300),
            lease: Duration::from_secs(2),
            ..replicas.settings
        };
        Self::new(
            store.clone(),
            "test",
            &Secret::new(&[7; LEAST]),
            settings,
            "test",
        )
    }
}

impl fmt::Debug for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replicas")
            .field("namespace", &self.namespace)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

// ===== impl ReplicaClient =====

impl ReplicaClient {
    pub(crate) fn new(
        store: impl Store,
        namespace: &str,
        secret: &Secret,
        settings: ProtocolSettings,
        purpose: &'static str,
    ) -> Self {
        let purpose_and_namespace = format!("{purpose} {namespace}");
        let sealer: Sealer = secret.sealer(&purpose_and_namespace);
        Self {
            #[cfg(feature = "http")]
            max_body: settings.max_body,
            hub: Hub::new(settings, driver::starter(store, sealer)),
            numbers: AtomicU64::new(0),
            keys: secret.digester("keys", &purpose_and_namespace),
            targets: secret.digester("targets", &purpose_and_namespace),
        }
    }

    /// The number of a new caller.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::SeqCst)
    }

    /// The leader of a local flight contends for the key `digest`, before it makes its call; its callers below `asked`
    /// have asked. `target`: the name by which [`forget_target`](Self::forget_target) finds the flight. `note` notes the
    /// entry under the lock under which callers join: from now on they announce themselves. It returns what `asked` is
    /// then.
    pub(crate) fn contend(
        &self,
        digest: Digest,
        target: Digest,
        flight: Arc<dyn LocalFlight>,
        asked: u64,
        note: impl FnOnce(EntryId) -> u64,
    ) -> Contest {
        self.hub.ensure_driven();
        let id = self
            .hub
            .act(|protocol, now| protocol.contend(digest, Some(target), flight, asked, now));
        let contest = Contest::new(&self.hub, id);
        let now = note(id);
        if now > asked {
            self.one_more(id, now - 1);
        }
        contest
    }

    /// The caller with this number has joined the local flight `id`.
    pub(crate) fn one_more(&self, id: EntryId, number: u64) {
        self.hub
            .act(|protocol, now| protocol.one_more(id, number, now));
    }

    /// From now on nobody joins a flight of this target, at other replicas as soon as they get the message. Call this
    /// before you detach the local flights.
    pub(crate) fn forget_target(&self, target: Digest) {
        self.hub.act(|protocol, _| protocol.forget(target));
    }

    /// As `forget_target`, for all flights.
    pub(crate) fn forget_all(&self) {
        self.hub.act(|protocol, _| protocol.forget_all());
    }

    /// The largest answer that is shared, in bytes.
    #[cfg(feature = "http")]
    pub(crate) fn max_body(&self) -> usize {
        self.max_body
    }

    pub(crate) fn stats(&self) -> ReplicaStats {
        self.hub.act(|protocol, _| protocol.stats())
    }
}

impl Drop for ReplicaClient {
    fn drop(&mut self) {
        self.hub.end();
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn each_setting_is_what_it_was_set_to() {
        let secs = Duration::from_secs;
        let replicas = Replicas::redis("redis://nowhere").expect("an address");
        let replicas = replicas.patience(secs(1)).lease(secs(2));
        let replicas = replicas.down_after(secs(3)).max_body(4);
        let set = replicas.namespace("shop-web/1_a.b:c@d").settings;
        assert_eq!((set.patience, set.lease), (secs(1), secs(2)));
        assert_eq!((set.down_after, set.max_body), (secs(3), 4));
    }

    #[test]
    fn a_store_without_a_usable_address_is_refused_with_the_reason() {
        let one = ["redis://nowhere"];
        for (is_usable, urls) in [(true, &one[..]), (false, &["nowhere"]), (false, &[])] {
            let stores = [
                Replicas::redis_cluster(urls),
                Replicas::redis_sentinel("primary", urls),
            ];
            for store in stores {
                match store {
                    Ok(_) => assert!(is_usable, "{urls:?}"),
                    Err(error) => assert!(!is_usable && error.source().is_some(), "{urls:?}"),
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "a namespace has 1 to 128 letters")]
    fn a_namespace_has_no_character_that_means_something_to_the_store() {
        let replicas = Replicas::redis("redis://nowhere").expect("an address");
        drop(replicas.namespace("shop{web}"));
    }
}
