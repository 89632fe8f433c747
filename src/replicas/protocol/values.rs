//! Answers that are too large for a message: the store keeps them until all their followers have fetched them.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Command, Local, NotShared, Protocol, Time};
use crate::replicas::{
    id::{Digest, FlightId, Inbox, Seat},
    message::{Address, Message},
};

/// The answer of a flight in the store, or on its way there.
pub(super) struct StoredAnswer {
    /// The seats that have yet to fetch it, and their messages, sent once it is stored: in a cluster a message may
    /// overtake it.
    pub(super) takers: Takers,
    pub(super) is_stored: bool,
    pub(super) until: Time,
}

pub(super) type Takers = BTreeMap<Seat, (Inbox, Message)>;

impl<L: Local> Protocol<L> {
    pub(super) fn store(
        &mut self,
        digest: Digest,
        flight: FlightId,
        body: Bytes,
        takers: Takers,
        now: Time,
    ) {
        let known = StoredAnswer {
            takers,
            is_stored: false,
            until: now + self.settings.value_life,
        };
        self.values.insert(flight, known);
        self.command(Command::Put {
            digest,
            flight,
            body,
        });
    }

    pub(super) fn is_being_stored(&self, to: &Address) -> bool {
        let known = self.values.get(&to.flight);
        known.is_some_and(|known| !known.is_stored && known.takers.contains_key(&to.seat))
    }

    /// The store has kept the answer of `flight`, or has refused it.
    pub(crate) fn stored(&mut self, flight: FlightId, is_kept: bool, now: Time) {
        if let Some(known) = self.values.get_mut(&flight) {
            known.is_stored = true;
            for (inbox, message) in known.takers.clone().into_values() {
                let message = match message {
                    Message::Answer { to, .. } if !is_kept => Message::Alone {
                        to,
                        reason: NotShared::TooLarge,
                    },
                    message => message,
                };
                self.tell(inbox, message);
            }
        }
        if is_kept {
            self.delete_if_taken(flight);
        } else {
            self.values.remove(&flight);
            self.failed(now);
        }
    }

    /// The follower in this seat has its answer, or no longer wants it.
    pub(super) fn taken(&mut self, to: &Address) {
        if let Some(known) = self.values.get_mut(&to.flight) {
            known.takers.remove(&to.seat);
            self.delete_if_taken(to.flight);
        }
    }

    fn delete_if_taken(&mut self, flight: FlightId) {
        let known = self.values.get(&flight);
        if known.is_some_and(|known| known.is_stored && known.takers.is_empty()) {
            self.values.remove(&flight);
            self.command(Command::Delete(flight));
        }
    }
}
