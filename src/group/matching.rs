//! The table as the HTTP layer enters it: its flights carry data, by which a caller chooses.
//!
//! Flights of one key may lie at several positions, all of them in the shard of the key's hash.
//!
//! The invariants cited here are those of [`table`](super::table).

#[cfg(feature = "http")]
use std::sync::Arc;

#[cfg(feature = "http")]
use super::flight::{Flight, Shard};
use super::{
    caller::Caller, flight::Entry, panic::drop_quietly, solo_leader::SoloLeader, table::Table,
};

/// How a caller judges a flight that it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match<J = ()> {
    /// It is not mine.
    Pass,
    /// It is mine, and I have joined it.
    Join(J),
    /// It is mine, but nobody may join it any more.
    Detach,
    /// It is mine, and I may neither join it nor lead another.
    Refuse,
}

/// What the lock is held for: it may compare keys and link the caller to what a flight carries.
pub(crate) trait Matcher<K, V, C> {
    type Joined;

    fn examine(&mut self, entry: &Entry<K, V, C>) -> Match<Self::Joined>;

    /// The key of a new flight, and what it carries.
    fn lead(&mut self) -> (K, C);
}

/// How a caller gets into a flight.
pub(crate) enum Admission<K, V, C, J> {
    /// It leads a new one, [solo](super::solo) until somebody joins, and must start the work.
    Leads(SoloLeader<K, V, C>),
    /// It has joined one, and must [promote](Flight::promote) it.
    Follows(Caller<K, V, C>, J),
    Refused,
}

/// A matcher that brings what a new flight needs, and compares it.
#[cfg(any(test, loom))]
struct Offer<K, C, F> {
    new: Option<(K, C)>,
    judge: F,
}

// ===== impl Offer =====

#[cfg(any(test, loom))]
impl<K, V, C, F, J> Matcher<K, V, C> for Offer<K, C, F>
where
    F: FnMut(&K, &C, &Entry<K, V, C>) -> Match<J>,
{
    type Joined = J;

    fn examine(&mut self, entry: &Entry<K, V, C>) -> Match<J> {
        let (key, data) = self.new.as_ref().expect(OFFERED);
        (self.judge)(key, data, entry)
    }

    fn lead(&mut self) -> (K, C) {
        self.new.take().expect(OFFERED)
    }
}

#[cfg(any(test, loom))]
const OFFERED: &str = "a caller leads once";

// ===== impl Table =====

impl<K, V, C> Table<K, V, C> {
    /// Joins the first flight that `judge` accepts, or leads a new one with `data`, at the first of the `positions`.
    #[cfg(any(test, loom))]
    pub(super) fn enter<J>(
        &self,
        positions: &[u64],
        key: K,
        data: C,
        judge: impl FnMut(&K, &C, &Entry<K, V, C>) -> Match<J>,
    ) -> Admission<K, V, C, J> {
        let new = Some((key, data));
        let mut offer = Offer { new, judge };
        let entered = self.enter_by(positions, &mut offer);
        // Dropping a key is user code, whose panic is not to cost the caller its place.
        drop_quietly(offer.new);
        entered
    }

    /// Joins the first flight that `matcher` accepts, or leads a new one, at the first of the `positions`.
    pub(crate) fn enter_by<T>(
        &self,
        positions: &[u64],
        matcher: &mut T,
    ) -> Admission<K, V, C, T::Joined>
    where
        T: Matcher<K, V, C>,
    {
        let shard = self.shard(positions[0]);
        // Declared before the lock, so dropped after it (T4).
        let mut detached = Vec::new();
        let mut stale = Vec::new();
        let mut found = None;
        let mut entries = shard.lock();
        for &position in positions {
            entries.find(position, |entry| match matcher.examine(entry) {
                Match::Pass => false,
                Match::Join(join) => {
                    found = Some((entry.id, Some(join)));
                    true
                }
                Match::Detach => {
                    stale.push(entry.id);
                    false
                }
                Match::Refuse => {
                    found = Some((entry.id, None));
                    true
                }
            });
            if found.is_some() {
                break;
            }
        }
        if let Some((id, None)) = found {
            // Who is refused may have left something with the flight all the same, for which that is to answer.
            entries.make_whole(shard, id);
            return Admission::Refused;
        }
        for id in stale {
            // Before the entry goes, so that its leader finds the flight aside (T5).
            entries.make_whole(shard, id);
            detached.push(entries.remove(id));
        }
        if let Some((id, Some(join))) = found {
            let caller = entries.join(shard, id);
            drop(entries);
            // Dropping a key is user code. Its panic would leave a caller that only the flight knows.
            drop_quietly(detached);
            return Admission::Follows(caller, join);
        }
        let (key, data) = matcher.lead();
        let link = entries.link_solo(shard, positions[0], key, data);
        drop(entries);
        let leader = SoloLeader::new(link);
        drop_quietly(detached);
        Admission::Leads(leader)
    }
}

