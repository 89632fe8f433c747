//! Single steps, where a schedule would seldom come to them.

use std::time::Duration;

use bytes::Bytes;

use super::{
    AloneReason, Command, Contended, ContestOutcome, EntryId, Local, NotShared, Protocol,
    ProtocolSettings, Refused, Time, Unjoined,
};
use crate::replicas::{
    id::{Digest, FlightId, Inbox, Seat, ValueId},
    message::{Address, AnswerBody, Message},
};

const KEY: Digest = Digest(1);
/// The others'.
const INBOX: Inbox = Inbox(7);
const NOW: Time = Duration::from_millis(10);

/// A flight that lets everybody join.
#[derive(Clone, Debug)]
struct Open;

impl Local for Open {
    type Seat = ();

    fn join(&self) -> Result<(), Unjoined<()>> {
        Ok(())
    }
}

/// One replica, whose store is in use.
struct Replica {
    protocol: Protocol<Open>,
}

impl Replica {
    fn new() -> Self {
        let mut names = 100;
        let settings = ProtocolSettings {
            patience: Duration::from_millis(50),
            lease: Duration::from_millis(300),
            probe: Duration::from_millis(50),
            beat: Duration::from_millis(40),
            down_after: Duration::from_millis(100),
            cover: Duration::from_millis(2),
            inline: 8,
            max_body: 64,
            value_life: Duration::from_millis(400),
        };
        let ids = move || {
            names += 1;
            names
        };
        let mut protocol = Protocol::new(settings, Box::new(ids));
        protocol.linked(Time::ZERO);
        protocol.message(Message::Echo { number: 0 }, Time::ZERO);
        assert!(protocol.is_up());
        protocol.take_commands();
        Self { protocol }
    }

    /// A local flight contends; its script.
    fn contend(&mut self) -> (EntryId, Address) {
        let entry = self.protocol.contend(KEY, None, Open, 1, NOW);
        (entry, self.script())
    }

    /// The script that has just been sent.
    fn script(&mut self) -> Address {
        let scripts: Vec<_> = self
            .commands()
            .into_iter()
            .filter_map(|command| match command {
                Command::Contend { join, .. } => Some(join),
                _ => None,
            })
            .collect();
        let [script] = scripts[..] else {
            panic!("{} scripts", scripts.len())
        };
        script
    }

    /// A local flight leads; its name.
    fn lead(&mut self) -> (EntryId, FlightId) {
        let (entry, script) = self.contend();
        self.reply(script, Contended::Won { over: false });
        assert_eq!(self.protocol.outcome(entry), Some(ContestOutcome::Lead));
        (entry, script.flight)
    }

    fn reply(&mut self, script: Address, reply: Contended) {
        self.protocol.contended(script.flight, Ok(reply), NOW);
    }

    fn join(&mut self, flight: FlightId, seat: Seat) {
        let join = Message::Join {
            to: address(flight, seat),
            inbox: INBOX,
            asked: 1,
        };
        self.protocol.message(join, NOW);
    }

    fn commands(&mut self) -> Vec<Command> {
        self.protocol.take_commands()
    }

    /// What has been told to others.
    fn told(&mut self) -> Vec<Message> {
        let commands = self.commands().into_iter();
        let messages = commands.filter_map(|command| match command {
            Command::Tell(INBOX, message) => Some(message),
            _ => None,
        });
        messages.collect()
    }

    fn nothing_is_left(&self) {
        let protocol = &self.protocol;
        assert!(protocol.entries.is_empty() && protocol.named.is_empty());
        assert!(protocol.seats.is_empty() && protocol.orphans.is_empty());
        assert!(protocol.values.is_empty() && protocol.takers.is_empty());
    }
}

fn address(flight: FlightId, seat: Seat) -> Address {
    Address {
        digest: KEY,
        flight,
        seat,
    }
}

fn gone(flight: FlightId, seat: Seat, from: Inbox) -> Message {
    Message::Gone {
        to: address(flight, seat),
        from,
    }
}

#[test]
fn a_flight_can_be_joined_before_the_reply_to_its_script_is_there() {
    let mut replica = Replica::new();
    let (entry, script) = replica.contend();
    replica.join(script.flight, Seat(1));
    assert_eq!(replica.told(), []);
    replica.reply(script, Contended::Won { over: false });
    assert!(replica.protocol.end(entry, NOW), "it is followed");
}

