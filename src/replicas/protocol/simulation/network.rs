//! What is sent, and how it arrives.

use std::collections::HashSet;

use super::{
    event::{Event, Reply},
    flight::{LocalFlight, SeatGuard},
    settings,
    world::World,
};
use crate::replicas::{
    id::{Digest, FlightId, Inbox, Seat},
    message::{Address, Message},
    protocol::{
        Command, Output,
        entry::{Entry, Phase},
    },
};

impl World {
    /// Carries out what the protocol wants done.
    pub(super) fn drain(&mut self, at: usize) {
        loop {
            let protocol = &mut self.replicas[at].protocol;
            let (commands, out) = (protocol.take_commands(), protocol.take_output());
            let is_told = |entry: &Entry<_>| matches!(entry.phase, Phase::Told(Some(_)));
            let told = protocol.entries.iter().filter(|(_, entry)| is_told(entry));
            let told: Vec<_> = told.map(|(&id, _)| id).collect();
            if commands.is_empty() && out.is_empty() && told.is_empty() {
                break;
            }
            for command in commands {
                self.send(at, command);
            }
            for entry in told {
                self.settled(at, entry);
            }
            for output in out {
                match output {
                    Output::Wake(_) => {}
                    Output::Start(SeatGuard(flight)) => flight.borrow_mut().started += 1,
                    Output::Leave(SeatGuard(flight)) => {
                        flight.borrow_mut().seats -= 1;
                        self.cancel_if_deserted(at, &flight);
                    }
                    Output::Detach(LocalFlight(flight)) => flight.borrow_mut().close(),
                }
            }
        }
        self.check_started(at);
        let next = self.replicas[at].protocol.next_tick().max(self.now);
        if next < self.replicas[at].ticks && !self.replicas[at].dead {
            self.replicas[at].ticks = next;
            self.at(next, Event::Tick { replica: at });
        }
    }

    pub(super) fn send(&mut self, at: usize, command: Command) {
        if !self.replicas[at].linked {
            return;
        }
        self.watch_command(at, &command);
        let mut arrives = self.now + self.delay();
        if self.weather.single {
            arrives = arrives.max(self.to_store[at]);
            self.to_store[at] = arrives;
        }
        let link = self.replicas[at].link;
        self.at(
            arrives,
            Event::ToStore {
                replica: at,
                link,
                command,
            },
        );
    }