#[cfg(feature = "http")]
impl<K, V, C> Table<K, V, C> {
    /// How many flights are `open`, which is called under the locks.
    pub(crate) fn count(&self, mut open: impl FnMut(&C) -> bool) -> usize {
        let count = |shard: &Arc<Shard<K, V, C>>| {
            let entries = shard.lock();
            entries.iter().filter(|entry| open(entry.data())).count()
        };
        self.shards.iter().map(count).sum()
    }

    /// The flights at one position.
    pub(crate) fn at(&self, position: u64) -> Vec<Arc<Flight<K, V, C>>> {
        let shard = self.shard(position);
        let mut entries = shard.lock();
        let ids: Vec<_> = entries.with_hash(position).map(|entry| entry.id).collect();
        let flights = ids
            .into_iter()
            .filter_map(|id| entries.make_whole(shard, id));
        flights.collect()
    }

    /// The flights at all positions of the shard in which `hash` is.
    pub(crate) fn beside(&self, hash: u64) -> Vec<Arc<Flight<K, V, C>>> {
        let shard = self.shard(hash);
        shard.lock().make_all_whole(shard)
    }

    /// All flights that are whole, one shard after the other, so this is not a snapshot.
    pub(crate) fn all_whole(&self) -> impl Iterator<Item = Arc<Flight<K, V, C>>> {
        self.shards.iter().flat_map(|shard| {
            let entries = shard.lock();
            let flights = entries.iter().filter_map(Entry::flight);
            flights.map(Arc::clone).collect::<Vec<_>>()
        })
    }

    /// All flights, one shard after the other, so this is not a snapshot.
    pub(crate) fn all(&self) -> impl Iterator<Item = Arc<Flight<K, V, C>>> {
        self.shards
            .iter()
            .flat_map(|shard| shard.lock().make_all_whole(shard))
    }
}