#[test]
fn a_forgotten_flight_is_not_joined_whatever_its_owner_says() {
    let mut replica = Replica::new();
    let (_, flight) = replica.lead();
    replica.protocol.forget(KEY);
    replica.commands();
    replica.join(flight, Seat(1));
    let from = replica.protocol.inbox();
    assert_eq!(replica.told(), [gone(flight, Seat(1), from)]);
}

#[test]
fn a_lease_that_a_forgotten_flight_wins_is_released() {
    let mut replica = Replica::new();
    let (_, script) = replica.contend();
    replica.protocol.forget(KEY);
    replica.commands();
    replica.reply(script, Contended::Won { over: false });
    let flight = script.flight;
    let release = Command::Release {
        digest: KEY,
        flight,
    };
    assert!(replica.commands().contains(&release));
}

#[test]
fn a_join_that_comes_behind_its_leave_takes_no_seat() {
    let mut replica = Replica::new();
    let (entry, flight) = replica.lead();
    let to = address(flight, Seat(1));
    replica.protocol.message(Message::Leave { to }, NOW);
    replica.join(flight, Seat(1));
    assert!(!replica.protocol.end(entry, NOW), "nobody follows it");
    replica.nothing_is_left();
}

#[test]
fn an_announcement_that_overtakes_its_join_takes_the_seat() {
    let mut replica = Replica::new();
    let (entry, flight) = replica.lead();
    let cover = Message::Cover {
        to: address(flight, Seat(1)),
        inbox: INBOX,
        asked: 3,
    };
    replica.protocol.message(cover, NOW);
    replica.join(flight, Seat(1));
    assert!(replica.protocol.end(entry, NOW), "it is followed");
    replica.protocol.answer(entry, Ok(Bytes::new()), NOW);
    let told = replica.told();
    assert!(
        matches!(told[..], [Message::Answer { covered: 3, .. }]),
        "{told:?}"
    );
    replica.nothing_is_left();
}

#[test]
fn whoever_contends_again_passes_over_the_flight_that_is_gone() {
    let mut replica = Replica::new();
    let (_, script) = replica.contend();
    let (inbox, flight) = (INBOX, FlightId(5));
    replica.reply(script, Contended::Held { inbox, flight });
    replica
        .protocol
        .message(gone(flight, script.seat, inbox), NOW);
    let over: Vec<_> = replica
        .commands()
        .into_iter()
        .filter_map(|command| match command {
            Command::Contend { pass_over, .. } => Some(pass_over),
            _ => None,
        })
        .collect();
    assert_eq!(over, [Some(flight)]);
}

#[test]
fn a_flight_that_was_gone_before_the_store_named_it_is_passed_over() {
    let mut replica = Replica::new();
    let (_, script) = replica.contend();
    let (inbox, flight) = (INBOX, FlightId(5));
    replica
        .protocol
        .message(gone(flight, script.seat, inbox), NOW);
    replica.reply(script, Contended::Held { inbox, flight });
    let commands = replica.commands();
    let [Command::Contend { pass_over, .. }] = commands[..] else {
        panic!("{commands:?}")
    };
    assert_eq!(pass_over, Some(flight));
}

#[test]
fn a_caller_is_announced_once() {
    let mut replica = Replica::new();
    let (entry, script) = replica.contend();
    let (inbox, flight) = (INBOX, FlightId(5));
    replica.reply(script, Contended::Held { inbox, flight });
    replica.commands();
    replica.protocol.one_more(entry, 1, NOW);
    let mut announced = Vec::new();
    for ms in 10..50 {
        replica.protocol.tick(Duration::from_millis(ms));
        for message in replica.told() {
            if let Message::Cover { asked, .. } = message {
                announced.push((ms, asked));
            }
        }
    }
    assert_eq!(announced, [(12, 2)]);
}

#[test]
fn whoever_contends_again_waits_for_the_store_no_longer_than_patience_in_all() {
    let slow = Some(ContestOutcome::Alone(AloneReason::Slow));
    for (first, second) in [(30, 20), (49, 1), (50, 0)] {
        let mut replica = Replica::new();
        let (entry, script) = replica.contend();
        let (inbox, flight) = (INBOX, FlightId(5));
        let now = NOW + Duration::from_millis(first);
        let held = Ok(Contended::Held { inbox, flight });
        replica.protocol.contended(script.flight, held, now);
        replica
            .protocol
            .message(gone(flight, script.seat, inbox), now);
        for ms in 0..second {
            replica.protocol.tick(now + Duration::from_millis(ms));
            assert_eq!(replica.protocol.outcome(entry), None, "{first} {ms}");
        }
        let contends = |command: &Command| matches!(command, Command::Contend { .. });
        let has_asked = replica.commands().iter().any(contends);
        assert_eq!(has_asked, second > 0, "{first}");
        replica.protocol.tick(now + Duration::from_millis(second));
        assert_eq!(replica.protocol.outcome(entry), slow, "{first}");
    }
}

