//! One event after the other.

use super::{
    Seen, digest,
    event::{Event, Reply},
    ms, settings,
    world::World,
};
use crate::replicas::{contents::StoreContents, protocol::Time};

/// More steps than this at one time are a machine that never rests.
const BUSY: u32 = 10_000;

impl World {
    pub(super) fn run(mut self, seen: &mut Seen) {
        while let Some((&(at, _), _)) = self.events.first_key_value() {
            if !self.healing && at > ms(700) {
                self.heal();
                continue;
            }
            let over = self.scripted == 0 && self.is_quiet();
            if over || at > ms(6000) {
                break;
            }
            let (_, event) = self.events.pop_first().expect("looked at just now");
            self.busy = if at > self.now { 0 } else { self.busy + 1 };
            if self.busy > BUSY {
                self.fail("it does not come to rest");
            }
            self.now = at;
            self.step += 1;
            self.scripted -= usize::from(event.is_scripted());
            if self.verbose {
                eprintln!("{:>9?} {event:?}", self.now);
            }
            self.happen(event);
            self.check_waiting();
            self.check_leavings();
            self.check_rules();
        }
        if self.replicas.iter().all(|replica| replica.dead) {
            // Nothing happens any more; what they had in the store expires.
            self.now += settings().lease.max(settings().value_life);
        }
        self.check_end();
        self.note(seen);
    }

    /// From now on everything works, and nobody comes any more.
    fn heal(&mut self) {
        self.healing = true;
        self.now = ms(700);
        self.weather.lose = 0;
        self.weather.double = 0;
        self.weather.misdirect = 0;
        self.at(self.now, Event::Resume);
        for replica in 0..self.replicas.len() {
            self.at(self.now, Event::Unpause { replica });
        }
        self.scripted += 1 + self.replicas.len();
    }

