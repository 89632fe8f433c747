//! A group across replicas: the leader of a local flight contends for its key, and then does the work or takes the
//! value of another replica's leader.
//!
//! Every caller has a number, in the order in which the callers ask. Another replica's value is for callers below a
//! certain number, because that replica knew of them while its work was going on. The others stay in the flight, which
//! contends again with the work that its leader has not needed yet.

use std::{
    borrow::Borrow,
    future::Future,
    hash::{Hash, Hasher},
    sync::{Arc, Weak},
};

use super::{
    across::{Across, Crossing, Data},
    caller::Caller,
    codec::Codec,
    flight::Flight,
    panic::drop_quietly,
    runtime::Runtime,
    table::Table,
    work::Work,
};
use crate::{
    replicas::{
        Contest, ContestOutcome, Digest, KeyBytes, LocalFlight, NotShared, Refusal, RemoteSeat,
        ReplicaClient, Replicas, Unjoined,
    },
    sync::Mutex,
};

/// The flights of a group across replicas.
pub(super) struct ReplicatedFlights<K, V> {
    pub(super) table: Table<K, V, Data<V>>,
    pub(super) client: ReplicaClient,
    codec: Arc<dyn Codec<K, V>>,
}

/// A flight as the protocol sees it.
struct Seen<K, V>(Weak<Flight<K, V, Data<V>>>);

/// A hasher that passes what a key hashes to a [`KeyBytes`].
struct Feed<'a>(&'a mut KeyBytes);

// ===== impl ReplicatedFlights =====

impl<K, V> ReplicatedFlights<K, V> {
    pub(super) fn new(replicas: Replicas, codec: impl Codec<K, V>) -> Self {
        Self::at(replicas.open("group"), codec)
    }

    pub(super) fn at(client: ReplicaClient, codec: impl Codec<K, V>) -> Self {
        Self {
            table: Table::new(),
            client,
            codec: Arc::new(codec),
        }
    }

    fn target<Q>(&self, key: &Q) -> Digest
    where
        Q: Hash + ?Sized,
    {
        self.client
            .targets
            .digest(|bytes| key.hash(&mut Feed(bytes)))
    }

    pub(super) fn forget<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        // First the other replicas, so that nobody there joins when nobody here may.
        self.client.forget_target(self.target(key));
        let hash = self.table.hash(key);
        self.table.detach(hash, |other| other.borrow() == key)
    }

    pub(super) fn forget_all(&self) -> usize {
        self.client.forget_all();
        self.table.detach_all()
    }
}

impl<K, V> ReplicatedFlights<K, V>
where
    K: Hash + Eq + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Joins, or leads with `work`. `kept_on`: where the flight goes on after every caller has left. `joined` is called
    /// for a follower.
    pub(super) fn run<F, Fut>(
        &self,
        key: K,
        work: F,
        kept_on: Option<Runtime>,
        joined: impl FnOnce(),
    ) -> Across<K, V>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = V> + Send + 'static,
    {
        let number = self.client.number();
        let hash = self.table.hash(&key);
        let joins = |crossing: &Data<V>| crossing.lock().joined_by(number);
        let caller = match self.table.join(hash, &key, joins) {
            Some(caller) => self.follow(caller, number, (key, work), joined),
            None => {
                let name = self.client.keys.digest(|bytes| self.codec.key(&key, bytes));
                let target = self.target(&key);
                let crossing = Arc::new(Mutex::new(Crossing::new(number)));
                match self.table.enter_key(hash, key, crossing, joins) {
                    Ok(mut leader) => {
                        let mut caller = leader.make_whole();
                        self.lead(&mut caller, name, target, work);
                        caller
                    }
                    Err(caller) => self.follow(caller, number, work, joined),
                }
            }
        };
        caller.settle(kept_on);
        Across::new(caller, number)
    }

    /// `spare` is what a follower does not need.
    fn follow<T>(
        &self,
        caller: Caller<K, V, Data<V>>,
        number: u64,
        spare: T,
        joined: impl FnOnce(),
    ) -> Caller<K, V, Data<V>> {
        // While the caller is not a temporary: if the drop panics, the caller still leaves.
        drop(spare);
        joined();
        let entry = caller.flight().data.lock().entry;
        if let Some(entry) = entry {
            self.client.one_more(entry, number);
        }
        caller
    }

    fn lead<F, Fut>(
        &self,
        caller: &mut Caller<K, V, Data<V>>,
        name: Digest,
        target: Digest,
        work: F,
    ) where
        F: FnOnce() -> Fut,
        Fut: Future<Output = V> + Send + 'static,
    {
        let flight = Arc::downgrade(caller.flight());
        let crossing = Arc::clone(&caller.flight().data);
        let codec = Arc::clone(&self.codec);
        let work = Work::make(|| {
            let work = work();
            let seen = Arc::new(Seen(Weak::clone(&flight)));
            let asked = crossing.lock().asked;
            let contest = self.client.contend(name, target, seen, asked, |entry| {
                let mut crossing = crossing.lock();
                crossing.entry = Some(entry);
                crossing.asked
            });
            cross(work, contest, crossing, flight, codec)
        });
        caller.hand_in(work);
    }
}