/// When it renews its lease, of these moments.
fn renewals(replica: &mut Replica, at: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let mut renewals = Vec::new();
    for ms in at {
        replica.protocol.tick(Duration::from_millis(ms));
        let commands = replica.commands();
        let renews = |command: &Command| matches!(command, Command::Renew { .. });
        renewals.extend(commands.iter().any(renews).then_some(ms));
    }
    renewals
}

#[test]
fn a_lease_is_renewed_at_a_third_of_it_and_then_again() {
    let mut replica = Replica::new();
    replica.lead();
    assert_eq!(renewals(&mut replica, 10..350), [110, 210, 310]);
}

#[test]
fn a_lease_that_was_lost_is_neither_renewed_nor_released() {
    let mut replica = Replica::new();
    let (entry, flight) = replica.lead();
    replica.protocol.renewed(flight, false);
    assert!(renewals(&mut replica, 10..350).is_empty());
    replica.protocol.end(entry, NOW);
    assert_eq!(replica.commands(), []);
}

#[test]
fn where_a_large_answer_is_is_told_once_the_store_has_it() {
    let mut replica = Replica::new();
    let (entry, flight) = replica.lead();
    replica.join(flight, Seat(1));
    assert!(replica.protocol.end(entry, NOW));
    replica.commands();
    replica
        .protocol
        .answer(entry, Ok(Bytes::from_static(&[0; 20])), NOW);
    let put = replica.commands();
    let [Command::Put { value, .. }] = put[..] else {
        panic!("{put:?}")
    };
    // Until then it has its seat.
    let to = address(flight, Seat(1));
    let inbox = INBOX;
    replica.protocol.message(Message::Probe { to, inbox }, NOW);
    assert_eq!(replica.told(), [Message::Here { to }]);
    replica.protocol.stored(value, Ok(()));
    let told = replica.told();
    assert!(
        matches!(&told[..], [Message::Answer { body: AnswerBody::Stored(at), .. }] if *at == value),
        "{told:?}"
    );
    replica.protocol.message(Message::Leave { to }, NOW);
    assert_eq!(replica.commands(), [Command::Delete(value)]);
    replica.nothing_is_left();
}

#[test]
fn a_large_answer_that_the_store_refuses_sends_followers_on() {
    let mut replica = Replica::new();
    let (entry, flight) = replica.lead();
    replica.join(flight, Seat(1));
    assert!(replica.protocol.end(entry, NOW));
    replica.commands();
    replica
        .protocol
        .answer(entry, Ok(Bytes::from_static(&[0; 20])), NOW);
    let put = replica.commands();
    let [Command::Put { value, .. }] = put[..] else {
        panic!("{put:?}")
    };
    replica.protocol.stored(value, Err(Refused));
    let alone = Message::Alone {
        to: address(flight, Seat(1)),
        reason: NotShared::TooLarge,
    };
    assert_eq!(replica.told(), [alone]);
    replica.nothing_is_left();
}

#[test]
fn a_large_answer_whose_link_breaks_is_waited_for_by_nobody() {
    let mut replica = Replica::new();
    let (entry, flight) = replica.lead();
    replica.join(flight, Seat(1));
    assert!(replica.protocol.end(entry, NOW));
    replica
        .protocol
        .answer(entry, Ok(Bytes::from_static(&[0; 20])), NOW);
    replica.protocol.unlinked(NOW);
    replica.protocol.linked(NOW);
    replica.commands();
    let to = address(flight, Seat(1));
    let inbox = INBOX;
    replica.protocol.message(Message::Probe { to, inbox }, NOW);
    let from = replica.protocol.inbox();
    assert_eq!(replica.told(), [gone(flight, Seat(1), from)]);
    replica.nothing_is_left();
}

fn stored_answer(flight: FlightId, seat: Seat, value: ValueId) -> Message {
    Message::Answer {
        from: INBOX,
        to: address(flight, seat),
        covered: 1,
        took: Duration::from_secs(1),
        body: AnswerBody::Stored(value),
    }
}

