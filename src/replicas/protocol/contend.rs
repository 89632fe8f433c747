//! Contending for a key: asking the store, and what its reply means.

use super::{
    AloneReason, Command, ContestOutcome, EntryId, Local, Orphan, Protocol, Reply, Time,
    entry::{Attempt, Entry, Followed, Following, Phase},
};
use crate::replicas::{
    id::{FlightId, Seat},
    message::{Address, Message},
};

/// How often an entry contends again because the leader that it followed was gone.
const RETRIES: u32 = 2;

impl<L: Local> Protocol<L> {
    /// Contends again for the callers that the last answer did not cover; those below `asked` have asked.
    pub(crate) fn again(&mut self, id: EntryId, asked: u64, now: Time) {
        let patience = self.settings.patience;
        let Some(entry) = self.entry(id) else { return };
        entry.asked = entry.asked.max(asked);
        entry.budget = patience;
        entry.retries = 0;
        self.ask(id, None, now);
    }

    /// Sends the script. The entry can be named from now on (P1).
    pub(super) fn ask(&mut self, id: EntryId, pass_over: Option<FlightId>, now: Time) {
        let up = self.breaker.is_up();
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let why = match (up, entry.open) {
            (false, _) => Some(AloneReason::Down),
            // Nobody else may join it, and its key may have a newer flight.
            (true, false) => Some(AloneReason::Lost),
            (true, true) => entry.budget.is_zero().then_some(AloneReason::Slow),
        };
        if let Some(why) = why {
            self.settle(id, ContestOutcome::Alone(why), now);
            return;
        }
        let (digest, asked) = (entry.digest, entry.asked);
        let join = Address {
            digest,
            flight: FlightId((self.ids)()),
            seat: Seat((self.ids)()),
        };
        // Left over if an answer came before the store's reply.
        let old = entry.attempt.take();
        self.named.remove(&entry.flight);
        if let Some(attempt) = old {
            self.orphan(&attempt, now);
        }
        self.send_away(id);
        let Some(entry) = self.entry(id) else { return };
        entry.flight = join.flight;
        entry.attempt = Some(Attempt {
            join,
            sent: now,
            asked,
            gone: None,
        });
        entry.phase = Phase::Asking {
            until: now + entry.budget,
        };
        self.named.insert(join.flight, id);
        self.seats.insert(join.seat, id);
        self.command(Command::Contend {
            join,
            asked,
            pass_over,
        });
        self.schedule(id);
    }

    /// Contends again; its present seat may still be answered until it leads.
    pub(super) fn ask_again(&mut self, id: EntryId, pass_over: Option<FlightId>, now: Time) {
        let Some(entry) = self.entry(id) else { return };
        entry.earlier.extend(entry.phase.followed());
        if pass_over.is_some() {
            entry.retries += 1;
            if entry.retries > RETRIES {
                self.settle(id, ContestOutcome::Alone(AloneReason::Lost), now);
                return;
            }
        }
        self.ask(id, pass_over, now);
    }

    /// The store's reply to the script of `flight`.
    pub(crate) fn contended(&mut self, flight: FlightId, reply: &Reply, now: Time) {
        if let Some(orphan) = self.orphans.remove(&flight) {
            self.undo(orphan.join, reply);
            return;
        }
        let Some(&id) = self.named.get(&flight) else {
            return;
        };
        let Some(entry) = self.entry(id) else { return };
        let Some(attempt) = entry.attempt.take() else {
            return;
        };
        let took = now.saturating_sub(attempt.sent);
        entry.budget = entry.budget.saturating_sub(took);
        match *reply {
            Reply::Won { over } => self.won(id, attempt, over, now),
            Reply::Held { inbox, flight } => {
                let join = attempt.join;
                let to = Address { flight, ..join };
                self.held(id, attempt, Followed { inbox, to }, now);
            }
            _ => {
                self.seats.remove(&attempt.join.seat);
                if self.entries.get(&id).is_some_and(Entry::waits) {
                    self.settle(id, ContestOutcome::Alone(AloneReason::Down), now);
                }
                self.failed(now);
            }
        }
        self.schedule(id);
    }

    /// Nobody waits for the reply to that script any more (P5), and its seat must not be answered.
    pub(super) fn orphan(&mut self, attempt: &Attempt, now: Time) {
        let join = attempt.join;
        self.seats.remove(&join.seat);
        let until = now + self.settings.lease;
        self.orphans.insert(join.flight, Orphan { join, until });
    }

    /// Undoes a script that nobody waits for (P5).
    fn undo(&mut self, join: Address, reply: &Reply) {
        match *reply {
            Reply::Won { .. } => self.command(Command::Release {
                digest: join.digest,
                flight: join.flight,
            }),
            Reply::Held { inbox, flight } => {
                let to = Address { flight, ..join };
                self.tell(inbox, Message::Leave { to });
            }
            _ => {}
        }
    }

    fn won(&mut self, id: EntryId, attempt: Attempt, over: bool, now: Time) {
        self.breaker.answered();
        self.seats.remove(&attempt.join.seat);
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        // It may already be making its call alone; others can join it from now on.
        if !entry.open || entry.ended {
            self.command(Command::Release {
                digest: attempt.join.digest,
                flight: attempt.join.flight,
            });
        } else {
            entry.lease = Some(now + self.settings.lease / 3);
        }
        if matches!(self.entries[&id].phase, Phase::Asking { .. }) {
            self.stats.takeovers += u64::from(over);
            self.settle(id, ContestOutcome::Lead, now);
        }
    }

    fn held(&mut self, id: EntryId, attempt: Attempt, at: Followed, now: Time) {
        self.breaker.answered();
        // The store has named another flight.
        self.named.remove(&attempt.join.flight);
        let patience = self.settings.lease + 2 * self.settings.probe;
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if matches!(&entry.phase, Phase::Fetching { from, .. } if from.to.seat == at.to.seat) {
            // Its answer came first.
            return;
        }
        if !matches!(entry.phase, Phase::Asking { .. }) {
            self.seats.remove(&at.to.seat);
            self.tell(at.inbox, Message::Leave { to: at.to });
            return;
        }
        if attempt.gone == Some((at.inbox, at.to.flight)) {
            entry.earlier.push(at);
            self.ask_again(id, Some(at.to.flight), now);
            return;
        }
        // The same flight again, which did not answer: keep the time when it was last heard of.
        let mut earlier = entry.earlier.iter();
        let known = earlier.any(|old| old.to.flight == at.to.flight);
        if !known {
            entry.heard = now;
        }
        let heard = entry.heard;
        entry.phase = Phase::Following(Following {
            at,
            probe_at: now + self.settings.probe,
            probed: known,
            announced: attempt.asked,
            cover_from: now + self.settings.cover,
        });
        if known {
            if now.saturating_sub(heard) >= patience {
                self.settle(id, ContestOutcome::Alone(AloneReason::Lost), now);
                return;
            }
            let (to, inbox) = (at.to, self.inbox);
            self.tell(at.inbox, Message::Probe { to, inbox });
        }
    }
}