#[cfg(all(test, feature = "http", not(loom)))]
mod tests {
    use std::{
        future::pending,
        sync::{
            Weak,
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        task::{Context, Waker},
        thread,
        time::Duration,
    };

    use super::*;
    use crate::group::{panic::caught, runtime::Runtime};

    type Examine<K, C> = fn(&K, &C, &Entry<K, (), C>) -> Match;

    /// What becomes of one who finds the flight of another.
    const ALL: [Match; 4] = [Match::Pass, Match::Join(()), Match::Detach, Match::Refuse];

    fn makes<K, C>(of_it: Match) -> Examine<K, C> {
        match of_it {
            Match::Pass => |_, _, _| Match::Pass,
            Match::Join(()) => |_, _, _| Match::Join(()),
            Match::Detach => |_, _, _| Match::Detach,
            Match::Refuse => |_, _, _| Match::Refuse,
        }
    }

    fn enter<K, C>(
        table: &Table<K, (), C>,
        key: K,
        data: C,
        of_it: Match,
    ) -> Admission<K, (), C, ()> {
        table.enter(&[0], key, data, makes(of_it))
    }

    /// Runs `f` on a thread of its own, and fails rather than hangs if that waits for itself.
    fn fails_if_it_hangs(f: impl FnOnce() + Send + 'static) {
        let (done, is_done) = mpsc::channel();
        let thread = thread::spawn(move || {
            f();
            done.send(()).unwrap();
        });
        match is_done.recv_timeout(Duration::from_secs(20)) {
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("it waits for itself"),
            _ => thread.join().unwrap(),
        }
    }

    /// The first flight that is found makes way, and the second is joined.
    fn join_second<K, C>() -> impl FnMut(&K, &C, &Entry<K, (), C>) -> Match {
        let mut seen = 0;
        move |_, _, _| {
            seen += 1;
            match seen {
                1 => Match::Detach,
                _ => Match::Join(()),
            }
        }
    }

    /// A key, or cargo, whose drop looks into the table.
    struct Looks(Weak<Table<Looks, (), Looks>>);

    impl Drop for Looks {
        fn drop(&mut self) {
            if let Some(table) = self.0.upgrade() {
                table.len();
            }
        }
    }

    #[test]
    fn keys_and_what_flights_carry_are_dropped_under_no_lock() {
        for of_it in ALL {
            fails_if_it_hangs(move || {
                let table = Arc::new(Table::new());
                let looks = || Looks(Arc::downgrade(&table));
                let first = enter(&table, looks(), looks(), Match::Pass);
                let second = enter(&table, looks(), looks(), of_it);
                drop((first, second));
                assert_eq!(table.len(), 0);
            });
        }
    }

    #[test]
    fn what_makes_way_while_another_flight_is_joined_is_dropped_under_no_lock() {
        fails_if_it_hangs(|| {
            let table = Arc::new(Table::new());
            let looks = || Looks(Arc::downgrade(&table));
            let flights = [(); 2].map(|()| enter(&table, looks(), looks(), Match::Pass));
            let joined = table.enter(&[0], looks(), looks(), join_second());
            assert!(matches!(joined, Admission::Follows(..)));
            assert_eq!(table.len(), 1);
            drop((flights, joined));
            assert_eq!(table.len(), 0);
        });
    }

    #[test]
    fn one_who_has_been_counted_out_leaves_the_work_to_the_leader_that_drives_again() {
        let table: Table<u32, (), ()> = Table::new();
        let Admission::Leads(mut leader) = enter(&table, 0, (), Match::Pass) else {
            unreachable!("there is no other flight")
        };
        let mut leader = leader.make_whole();
        let polls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&polls);
        leader.start(|| {
            std::future::poll_fn(move |_| {
                counted.fetch_add(1, Ordering::Relaxed);
                std::task::Poll::Pending
            })
        });
        let Admission::Follows(mut other, ()) = enter(&table, 0, (), Match::Join(())) else {
            unreachable!("there is a flight")
        };
        let flight = Arc::clone(leader.flight());
        flight.promote();
        flight.count_out(1);
        flight.demote();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(other.poll(&mut cx).is_pending());
        assert_eq!(polls.load(Ordering::Relaxed), 0);
        assert!(leader.poll(&mut cx).is_pending());
        assert_eq!(polls.load(Ordering::Relaxed), 1);
        other.leave_uncounted();
        drop(leader);
        assert_eq!(table.len(), 0);
    }

    /// A key, or cargo, whose drop panics while it is armed.
    struct Bad(Arc<AtomicUsize>);