    /// Nothing is left to happen but beats.
    fn is_quiet(&self) -> bool {
        self.served + self.departed == self.asked
            && self.contents.len(self.now) == 0
            && self
                .calls
                .iter()
                .all(|call| call.ended.is_some() || call.gone)
            && self.replicas.iter().all(|replica| {
                let p = &replica.protocol;
                p.entries.is_empty()
                    && p.orphans.is_empty()
                    && p.values.is_empty()
                    && replica.held.is_empty()
            })
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        let whose = match &event {
            Event::CallEnds { replica, .. }
            | Event::Answers { replica, .. }
            | Event::Reply { replica, .. }
            | Event::Message { replica, .. }
            | Event::Tick { replica }
            | Event::Arrive { replica, .. }
            | Event::Depart { replica, .. }
            | Event::Forget { replica, .. }
            | Event::ForgetAll { replica }
            | Event::Link { replica }
            | Event::Unlink { replica } => Some(*replica),
            _ => None,
        };
        if let Some(at) = whose {
            if self.replicas[at].dead {
                return;
            }
            if self.replicas[at].paused {
                self.replicas[at].held.push(event);
                return;
            }
        }
        // What came over an older link is lost.
        if let Event::Reply { replica, link, .. } | Event::Message { replica, link, .. } = &event
            && self.replicas[*replica].link != *link
        {
            return;
        }
        match event {
            Event::Arrive { replica, key } => self.arrive(replica, key),
            Event::Depart { replica, pick } => self.depart(replica, pick),
            Event::CallEnds { replica, call } => self.call_ends(replica, call),
            Event::Answers {
                replica,
                call,
                entry,
            } => {
                let answer = self.outcome(call);
                self.replicas[replica].protocol.answer(entry, answer, now);
                self.drain(replica);
            }
            Event::ToStore { .. } if self.stopped => self.held.push(event),
            Event::ToStore {
                replica,
                link,
                command,
            } => self.execute(replica, link, command),
            Event::Reply { replica, reply, .. } => {
                let protocol = &mut self.replicas[replica].protocol;
                match reply {
                    Reply::Contended(flight, reply) => protocol.contended(flight, &reply, now),
                    Reply::Renewed(flight, is_ours) => protocol.renewed(flight, is_ours),
                    Reply::Heard(seat, receivers) => protocol.heard(seat, receivers, now),
                    Reply::Fetched(seat, body) => protocol.fetched(seat, body, now),
                    Reply::Stored(flight, is_kept) => protocol.stored(flight, is_kept, now),
                }
                self.drain(replica);
            }
            Event::Message {
                replica, message, ..
            } => self.receive(replica, message),
            Event::Tick { replica } => {
                if self.replicas[replica].ticks <= now {
                    self.replicas[replica].ticks = Time::MAX;
                    self.replicas[replica].protocol.tick(now);
                }
                self.drain(replica);
            }
            Event::Forget { replica, key } => {
                self.forgot[key] = Some(now);
                self.forgot_by.insert((replica, key), now);
                // As a layer does it: nobody joins from elsewhere, then nobody here.
                self.replicas[replica].protocol.forget(digest(key));
                for flight in &self.replicas[replica].flights {
                    let mut flight = flight.borrow_mut();
                    if flight.key == key {
                        flight.close();
                    }
                }
                self.drain(replica);
            }
            Event::ForgetAll { replica } => {
                self.forgot.fill(Some(now));
                for key in 0..self.keys {
                    self.forgot_by.insert((replica, key), now);
                }
                self.replicas[replica].protocol.forget_all();
                for flight in &self.replicas[replica].flights {
                    flight.borrow_mut().close();
                }
                self.drain(replica);
            }
            Event::Stop => {
                self.stopped = true;
                self.ill();
            }
            Event::Resume => {
                self.stopped = false;
                self.well();
                for event in std::mem::take(&mut self.held) {
                    let at = now + self.rng.between(Time::ZERO, ms(1));
                    self.at(at, event);
                }
            }
            Event::Restart => {
                self.contents = StoreContents::default();
                self.held.clear();
                for replica in 0..self.replicas.len() {
                    let at = now + self.delay();
                    self.at(at, Event::Unlink { replica });
                }
                self.ill();
                if !self.stopped {
                    self.well();
                }
            }
            Event::LoseLease { key } => self.contents.forget(digest(key)),
            Event::Unlink { replica } => {
                if self.replicas[replica].linked {
                    self.replicas[replica].linked = false;
                    self.replicas[replica].well_since = Time::MAX;
                    self.replicas[replica].link += 1;
                    self.replicas[replica].protocol.unlinked(now);
                    let at = now + self.rng.between(ms(1), ms(80));
                    self.at(at, Event::Link { replica });
                    self.drain(replica);
                }
            }
            Event::Link { replica } => {
                if !self.replicas[replica].linked {
                    self.replicas[replica].linked = true;
                    self.replicas[replica].well_since = now;
                    self.replicas[replica].protocol.linked(now);
                    self.drain(replica);
                }
            }
            Event::Pause { replica } => {
                self.replicas[replica].paused = true;
                self.replicas[replica].well_since = Time::MAX;
            }
            Event::Unpause { replica } => {
                if std::mem::take(&mut self.replicas[replica].paused) {
                    self.replicas[replica].well_since = now;
                    for event in std::mem::take(&mut self.replicas[replica].held) {
                        self.scripted += usize::from(event.is_scripted());
                        self.at(now, event);
                    }
                }
            }
            Event::Kill { replica } => self.kill(replica),
        }
    }

    /// The process dies: its callers with it.
    fn kill(&mut self, at: usize) {
        let replica = &mut self.replicas[at];
        if replica.dead {
            return;
        }
        replica.dead = true;
        replica.died_at = self.now;
        replica.linked = false;
        replica.held.clear();
        let flights = std::mem::take(&mut replica.flights);
        for flight in flights {
            let flight = flight.borrow();
            self.departed += flight.callers.len();
            if let Some(call) = flight.call {
                self.calls[call].gone = true;
            }
        }
        self.replicas[at].by_entry.clear();
        self.replicas[at].protocol = self.birth(at as u64 + 100).protocol;
    }
}
