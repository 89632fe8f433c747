//! [`Replicas`]: where the store is, and what is asked of it.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    contest::Contest,
    driver,
    error::ReplicasError,
    hub::{Hub, LocalFlight},
    id::Digest,
    message::INLINE,
    protocol::{EntryId, ProtocolSettings},
    redis::{Endpoint, RedisStore},
    secret::{Digester, KeyBytes, LEAST, Sealer, Secret},
    store::Store,
};

/// Replicas that make one call among them, over a Redis or Valkey server that they share.
///
/// Give it to `SingleflightLayer::replicas` or [`Group::replicas`](crate::Group::replicas). See [the guide](crate::guide::replicas) for when that is worth it,
/// what it costs and what is given up.
///
/// Making it connects to nothing. The layer or group that it is given to connects in the background: it works at once, and alone until
/// the store is there, and whenever it is not.
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

/// What has become of the flights of one replica, and how the store does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicaStats {
    /// Flights that led for all replicas.
    pub led: u64,
    /// Flights that got their answer from another replica.
    pub followed: u64,
    /// Of those that led: how many took the lead over from a replica that was gone.
    pub takeovers: u64,
    /// Flights that made their call alone, since the store took longer than `patience`.
    pub alone_slow: u64,
    /// Since the store was not in use.
    pub alone_down: u64,
    /// Since calls of that key are too short to be worth it.
    pub alone_short: u64,
    /// Since the replica that led said so (it could not share its answer), or was gone time and again.
    pub alone_told: u64,
    /// Whether the store is in use.
    pub is_up: bool,
    /// How long the store takes to answer, of late; `None` before it has.
    pub round_trip: Option<Duration>,
}

/// Where the local flights of one owner meet those of the other replicas. The last of its clones to go ends the connection.
pub(crate) struct ReplicaClient {
    hub: Arc<Hub>,
    keys: Digester,
    targets: Digester,
    #[cfg(feature = "http")]
    max_body: usize,
}

// ===== impl Replicas =====

impl Replicas {
    /// A single Redis or Valkey server: `redis://[user:password@]host[:port][/db]`, or `rediss://` for TLS.
    ///
    /// TLS needs the feature `redis-tls`. It is rustls's, with the provider that the application has installed as its process's
    /// default before it calls this, else ring; and the roots that the operating system trusts.
    ///
    /// # Errors
    ///
    /// If that is no such address. Whether a server is there is not asked.
    pub fn redis(url: &str) -> Result<Self, ReplicasError> {
        Endpoint::single(url).map(Self::at)
    }

    /// A cluster, by the addresses of some of its nodes.
    ///
    /// The client asks the nodes who has which keys, so its user needs the permission `+cluster|slots` too.
    ///
    /// # Errors
    ///
    /// If there is no address, or one that is none.
    pub fn redis_cluster(urls: &[&str]) -> Result<Self, ReplicasError> {
        Endpoint::cluster(urls).map(Self::at)
    }

    /// The server that sentinels say is `master`, by the sentinels' addresses. User, password and database of the first address
    /// are those of the server.
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

    /// Which application this is, and which version of it: replicas of different namespaces never meet. All keys and channels in
    /// the store begin with it. Two layers or groups of one application need two namespaces.
    ///
    /// # Panics
    ///
    /// If it is empty, longer than 128 bytes, or has characters other than letters, digits and `-_./:@`.
    pub fn namespace(mut self, namespace: &str) -> Self {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@".contains(&byte);
        assert!(
            (1..=128).contains(&namespace.len()) && namespace.bytes().all(allowed),
            "a namespace has 1 to 128 letters, digits and `-_./:@`"
        );
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// What all replicas know, and nobody else. With it the keys of flights are hashed, and all that passes through the store is
    /// encrypted. Those who differ in it never meet.
    ///
    /// # Panics
    ///
    /// If it has less than 32 bytes.
    pub fn secret(mut self, secret: impl AsRef<[u8]>) -> Self {
        let secret = secret.as_ref();
        assert!(secret.len() >= LEAST, "a secret has at least {LEAST} bytes");
        self.secret = Some(Secret::new(secret));
        self
    }

    /// The longest that a caller waits for the store before it makes its own call; default 50 ms. While the store is known to be
    /// slower, or down, nobody waits for it at all.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.settings.patience = patience;
        self
    }

    /// How long a replica that leads a call, and is not heard of, keeps others from making it; default 3 s. It is renewed while
    /// the call goes on, so calls may take longer.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease;
        self
    }

    /// How long the store may be silent before it counts as down, and those who wait for another replica make their own calls;
    /// default 1 s.
    pub fn down_after(mut self, silence: Duration) -> Self {
        self.settings.down_after = silence;
        self
    }

    /// The largest answer that is shared, in bytes; default 1 MiB. Of a larger one each replica makes its own.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.settings.max_body = bytes;
        self
    }

    /// Begins to use the store. `purpose` tells owners of different kinds apart.
    ///
    /// # Panics
    ///
    /// Without a namespace or a secret.
    pub(crate) fn open(self, purpose: &'static str) -> ReplicaClient {
        let namespace = self
            .namespace
            .expect("replicas need a namespace: `Replicas::namespace`");
        let secret = self
            .secret
            .expect("replicas need a secret: `Replicas::secret`");
        let ProtocolSettings {
            lease, value_life, ..
        } = self.settings;
        let store = RedisStore::new(self.endpoint, &namespace, lease, value_life);
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
            keys: secret.digester("keys", &purpose_and_namespace),
            targets: secret.digester("targets", &purpose_and_namespace),
        }
    }

    /// The number of a caller that asks now.
    pub(crate) fn number(&self) -> u64 {
        self.hub.number()
    }

    /// The name of a key, of which `write` writes the parts.
    pub(crate) fn key(&self, write: impl FnOnce(&mut KeyBytes)) -> Digest {
        let mut bytes = self.keys.begin();
        write(&mut bytes);
        bytes.finish()
    }

    /// The name of what flights can be forgotten by.
    pub(crate) fn target(&self, write: impl FnOnce(&mut KeyBytes)) -> Digest {
        let mut bytes = self.targets.begin();
        write(&mut bytes);
        bytes.finish()
    }

    /// The leader of a local flight contends for its key, before it makes its call. Its callers below `asked` have asked.
    pub(crate) fn contend(
        &self,
        digest: Digest,
        target: Option<Digest>,
        flight: Arc<dyn LocalFlight>,
        asked: u64,
    ) -> Contest {
        Contest::new(&self.hub, digest, target, flight, asked)
    }

    /// The caller of this number has joined the local flight that contends, or follows, as `id`.
    pub(crate) fn one_more(&self, id: EntryId, number: u64) {
        self.hub
            .act(|protocol, now| protocol.one_more(id, number, now));
    }

    /// Nobody joins a flight of this target any more, here or, as soon as they hear of it, elsewhere. Call it before the local
    /// flights are detached.
    pub(crate) fn forget_target(&self, target: Digest) {
        self.hub.act(|protocol, _| protocol.forget(target));
    }

    /// As `forget_target`, of all.
    pub(crate) fn forget_all(&self) {
        self.hub.act(|protocol, _| protocol.forget_all());
    }

    /// The largest answer that is shared.
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