#[test]
fn a_large_answer_for_a_seat_that_nobody_has_is_left() {
    let mut replica = Replica::new();
    let (inbox, flight) = (INBOX, FlightId(5));
    let (entry, script) = replica.contend();
    replica.reply(script, Contended::Held { inbox, flight });
    replica.commands();
    // Whatever it says now is lost.
    replica.protocol.unlinked(NOW);
    let alone = replica.protocol.outcome(entry);
    assert_eq!(alone, Some(ContestOutcome::Alone(AloneReason::Down)));
    replica.protocol.linked(NOW);
    replica.commands();
    let answer = stored_answer(flight, script.seat, ValueId(9));
    replica.protocol.message(answer, NOW);
    let to = address(flight, script.seat);
    assert_eq!(replica.told(), [Message::Leave { to }]);
    replica.protocol.end(entry, NOW);
    replica.nothing_is_left();
}

#[test]
fn a_script_that_nobody_waits_for_leaves_no_seat_behind() {
    let mut replica = Replica::new();
    let (entry, first) = replica.contend();
    let (inbox, flight) = (INBOX, FlightId(5));
    replica.reply(first, Contended::Held { inbox, flight });
    replica
        .protocol
        .message(gone(flight, first.seat, inbox), NOW);
    replica.script();
    // An answer that is in the store no more comes before the second reply, which never comes.
    let answer = stored_answer(flight, first.seat, ValueId(9));
    replica.protocol.message(answer, NOW);
    replica.commands();
    replica.protocol.fetched(first.seat, None, NOW);
    let third = replica.script();
    replica.reply(third, Contended::Won { over: false });
    assert_eq!(replica.protocol.outcome(entry), Some(ContestOutcome::Lead));
    replica.protocol.end(entry, NOW);
    replica.protocol.tick(NOW + Duration::from_secs(1));
    replica.nothing_is_left();
}

#[test]
fn who_joined_a_flight_that_got_its_answer_is_sent_away() {
    let mut replica = Replica::new();
    let (entry, first) = replica.contend();
    let flight = FlightId(5);
    let inbox = INBOX;
    replica.reply(first, Contended::Held { inbox, flight });
    // Its probe crosses the answer, and it wins before it has fetched that.
    replica
        .protocol
        .message(gone(flight, first.seat, inbox), NOW);
    let second = replica.script();
    let value = ValueId(9);
    replica
        .protocol
        .message(stored_answer(flight, first.seat, value), NOW);
    replica.reply(second, Contended::Won { over: false });
    replica.join(second.flight, Seat(1));
    replica.commands();
    let body = Bytes::from_static(&[1]);
    replica.protocol.fetched(first.seat, Some(body), NOW);
    let from = replica.protocol.inbox();
    assert!(replica.told().contains(&gone(second.flight, Seat(1), from)));
    replica.protocol.leave(entry, NOW);
    replica.nothing_is_left();
}

#[test]
fn the_seat_at_a_later_leader_is_left_when_an_earlier_one_answers() {
    let mut replica = Replica::new();
    let (entry, first) = replica.contend();
    let flights = [FlightId(5), FlightId(6)];
    let held = |flight| Contended::Held {
        inbox: INBOX,
        flight,
    };
    replica.reply(first, held(flights[0]));
    // It is not heard of for two probes, and another leads by then.
    replica.protocol.tick(NOW + Duration::from_millis(50));
    replica.protocol.tick(NOW + Duration::from_millis(100));
    let second = replica.script();
    replica.reply(second, held(flights[1]));
    let answer = Message::Answer {
        from: INBOX,
        to: address(flights[0], first.seat),
        covered: 1,
        took: Duration::from_secs(1),
        body: AnswerBody::Inline(Bytes::from_static(&[1])),
    };
    replica.protocol.message(answer, NOW);
    let to = address(flights[1], second.seat);
    assert_eq!(replica.told(), [Message::Leave { to }]);
    replica.protocol.leave(entry, NOW);
    replica.nothing_is_left();
}

#[test]
fn a_join_that_was_refused_is_not_answered_again() {
    let mut replica = Replica::new();
    let (_, flight) = replica.lead();
    replica.protocol.forget(KEY);
    replica.commands();
    replica.join(flight, Seat(1));
    replica.commands();
    replica.join(flight, Seat(1));
    assert_eq!(replica.told(), []);
}

