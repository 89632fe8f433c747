//! `Group`.

#[cfg(feature = "redis")]
use std::sync::OnceLock;
use std::{borrow::Borrow, fmt, future::Future, hash::Hash, sync::Arc};

#[cfg(any(feature = "tracing", feature = "metrics"))]
use super::observed::{joined, observed};
#[cfg(feature = "redis")]
use super::{codec::Codec, replicated::ReplicatedFlights};
use super::{
    name::Name,
    run::{Part, Run},
    runtime::Runtime,
    table::Table,
    value::ShareValue,
};
#[cfg(feature = "redis")]
use crate::replicas::{ReplicaStats, Replicas};

/// Go's [`singleflight.Group`][go] for asynchronous work: when several callers ask for the same key at the same time,
/// one of them does the work and all get its value.
///
/// Clones are the same group. Values are not kept: when a flight has ended, the next caller starts a new one.
///
/// ```
/// use tower_singleflight::Group;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let group = Group::new();
/// let work = || async {
///     tokio::task::yield_now().await; // slow
///     42
/// };
///
/// let (first, second) = tokio::join!(group.run("answer", work), group.run("answer", work));
/// assert_eq!((first.value, second.value), (42, 42));
/// assert!(first.led && !second.led);
/// assert_eq!(group.in_flight(), 0);
/// # }
/// ```
///
/// # Errors
///
/// Errors are values. All callers of a flight get the same one, so it must be `Clone`: wrap it in an `Arc`, as
/// [`try_run`](Self::try_run) does for you, or in a [`SharedError`](crate::SharedError).
///
/// # What the work may borrow
///
/// The closure `work` may borrow whatever it likes. The future that it returns must be `'static`, because it may outlive
/// the call: a flight goes on while anybody waits for it. So clone what the future needs and move the clones in:
///
/// ```
/// use std::sync::Arc;
/// use tower_singleflight::Group;
///
/// #[derive(Default)]
/// struct Pages {
///     flights: Group<String, usize>,
/// }
///
/// impl Pages {
///     async fn length(self: &Arc<Self>, name: &str) -> usize {
///         let (pages, owned) = (Arc::clone(self), name.to_owned());
///         let work = || async move { pages.load(&owned).await.len() };
///         self.flights.run(name.to_owned(), work).await.value
///     }
///
///     async fn load(&self, name: &str) -> String {
///         format!("the page {name}")
///     }
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() { assert_eq!(Arc::new(Pages::default()).length("home").await, 13); }
/// ```
///
/// # Panics
///
/// A panic of the work reaches every caller: the leader with the payload, the others with its message. The key is free
/// before anybody sees it. A panic of `K`'s `Hash` or `Eq`, or of `V`'s `Clone`, affects only that caller. A panic of a
/// waker stops at the panic hook.
///
/// # Who drives the work
///
/// While the leader is alone, it polls the work itself. Once a second caller has joined, a Tokio task does, so that a
/// leader that is dropped, or kept without being polled, stops nobody. The task runs on the runtime in which the work
/// was made or first polled, because the work may need its timers and sockets. If it was made outside Tokio, or in a
/// task that has not polled it yet, the task runs on the second caller's runtime. Outside Tokio, whichever caller is
/// polled drives the work: see the example `threads`.
///
/// So the runtime of a leader must be running: one that is neither run nor dropped (a current-thread runtime between two
/// `block_on`s) stalls the flights that it drives, for callers on other runtimes too. When it shuts down, the callers go on
/// with the work.
///
/// `K`'s `Eq` must not use the group: keys are compared under a lock.
///
/// [go]: https://pkg.go.dev/golang.org/x/sync/singleflight
pub struct Group<K, V> {
    shared: Arc<Inner<K, V>>,
}

/// What the clones of a group share.
struct Inner<K, V> {
    table: Table<K, V, ()>,
    name: Name,
    /// If this is set, it holds all flights, and the table is not used. Set before the first caller or never.
    #[cfg(feature = "redis")]
    replicated: OnceLock<ReplicatedFlights<K, V>>,
}

// ===== impl Group =====