    /// The store does what it is told.
    pub(super) fn execute(&mut self, at: usize, link: u64, command: Command) {
        let now = self.now;
        let until = now + settings().lease;
        let answers = self.now + self.delay();
        let reply = match command {
            Command::Contend {
                join,
                asked,
                pass_over,
            } => {
                let own = self.replicas[at].protocol.inbox();
                let mut join_of = None;
                let counted = self.weather.single;
                let heard: HashSet<_> = self
                    .inboxes
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| self.replicas[*at].linked)
                    .map(|(_, inbox)| *inbox)
                    .collect();
                let reply =
                    self.contents
                        .contend(&join, own, pass_over, (now, until), |inbox, flight| {
                            join_of = Some((inbox, flight));
                            counted.then(|| usize::from(heard.contains(&inbox)))
                        });
                if let Some((inbox, flight)) = join_of {
                    self.watch_join(own, join.seat, flight);
                    let to = Address { flight, ..join };
                    self.publish(
                        inbox,
                        Message::Join {
                            to,
                            inbox: own,
                            asked,
                        },
                    );
                }
                Some(Reply::Contended(join.flight, reply))
            }
            Command::Renew { digest, flight } => {
                let is_ours = self.contents.renew(digest, flight, (now, until));
                Some(Reply::Renewed(flight, is_ours))
            }
            Command::Release { digest, flight } => {
                self.contents.release(digest, flight);
                None
            }
            Command::Put { flight, body, .. } => {
                let is_kept = !self.rng.chance(self.weather.refuse);
                if is_kept {
                    let until = now + settings().value_life;
                    self.contents.put(flight, body, until);
                }
                Some(Reply::Stored(flight, is_kept))
            }
            Command::Fetch(at) => {
                let body = self.contents.fetch(at.flight, now);
                Some(Reply::Fetched(at.seat, body))
            }
            Command::Delete(flight) => {
                self.contents.delete(flight);
                None
            }
            Command::Tell(inbox, message) => {
                let probe = match &message {
                    Message::Probe { to, .. } => Some(to.seat),
                    _ => None,
                };
                let receivers = self.publish(inbox, message);
                let seat = probe.filter(|_| self.weather.single);
                seat.map(|seat| Reply::Heard(seat, receivers))
            }
            Command::TellAll(message) => {
                for inbox in self.inboxes.clone() {
                    self.publish(inbox, message.clone());
                }
                None
            }
        };
        if let Some(reply) = reply {
            let replica = at;
            self.at(
                answers,
                Event::Reply {
                    replica,
                    link,
                    reply,
                },
            );
        }
    }

    pub(super) fn publish(&mut self, inbox: Inbox, message: Message) -> usize {
        let found = self.inboxes.iter().position(|&other| other == inbox);
        let Some(at) = found.filter(|&at| self.replicas[at].linked) else {
            return 0;
        };
        // Echoes are left alone: without them the breaker is open most of the time, and there is little to see.
        let echo = matches!(message, Message::Echo { .. });
        if !echo && self.rng.chance(self.weather.misdirect) {
            self.misdirect(&message);
        }
        if !echo && self.rng.chance(self.weather.lose) {
            return 1;
        }
        self.deliver(at, message.clone());
        if !echo && self.rng.chance(self.weather.double) {
            self.deliver(at, message);
        }
        1
    }

    pub(super) fn deliver(&mut self, at: usize, message: Message) {
        let mut arrives = self.now + self.delay();
        if self.weather.single {
            arrives = arrives.max(self.from_store[at]);
            self.from_store[at] = arrives;
        }
        let link = self.replicas[at].link;
        self.at(
            arrives,
            Event::Message {
                replica: at,
                link,
                message,
            },
        );
    }

    /// Messages that are not for whom they reach: to another replica, of another key, flight or seat, or long ago.
    pub(super) fn misdirect(&mut self, message: &Message) {
        let at = self.rng.below(self.replicas.len() as u64) as usize;
        if !self.replicas[at].linked {
            return;
        }
        let mut wrong = message.clone();
        if let Some(to) = address_mut(&mut wrong) {
            let other = u128::from(self.rng.next());
            match self.rng.below(5) {
                0 => to.digest = Digest(to.digest.0 ^ other),
                1 => to.flight = FlightId(to.flight.0 ^ other),
                2 => to.seat = Seat(to.seat.0 ^ other),
                3 => {
                    // As it was, to whoever it is not for: only joins can be for anybody.
                    if matches!(message, Message::Join { .. }) {
                        return;
                    }
                }
                _ => {
                    self.old.push(message.clone());
                    let pick = self.rng.below(self.old.len() as u64) as usize;
                    wrong = self.old[pick].clone();
                }
            }
            self.deliver(at, wrong);
        }
    }

    pub(super) fn receive(&mut self, at: usize, message: Message) {
        if let Message::Join { to, inbox, asked } | Message::Cover { to, inbox, asked } = &message
            && self.replicas[at].protocol.named.contains_key(&to.flight)
        {
            let told = self.told.entry(to.flight).or_default();
            let told = told.entry(*inbox).or_default();
            *told = (*asked).max(*told);
        }
        let answered = self.watch_message(at, &message);
        self.replicas[at].protocol.message(message, self.now);
        if let Some(entry) = answered {
            self.check_taken(at, entry);
        }
        self.drain(at);
    }
}

fn address_mut(message: &mut Message) -> Option<&mut Address> {
    match message {
        Message::Join { to, .. }
        | Message::Cover { to, .. }
        | Message::Leave { to }
        | Message::Probe { to, .. }
        | Message::Here { to }
        | Message::Gone { to, .. }
        | Message::Alone { to, .. }
        | Message::Answer { to, .. } => Some(to),
        Message::Echo { .. } | Message::Forget { .. } | Message::ForgetAll { .. } => None,
    }
}
