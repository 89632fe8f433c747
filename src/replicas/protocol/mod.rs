//! The protocol across replicas: one replica's state machine, without I/O or a clock.
//!
//! Events come in (a local flight contends, its call ends, the store replies, a message arrives, time passes), and
//! [`Output`]s come out, in the order in which to carry them out. The owner of the machine takes them after each event
//! and carries them out under no lock.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `entry` | one local flight's part: what its leader waits for, and its followers at other replicas |
//! | `contend` | asking the store, and what its reply means |
//! | `follow` | following another replica: its messages, and the outcome |
//! | `lead` | joins from other replicas, the end of a call, forgetting |
//! | `values` | answers that are too large for a message |
//! | `breaker` | whether the store is in use |
//! | `calls` | how long calls took |
//!
//! # Invariants, cited as P1 to P7
//!
//! 1. An entry can be found by the name of its flight (`named`) from before its script is sent until the store has
//!    named another, or its followers have been answered. Nobody joins an entry that is not `open` or has `ended`.
//! 2. A seat is answered only for callers that were announced while the call was in flight: `end` marks the entry when
//!    the call ends, and later announcements are ignored.
//! 3. A follower gives an answer only to callers whose numbers it had announced for the seat that the answer names.
//! 4. A local leader gets one outcome: to call, or the answer. After that no message changes it.
//! 5. A script whose reply nobody waits for is an orphan: a lease that it wins is released, and a seat that it takes is
//!    left.
//! 6. There is at most one open entry for a digest. A second local flight of a key means that nobody can join the first
//!    any more.
//! 7. Nothing is kept for a removed entry except its orphan and the value that its followers fetch, and both expire.

mod breaker;
mod calls;
mod contend;
mod entry;
mod follow;
mod lead;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod values;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    task::Waker,
    time::Duration,
};

use bytes::Bytes;

use self::{
    breaker::Breaker,
    calls::Calls,
    entry::{Entry, Phase},
    values::StoredAnswer,
};
use super::{
    ReplicaStats,
    id::{Digest, FlightId, Ids, Inbox, Seat},
    message::{Address, Message, NotShared},
};

/// The time since an arbitrary moment of this replica; never compared with another's.
pub(crate) type Time = Duration;

/// A call must take at least so many round trips to be worth the store.
const WORTH: u32 = 4;

#[derive(Clone, Debug)]
pub(crate) struct ProtocolSettings {
    pub(crate) patience: Duration,
    pub(crate) lease: Duration,
    /// How often a follower asks whether its seat is there.
    pub(crate) probe: Duration,
    /// How often this replica checks that the store hears and answers.
    pub(crate) beat: Duration,
    pub(crate) down_after: Duration,
    /// The least time between two announcements of one seat.
    pub(crate) cover: Duration,
    /// A larger answer is kept in the store and not sent in a message.
    pub(crate) inline: usize,
    /// A larger answer is not shared.
    pub(crate) max_body: usize,
    /// How long the store keeps an answer.
    pub(crate) value_life: Duration,
}

/// Identifies a local flight's part in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EntryId(u64);

/// A local flight, as the protocol sees it.
pub(crate) trait Local: Clone {
    /// A place in it, held for a follower at another replica.
    type Seat: Clone;

    /// Joins it as a local follower does. Called under the machine's lock: it may lock the flight, but must neither
    /// call back nor run user code.
    fn join(&self) -> Result<Self::Seat, Unjoined<Self::Seat>>;
}

/// A flight that may not be joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unjoined<S> {
    pub(crate) why: Refusal,
    /// What must be dropped under no lock.
    pub(crate) spare: Option<S>,
}

/// Why a follower from another replica may not join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another flight will do: the follower contends again.
    Gone,
    /// No flight will do: the follower makes its own call.
    Alone(NotShared),
}