#[test]
fn a_leave_of_another_key_frees_no_seat() {
    let mut replica = Replica::new();
    let (entry, flight) = replica.lead();
    replica.join(flight, Seat(1));
    let to = Address {
        digest: Digest(KEY.0 + 1),
        ..address(flight, Seat(1))
    };
    replica.protocol.message(Message::Leave { to }, NOW);
    assert!(replica.protocol.end(entry, NOW), "it is still followed");
}

#[test]
fn an_answer_over_the_limit_goes_nowhere() {
    let mut replica = Replica::new();
    let (entry, flight) = replica.lead();
    replica.join(flight, Seat(1));
    assert!(replica.protocol.end(entry, NOW));
    replica.commands();
    let answer = Ok(Bytes::from_static(&[0; 65]));
    replica.protocol.answer(entry, answer, NOW);
    let alone = Message::Alone {
        to: address(flight, Seat(1)),
        reason: NotShared::TooLarge,
    };
    assert_eq!(replica.commands(), [Command::Tell(INBOX, alone)]);
    replica.nothing_is_left();
}

#[test]
fn an_answer_as_large_as_the_limit_goes_into_the_store() {
    let mut replica = Replica::new();
    let (entry, flight) = replica.lead();
    replica.join(flight, Seat(1));
    assert!(replica.protocol.end(entry, NOW));
    replica.commands();
    let answer = Ok(Bytes::from_static(&[0; 64]));
    replica.protocol.answer(entry, answer, NOW);
    let commands = replica.commands();
    assert!(
        matches!(commands[..], [Command::Put { .. }]),
        "{commands:?}"
    );
}

#[test]
fn the_seat_whose_answer_is_fetched_is_left_once() {
    let mut replica = Replica::new();
    let (entry, first) = replica.contend();
    let (inbox, flight) = (INBOX, FlightId(5));
    replica.reply(first, Contended::Held { inbox, flight });
    // It is not heard of for two probes, and then answers after all.
    replica.protocol.tick(NOW + Duration::from_millis(50));
    replica.protocol.tick(NOW + Duration::from_millis(100));
    let answer = stored_answer(flight, first.seat, ValueId(9));
    replica.protocol.message(answer, NOW);
    replica.commands();
    let body = Bytes::from_static(&[0; 65]);
    replica.protocol.fetched(first.seat, Some(body), NOW);
    let too_large = AloneReason::Told(NotShared::TooLarge);
    let alone = Some(ContestOutcome::Alone(too_large));
    assert_eq!(replica.protocol.outcome(entry), alone);
    let to = address(flight, first.seat);
    assert_eq!(replica.told(), [Message::Leave { to }]);
}

#[test]
fn an_older_announcement_takes_nothing_back() {
    let mut replica = Replica::new();
    let (entry, flight) = replica.lead();
    replica.join(flight, Seat(1));
    for asked in [5, 3] {
        let (to, inbox) = (address(flight, Seat(1)), INBOX);
        let cover = Message::Cover { to, inbox, asked };
        replica.protocol.message(cover, NOW);
    }
    assert!(replica.protocol.end(entry, NOW));
    replica.protocol.answer(entry, Ok(Bytes::new()), NOW);
    let told = replica.told();
    assert!(
        matches!(told[..], [Message::Answer { covered: 5, .. }]),
        "{told:?}"
    );
}

#[test]
fn whoever_contends_for_callers_that_were_not_covered_begins_anew() {
    let mut replica = Replica::new();
    let (entry, mut script) = replica.contend();
    let inbox = INBOX;
    // Its leaders are gone twice.
    let gone_twice = |replica: &mut Replica, mut script: Address, first: u128| {
        for flight in [first, first + 1].map(FlightId) {
            replica.reply(script, Contended::Held { inbox, flight });
            let gone = gone(flight, script.seat, inbox);
            replica.protocol.message(gone, NOW);
            script = replica.script();
        }
        script
    };
    script = gone_twice(&mut replica, script, 5);
    let flight = FlightId(7);
    replica.reply(script, Contended::Held { inbox, flight });
    let answer = Message::Answer {
        to: address(flight, script.seat),
        from: INBOX,
        covered: 1,
        took: Duration::from_secs(1),
        body: AnswerBody::Inline(Bytes::new()),
    };
    replica.protocol.message(answer, NOW);
    assert!(matches!(
        replica.protocol.outcome(entry),
        Some(ContestOutcome::Answer { covered: 1, .. })
    ));
    replica.commands();
    replica.protocol.again(entry, 9, NOW);
    let commands = replica.commands();
    let [Command::Contend { join, asked: 9, .. }] = commands[..] else {
        panic!("{commands:?}")
    };
    // So often again.
    gone_twice(&mut replica, join, 8);
    assert_eq!(replica.protocol.outcome(entry), None);
}