impl<K, V> Group<K, V> {
    /// An empty group.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Inner {
                table: Table::new(),
                name: Name::default(),
                #[cfg(feature = "redis")]
                replicated: OnceLock::new(),
            }),
        }
    }

    /// The name of the group and of all its clones. With the features `tracing` and `metrics`, a group that has a name makes
    /// a span for each flight and has [metrics](crate#observability), with the name as the field and the label `group`. A
    /// group without a name has neither. Keys are never shown.
    ///
    /// A flight that began before the name was set is not observed.
    ///
    /// ```
    /// use tower_singleflight::Group;
    ///
    /// let articles: Group<u64, String> = Group::new().name("articles");
    /// # let _ = articles;
    /// ```
    ///
    /// # Panics
    ///
    /// If the group or a clone of it already has a name.
    #[must_use]
    pub fn name(self, name: impl Into<Arc<str>>) -> Self {
        self.shared.name.set(name.into());
        self
    }

    /// Coalesces across replicas: of all callers of a key, at any replica, one does the work and all get its value.
    ///
    /// `codec` writes and reads the values: a pair of functions, see [`Codec`]. A value that it can't write is not
    /// shared with other replicas. The group needs its own [`namespace`](Replicas::namespace).
    ///
    /// ```no_run
    /// use tower_singleflight::{Group, Replicas};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let replicas = Replicas::redis("redis://cache:6379")?
    ///     .namespace("shop-web/2026-11-26.3/prices")
    ///     .secret(std::env::var("SINGLEFLIGHT_SECRET")?);
    /// let prices: Group<String, u64> = Group::new().replicas(
    ///     replicas,
    ///     (
    ///         |price: &u64| Some(price.to_be_bytes().to_vec()),
    ///         |bytes: &[u8]| Some(u64::from_be_bytes(bytes.try_into().ok()?)),
    ///     ),
    /// );
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Without the store the group works as usual: a caller that leads waits for the store at most
    /// [`patience`](Replicas::patience), and not at all while it is known to be down. For a caller that gets another
    /// replica's value, the [`Outcome`](super::Outcome) has `shared` true and `led` false. [`forget`](Self::forget)
    /// reaches the other replicas by message.
    ///
    /// Work is called as usual, but the future that it returns is first polled once this replica leads. If another
    /// replica leads, it is dropped without being polled.
    ///
    /// All clones of the group use the same replicas. Call this before the group's first caller. The connection to the
    /// store lives in the Tokio runtime in which you call this, or else in that of the first caller; its I/O and time
    /// drivers must be enabled.
    ///
    /// # Panics
    ///
    /// If `replicas` has no namespace or no secret, or if the group or a clone of it already has replicas.
    #[cfg(feature = "redis")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    #[must_use]
    pub fn replicas(self, replicas: Replicas, codec: impl Codec<K, V>) -> Self {
        self.across(ReplicatedFlights::new(replicas, codec))
    }

    #[cfg(feature = "redis")]
    pub(super) fn across(self, replicated: ReplicatedFlights<K, V>) -> Self {
        let set = self.shared.replicated.set(replicated);
        assert!(set.is_ok(), "the group has its replicas already");
        self
    }

    /// How its flights fared across replicas; `None` without [`replicas`](Self::replicas).
    #[cfg(feature = "redis")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    #[must_use]
    pub fn replica_stats(&self) -> Option<ReplicaStats> {
        let replicated = self.shared.replicated.get();
        replicated.map(|replicated| replicated.client.stats())
    }

    /// Go's `Do`: joins the flight of `key`, or leads a new one with `work`.
    ///
    /// It does so at once, not when the returned future is first polled. `work` is called here, only by the leader and
    /// under no lock: it may borrow from its surroundings and use the group. Only the future that it returns must be
    /// `'static`.
    ///
    /// # Cancel safety
    ///
    /// The work is dropped, and the key is free, as soon as the last [`Run`] of the flight is dropped.
    ///
    /// # Panics
    ///
    /// If `work` itself panics, or `K`'s `Hash` or `Eq`. Awaiting the result panics if the work's future does.
    pub fn run<F, Fut>(&self, key: K, work: F) -> Run<K, V>
    where
        K: Hash + Eq + Send + 'static,
        V: ShareValue,
        F: FnOnce() -> Fut,
        Fut: Future<Output = V> + Send + 'static,
    {
        self.start(key, work, None)
    }

    /// Go's `DoChan`: as [`run`](Self::run), but the flight that it leads or joins runs to its end even if every caller
    /// leaves. A task drives it, whether or not the result is awaited: on the runtime that [already drives
    /// it](Self#who-drives-the-work), or else on the current one. If the driving runtime shuts down, the flight moves
    /// to the current one; if that shuts down too, the flight is cancelled.
    ///
    /// ```
    /// use tower_singleflight::Group;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let group = Group::new();
    /// drop(group.spawn("answer", || async { 42 }));
    /// assert_eq!(group.in_flight(), 1); // its caller has left, the work goes on
    /// let joined = group.run("answer", || async { unreachable!("the flight above leads") });
    /// assert_eq!(joined.await.value, 42);
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime, before it takes the key. Otherwise as `run`.
    pub fn spawn<F, Fut>(&self, key: K, work: F) -> Run<K, V>
    where
        K: Hash + Eq + Send + 'static,
        V: ShareValue,
        F: FnOnce() -> Fut,
        Fut: Future<Output = V> + Send + 'static,
    {
        let runtime = Runtime::current().expect(
            "`Group::spawn` must be called from within a Tokio runtime; `Group::run` needs none",
        );
        self.start(key, work, Some(runtime))
    }

    /// Go's `Forget`: later callers of `key` start new work rather than waiting for an earlier call. Callers that have
    /// joined stay in the old flight. Returns whether there was a flight to forget.
    ///
    /// ```
    /// use tower_singleflight::Group;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let group = Group::new();
    /// let before = group.run(String::from("answer"), || async { 1 });
    /// assert!(group.forget("answer"));
    /// let after = group.run(String::from("answer"), || async { 2 });
    /// assert_eq!((before.await.value, after.await.value), (1, 2));
    /// # }
    /// ```
    pub fn forget<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q> + Hash + Eq,
        Q: Hash + Eq + ?Sized,
    {
        #[cfg(feature = "redis")]
        if let Some(replicated) = self.shared.replicated.get() {
            return replicated.forget(key);
        }
        let hash = self.shared.table.hash(key);
        self.shared
            .table
            .detach(hash, |other| other.borrow() == key)
    }

    /// Forgets all keys, and returns how many flights there were. A flight that begins meanwhile may stay, because the table's
    /// shards are emptied one after the other.
    #[expect(clippy::must_use_candidate, reason = "the count is a courtesy")]
    pub fn forget_all(&self) -> usize {
        #[cfg(feature = "redis")]
        if let Some(replicated) = self.shared.replicated.get() {
            return replicated.forget_all();
        }
        self.shared.table.detach_all()
    }

    /// The number of flights that a new caller could join.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        #[cfg(feature = "redis")]
        if let Some(replicated) = self.shared.replicated.get() {
            return replicated.table.len();
        }
        self.shared.table.len()
    }

    /// The number of callers that hold a [`Run`] of `key`'s flight, polled or not, the leader included. 0 if there is no such
    /// flight.
    #[must_use]
    pub fn waiters<Q>(&self, key: &Q) -> usize
    where
        K: Borrow<Q> + Hash + Eq,
        Q: Hash + Eq + ?Sized,
    {
        let is_it = |other: &K| other.borrow() == key;
        #[cfg(feature = "redis")]
        if let Some(ReplicatedFlights { table, .. }) = self.shared.replicated.get() {
            return table.callers(table.hash(key), is_it);
        }
        let table = &self.shared.table;
        table.callers(table.hash(key), is_it)
    }
}