/// The work of a flight: to contend, and then to do what the outcome says.
async fn cross<K, V, Fut>(
    work: Fut,
    mut contest: Contest,
    crossing: Data<V>,
    flight: Weak<Flight<K, V, Data<V>>>,
    codec: Arc<dyn Codec<K, V>>,
) -> V
where
    K: 'static,
    V: Clone + 'static,
    Fut: Future<Output = V>,
{
    while let ContestOutcome::Answer { body, covered } = contest.outcome().await {
        // The bytes can't be read: do the work here; nobody at another replica waits for it.
        let Some(value) = codec.decode(&body) else {
            break;
        };
        let flight = flight.upgrade().expect("a flight outlives its work");
        let is_for_all = flight
            .link
            .unlink_if(|| crossing.lock().asked <= covered)
            .is_ok();
        let value = Arc::new(value);
        let old = crossing.lock().value.replace((Arc::clone(&value), covered));
        drop_quietly(old);
        if is_for_all {
            // For the flight's end: its callers take the value that was just left for them.
            return V::clone(&value);
        }
        flight.wake_callers();
        let asked = crossing.lock().asked;
        contest.again(asked);
    }
    let value = work.await;
    if let Some(answering) = contest.end() {
        let body = codec.encode(&value).map(Into::into);
        answering.answer(body.ok_or(NotShared::Unshareable));
    }
    value
}

// ===== impl Seen =====

impl<K, V> LocalFlight for Seen<K, V>
where
    K: Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn join(&self) -> Result<Arc<dyn RemoteSeat>, Unjoined<Arc<dyn RemoteSeat>>> {
        let flight = self.0.upgrade().ok_or(Refusal::Gone)?;
        match flight.join_if(|_| Ok(())) {
            Ok(caller) => Ok(Arc::new(caller)),
            // By now this may be the last owner of the flight and of its work's value.
            Err(why) => Err(Unjoined::with(why, flight)),
        }
    }

    fn detach(&self) {
        if let Some(flight) = self.0.upgrade() {
            flight.detach();
        }
    }
}

/// A follower at another replica is a caller that reads nothing.
impl<K, V, C> RemoteSeat for Caller<K, V, C>
where
    K: Send + 'static,
    V: Send + Sync + 'static,
    C: Send + Sync + 'static,
{
    fn start(&self) {
        self.flight().promote();
    }
}

// ===== impl Feed =====

impl Hasher for Feed<'_> {
    fn write(&mut self, bytes: &[u8]) {
        self.0.part(bytes);
    }

    fn finish(&self) -> u64 {
        unreachable!("a key does not ask for its own hash")
    }
}
