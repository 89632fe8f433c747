//! Single steps, where a schedule would seldom come to them.

use std::time::Duration;

use bytes::Bytes;

use super::{
    AloneReason, Command, ContestOutcome, EntryId, Local, NotShared, Output, Protocol,
    ProtocolSettings, Refusal, Reply, Time, Unjoined,
};
use crate::replicas::{
    id::{Digest, FlightId, Inbox, Seat},
    message::{Address, AnswerBody, Message},
};

const KEY: Digest = Digest(1);
/// The other replica's, and a flight there.
const INBOX: Inbox = Inbox(7);
const FLIGHT: FlightId = FlightId(5);
/// The other replica's seat in a flight here.
const SEAT: Seat = Seat(1);
const NOW: Time = Duration::from_millis(10);
const LARGE: Bytes = Bytes::from_static(&[0; 20]);

/// A flight that lets everybody join.
#[derive(Clone, Debug)]
struct Open;

impl Local for Open {
    type Seat = ();

    fn join(&self) -> Result<(), Unjoined<()>> {
        Ok(())
    }
}

fn settings() -> ProtocolSettings {
    ProtocolSettings {
        patience: Duration::from_millis(50),
        lease: Duration::from_millis(300),
        probe: Duration::from_millis(50),
        beat: Duration::from_millis(40),
        down_after: Duration::from_millis(100),
        cover: Duration::from_millis(2),
        inline: 8,
        max_body: 64,
        value_life: Duration::from_millis(400),
    }
}

/// One replica, whose store is in use.
struct Replica {
    protocol: Protocol<Open>,
}

impl Replica {
    fn new() -> Self {
        let mut names = 100;
        let ids = move || {
            names += 1;
            names
        };
        let mut protocol = Protocol::new(settings(), Box::new(ids));
        protocol.linked(Time::ZERO);
        protocol.message(Message::Echo { number: 0 }, Time::ZERO);
        assert!(protocol.is_up());
        protocol.take_commands();
        Self { protocol }
    }

    // ===== the local flight =====

    /// A local flight contends; its script.
    fn contend(&mut self) -> (EntryId, Address) {
        let entry = self.protocol.contend(KEY, None, Open, 1, NOW);
        (entry, self.script())
    }

    /// The script that has just been sent.
    fn script(&mut self) -> Address {
        let scripts: Vec<_> = self.scripts().into_iter().map(|(join, _)| join).collect();
        let [script] = scripts[..] else {
            panic!("{} scripts", scripts.len())
        };
        script
    }

    /// The scripts that have been sent, each with the flight that it passes over.
    fn scripts(&mut self) -> Vec<(Address, Option<FlightId>)> {
        let commands = self.commands().into_iter();
        let scripts = commands.filter_map(|command| match command {
            Command::Contend {
                join, pass_over, ..
            } => Some((join, pass_over)),
            _ => None,
        });
        scripts.collect()
    }

    /// A local flight leads.
    fn lead(&mut self) -> (EntryId, FlightId) {
        let (entry, script) = self.contend();
        self.won(script);
        assert_eq!(
            self.protocol.outcome(entry, &mut None),
            Some(ContestOutcome::Lead)
        );
        (entry, script.flight)
    }

    /// A local flight leads, with a follower in [`SEAT`].
    fn lead_followed(&mut self) -> (EntryId, FlightId) {
        let (entry, flight) = self.lead();
        self.join(flight);
        (entry, flight)
    }

    /// A local flight ends with this answer, for a follower in [`SEAT`].
    fn answer(&mut self, answer: Bytes) -> FlightId {
        let (entry, flight) = self.lead_followed();
        assert!(self.end(entry));
        self.commands();
        self.protocol.answer(entry, Ok(answer), NOW);
        flight
    }

    /// A local flight waits for [`FLIGHT`]; its script.
    fn follow(&mut self) -> (EntryId, Address) {
        let (entry, script) = self.contend();
        self.held(script, FLIGHT);
        (entry, script)
    }

    /// The call of a local flight ends; whether it is followed.
    fn end(&mut self, entry: EntryId) -> bool {
        self.protocol.end(entry, NOW)
    }