#[test]
fn who_joined_an_attempt_that_is_given_up_is_sent_away() {
    let mut replica = Replica::new();
    let (_, first) = replica.contend();
    let (inbox, flight) = (INBOX, FlightId(5));
    replica.reply(first, Contended::Held { inbox, flight });
    replica
        .protocol
        .message(gone(flight, first.seat, inbox), NOW);
    let second = replica.script();
    // The store has named it by now, though that is not known here.
    replica.join(second.flight, Seat(1));
    let answer = stored_answer(flight, first.seat, ValueId(9));
    replica.protocol.message(answer, NOW);
    replica.commands();
    replica.protocol.fetched(first.seat, None, NOW);
    let from = replica.protocol.inbox();
    assert!(replica.told().contains(&gone(second.flight, Seat(1), from)));
}

#[test]
fn a_new_flight_of_a_key_shuts_the_older_one() {
    let mut replica = Replica::new();
    let (_, flight) = replica.lead();
    replica.protocol.contend(KEY, None, Open, 2, NOW);
    let release = Command::Release {
        digest: KEY,
        flight,
    };
    assert!(replica.commands().contains(&release));
}

#[test]
fn a_leader_of_whom_nothing_is_heard_is_given_up_after_its_lease_and_two_probes() {
    let mut replica = Replica::new();
    let (entry, script) = replica.contend();
    let (inbox, flight) = (INBOX, FlightId(5));
    let held = Contended::Held { inbox, flight };
    replica.reply(script, held);
    let mut contends = Vec::new();
    for ms in 10..1000 {
        let now = Duration::from_millis(ms);
        replica.protocol.tick(now);
        for command in replica.commands() {
            match command {
                Command::Tell(_, echo @ Message::Echo { .. }) => {
                    replica.protocol.message(echo, now);
                }
                Command::Contend { join, .. } => {
                    contends.push(ms);
                    replica.protocol.contended(join.flight, Ok(held), now);
                }
                _ => {}
            }
        }
    }
    // The first after two probes, the others after one each.
    assert_eq!(contends, [110, 160, 210, 260, 310, 360, 410]);
    let lost = Some(ContestOutcome::Alone(AloneReason::Lost));
    assert_eq!(replica.protocol.outcome(entry), lost);
}

#[test]
fn a_leader_that_answers_its_probes_is_followed_for_as_long_as_its_call_takes() {
    let mut replica = Replica::new();
    let (entry, script) = replica.contend();
    let (inbox, flight) = (INBOX, FlightId(5));
    replica.reply(script, Contended::Held { inbox, flight });
    for ms in 10..2000 {
        let now = Duration::from_millis(ms);
        replica.protocol.tick(now);
        for command in replica.commands() {
            match command {
                Command::Tell(_, echo @ Message::Echo { .. }) => {
                    replica.protocol.message(echo, now);
                }
                Command::Tell(INBOX, Message::Probe { to, .. }) => {
                    replica.protocol.message(Message::Here { to }, now);
                }
                Command::Contend { .. } => panic!("given up at {ms} ms"),
                _ => {}
            }
        }
    }
    assert_eq!(replica.protocol.outcome(entry), None);
    replica.protocol.leave(entry, Duration::from_secs(2));
    replica.nothing_is_left();
}

#[test]
fn whoever_is_refused_by_the_store_makes_its_own_call() {
    let mut replica = Replica::new();
    let (entry, script) = replica.contend();
    replica.protocol.contended(script.flight, Err(Refused), NOW);
    let down = Some(ContestOutcome::Alone(AloneReason::Down));
    assert_eq!(replica.protocol.outcome(entry), down);
    assert!(replica.protocol.is_up());
    replica.protocol.leave(entry, NOW);
    replica.nothing_is_left();
}

#[test]
fn a_store_that_refuses_again_and_again_is_waited_for_by_nobody() {
    let mut replica = Replica::new();
    let (entry, _) = replica.contend();
    for ms in 10..20 {
        replica.protocol.failed(Duration::from_millis(ms));
    }
    assert!(!replica.protocol.is_up());
    let down = Some(ContestOutcome::Alone(AloneReason::Down));
    assert_eq!(replica.protocol.outcome(entry), down);
}
