//! The leader's side: joins from other replicas, the end of a call, forgetting.

use std::{collections::BTreeMap, mem};

use bytes::Bytes;

use super::{
    Command, EntryId, Local, NotShared, Output, Protocol, Refusal, Time, Unjoined,
    entry::{Entry, Follower},
};
use crate::replicas::{
    id::{Digest, FlightId, Inbox},
    message::{Address, AnswerBody, Message},
};

/// The most replicas that may follow one flight.
const FOLLOWERS: usize = 4096;

impl<L: Local> Protocol<L> {
    // ===== joins =====

    pub(super) fn join(&mut self, to: Address, inbox: Inbox, asked: u64, now: Time) {
        let Some(&id) = self.named.get(&to.flight) else {
            let from = self.inbox;
            self.tell(inbox, Message::Gone { to, from });
            return;
        };
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if entry.digest != to.digest
            || entry.followers.contains_key(&to.seat)
            || entry.left.contains(&to.seat)
        {
            return;
        }
        let joined = if !entry.open || entry.ended {
            Err(Refusal::Gone.into())
        } else if entry.followers.len() >= FOLLOWERS {
            Err(Refusal::Alone(NotShared::Full).into())
        } else {
            entry.local.join()
        };
        match joined {
            Ok(seat) => {
                let follower = Follower {
                    inbox,
                    to,
                    asked,
                    heard: now,
                    seat: seat.clone(),
                };
                entry.followers.insert(to.seat, follower);
                self.out.push(Output::Start(seat));
                self.schedule(id);
            }
            Err(Unjoined { why, spare }) => {
                entry.remember_left(to.seat);
                let from = self.inbox;
                self.out.extend(spare.map(Output::Leave));
                let message = match why {
                    Refusal::Gone => Message::Gone { to, from },
                    Refusal::Alone(reason) => Message::Alone { to, reason },
                };
                self.tell(inbox, message);
            }
        }
    }

    /// The entry that has the seat `to`, or had it, or may get it.
    fn named(&mut self, to: &Address) -> Option<(EntryId, &mut Entry<L>)> {
        let &id = self.named.get(&to.flight)?;
        let entry = self.entries.get_mut(&id)?;
        (entry.digest == to.digest).then_some((id, entry))
    }

    fn follower(&mut self, to: &Address) -> Option<&mut Follower<L::Seat>> {
        self.named(to)?.1.followers.get_mut(&to.seat)
    }

    pub(super) fn cover(&mut self, to: Address, inbox: Inbox, asked: u64, now: Time) {
        match self.named.get(&to.flight) {
            Some(id) if !self.entries[id].ended => {}
            // P2
            _ => return,
        }
        match self.follower(&to) {
            Some(follower) => {
                follower.asked = follower.asked.max(asked);
                follower.heard = now;
            }
            None => self.join(to, inbox, asked, now),
        }
    }

    pub(super) fn probe(&mut self, to: Address, inbox: Inbox, now: Time) {
        let from = self.inbox;
        let is_answered_soon = self.is_being_stored(&to);
        let message = match self.follower(&to) {
            Some(follower) => {
                follower.heard = now;
                Message::Here { to }
            }
            None if is_answered_soon => Message::Here { to },
            None => Message::Gone { to, from },
        };
        self.tell(inbox, message);
    }

    pub(super) fn left(&mut self, to: Address) {
        self.taken(&to);
        let Some((id, entry)) = self.named(&to) else {
            return;
        };
        entry.remember_left(to.seat);
        if let Some(follower) = entry.followers.remove(&to.seat) {
            self.out.push(Output::Leave(follower.seat));
            self.schedule(id);
        }
    }

    /// Tells its followers to contend again.
    pub(super) fn send_away(&mut self, id: EntryId) {
        let from = self.inbox;
        let Some(entry) = self.entry(id) else { return };
        for follower in mem::take(&mut entry.followers).into_values() {
            let to = follower.to;
            self.tell(follower.inbox, Message::Gone { to, from });
            self.out.push(Output::Leave(follower.seat));
        }
    }

    // ===== the lease =====

    /// The reply to a renewal: whether `flight` still had its lease.
    pub(crate) fn renewed(&mut self, flight: FlightId, is_ours: bool) {
        if is_ours {
            return;
        }
        let id = self.named.get(&flight).copied();
        if let Some((id, entry)) = id.and_then(|id| Some((id, self.entry(id)?))) {
            // Another flight leads, or soon will. Followers that have joined are still answered.
            entry.lease = None;
            self.schedule(id);
        }
    }