    fn alone(&mut self, entry: EntryId) -> AloneReason {
        match self.protocol.outcome(entry, &mut None) {
            Some(ContestOutcome::Alone(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    // ===== the store's replies =====

    fn won(&mut self, script: Address) {
        self.reply(script, &Reply::Won { over: false });
    }

    fn held(&mut self, script: Address, flight: FlightId) {
        let inbox = INBOX;
        self.reply(script, &Reply::Held { inbox, flight });
    }

    fn reply(&mut self, script: Address, reply: &Reply) {
        self.protocol.contended(script.flight, reply, NOW);
    }

    // ===== the other replica's messages =====

    fn receive(&mut self, message: Message) {
        self.protocol.message(message, NOW);
    }

    fn join(&mut self, flight: FlightId) {
        self.receive(Message::Join {
            to: address(flight, SEAT),
            inbox: INBOX,
            asked: 1,
        });
    }

    /// It announces so many callers for [`SEAT`].
    fn cover(&mut self, flight: FlightId, asked: u64) {
        self.receive(Message::Cover {
            to: address(flight, SEAT),
            inbox: INBOX,
            asked,
        });
    }

    fn probe(&mut self, flight: FlightId) {
        let (to, inbox) = (address(flight, SEAT), INBOX);
        self.receive(Message::Probe { to, inbox });
    }

    /// Its flight is gone.
    fn gone(&mut self, flight: FlightId, seat: Seat) {
        self.receive(gone(flight, seat, INBOX));
    }

    fn answered(&mut self, flight: FlightId, seat: Seat, body: AnswerBody) {
        self.receive(Message::Answer {
            from: INBOX,
            to: address(flight, seat),
            covered: 1,
            took: Duration::from_secs(1),
            body,
        });
    }

    // ===== what this replica does =====

    fn commands(&mut self) -> Vec<Command> {
        self.protocol.take_commands()
    }

    /// What the other replica has been told.
    fn told(&mut self) -> Vec<Message> {
        let commands = self.commands().into_iter();
        let messages = commands.filter_map(|command| match command {
            Command::Tell(INBOX, message) => Some(message),
            _ => None,
        });
        messages.collect()
    }

    /// [`SEAT`] in a local flight is gone.
    fn sent_away(&self, flight: FlightId) -> Message {
        gone(flight, SEAT, self.protocol.inbox())
    }

    /// An answer has just been put into the store.
    fn put(&mut self) {
        let commands = self.commands();
        assert!(
            matches!(commands[..], [Command::Put { .. }]),
            "{commands:?}"
        );
    }

    /// The number of callers for which it has answered the follower.
    fn covered(&mut self) -> u64 {
        let told = self.told();
        let [Message::Answer { covered, .. }] = told[..] else {
            panic!("{told:?}")
        };
        covered
    }

    /// Lets these milliseconds pass, with a store that echoes. `act` sees what else is done.
    fn pass(
        &mut self,
        time: impl IntoIterator<Item = u64>,
        mut act: impl FnMut(&mut Self, Command, u64),
    ) {
        for ms in time {
            let now = Duration::from_millis(ms);
            self.protocol.tick(now);
            for command in self.commands() {
                match command {
                    Command::Tell(_, echo @ Message::Echo { .. }) => {
                        self.protocol.message(echo, now);
                    }
                    other => act(self, other, ms),
                }
            }
        }
    }

    fn nothing_is_left(&self) {
        let protocol = &self.protocol;
        assert!(protocol.entries.is_empty() && protocol.named.is_empty());
        assert!(protocol.seats.is_empty() && protocol.orphans.is_empty());
        assert!(protocol.values.is_empty());
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
    let to = address(flight, seat);
    Message::Gone { to, from }
}

fn too_large(flight: FlightId) -> Message {
    Message::Alone {
        to: address(flight, SEAT),
        reason: NotShared::TooLarge,
    }
}

fn release(flight: FlightId) -> Command {
    Command::Release {
        digest: KEY,
        flight,
    }
}

// ===== leading =====

#[test]
fn a_flight_can_be_joined_before_the_reply_to_its_script_is_there() {
    let mut replica = Replica::new();
    let (entry, script) = replica.contend();
    replica.join(script.flight);
    assert_eq!(replica.told(), []);
    replica.won(script);
    assert!(replica.end(entry), "it is followed");
}

#[test]
fn a_forgotten_flight_is_not_joined_whatever_its_owner_says() {
    let mut replica = Replica::new();
    let (_, flight) = replica.lead();
    replica.protocol.forget(KEY);
    replica.commands();
    replica.join(flight);
    assert_eq!(replica.told(), [replica.sent_away(flight)]);
}

#[test]
fn a_join_that_was_refused_is_not_answered_again() {
    let mut replica = Replica::new();
    let (_, flight) = replica.lead();
    replica.protocol.forget(KEY);
    replica.join(flight);
    replica.commands();
    replica.join(flight);
    assert_eq!(replica.told(), []);
}

#[test]
fn a_lease_that_a_forgotten_flight_wins_is_released() {
    let mut replica = Replica::new();
    let (_, script) = replica.contend();
    replica.protocol.forget(KEY);
    replica.commands();
    replica.won(script);
    assert!(replica.commands().contains(&release(script.flight)));
}

#[test]
fn a_new_flight_of_a_key_shuts_the_older_one() {
    let mut replica = Replica::new();
    let (_, flight) = replica.lead();
    replica.protocol.contend(KEY, None, Open, 2, NOW);
    assert!(replica.commands().contains(&release(flight)));
}

#[test]
fn a_key_is_forgotten_though_an_older_flight_of_it_has_ended() {
    let mut replica = Replica::new();
    let (older, _) = replica.lead();
    let (_, flight) = replica.lead();
    replica.end(older);
    replica.commands();
    replica.protocol.forget(KEY);
    assert!(replica.commands().contains(&release(flight)));
}

/// Its waker must not be dropped under the lock.
#[test]
fn a_leader_that_leaves_is_woken() {
    let mut replica = Replica::new();
    let (entry, _) = replica.contend();
    let mut waker = Some(std::task::Waker::noop().clone());
    assert_eq!(replica.protocol.outcome(entry, &mut waker), None);
    assert!(waker.is_none());
    replica.protocol.leave(entry, NOW);
    let outputs = replica.protocol.take_output();
    assert!(matches!(outputs[..], [Output::Wake(_)]));
}

#[test]
fn a_join_that_comes_behind_its_leave_takes_no_seat() {
    let mut replica = Replica::new();
    let (entry, flight) = replica.lead();
    let to = address(flight, SEAT);
    replica.receive(Message::Leave { to });
    replica.join(flight);
    assert!(!replica.end(entry), "nobody follows it");
    replica.nothing_is_left();
}

#[test]
fn a_leave_of_another_key_frees_no_seat() {
    let mut replica = Replica::new();
    let (entry, flight) = replica.lead_followed();
    let to = Address {
        digest: Digest(KEY.0 + 1),
        ..address(flight, SEAT)
    };
    replica.receive(Message::Leave { to });
    assert!(replica.end(entry), "it is still followed");
}

#[test]
fn an_announcement_that_overtakes_its_join_takes_the_seat() {
    let mut replica = Replica::new();
    let (entry, flight) = replica.lead();
    replica.cover(flight, 3);
    replica.join(flight);
    assert!(replica.end(entry), "it is followed");
    replica.protocol.answer(entry, Ok(Bytes::new()), NOW);
    assert_eq!(replica.covered(), 3);
    replica.nothing_is_left();
}

#[test]
fn an_older_announcement_takes_nothing_back() {
    let mut replica = Replica::new();
    let (entry, flight) = replica.lead_followed();
    replica.cover(flight, 5);
    replica.cover(flight, 3);
    let to = Address {
        digest: Digest(KEY.0 + 1),
        ..address(flight, SEAT)
    };
    let (inbox, asked) = (INBOX, 7);
    replica.receive(Message::Cover { to, inbox, asked });
    assert!(replica.end(entry));
    replica.protocol.answer(entry, Ok(Bytes::new()), NOW);
    assert_eq!(replica.covered(), 5);
}

#[test]
fn a_follower_that_announces_callers_is_not_silent() {
    let mut replica = Replica::new();
    let (entry, flight) = replica.lead_followed();
    for ms in [150, 300, 400] {
        let now = Duration::from_millis(ms);
        let (to, inbox) = (address(flight, SEAT), INBOX);
        let cover = Message::Cover {
            to,
            inbox,
            asked: ms,
        };
        replica.protocol.tick(now);
        replica.protocol.message(cover, now);
    }
    assert!(replica.end(entry), "it is followed");
}

#[test]
fn a_flight_is_followed_by_so_many_replicas_and_no_more() {
    let mut replica = Replica::new();
    let (_, flight) = replica.lead();
    replica.commands();
    let join = |seat| Message::Join {
        to: address(flight, Seat(seat)),
        inbox: INBOX,
        asked: 1,
    };
    (0..4096).for_each(|seat| replica.receive(join(seat)));
    assert_eq!(replica.told(), []);
    replica.receive(join(4096));
    let told = replica.told();
    let [Message::Alone { reason, .. }] = told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(reason, NotShared::Full);
}

/// A flight that lets nobody join.
#[derive(Clone, Debug)]
struct Shut;

impl Local for Shut {
    type Seat = ();

    fn join(&self) -> Result<(), Unjoined<()>> {
        Err(Unjoined {
            why: Refusal::Gone,
            spare: Some(()),
        })
    }
}

#[test]
fn what_a_flight_that_is_not_joined_gives_back_is_dropped_elsewhere() {
    let mut protocol = Protocol::new(settings(), Box::new(|| 100));
    protocol.linked(Time::ZERO);
    protocol.message(Message::Echo { number: 0 }, Time::ZERO);
    protocol.contend(KEY, None, Shut, 1, NOW);
    let join = Message::Join {
        to: address(FlightId(100), SEAT),
        inbox: INBOX,
        asked: 1,
    };
    protocol.message(join, NOW);
    assert!(matches!(protocol.take_output()[..], [Output::Leave(())]));
}

// ===== the lease =====

/// When it renews its lease, of these moments.
fn renewals(replica: &mut Replica, at: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let mut renewals = Vec::new();
    replica.pass(at, |_, command, ms| {
        let renews = matches!(command, Command::Renew { .. });
        renewals.extend(renews.then_some(ms));
    });
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
    replica.end(entry);
    assert_eq!(replica.commands(), []);
}

// ===== large answers =====

#[test]
fn where_a_large_answer_is_is_told_once_the_store_has_it() {
    let mut replica = Replica::new();
    let flight = replica.answer(LARGE);
    replica.put();
    // Until then it has its seat.
    let to = address(flight, SEAT);
    replica.probe(flight);
    assert_eq!(replica.told(), [Message::Here { to }]);
    replica.protocol.stored(flight, true, NOW);
    let told = replica.told();
    assert!(
        matches!(
            &told[..],
            [Message::Answer {
                body: AnswerBody::Stored,
                ..
            }]
        ),
        "{told:?}"
    );
    replica.receive(Message::Leave { to });
    assert_eq!(replica.commands(), [Command::Delete(flight)]);
    replica.nothing_is_left();
}

#[test]
fn a_large_answer_that_the_store_refuses_sends_followers_on() {
    let mut replica = Replica::new();
    let flight = replica.answer(LARGE);
    replica.put();
    replica.protocol.stored(flight, false, NOW);
    assert_eq!(replica.told(), [too_large(flight)]);
    replica.nothing_is_left();
}

#[test]
fn a_large_answer_whose_link_breaks_is_waited_for_by_nobody() {
    let mut replica = Replica::new();
    let flight = replica.answer(LARGE);
    replica.protocol.unlinked(NOW);
    replica.protocol.linked(NOW);
    replica.commands();
    replica.probe(flight);
    assert_eq!(replica.told(), [replica.sent_away(flight)]);
    replica.nothing_is_left();
}

#[test]
fn a_large_answer_for_a_seat_that_nobody_has_is_left() {
    let mut replica = Replica::new();
    let (entry, script) = replica.follow();
    // Whatever the leader says now is lost.
    replica.protocol.unlinked(NOW);
    assert_eq!(replica.alone(entry), AloneReason::Down);
    replica.protocol.linked(NOW);
    replica.commands();
    replica.answered(FLIGHT, script.seat, AnswerBody::Stored);
    let to = address(FLIGHT, script.seat);
    assert_eq!(replica.told(), [Message::Leave { to }]);
    replica.end(entry);
    replica.nothing_is_left();
}

#[test]
fn an_answer_over_the_limit_goes_nowhere() {
    let mut replica = Replica::new();
    let flight = replica.answer(Bytes::from_static(&[0; 65]));
    assert_eq!(
        replica.commands(),
        [Command::Tell(INBOX, too_large(flight))]
    );
    replica.nothing_is_left();
}

#[test]
fn an_answer_as_long_as_a_message_may_be_is_told_inline() {
    let mut replica = Replica::new();
    let (entry, _) = replica.lead_followed();
    assert!(replica.end(entry));
    replica.commands();
    let body = Bytes::from_static(&[0; 8]);
    replica.protocol.answer(entry, Ok(body.clone()), NOW);
    let told = replica.told();
    let [Message::Answer { body: told, .. }] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(*told, AnswerBody::Inline(body));
    replica.nothing_is_left();
}

#[test]
fn a_large_answer_whose_followers_have_left_before_it_is_stored_is_deleted() {
    let mut replica = Replica::new();
    let (entry, flight) = replica.lead_followed();
    assert!(replica.end(entry));
    replica.commands();
    replica.protocol.answer(entry, Ok(LARGE), NOW);
    replica.put();
    let to = address(flight, SEAT);
    replica.receive(Message::Leave { to });
    assert_eq!(replica.commands(), []);
    replica.protocol.stored(flight, true, NOW);
    assert_eq!(replica.commands(), [Command::Delete(flight)]);
    replica.nothing_is_left();
}

#[test]
fn an_answer_is_taken_up_to_the_limit_whichever_way_it_comes() {
    let too_large = ContestOutcome::Alone(AloneReason::Told(NotShared::TooLarge));
    for (len, is_inline) in [(64, true), (64, false), (65, true), (65, false)] {
        let mut replica = Replica::new();
        let (entry, script) = replica.follow();
        let body = Bytes::from(vec![0; len]);
        if is_inline {
            let body = AnswerBody::Inline(body.clone());
            replica.answered(FLIGHT, script.seat, body);
        } else {
            replica.answered(FLIGHT, script.seat, AnswerBody::Stored);
            let body = Some(body.clone());
            replica.protocol.fetched(script.seat, body, NOW);
        }
        let expected = match len {
            64 => ContestOutcome::Answer { body, covered: 1 },
            _ => too_large.clone(),
        };
        assert_eq!(
            replica.protocol.outcome(entry, &mut None),
            Some(expected),
            "{len}"
        );
    }
}

#[test]
fn an_answer_as_large_as_the_limit_goes_into_the_store() {
    let mut replica = Replica::new();
    replica.answer(Bytes::from_static(&[0; 64]));
    replica.put();
}

#[test]
fn the_seat_whose_answer_is_fetched_is_left_once() {
    let mut replica = Replica::new();
    let (entry, first) = replica.follow();
    // It is not heard of for two probes, and then answers after all.
    replica.protocol.tick(NOW + Duration::from_millis(50));
    replica.protocol.tick(NOW + Duration::from_millis(100));
    replica.answered(FLIGHT, first.seat, AnswerBody::Stored);
    replica.commands();
    let body = Bytes::from_static(&[0; 65]);
    replica.protocol.fetched(first.seat, Some(body), NOW);
    let too_large = AloneReason::Told(NotShared::TooLarge);
    assert_eq!(replica.alone(entry), too_large);
    let to = address(FLIGHT, first.seat);
    assert_eq!(replica.told(), [Message::Leave { to }]);
}

// ===== contending again =====

#[test]
fn whoever_contends_again_passes_over_the_flight_that_is_gone() {
    let mut replica = Replica::new();
    let (_, script) = replica.follow();
    replica.gone(FLIGHT, script.seat);
    let over: Vec<_> = replica
        .scripts()
        .into_iter()
        .map(|(_, over)| over)
        .collect();
    assert_eq!(over, [Some(FLIGHT)]);
}

#[test]
fn a_flight_that_was_gone_before_the_store_named_it_is_passed_over() {
    let mut replica = Replica::new();
    let (_, script) = replica.contend();
    replica.gone(FLIGHT, script.seat);
    replica.held(script, FLIGHT);
    let commands = replica.commands();
    let [Command::Contend { pass_over, .. }] = commands[..] else {
        panic!("{commands:?}")
    };
    assert_eq!(pass_over, Some(FLIGHT));
}

#[test]
fn whoever_contends_again_waits_for_the_store_no_longer_than_patience_in_all() {
    for (first, second) in [(30, 20), (49, 1), (50, 0)] {
        let mut replica = Replica::new();
        let (entry, script) = replica.contend();
        let now = NOW + Duration::from_millis(first);
        let held = Reply::Held {
            inbox: INBOX,
            flight: FLIGHT,
        };
        replica.protocol.contended(script.flight, &held, now);
        let gone = gone(FLIGHT, script.seat, INBOX);
        replica.protocol.message(gone, now);
        for ms in 0..second {
            replica.protocol.tick(now + Duration::from_millis(ms));
            assert_eq!(
                replica.protocol.outcome(entry, &mut None),
                None,
                "{first} {ms}"
            );
        }
        let has_asked = !replica.scripts().is_empty();
        assert_eq!(has_asked, second > 0, "{first}");
        replica.protocol.tick(now + Duration::from_millis(second));
        assert_eq!(replica.alone(entry), AloneReason::Slow, "{first}");
    }
}

#[test]
fn whoever_contends_for_callers_that_were_not_covered_has_its_patience_again() {
    let mut replica = Replica::new();
    let (entry, script) = replica.contend();
    let late = NOW + Duration::from_millis(50);
    let (inbox, flight) = (INBOX, FLIGHT);
    let held = Reply::Held { inbox, flight };
    replica.protocol.contended(script.flight, &held, late);
    let body = AnswerBody::Inline(Bytes::new());
    replica.answered(FLIGHT, script.seat, body);
    assert!(replica.protocol.outcome(entry, &mut None).is_some());
    replica.commands();
    replica.protocol.again(entry, 9, late);
    replica.script();
}

#[test]
fn a_flight_whose_leaders_are_gone_again_and_again_makes_its_own_call() {
    let mut replica = Replica::new();
    let (entry, mut script) = replica.contend();
    for flight in [5, 6, 7].map(FlightId) {
        assert_eq!(replica.protocol.outcome(entry, &mut None), None);
        replica.held(script, flight);
        replica.gone(flight, script.seat);
        script = replica.scripts().pop().map_or(script, |(join, _)| join);
    }
    assert_eq!(replica.alone(entry), AloneReason::Lost);
}

#[test]
fn a_script_that_nobody_waits_for_leaves_no_seat_behind() {
    let mut replica = Replica::new();
    let (entry, first) = replica.follow();
    replica.gone(FLIGHT, first.seat);
    replica.script();
    // An answer that is in the store no more comes before the second reply, which never comes.
    replica.answered(FLIGHT, first.seat, AnswerBody::Stored);
    replica.commands();
    replica.protocol.fetched(first.seat, None, NOW);
    let third = replica.script();
    replica.won(third);
    assert_eq!(
        replica.protocol.outcome(entry, &mut None),
        Some(ContestOutcome::Lead)
    );
    replica.end(entry);
    replica.protocol.tick(NOW + Duration::from_secs(1));
    replica.nothing_is_left();
}

#[test]
fn who_joined_a_flight_that_got_its_answer_is_sent_away() {
    let mut replica = Replica::new();
    let (entry, first) = replica.follow();
    // Its probe crosses the answer, and it wins before it has fetched that.
    replica.gone(FLIGHT, first.seat);
    let second = replica.script();
    replica.answered(FLIGHT, first.seat, AnswerBody::Stored);
    replica.won(second);
    replica.join(second.flight);
    replica.commands();
    replica.protocol.take_output();
    let body = Bytes::from_static(&[1]);
    replica.protocol.fetched(first.seat, Some(body), NOW);
    let sent_away = replica.sent_away(second.flight);
    assert!(replica.told().contains(&sent_away));
    let output = replica.protocol.take_output();
    assert!(matches!(output[..], [Output::Leave(())]));
    replica.join(second.flight);
    assert_eq!(replica.told(), [sent_away]);
    replica.protocol.leave(entry, NOW);
    replica.nothing_is_left();
}

#[test]
fn who_joined_an_attempt_that_is_given_up_is_sent_away() {
    let mut replica = Replica::new();
    let (_, first) = replica.follow();
    replica.gone(FLIGHT, first.seat);
    let second = replica.script();
    // The store has named it by now, though that is not known here.
    replica.join(second.flight);
    replica.answered(FLIGHT, first.seat, AnswerBody::Stored);
    replica.commands();
    replica.protocol.fetched(first.seat, None, NOW);
    assert!(replica.told().contains(&replica.sent_away(second.flight)));
}

#[test]
fn the_seat_at_a_later_leader_is_left_when_an_earlier_one_answers() {
    let mut replica = Replica::new();
    let (entry, first) = replica.follow();
    // It is not heard of for two probes, and another leads by then.
    replica.protocol.tick(NOW + Duration::from_millis(50));
    replica.protocol.tick(NOW + Duration::from_millis(100));
    let second = replica.script();
    let later = FlightId(6);
    replica.held(second, later);
    let body = AnswerBody::Inline(Bytes::from_static(&[1]));
    replica.answered(FLIGHT, first.seat, body);
    let to = address(later, second.seat);
    assert_eq!(replica.told(), [Message::Leave { to }]);
    replica.protocol.leave(entry, NOW);
    replica.nothing_is_left();
}

#[test]
fn whoever_contends_for_callers_that_were_not_covered_begins_anew() {
    let mut replica = Replica::new();
    let (entry, script) = replica.contend();
    // Its leaders are gone twice.
    let gone_twice = |replica: &mut Replica, mut script: Address, first: u128| {
        for flight in [first, first + 1].map(FlightId) {
            replica.held(script, flight);
            replica.gone(flight, script.seat);
            script = replica.script();
        }
        script
    };
    let script = gone_twice(&mut replica, script, 5);
    let flight = FlightId(7);
    replica.held(script, flight);
    replica.answered(flight, script.seat, AnswerBody::Inline(Bytes::new()));
    assert!(matches!(
        replica.protocol.outcome(entry, &mut None),
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
    assert_eq!(replica.protocol.outcome(entry, &mut None), None);
}

// ===== waiting =====

#[test]
fn a_caller_is_announced_once() {
    let mut replica = Replica::new();
    let (entry, _) = replica.follow();
    replica.commands();
    replica.protocol.one_more(entry, 1, NOW);
    let mut announced = Vec::new();
    replica.pass(10..50, |_, command, ms| {
        if let Command::Tell(INBOX, Message::Cover { asked, .. }) = command {
            announced.push((ms, asked));
        }
    });
    assert_eq!(announced, [(12, 2)]);
}

#[test]
fn a_caller_that_comes_when_an_announcement_is_due_is_announced_at_once() {
    let mut replica = Replica::new();
    let (entry, _) = replica.follow();
    replica.commands();
    let later = NOW + Duration::from_millis(2);
    replica.protocol.one_more(entry, 4, later);
    let told = replica.told();
    assert!(
        matches!(told[..], [Message::Cover { asked: 5, .. }]),
        "{told:?}"
    );
}

#[test]
fn a_leader_of_whom_nothing_is_heard_is_given_up_after_its_lease_and_two_probes() {
    let mut replica = Replica::new();
    let (entry, _) = replica.follow();
    let mut contends = Vec::new();
    let held = Reply::Held {
        inbox: INBOX,
        flight: FLIGHT,
    };
    replica.pass(10..1000, |replica, command, ms| {
        if let Command::Contend { join, .. } = command {
            contends.push(ms);
            let now = Duration::from_millis(ms);
            replica.protocol.contended(join.flight, &held, now);
        }
    });
    // The first after two probes, the others after one each.
    assert_eq!(contends, [110, 160, 210, 260, 310, 360, 410]);
    assert_eq!(replica.alone(entry), AloneReason::Lost);
}

#[test]
fn a_leader_that_answers_its_probes_is_followed_for_as_long_as_its_call_takes() {
    let mut replica = Replica::new();
    let (entry, _) = replica.follow();
    replica.pass(10..2000, |replica, command, ms| match command {
        Command::Tell(INBOX, Message::Probe { to, .. }) => {
            let now = Duration::from_millis(ms);
            replica.protocol.message(Message::Here { to }, now);
        }
        Command::Contend { .. } => panic!("given up at {ms} ms"),
        _ => {}
    });
    assert_eq!(replica.protocol.outcome(entry, &mut None), None);
    replica.protocol.leave(entry, Duration::from_secs(2));
    replica.nothing_is_left();
}

#[test]
fn whoever_is_refused_by_the_store_makes_its_own_call() {
    let mut replica = Replica::new();
    let (entry, script) = replica.contend();
    replica
        .protocol
        .contended(script.flight, &Reply::Refused, NOW);
    assert_eq!(replica.alone(entry), AloneReason::Down);
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
    assert_eq!(replica.alone(entry), AloneReason::Down);
}

#[test]
fn a_store_that_refuses_three_scripts_in_a_row_is_waited_for_by_nobody() {
    let mut replica = Replica::new();
    for ms in 10..13 {
        assert!(replica.protocol.is_up());
        let now = Duration::from_millis(ms);
        let (entry, script) = replica.contend();
        replica
            .protocol
            .contended(script.flight, &Reply::Refused, now);
        replica.protocol.leave(entry, now);
    }
    assert!(!replica.protocol.is_up());
}

#[test]
fn a_reply_of_the_store_takes_back_what_was_in_vain() {
    let mut replica = Replica::new();
    for ms in 10..20 {
        replica.protocol.failed(Duration::from_millis(ms));
        let (_, script) = replica.contend();
        replica.won(script);
    }
    assert!(replica.protocol.is_up());
    for ms in 20..30 {
        replica.protocol.failed(Duration::from_millis(ms));
        let (_, script) = replica.contend();
        replica.held(script, FLIGHT);
    }
    assert!(replica.protocol.is_up());
}

#[test]
fn a_link_is_silent_from_its_first_beat_on() {
    let ms = Duration::from_millis;
    let mut replica = Replica::new();
    replica.protocol.tick(ms(40));
    assert_eq!(replica.protocol.silence(ms(100)), ms(60));
    replica.protocol.unlinked(ms(100));
    replica.protocol.tick(ms(480));
    replica.protocol.linked(ms(500));
    assert_eq!(replica.protocol.silence(ms(510)), ms(10));
}

#[test]
fn what_is_forgotten_without_a_link_is_told_to_nobody() {
    let mut replica = Replica::new();
    replica.protocol.unlinked(NOW);
    replica.protocol.forget(KEY);
    replica.protocol.forget_all();
    assert_eq!(replica.commands(), []);
}

#[test]
fn a_script_whose_link_breaks_is_waited_for_by_nobody() {
    let mut replica = Replica::new();
    let (entry, _) = replica.contend();
    replica.protocol.leave(entry, NOW);
    replica.protocol.unlinked(NOW);
    replica.nothing_is_left();
}

#[test]
fn three_scripts_in_a_row_without_a_reply_are_waited_for_and_no_more() {
    let ms = Duration::from_millis;
    let mut replica = Replica::new();
    for (number, at) in [(0, 10), (1, 60), (2, 111)] {
        assert!(replica.protocol.is_up());
        let entry = replica.protocol.contend(KEY, None, Open, 1, ms(at));
        replica.protocol.tick(ms(at + 50));
        let slow = Some(ContestOutcome::Alone(AloneReason::Slow));
        assert_eq!(replica.protocol.outcome(entry, &mut None), slow);
        // Too slow to say that the store is in use.
        if number == 1 {
            replica.protocol.message(Message::Echo { number }, ms(111));
        }
    }
    assert!(!replica.protocol.is_up());
}

#[test]
fn a_store_whose_echoes_are_slow_three_times_in_a_row_is_waited_for_by_nobody() {
    let ms = Duration::from_millis;
    let mut replica = Replica::new();
    for (number, at) in [(1, 40), (2, 120), (3, 200)] {
        assert!(replica.protocol.is_up());
        replica.protocol.tick(ms(at));
        let entry = replica.protocol.contend(KEY, None, Open, 1, ms(at + 55));
        let echo = Message::Echo { number };
        replica.protocol.message(echo, ms(at + 60));
        let down = Some(ContestOutcome::Alone(AloneReason::Down));
        let expected = if number == 3 { down } else { None };
        assert_eq!(
            replica.protocol.outcome(entry, &mut None),
            expected,
            "{number}"
        );
        replica.protocol.leave(entry, ms(at + 60));
    }
}

#[test]
fn an_outcome_that_was_given_is_not_given_again_when_the_store_refuses() {
    let mut replica = Replica::new();
    let (entry, script) = replica.contend();
    let late = NOW + Duration::from_millis(50);
    replica.protocol.tick(late);
    assert_eq!(replica.alone(entry), AloneReason::Slow);
    replica
        .protocol
        .contended(script.flight, &Reply::Refused, late);
    assert_eq!(replica.protocol.outcome(entry, &mut None), None);
    assert_eq!(replica.protocol.stats().alone_down, 0);
}

#[test]
fn a_lease_that_a_script_wins_for_nobody_is_released() {
    let mut replica = Replica::new();
    let (entry, script) = replica.contend();
    replica.protocol.leave(entry, NOW);
    replica.commands();
    replica.won(script);
    assert_eq!(replica.commands(), [release(script.flight)]);
    replica.nothing_is_left();
}

#[test]
fn an_answer_that_comes_before_the_stores_reply_is_fetched_all_the_same() {
    let mut replica = Replica::new();
    let (entry, script) = replica.contend();
    replica.answered(FLIGHT, script.seat, AnswerBody::Stored);
    replica.commands();
    replica.held(script, FLIGHT);
    assert_eq!(replica.told(), []);
    let body = Bytes::from_static(&[1]);
    replica
        .protocol
        .fetched(script.seat, Some(body.clone()), NOW);
    let covered = 1;
    assert_eq!(
        replica.protocol.outcome(entry, &mut None),
        Some(ContestOutcome::Answer { body, covered })
    );
}

#[test]
fn a_leader_that_is_followed_again_is_probed_at_once_and_was_heard_of_when_it_was_first_named() {
    let ms = Duration::from_millis;
    let mut replica = Replica::new();
    let (inbox, flight) = (INBOX, FLIGHT);
    let held = Reply::Held { inbox, flight };
    let entry = replica.protocol.contend(KEY, None, Open, 1, ms(5000));
    let script = replica.script();
    replica.protocol.contended(script.flight, &held, ms(5000));
    let mut probed = 0;
    replica.pass(5000..5130, |replica, command, at| {
        if let Command::Contend { join, .. } = command {
            replica.protocol.contended(join.flight, &held, ms(at));
            let told = replica.told();
            assert!(matches!(told[..], [Message::Probe { .. }]), "{told:?}");
            probed += 1;
        }
    });
    assert_eq!(
        (probed, replica.protocol.outcome(entry, &mut None)),
        (1, None)
    );
}
