//! Answers that are too large for a message: the store keeps them until all their followers have fetched them.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Command, Local, NotShared, Protocol, Refused, Time};
use crate::replicas::{
    id::{Digest, Inbox, Seat, ValueId},
    message::{Address, Message},
};

/// An answer in the store, or on its way there.
pub(super) struct StoredAnswer {
    /// The seats that have yet to fetch it, and their messages, sent once it is stored: in a cluster a message may
    /// overtake it.
    takers: BTreeMap<Seat, (Inbox, Message)>,
    is_stored: bool,
    until: Time,
}

impl<L: Local> Protocol<L> {
    pub(super) fn store(&mut self, digest: Digest, body: Bytes, now: Time) -> ValueId {
        let value = ValueId((self.ids)());
        let known = StoredAnswer {
            takers: BTreeMap::new(),
            is_stored: false,
            until: now + self.settings.value_life,
        };
        self.values.insert(value, known);
        self.command(Command::Put {
            value,
            digest,
            body,
        });
        value
    }

    pub(super) fn tell_when_stored(
        &mut self,
        value: ValueId,
        seat: Seat,
        inbox: Inbox,
        message: Message,
    ) {
        if let Some(known) = self.values.get_mut(&value) {
            known.takers.insert(seat, (inbox, message));
            self.takers.insert(seat, value);
        }
    }

    pub(super) fn is_being_stored(&self, seat: Seat) -> bool {
        let known = self
            .takers
            .get(&seat)
            .and_then(|value| self.values.get(value));
        known.is_some_and(|known| !known.is_stored)
    }

    /// The store has kept the value, or has refused it.
    pub(crate) fn stored(&mut self, value: ValueId, reply: Result<(), Refused>) {
        let Some(known) = self.values.get_mut(&value) else {
            return;
        };
        known.is_stored = true;
        for (inbox, message) in known.takers.clone().into_values() {
            let message = match (message, reply) {
                (Message::Answer { to, .. }, Err(Refused)) => too_large(to),
                (message, _) => message,
            };
            self.tell(inbox, message);
        }
        if reply.is_err() {
            self.forget_values(|other, _| other == value);
        } else {
            self.delete_if_taken(value);
        }
    }

    /// The follower with this seat has its answer, or no longer wants it.
    pub(super) fn taken(&mut self, seat: Seat) {
        let Some(value) = self.takers.remove(&seat) else {
            return;
        };
        if let Some(known) = self.values.get_mut(&value) {
            known.takers.remove(&seat);
            self.delete_if_taken(value);
        }
    }

    fn delete_if_taken(&mut self, value: ValueId) {
        let known = self.values.get(&value);
        if known.is_some_and(|known| known.is_stored && known.takers.is_empty()) {
            self.values.remove(&value);
            self.command(Command::Delete(value));
        }
    }

    /// Forgets values that were on their way when the link broke: nobody knows whether they have arrived.
    pub(super) fn forget_unstored(&mut self) {
        self.forget_values(|_, known| !known.is_stored);
    }

    /// Forgets values that the store has dropped by itself (P7).
    pub(super) fn forget_expired(&mut self, now: Time) {
        self.forget_values(|_, known| known.until <= now);
    }

    fn forget_values(&mut self, mut is_to_go: impl FnMut(ValueId, &StoredAnswer) -> bool) {
        let values = &mut self.values;
        let before = values.len();
        values.retain(|&value, known| !is_to_go(value, known));
        if values.len() < before {
            self.takers.retain(|_, value| values.contains_key(value));
        }
    }
}

fn too_large(to: Address) -> Message {
    Message::Alone {
        to,
        reason: NotShared::TooLarge,
    }
}