    impl Drop for Bad {
        fn drop(&mut self) {
            let is_armed = |left: usize| left.checked_sub(1);
            let armed = self
                .0
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_armed);
            assert!(armed.is_err(), "a bad key");
        }
    }

    #[test]
    fn who_joins_or_leads_is_in_its_flight_though_a_key_panics_when_it_is_dropped() {
        for (of_it, flights) in [(Match::Join(()), 1), (Match::Detach, 1)] {
            let (table, armed) = (Table::new(), Arc::new(AtomicUsize::new(0)));
            let bad = || Bad(Arc::clone(&armed));
            let first = enter(&table, bad(), bad(), Match::Pass);
            armed.store(1, Ordering::Relaxed);
            let second = enter(&table, bad(), bad(), of_it);
            assert_eq!((armed.load(Ordering::Relaxed), table.len()), (0, flights));
            let callers = table.callers(0, |_| true);
            assert_eq!(callers, if of_it == Match::Detach { 1 } else { 2 });
            drop((first, second));
            assert_eq!(table.len(), 0);
        }
    }

    #[test]
    fn who_joins_is_in_its_flight_though_what_makes_way_panics_when_it_is_dropped() {
        let (table, armed) = (Table::new(), Arc::new(AtomicUsize::new(0)));
        let bad = || Bad(Arc::clone(&armed));
        let flights = [(); 2].map(|()| enter(&table, bad(), bad(), Match::Pass));
        armed.store(1, Ordering::Relaxed);
        let joined = table.enter(&[0], bad(), bad(), join_second());
        assert!(matches!(joined, Admission::Follows(..)));
        assert_eq!((armed.load(Ordering::Relaxed), table.len()), (0, 1));
        assert_eq!(table.callers(0, |_| true), 2);
        drop((flights, joined));
        assert_eq!(table.len(), 0);
    }

    /// It would abort the process.
    #[test]
    fn what_a_flight_carries_is_not_dropped_while_its_last_caller_panics() {
        let (table, armed) = (Table::new(), Arc::new(AtomicUsize::new(0)));
        let entered = enter(&table, (), Bad(Arc::clone(&armed)), Match::Pass);
        let Admission::Leads(mut leader) = entered else {
            unreachable!("there is no other flight")
        };
        let mut leader = leader.make_whole();
        leader.start(|| async { panic!("bad work") });
        armed.store(1, Ordering::Relaxed);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(caught(|| leader.poll(&mut cx).is_ready()).is_err());
        assert_eq!((armed.load(Ordering::Relaxed), table.len()), (0, 0));
    }

    #[test]
    fn a_flight_that_nobody_may_join_makes_way_for_one_that_its_end_leaves_alone() {
        let table = Table::new();
        let first = enter(&table, 0, (), Match::Pass);
        let second = enter(&table, 0, (), Match::Detach);
        assert!(matches!(second, Admission::Leads(_)));
        assert_eq!((table.len(), table.callers(0, |_| true)), (1, 1));
        drop(first);
        assert_eq!((table.len(), table.callers(0, |_| true)), (1, 1));
        drop(second);
        assert_eq!(table.len(), 0);
    }

    #[cfg(feature = "redis")]
    #[test]
    fn nobody_joins_a_flight_that_is_out_of_the_table() {
        let table = Table::new();
        let Admission::Leads(mut leader) = enter(&table, 0, (), Match::Pass) else {
            unreachable!("there is no other flight")
        };
        let leader = leader.make_whole();
        let flight = Arc::clone(leader.flight());
        let agreed = |_: &Flight<_, _, _>| Ok(());
        drop(flight.join_if(agreed).expect("it is in the table"));
        assert!(flight.detach());
        assert!(flight.join_if(agreed).is_err());
        assert_eq!((flight.callers(), table.len()), (1, 0));
    }

    #[test]
    fn one_who_is_refused_looks_no_further_and_leaves_the_flights_as_they_are() {
        let table = Table::new();
        let flights = [0, 1, 2].map(|key| enter(&table, key, (), Match::Pass));
        let mut seen = 0;
        let refuse_second = |_: &_, (): &_, _: &Entry<_, (), ()>| {
            seen += 1;
            match seen {
                1 => Match::<()>::Detach,
                _ => Match::Refuse,
            }
        };
        let refused = table.enter(&[0], 3, (), refuse_second);
        assert!(matches!(refused, Admission::Refused));
        assert_eq!((seen, table.len()), (2, 3));
        drop(flights);
        assert_eq!(table.len(), 0);
    }

    #[tokio::test]
    async fn a_kept_flight_that_is_released_when_its_callers_have_left_is_cancelled_at_once() {
        let table: Table<u32, (), ()> = Table::new();
        let Admission::Leads(mut leader) = enter(&table, 0, (), Match::Pass) else {
            unreachable!("there is no other flight")
        };
        let mut leader = leader.make_whole();
        let alive = Arc::new(());
        let held = Arc::clone(&alive);
        leader
            .flight()
            .keep_on(Runtime::current().expect("a test's runtime"));
        leader.start(|| async move {
            let _held = held;
            pending().await
        });
        let flight = Arc::clone(leader.flight());
        drop(leader);
        assert_eq!((table.len(), Arc::strong_count(&alive)), (1, 2));
        flight.release();
        assert_eq!((table.len(), Arc::strong_count(&alive)), (0, 1));
    }
}
