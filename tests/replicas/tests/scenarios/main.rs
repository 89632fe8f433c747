//! A group across four replicas, each a process, and a layer (in `layer` and `layer_long`), over real servers. The tests run one after
//! the other, since some measure.
//! `REPLICAS_ROUNDS` asks for more rounds of those that look for a race.

mod bursts;
mod costs;
mod far_store;
mod forgetting;
mod layer;
mod layer_long;
mod leader_fails;
mod leaving;
mod measured;
mod refused;
mod secrecy;
mod staleness;
mod store_fails;

use std::{collections::BTreeSet, time::Duration};

use replicas_tests::{Got, Replica, Settings};
use tokio::{
    sync::{Mutex, MutexGuard},
    time::{Instant, sleep},
};

const CALL: Duration = Duration::from_millis(300);
/// Work that ends when its replica is told to.
const GATED: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(20);

/// What a machine that does other things as well may add to a bound.
const SLACK: Duration = Duration::from_millis(150);

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

async fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

struct Fleet {
    replicas: Vec<Replica>,
}

impl Fleet {
    /// Whose store is in use.
    async fn start(count: usize, settings: &Settings) -> Self {
        let fleet = Self::launch(count, settings);
        for replica in &fleet.replicas {
            replica.is_up_within(LONG).await;
        }
        fleet
    }

    fn launch(count: usize, settings: &Settings) -> Self {
        let path = env!("CARGO_BIN_EXE_replica");
        let replicas = (0..count).map(|_| Replica::start(path, settings));
        Self {
            replicas: replicas.collect(),
        }
    }

    /// Callers of one key, `each` at each replica.
    async fn burst(&self, key: &str, each: usize, call: Duration, len: usize) -> Vec<Got> {
        let mut asked = Vec::new();
        for replica in &self.replicas {
            asked.push(replica.ask(key, each, call, len).await);
        }
        let mut all = Vec::new();
        for (replica, asked) in self.replicas.iter().zip(asked) {
            all.extend(replica.got(asked, LONG).await);
        }
        all
    }

    /// Callers of several keys, `each` of a key at each replica, whose work ends when all of them have joined.
    async fn gated(&self, keys: &[String], each: usize, len: usize) -> Vec<Got> {
        let mut asked = Vec::new();
        for key in keys {
            for replica in &self.replicas {
                asked.push((replica, replica.ask(key, each, GATED, len).await));
            }
        }
        // A replica that follows is a caller of the flight that it follows.
        let all = self.replicas.len() * (each + 1) - 1;
        for key in keys {
            let deadline = Instant::now() + LONG;
            while self.waiters(key).await != all {
                assert!(
                    Instant::now() < deadline,
                    "not one flight of {key}: {:?}",
                    self.stats().await
                );
                sleep(ms(5)).await;
            }
        }
        // The last callers of each replica are announced within some milliseconds.
        sleep(ms(200)).await;
        for replica in &self.replicas {
            replica.open().await;
        }
        let mut got = Vec::new();
        for (replica, asked) in asked {
            got.extend(replica.got(asked, LONG).await);
        }
        got
    }

    async fn waiters(&self, key: &str) -> usize {
        let mut all = 0;
        for replica in &self.replicas {
            all += replica.waiters(key).await;
        }
        all
    }

    fn calls(&self) -> usize {
        self.replicas.iter().map(Replica::calls).sum()
    }

    async fn stats(&self) -> Vec<[u64; 9]> {
        let mut all = Vec::new();
        for replica in &self.replicas {
            all.push(replica.stats().await);
        }
        all
    }

    /// How many calls those made whose answers these are.
    fn made(got: &[Got]) -> usize {
        got.iter()
            .map(|got| &got.call)
            .collect::<BTreeSet<_>>()
            .len()
    }

    async fn calls_reach(&self, calls: usize) {
        let deadline = Instant::now() + LONG;
        while self.calls() < calls {
            assert!(
                Instant::now() < deadline,
                "{} calls of {calls}",
                self.calls()
            );
            sleep(ms(1)).await;
        }
    }

    async fn all_up_within(&self, time: Duration) {
        let deadline = Instant::now() + time;
        for replica in &self.replicas {
            replica
                .is_up_within(deadline.saturating_duration_since(Instant::now()))
                .await;
        }
    }
}

/// One line of what was measured, shown with `--nocapture`.
fn show(what: &str, got: &[Got]) {
    let mut times: Vec<_> = got.iter().map(Got::took).collect();
    times.sort();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    eprintln!(
        "{what}: {} callers, {} calls, p50 {:?}, p99 {:?}, slowest {:?}",
        got.len(),
        Fleet::made(got),
        at(50),
        at(99),
        at(100)
    );
}

fn slowest(got: &[Got]) -> Duration {
    got.iter().map(Got::took).max().unwrap_or_default()
}