impl<K, V> Group<K, V>
where
    K: Hash + Eq + Send + 'static,
    V: ShareValue,
{
    /// Joins, or leads with `work`. `kept_on`: where the flight goes on after every caller has left.
    #[inline]
    fn start<F, Fut>(&self, key: K, work: F, kept_on: Option<Runtime>) -> Run<K, V>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = V> + Send + 'static,
    {
        #[cfg(any(feature = "tracing", feature = "metrics"))]
        if let Some(name) = self.shared.name.get() {
            return self.enter(key, observed(name, work), kept_on, || joined(name));
        }
        self.enter(key, work, kept_on, || ())
    }

    /// As `start`. `joined` is called for a follower.
    #[inline]
    fn enter<F, Fut>(
        &self,
        key: K,
        work: F,
        kept_on: Option<Runtime>,
        joined: impl FnOnce(),
    ) -> Run<K, V>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = V> + Send + 'static,
    {
        #[cfg(feature = "redis")]
        if let Some(replicated) = self.shared.replicated.get() {
            let across = replicated.run(key, work, kept_on, joined);
            return Run::new(Part::Across(Box::new(across)));
        }
        let hash = self.shared.table.hash(&key);
        let caller = match self.shared.table.enter_key(hash, key, (), |()| ()) {
            Ok(mut leader) => match leader.start(work) {
                Ok(()) if kept_on.is_none() => return Run::new(Part::Solo(leader)),
                Ok(()) => leader.make_whole(),
                Err(caller) => caller,
            },
            Err(caller) => {
                // Not at the end of this function: if its drop panicked there, the caller would leak.
                drop(work);
                joined();
                caller
            }
        };
        caller.settle(kept_on);
        Run::new(Part::Caller(caller))
    }
}

impl<K, V> Clone for Group<K, V> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<K, V> Default for Group<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> fmt::Debug for Group<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Group");
        if let Some(name) = self.shared.name.get() {
            shown.field("name", name);
        }
        shown
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}
