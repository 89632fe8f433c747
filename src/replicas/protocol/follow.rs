//! Following another replica: its messages, and the outcome.

use std::{mem, time::Duration};

use bytes::Bytes;

use super::{
    AloneReason, Command, ContestOutcome, EntryId, Local, NotShared, Output, Protocol, Time,
    entry::{Entry, Followed, Phase, SeatAt},
};
use crate::replicas::{
    id::{Inbox, Seat},
    message::{Address, AnswerBody, Message},
};

impl<L: Local> Protocol<L> {
    /// One more caller has joined the local flight, with this number.
    pub(crate) fn one_more(&mut self, id: EntryId, number: u64, now: Time) {
        let Some(entry) = self.entry(id) else { return };
        entry.asked = entry.asked.max(number + 1);
        self.announce(id, now);
        self.schedule(id);
    }

    /// Announces new callers to the leader, if an announcement is due.
    fn announce(&mut self, id: EntryId, now: Time) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let Phase::Following(following) = &mut entry.phase else {
            return;
        };
        if entry.asked > following.announced && now >= following.cover_from {
            following.announced = entry.asked;
            following.cover_from = now + self.settings.cover;
            let (to, asked) = (following.at.to, entry.asked);
            let (leader, inbox) = (following.at.inbox, self.inbox);
            self.tell(leader, Message::Cover { to, inbox, asked });
        }
    }

    // ===== the leader's messages =====

    pub(super) fn here(&mut self, to: Address, now: Time) {
        let Some((id, SeatAt::Now)) = self.own_seat(&to) else {
            return;
        };
        if let Some(entry) = self.entry(id) {
            entry.heard = now;
            if let Phase::Following(following) = &mut entry.phase {
                following.probed = false;
            }
        }
    }

    pub(super) fn gone(&mut self, to: Address, from: Inbox, now: Time) {
        let Some((id, at)) = self.own_seat(&to) else {
            return;
        };
        let Some(entry) = self.entry(id) else { return };
        match (&entry.phase, &mut entry.attempt, at) {
            (Phase::Following(following), _, SeatAt::Now) if following.at.inbox == from => {
                self.ask_again(id, Some(to.flight), now);
            }
            (_, Some(attempt), SeatAt::Asked) => attempt.gone = Some((from, to.flight)),
            _ => {}
        }
    }

    pub(super) fn alone(&mut self, to: Address, reason: NotShared, now: Time) {
        if let Some((id, SeatAt::Now | SeatAt::Asked)) = self.own_seat(&to) {
            let outcome = ContestOutcome::Alone(AloneReason::Told(reason));
            self.settle_by(id, outcome, Some(to.seat), now);
        }
    }

    pub(super) fn answered(
        &mut self,
        (to, leader): (Address, Inbox),
        covered: u64,
        took: Duration,
        body: AnswerBody,
        now: Time,
    ) {
        let Some((id, at)) = self.own_seat(&to) else {
            // The seat was left, and the message was lost with a link: tell the leader that nobody needs the value.
            if let AnswerBody::Stored = body {
                self.tell(leader, Message::Leave { to });
            }
            return;
        };
        self.calls.remember(to.digest, took);
        match body {
            AnswerBody::Inline(body) => {
                let outcome = self.answer_of(body, covered);
                self.settle_by(id, outcome, Some(to.seat), now);
            }
            AnswerBody::Stored => {
                let Some(entry) = self.entries.get_mut(&id) else {
                    return;
                };
                match (&entry.phase, at) {
                    // It already fetches the answer of another seat, which is just as good.
                    (Phase::Fetching { .. }, _) => return,
                    (Phase::Following(following), SeatAt::Earlier) => {
                        entry.earlier.push(following.at);
                    }
                    _ => {}
                }
                let until = now + self.settings.down_after;
                let from = Followed { inbox: leader, to };
                entry.phase = Phase::Fetching {
                    from,
                    covered,
                    until,
                };
                self.command(Command::Fetch(to));
                self.schedule(id);
            }
        }
    }

    /// The body of an answer, if the store had it.
    pub(crate) fn fetched(&mut self, seat: Seat, body: Option<Bytes>, now: Time) {
        let Some((id, entry)) = self.seated(seat) else {
            return;
        };
        let Phase::Fetching { from, covered, .. } = entry.phase else {
            return;
        };
        if from.to.seat == seat {
            match body {
                Some(body) => self.settle(id, self.answer_of(body, covered), now),
                None => self.ask_again(id, Some(from.to.flight), now),
            }
        }
    }

    fn answer_of(&self, body: Bytes, covered: u64) -> ContestOutcome {
        match body.len() <= self.settings.max_body {
            true => ContestOutcome::Answer { body, covered },
            false => ContestOutcome::Alone(AloneReason::Told(NotShared::TooLarge)),
        }
    }

    /// How many replicas received the probe of `seat`: none if its leader's process is gone.
    pub(crate) fn heard(&mut self, seat: Seat, receivers: usize, now: Time) {
        let Some((id, entry)) = self.seated(seat) else {
            return;
        };
        match &entry.phase {
            Phase::Following(following) if following.at.to.seat == seat && receivers == 0 => {
                self.ask_again(id, None, now);
            }
            _ => {}
        }
    }

    /// The entry that has the seat `to`, and which of its seats it is.
    fn own_seat(&self, to: &Address) -> Option<(EntryId, SeatAt)> {
        let (id, entry) = self.seated(to.seat)?;
        Some((id, entry.seat_at(to)?))
    }

    fn seated(&self, seat: Seat) -> Option<(EntryId, &Entry<L>)> {
        let &id = self.seats.get(&seat)?;
        Some((id, self.entries.get(&id)?))
    }

    // ===== time =====

    pub(super) fn due_as_follower(&mut self, id: EntryId, now: Time) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        match &mut entry.phase {
            Phase::Asking { until } if now >= *until => {
                let asked = entry.attempt.map_or(now, |attempt| attempt.sent);
                self.settle(id, ContestOutcome::Alone(AloneReason::Slow), now);
                if self.breaker.failed(asked, now) {
                    self.open_breaker(now);
                }
            }
            Phase::Fetching { until, from, .. } if now >= *until => {
                let flight = from.to.flight;
                self.ask_again(id, Some(flight), now);
            }
            Phase::Following(following) if now >= following.probe_at => {
                if following.probed {
                    self.ask_again(id, None, now);
                    return;
                }
                following.probed = true;
                following.probe_at = now + self.settings.probe;
                let (to, at) = (following.at.to, following.at.inbox);
                let inbox = self.inbox;
                self.tell(at, Message::Probe { to, inbox });
                self.announce(id, now);
            }
            Phase::Following(_) => self.announce(id, now),
            Phase::Asking { .. } | Phase::Fetching { .. } | Phase::Told(_) => {}
        }
    }

    // ===== the outcome =====

    /// Gives the local leader its outcome, once (P4), and leaves its seats at other replicas.
    pub(super) fn settle(&mut self, id: EntryId, outcome: ContestOutcome, now: Time) {
        self.settle_by(id, outcome, None, now);
    }

    /// As `settle`, when the leader of `seat` has answered and so has forgotten the seat.
    fn settle_by(&mut self, id: EntryId, outcome: ContestOutcome, seat: Option<Seat>, now: Time) {
        match &outcome {
            ContestOutcome::Lead => self.stats.led += 1,
            ContestOutcome::Answer { .. } => self.stats.followed += 1,
            ContestOutcome::Alone(AloneReason::Slow) => self.stats.alone_slow += 1,
            ContestOutcome::Alone(AloneReason::Down) => self.stats.alone_down += 1,
            ContestOutcome::Alone(AloneReason::Short) => self.stats.alone_short += 1,
            ContestOutcome::Alone(AloneReason::Told(_) | AloneReason::Lost) => {
                self.stats.alone_told += 1
            }
        }
        self.withdraw(id, seat);
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if let ContestOutcome::Answer { .. } = outcome {
            // It makes no call, so nobody may join or wait for one.
            self.named.remove(&entry.flight);
            if let Some(attempt) = entry.attempt.take() {
                self.orphan(&attempt, now);
            }
            self.send_away(id);
        } else {
            entry.began = Some(now);
        }
        if let Some(entry) = self.entry(id) {
            entry.phase = Phase::Told(Some(outcome));
            let waker = entry.waker.take();
            self.out.extend(waker.map(Output::Wake));
        }
        self.schedule(id);
    }

    /// Leaves all seats at other replicas except that of the script under way and the `answered` one.
    pub(super) fn withdraw(&mut self, id: EntryId, answered: Option<Seat>) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let now = entry.phase.followed();
        for Followed { inbox, to } in mem::take(&mut entry.earlier).into_iter().chain(now) {
            // Each once: a seat whose answer is fetched may also be among the earlier ones.
            let held = self.seats.remove(&to.seat).is_some();
            if held && Some(to.seat) != answered {
                self.tell(inbox, Message::Leave { to });
            }
        }
    }
}
