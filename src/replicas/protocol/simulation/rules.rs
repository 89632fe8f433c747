//! What is checked of the protocol's rules, where the promises alone would not show that one is broken.

use std::collections::HashMap;

use super::{SLACK, settings, world::World};
use crate::replicas::{
    id::{FlightId, Inbox, Seat},
    message::Message,
    protocol::{Command, ContestOutcome, EntryId, entry::Phase},
};

impl World {
    pub(super) fn watch_command(&mut self, at: usize, command: &Command) {
        match command {
            Command::Contend {
                join, pass_over, ..
            } => {
                let protocol = &self.replicas[at].protocol;
                let entry = protocol.named[&join.flight];
                if !protocol.entries[&entry].open {
                    self.fail("rule 4: a flight that nobody may join contends");
                }
                if pass_over.is_none() {
                    return;
                }
                let retries = self.rules.retries.entry((at, entry)).or_default();
                *retries += 1;
                if *retries > 2 {
                    self.fail("rule 7: it contends again and again");
                }
            }
            Command::Tell(_, Message::Cover { to, .. }) => {
                let last = self.rules.covers.insert(to.seat, self.now);
                if last.is_some_and(|last| self.now < last + settings().cover) {
                    self.fail("rule 6: it announces callers one by one");
                }
            }
            Command::Tell(
                _,
                Message::Answer { to, .. }
                | Message::Alone { to, .. }
                | Message::Gone { to, .. }
                | Message::Here { to },
            ) if !self.rules.asked_for.contains(&to.flight) => {
                self.fail("rule 5: a leader speaks though nobody has asked");
            }
            _ => {}
        }
    }

    /// A contender's join reaches the channel of `flight`.
    pub(super) fn watch_join(&mut self, inbox: Inbox, seat: Seat, flight: FlightId) {
        self.rules.named.insert(seat, flight);
        if self.weather.calm && self.rules.answered.contains(&(inbox, flight)) {
            self.fail("rule 5: a flight has answered, and still has its lease");
        }
    }

    pub(super) fn watch_outcome(&mut self, at: usize, entry: EntryId, outcome: &ContestOutcome) {
        self.rules.retries.remove(&(at, entry));
        if let ContestOutcome::Answer { .. } = outcome {
            self.rules.had_answer.insert((at, entry));
        }
    }

    /// Whose answer it is, if somebody waits for it.
    pub(super) fn watch_message(&mut self, at: usize, message: &Message) -> Option<EntryId> {
        let protocol = &self.replicas[at].protocol;
        match message {
            Message::Join { to, .. } | Message::Cover { to, .. } | Message::Probe { to, .. } => {
                self.rules.asked_for.insert(to.flight);
                None
            }
            Message::Gone { to, .. } => {
                let gone = (at, to.digest, to.flight, self.now);
                self.rules.gone.push(gone);
                None
            }
            Message::Answer { to, .. } => {
                let inbox = protocol.inbox();
                let &entry = protocol.seats.get(&to.seat)?;
                let is_its_own = protocol.entries.get(&entry)?.digest == to.digest
                    && self.rules.named.get(&to.seat) == Some(&to.flight);
                if !is_its_own {
                    return None;
                }
                self.rules.answered.insert((inbox, to.flight));
                protocol.entries[&entry].waits().then_some(entry)
            }
            _ => None,
        }
    }

    pub(super) fn check_taken(&self, at: usize, entry: EntryId) {
        let entry = self.replicas[at].protocol.entries.get(&entry);
        if entry
            .is_some_and(|entry| matches!(entry.phase, Phase::Asking { .. } | Phase::Following(_)))
        {
            self.fail("rule 7: its answer has come, and it goes on waiting");
        }
    }

    /// Rule 4: a flight that somebody has joined does not depend on its leader.
    pub(super) fn check_started(&self, at: usize) {
        let mut flights = self.replicas[at].flights.iter();
        if flights.any(|flight| flight.borrow().joined != flight.borrow().started) {
            self.fail("rule 4: a flight is joined and not promoted");
        }
    }

    pub(super) fn check_rules(&mut self) {
        self.check_followers();
        self.check_names();
        self.check_leases();
        if self.weather.gentle && !self.healing {
            self.check_seats();
            self.check_unwanted();
        }
    }