/// What the leader of a local flight is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ContestOutcome {
    /// It leads for all replicas: make the call.
    Lead,
    /// Make the call on its own.
    Alone(AloneReason),
    /// Another replica's answer, for the callers below this number. For the others: [`Protocol::again`].
    Answer { body: Bytes, covered: u64 },
}

/// Why a local flight makes its call on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AloneReason {
    /// The store took longer than `patience`.
    Slow,
    /// The store is not in use.
    Down,
    /// Calls of this key are too short for the store to be worth it.
    Short,
    /// The leader said so.
    Told(NotShared),
    /// Its leaders were gone again and again.
    Lost,
}

/// What to do next, in this order.
#[derive(Debug)]
pub(crate) enum Output<L: Local> {
    /// A leader that waited has an outcome.
    Wake(Waker),
    /// A seat has been taken: from now on the flight must not depend on its leader.
    Start(L::Seat),
    /// A seat to drop.
    Leave(L::Seat),
    /// Nobody may join this local flight any more.
    Detach(L),
}

/// A request to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// The one script of a contender. Its reply goes to [`Protocol::contended`].
    Contend {
        join: Address,
        asked: u64,
        /// A flight that can't be joined, whatever its lease says.
        pass_over: Option<FlightId>,
    },
    /// To [`Protocol::renewed`].
    Renew {
        digest: Digest,
        flight: FlightId,
    },
    Release {
        digest: Digest,
        flight: FlightId,
    },
    /// To [`Protocol::stored`].
    Put {
        digest: Digest,
        flight: FlightId,
        body: Bytes,
    },
    /// To [`Protocol::fetched`].
    Fetch(Address),
    Delete(FlightId),
    /// A message to one replica. For a probe, the number of receivers goes to [`Protocol::heard`].
    Tell(Inbox, Message),
    TellAll(Message),
}

/// The store's reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The contender has the lease. `over`: taken over from a replica that was gone.
    Won {
        over: bool,
    },
    /// This flight has the lease, and has been sent the contender's join.
    Held {
        inbox: Inbox,
        flight: FlightId,
    },
    Renewed(bool),
    Fetched(Bytes),
    /// How many received a message, if that can be counted.
    Heard(usize),
    Done,
    /// The store has refused, or its reply makes no sense.
    Refused,
}

/// One replica. See the [module docs](self).
pub(crate) struct Protocol<L: Local> {
    settings: ProtocolSettings,
    ids: Ids,
    inbox: Inbox,
    entries: BTreeMap<EntryId, Entry<L>>,
    next: u64,
    /// Entries by the name of their flight, under which other replicas can join them (P1).
    named: HashMap<FlightId, EntryId>,
    /// Entries by their seats at other replicas.
    seats: HashMap<Seat, EntryId>,
    /// Entries by their digests and targets, oldest first.
    by_digest: HashMap<Digest, Vec<EntryId>>,
    orphans: HashMap<FlightId, Orphan>,
    /// Answers that are too large for a message.
    values: HashMap<FlightId, StoredAnswer>,
    timers: BTreeSet<(Time, EntryId)>,
    next_beat: Time,
    breaker: Breaker,
    calls: Calls,
    stats: ReplicaStats,
    /// For the store, in this order.
    commands: Vec<Command>,
    out: Vec<Output<L>>,
}

/// A script whose reply nobody waits for (P5).
struct Orphan {
    join: Address,
    until: Time,
}

// ===== impl Protocol =====

impl<L: Local> Protocol<L> {
    pub(crate) fn new(settings: ProtocolSettings, mut ids: Ids) -> Self {
        Self {
            inbox: Inbox(ids()),
            breaker: Breaker::new(settings.patience, settings.down_after),
            settings,
            ids,
            entries: BTreeMap::new(),
            next: 0,
            named: HashMap::new(),
            seats: HashMap::new(),
            by_digest: HashMap::new(),
            orphans: HashMap::new(),
            values: HashMap::new(),
            timers: BTreeSet::new(),
            next_beat: Time::ZERO,
            calls: Calls::default(),
            stats: ReplicaStats::default(),
            commands: Vec::new(),
            out: Vec::new(),
        }
    }

