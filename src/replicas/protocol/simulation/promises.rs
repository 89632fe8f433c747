//! What is checked: the promises R1 to R6, after each event and at the end.

use super::{
    SLACK, Seen, digest,
    flight::{Caller, Flight, FlightRef},
    ms, settings,
    weather::Weather,
    world::World,
};
use crate::replicas::{
    id::Inbox,
    protocol::{AloneReason, ContestOutcome, Time, entry::Phase},
};

impl World {
    /// R1, where nothing fails: a leader begins no call while another's is in flight.
    pub(super) fn check_outcome(&self, at: usize, flight: &Flight, outcome: &ContestOutcome) {
        if !self.weather.calm {
            return;
        }
        match outcome {
            ContestOutcome::Lead => {
                // What was asked while the word spread may have been asked before it came.
                let spread = 4 * self.weather.longest;
                let since = self.forgot[flight.key].map_or(Time::ZERO, |at| at + spread);
                let other = self.calls.iter().find(|call| {
                    call.key == flight.key
                        && call.leads
                        && call.began >= since
                        && call.ended.is_none()
                        && !call.gone
                });
                if let Some(other) = other {
                    self.fail(&format!(
                        "R1: replica {at} calls while replica {} does",
                        other.replica
                    ));
                }
            }
            ContestOutcome::Alone(AloneReason::Told(_) | AloneReason::Short) => {}
            // Forgotten, it does not contend for the key again.
            ContestOutcome::Alone(AloneReason::Lost) if !flight.open => {}
            ContestOutcome::Alone(AloneReason::Lost) => {
                // Three in a row who had the lease were gone before the join came, and have said so.
                if self.rules.gone(at, digest(flight.key), flight.began) < 3 {
                    self.fail("R1: it gave up too soon");
                }
            }
            ContestOutcome::Alone(why) => self.fail(&format!("R1: {why:?} though nothing fails")),
            ContestOutcome::Answer { .. } => {}
        }
    }

    /// R1, where nothing fails: of callers who asked well before the call's end the leader has been told.
    pub(super) fn check_covered(&self, uncovered: &[Caller], ended: Time) {
        let spread = 5 * self.weather.longest + 2 * settings().cover;
        if uncovered.iter().any(|caller| caller.at + spread < ended) {
            self.fail("R1: the leader was not told of a caller");
        }
    }

    /// R2: nobody waits for what does not come.
    pub(super) fn check_waiting(&self) {
        let s = settings();
        let longest = self.weather.longest;
        for replica in &self.replicas {
            if replica.dead || replica.paused {
                continue;
            }
            let well = |since: Time| self.now.saturating_sub(since);
            for flight in &replica.flights {
                let flight = flight.borrow();
                let Some(entry) = flight
                    .entry
                    .and_then(|id| replica.protocol.entries.get(&id))
                else {
                    continue;
                };
                if !entry.waits() {
                    continue;
                }
                // The store does nothing, this replica is well: down_after and a beat.
                if let Some(ill) = self.store_ill {
                    let since = if replica.well_since == Time::MAX {
                        self.now
                    } else {
                        ill.max(replica.well_since)
                    };
                    if well(since) > s.down_after + s.beat + longest + SLACK {
                        self.fail("R2: it waits though the store has long stopped");
                    }
                }
                if let Phase::Asking { until } = entry.phase
                    && replica.ticks > until
                    && self.now > until + SLACK
                {
                    self.fail("R2: it waits for the store longer than patience");
                }
                // Its leader's process is dead, and the store says so.
                if let Phase::Following(following) = &entry.phase
                    && let Some(store) = self.store_well
                    && self.weather.single
                    && replica.well_since != Time::MAX
                    && let Some(died) = self.died(following.at.inbox)
                    && well(died.max(store).max(replica.well_since)) > s.probe + 4 * longest + SLACK
                {
                    self.fail("R2: it waits for a process that is dead");
                }
                // Its leader is dead or stalled, and everything else works.
                if let Phase::Following(following) = &entry.phase
                    && let Some(store) = self.store_well
                    && replica.well_since != Time::MAX
                {
                    let quiet = self.now.saturating_sub(entry.heard);
                    let bound = s.lease + 3 * s.probe + s.patience + 6 * longest + SLACK;
                    let all = well(store.max(replica.well_since));
                    if all > bound && quiet > bound {
                        self.fail(&format!(
                            "R2: it waits for {:?}, of whom nothing is heard",
                            following.at
                        ));
                    }
                }
            }
        }
    }