    /// Rule 8: who is silent for some probes is no follower any more.
    fn check_followers(&self) {
        for replica in &self.replicas {
            let is_late = replica.ticks <= self.now;
            if replica.dead || replica.paused || is_late {
                continue;
            }
            let entries = replica.protocol.entries.values();
            for follower in entries.flat_map(|entry| entry.followers.values()) {
                if self.now > follower.heard + settings().silent() + SLACK {
                    self.fail("rule 8: a follower that says nothing is still one");
                }
            }
        }
    }

    /// Rule 3: a flight can be found as long as the store may name it, and not once it follows another.
    fn check_names(&self) {
        for (at, replica) in self.replicas.iter().enumerate() {
            let p = &replica.protocol;
            for (id, entry) in &p.entries {
                let named = p.named.get(&entry.flight) == Some(id);
                let asks = entry.attempt.is_some() && !self.rules.had_answer.contains(&(at, *id));
                let calls = entry.began.is_some() && entry.open;
                let waits = matches!(entry.phase, Phase::Asking { .. });
                if asks && (waits || calls) && !named {
                    self.fail("rule 3: the store may name a flight that can't be found");
                }
                if named && matches!(entry.phase, Phase::Following(_)) {
                    self.fail("rule 3: a flight can be found that follows another");
                }
            }
        }
    }

    /// Rule 3: a flight that nobody can join has no lease. Rule 8: where nothing fails, one that has it keeps it.
    fn check_leases(&self) {
        for replica in &self.replicas {
            for entry in replica.protocol.entries.values() {
                if entry.lease.is_none() {
                    continue;
                }
                if !entry.open || entry.ended {
                    self.fail("rule 3: a flight that can't be joined has a lease");
                }
                if self.weather.calm && !self.contents.names(entry.digest, entry.flight, self.now) {
                    self.fail("rule 8: a flight that leads has lost its lease");
                }
            }
        }
    }

    /// Rules 3 and 4: a seat that was taken for nobody is given up.
    fn check_unwanted(&mut self) {
        let longest = self.weather.longest;
        let mut unwanted = HashMap::new();
        for replica in &self.replicas {
            let entries = replica.protocol.entries.values();
            for (seat, follower) in entries.flat_map(|entry| &entry.followers) {
                let at = self
                    .inboxes
                    .iter()
                    .position(|&inbox| inbox == follower.inbox);
                let follower = &self.replicas[at.expect("one of these")].protocol;
                if follower.seats.contains_key(seat) {
                    continue;
                }
                let since = *self.rules.unwanted.get(seat).unwrap_or(&self.now);
                if self.now > since + 4 * longest + SLACK {
                    self.fail("rule 3: a seat is kept for nobody");
                }
                unwanted.insert(*seat, since);
            }
        }
        self.rules.unwanted = unwanted;
    }

    /// Rule 4: who can't join is told so.
    fn check_seats(&mut self) {
        let longest = self.weather.longest;
        let mut unseated = HashMap::new();
        for replica in &self.replicas {
            for entry in replica.protocol.entries.values() {
                let Phase::Following(following) = &entry.phase else {
                    continue;
                };
                let (leader, at) = (following.at.inbox, following.at.to);
                let leader = self.inboxes.iter().position(|&inbox| inbox == leader);
                let leader = &self.replicas[leader.expect("the store names a replica")].protocol;
                let led = leader.named.get(&at.flight);
                let led = led.and_then(|id| leader.entries.get(id));
                let has_it = led.is_some_and(|entry| entry.followers.contains_key(&at.seat));
                let stored = leader.values.get(&at.flight);
                let is_stored = stored.is_some_and(|known| known.takers.contains_key(&at.seat));
                if has_it || is_stored {
                    continue;
                }
                let since = *self.rules.unseated.get(&at.seat).unwrap_or(&self.now);
                if self.now > since + 4 * longest + SLACK {
                    self.fail("rule 4: it waits for a leader that has no seat for it");
                }
                unseated.insert(at.seat, since);
            }
        }
        self.rules.unseated = unseated;
    }
}