    pub(super) fn due_as_leader(&mut self, id: EntryId, now: Time) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let silent = self.settings.silent();
        entry.followers.retain(|_, follower| {
            let is_silent = now.saturating_sub(follower.heard) >= silent;
            if is_silent {
                self.out.push(Output::Leave(follower.seat.clone()));
            }
            !is_silent
        });
        if entry.lease.is_some_and(|at| now >= at) {
            entry.lease = Some(now + self.settings.lease / 3);
            let (digest, flight) = (entry.digest, entry.flight);
            self.command(Command::Renew { digest, flight });
        }
    }

    pub(super) fn release(&mut self, id: EntryId) {
        let Some(entry) = self.entry(id) else { return };
        if entry.lease.take().is_some() {
            let (digest, flight) = (entry.digest, entry.flight);
            self.command(Command::Release { digest, flight });
            self.schedule(id);
        }
    }

    // ===== the end =====

    /// The call has ended: from now on nobody joins it, no caller is announced (P2), and its lease is released. `true`
    /// if followers at other replicas wait for [`answer`](Self::answer), which must follow; otherwise the entry is
    /// gone.
    pub(crate) fn end(&mut self, id: EntryId, now: Time) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else {
            return false;
        };
        entry.ended = true;
        if let Some(began) = entry.began {
            let took = now.saturating_sub(began);
            self.calls.remember(entry.digest, took);
        }
        self.release(id);
        let is_followed = !self.entries[&id].followers.is_empty();
        if !is_followed {
            self.remove(id, now);
        }
        is_followed
    }

    /// Answers followers at other replicas, and removes the entry.
    pub(crate) fn answer(&mut self, id: EntryId, answer: Result<Bytes, NotShared>, now: Time) {
        let Some(entry) = self.entry(id) else { return };
        let followers = mem::take(&mut entry.followers);
        let (digest, flight) = (entry.digest, entry.flight);
        let took = entry.began.map_or(now, |began| now.saturating_sub(began));
        let answer = match answer {
            Ok(body) if body.len() > self.settings.max_body => Err(NotShared::TooLarge),
            other => other,
        };
        let is_large = |body: &Bytes| body.len() > self.settings.inline;
        let stored = answer.clone().ok().filter(is_large);
        let body = answer.map(|body| match stored {
            Some(_) => AnswerBody::Stored,
            None => AnswerBody::Inline(body),
        });
        let mut takers = BTreeMap::new();
        for (seat, follower) in followers {
            let to = follower.to;
            let message = match &body {
                Ok(body) => Message::Answer {
                    to,
                    from: self.inbox,
                    covered: follower.asked,
                    took,
                    body: body.clone(),
                },
                &Err(reason) => Message::Alone { to, reason },
            };
            match stored {
                Some(_) => _ = takers.insert(seat, (follower.inbox, message)),
                None => self.tell(follower.inbox, message),
            }
            self.out.push(Output::Leave(follower.seat));
        }
        if let Some(body) = stored.filter(|_| !takers.is_empty()) {
            self.store(digest, flight, body, takers, now);
        }
        self.remove(id, now);
    }

    // ===== forgetting =====

    /// Later callers of this key or target make a new call, at all replicas. Callers that have joined go on.
    pub(crate) fn forget(&mut self, name: Digest) {
        self.shut_all(Some(name));
        let from = self.inbox;
        self.tell_all(Message::Forget { from, name });
    }

    pub(crate) fn forget_all(&mut self) {
        self.shut_all(None);
        let from = self.inbox;
        self.tell_all(Message::ForgetAll { from });
    }

    /// The next local flight to contend sends its join after this.
    fn tell_all(&mut self, message: Message) {
        if self.breaker.is_up() {
            self.command(Command::TellAll(message));
        }
    }

    /// Another replica has forgotten this key or target, or all.
    pub(super) fn forgotten(&mut self, name: Option<Digest>) {
        for id in self.shut_all(name) {
            let local = self.entries[&id].local.clone();
            self.out.push(Output::Detach(local));
        }
    }

    /// Shuts the entries of a key or target, or all.
    pub(super) fn shut_all(&mut self, name: Option<Digest>) -> Vec<EntryId> {
        let ids: Vec<_> = match name {
            Some(name) => self.by_digest.get(&name).cloned().unwrap_or_default(),
            None => self.entries.keys().copied().collect(),
        };
        for &id in &ids {
            self.shut(id);
        }
        ids
    }

    /// Nobody joins it any more; callers that have joined go on.
    fn shut(&mut self, id: EntryId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.open = false;
        }
        self.release(id);
    }
}