    pub(crate) fn inbox(&self) -> Inbox {
        self.inbox
    }

    pub(crate) fn stats(&self) -> ReplicaStats {
        ReplicaStats {
            is_up: self.is_up(),
            round_trip: self.breaker.round_trip(),
            ..self.stats
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.breaker.is_up()
    }

    /// How long the store has been silent.
    pub(crate) fn silence(&self, now: Time) -> Duration {
        self.breaker.silence(now)
    }

    /// What is to be done.
    pub(crate) fn take_output(&mut self) -> Vec<Output<L>> {
        mem::take(&mut self.out)
    }

    pub(crate) fn take_commands(&mut self) -> Vec<Command> {
        mem::take(&mut self.commands)
    }

    pub(crate) fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    // ===== the store =====

    /// The link is up: beats begin.
    pub(crate) fn linked(&mut self, now: Time) {
        self.breaker.relinked();
        self.next_beat = now;
        self.tick(now);
    }

    /// The link is down: requests will not be answered, and messages are lost.
    pub(crate) fn unlinked(&mut self, now: Time) {
        self.orphans.clear();
        // Nobody knows whether these have arrived.
        self.values.retain(|_, known| known.is_stored);
        for entry in self.entries.values_mut() {
            if let Some(attempt) = entry.attempt.take() {
                self.seats.remove(&attempt.join.seat);
            }
        }
        self.open_breaker(now);
    }

    /// A request other than a contender's has failed.
    pub(crate) fn failed(&mut self, now: Time) {
        if self.breaker.failed(now, now) {
            self.open_breaker(now);
        }
    }

    /// Sends on all entries that wait.
    fn open_breaker(&mut self, now: Time) {
        self.breaker.open();
        let waiting = self.entries.iter().filter(|(_, entry)| entry.waits());
        let waiting: Vec<_> = waiting.map(|(&id, _)| id).collect();
        for id in waiting {
            self.settle(id, ContestOutcome::Alone(AloneReason::Down), now);
        }
    }

    // ===== time =====

    /// When [`tick`](Self::tick) has something to do.
    pub(crate) fn next_tick(&self) -> Time {
        let timer = self.timers.first().map(|&(at, _)| at);
        let others = [timer, self.breaker.opens_at()].into_iter().flatten();
        others.fold(self.next_beat, Time::min)
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Time) {
        if self.breaker.opens_at().is_some_and(|at| now >= at) {
            self.open_breaker(now);
        }
        if now >= self.next_beat {
            self.next_beat = now + self.settings.beat;
            // P7
            self.orphans.retain(|_, orphan| orphan.until > now);
            self.values.retain(|_, known| known.until > now);
            let number = self.breaker.beat(now);
            self.tell(self.inbox, Message::Echo { number });
        }
        // Each once: what is due again at once is for the next tick.
        let mut due = Vec::new();
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            let (_, id) = self.timers.pop_first().expect("looked at just now");
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.due = None;
            }
            due.push(id);
        }
        for id in due {
            self.due_as_follower(id, now);
            self.due_as_leader(id, now);
            self.schedule(id);
        }
    }

    /// Sets an entry's timer to its next deadline.
    fn schedule(&mut self, id: EntryId) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let due = entry.next_due(&self.settings);
        if due == entry.due {
            return;
        }
        if let Some(old) = entry.due {
            self.timers.remove(&(old, id));
        }
        entry.due = due;
        if let Some(due) = due {
            self.timers.insert((due, id));
        }
    }

    // ===== messages =====

    /// A message has arrived. One that matches nothing is ignored.
    pub(crate) fn message(&mut self, message: Message, now: Time) {
        match message {
            Message::Join { to, inbox, asked } => self.join(to, inbox, asked, now),
            Message::Cover { to, inbox, asked } => self.cover(to, inbox, asked, now),
            Message::Leave { to } => self.left(to),
            Message::Probe { to, inbox } => self.probe(to, inbox, now),
            Message::Here { to } => self.here(to, now),
            Message::Gone { to, from } => self.gone(to, from, now),
            Message::Alone { to, reason } => self.alone(to, reason, now),
            Message::Answer {
                to,
                from,
                covered,
                took,
                body,
            } => self.answered((to, from), covered, took, body, now),
            Message::Echo { number } => {
                if self.breaker.echo(number, now) {
                    self.open_breaker(now);
                }
            }
            Message::Forget { from, name } if from != self.inbox => self.forgotten(Some(name)),
            Message::ForgetAll { from } if from != self.inbox => self.forgotten(None),
            Message::Forget { .. } | Message::ForgetAll { .. } => {}
        }
    }

    fn entry(&mut self, id: EntryId) -> Option<&mut Entry<L>> {
        self.entries.get_mut(&id)
    }

    fn command(&mut self, command: Command) {
        self.commands.push(command);
    }

    fn tell(&mut self, inbox: Inbox, message: Message) {
        self.command(Command::Tell(inbox, message));
    }

    // ===== entries =====

    /// The leader of a local flight of the key `digest` contends. Its callers below `asked` have asked. The outcome may
    /// be there at once. `target`: another name for [`forget`](Self::forget).
    pub(crate) fn contend(
        &mut self,
        digest: Digest,
        target: Option<Digest>,
        local: L,
        asked: u64,
        now: Time,
    ) -> EntryId {
        // P6
        self.shut_all(Some(digest));
        let id = EntryId(self.next);
        self.next += 1;
        let entry = Entry::new(digest, target, local, asked, self.settings.patience);
        self.entries.insert(id, entry);
        for name in [Some(digest), target].into_iter().flatten() {
            self.by_digest.entry(name).or_default().push(id);
        }
        if self.is_short(digest) {
            self.settle(id, ContestOutcome::Alone(AloneReason::Short), now);
        } else {
            self.ask(id, None, now);
        }
        id
    }

    fn is_short(&self, digest: Digest) -> bool {
        match (self.calls.took(digest), self.breaker.round_trip()) {
            (Some(took), Some(round_trip)) => took < WORTH * round_trip,
            _ => false,
        }
    }

    /// The outcome, once. While there is none, exchanges the leader's waker for `waker`.
    pub(crate) fn outcome(
        &mut self,
        id: EntryId,
        waker: &mut Option<Waker>,
    ) -> Option<ContestOutcome> {
        let entry = self.entry(id)?;
        match &mut entry.phase {
            Phase::Told(outcome) => outcome.take(),
            _ => {
                mem::swap(&mut entry.waker, waker);
                None
            }
        }
    }

    /// The local leader has left: it was cancelled, or its call panicked.
    pub(crate) fn leave(&mut self, id: EntryId, now: Time) {
        self.withdraw(id, None);
        self.release(id);
        self.answer(id, Err(NotShared::Failed), now);
    }

    /// Removes an entry and all its names (P7).
    fn remove(&mut self, id: EntryId, now: Time) {
        let Some(entry) = self.entries.remove(&id) else {
            return;
        };
        if let Some(due) = entry.due {
            self.timers.remove(&(due, id));
        }
        if let Some(attempt) = &entry.attempt {
            self.orphan(attempt, now);
        }
        self.named.remove(&entry.flight);
        // Nobody waits any more, but a waker must not be dropped under the lock.
        self.out.extend(entry.waker.map(Output::Wake));
        for name in [Some(entry.digest), entry.target].into_iter().flatten() {
            if let Some(ids) = self.by_digest.get_mut(&name) {
                ids.retain(|&other| other != id);
                if ids.is_empty() {
                    self.by_digest.remove(&name);
                }
            }
        }
    }
}

// ===== impl Unjoined =====

impl<S> From<Refusal> for Unjoined<S> {
    fn from(why: Refusal) -> Self {
        Self { why, spare: None }
    }
}