    fn died(&self, inbox: Inbox) -> Option<Time> {
        let at = self.inboxes.iter().position(|&other| other == inbox)?;
        let replica = &self.replicas[at];
        replica.dead.then_some(replica.died_at)
    }

    /// R6, and that nobody calls for nobody: where no process and no link fails, what callers leave behind is gone as soon as those
    /// concerned have heard of it.
    pub(super) fn check_leavings(&mut self) {
        if self.scripted > 0 || self.served + self.departed < self.asked {
            return;
        }
        let since = *self.deserted.get_or_insert(self.now);
        let Weather {
            longest, gentle, ..
        } = self.weather;
        // A leave that is lost, and a seat that nobody has taken, cost the leader some probes.
        if !gentle {
            return;
        }
        // A script is answered, and a leave goes by the store.
        let calling = self
            .calls
            .iter()
            .any(|call| call.ended.is_none() && !call.gone);
        if calling && self.now > since + 3 * longest + SLACK {
            self.fail("a call goes on though its callers have long left");
        }
        // And then the leader's release, or what removes the answer that it has put there.
        if self.contents.len(self.now) > 0 && self.now > since + 6 * longest + SLACK {
            self.fail(&format!("R6: something is left: {:?}", self.contents));
        }
    }

    /// R2 and R6: everybody has been served, and nothing is left.
    pub(super) fn check_end(&self) {
        let waiting: Vec<_> = self
            .replicas
            .iter()
            .filter(|replica| !replica.dead)
            .flat_map(|replica| {
                let of = |flight: &FlightRef| {
                    flight
                        .borrow()
                        .callers
                        .iter()
                        .map(|caller| caller.at)
                        .collect::<Vec<_>>()
                };
                replica.flights.iter().flat_map(of)
            })
            .collect();
        if !waiting.is_empty() || self.served + self.departed != self.asked {
            self.fail(&format!(
                "R2: callers that asked at {waiting:?} are still waiting"
            ));
        }
        if let Some(call) = self
            .calls
            .iter()
            .find(|call| call.ended.is_none() && !call.gone)
        {
            self.fail(&format!(
                "a call of replica {} goes on for nobody",
                call.replica
            ));
        }
        if self.contents.len(self.now) > 0 {
            self.fail(&format!("R6: the store still has {:?}", self.contents));
        }
        for replica in &self.replicas {
            let p = &replica.protocol;
            let left = [
                ("entries", p.entries.len()),
                ("named", p.named.len()),
                ("seats", p.seats.len()),
                ("by_digest", p.by_digest.len()),
                ("orphans", p.orphans.len()),
                ("values", p.values.len()),
                ("timers", p.timers.len()),
            ];
            if left.iter().any(|(_, len)| *len > 0) {
                self.fail(&format!("R6: something is left: {left:?}"));
            }
        }
        for (at, flight) in &self.all {
            if !self.replicas[*at].dead && flight.borrow().seats > 0 {
                self.fail("R6: a seat is held for a follower that has its answer, or has gone");
            }
        }
        if self.weather.calm && self.now > ms(2500) {
            self.fail("R6: in a calm it took long until nothing was left");
        }
    }

    pub(super) fn note(&self, seen: &mut Seen) {
        let mut note = |what, n| *seen.counts.entry(what).or_default() += n;
        note("schedules", 1);
        note("calm", u64::from(self.weather.calm));
        note("steps", self.step);
        note("callers", self.asked as u64);
        note("served", self.served as u64);
        note("calls", self.calls.len() as u64);
        for replica in &self.replicas {
            let stats = replica.protocol.stats();
            note("led", stats.led);
            note("followed", stats.followed);
            note("takeovers", stats.takeovers);
            note("slow", stats.alone_slow);
            note("down", stats.alone_down);
            note("short", stats.alone_short);
            note("told", stats.alone_told);
        }
    }
}
