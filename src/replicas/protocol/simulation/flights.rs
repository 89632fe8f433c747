//! Callers who come and go, and what becomes of their flights.

use std::{cell::RefCell, rc::Rc};

use bytes::Bytes;

use super::{
    digest,
    event::Event,
    flight::{Call, Caller, Flight, FlightRef, LocalFlight},
    ms,
    world::World,
};
use crate::replicas::protocol::{ContestOutcome, EntryId, NotShared, Time};

impl World {
    pub(super) fn arrive(&mut self, at: usize, key: usize) {
        self.asked += 1;
        let (now, step) = (self.now, self.step);
        let replica = &mut self.replicas[at];
        let number = replica.next_number;
        replica.next_number += 1;
        let caller = Caller {
            number,
            asked: step,
            at: now,
        };
        let joined = replica.flights.iter().find(|flight| {
            let flight = flight.borrow();
            flight.key == key && flight.open && !flight.over
        });
        if let Some(flight) = joined {
            flight.borrow_mut().callers.push(caller);
            let entry = flight.borrow().entry;
            if let Some(entry) = entry {
                replica.protocol.one_more(entry, number, now);
            }
        } else {
            let max_waiters = match self.rng.chance(10) {
                true => 2,
                false => usize::MAX,
            };
            let flight = Rc::new(RefCell::new(Flight {
                key,
                open: true,
                linked: true,
                max_waiters,
                began: now,
                callers: vec![caller],
                ..Flight::default()
            }));
            let replica = &mut self.replicas[at];
            replica.flights.push(Rc::clone(&flight));
            let local = LocalFlight(Rc::clone(&flight));
            let entry = replica
                .protocol
                .contend(digest(key), None, local, number + 1, now);
            flight.borrow_mut().entry = Some(entry);
            replica.by_entry.insert(entry, Rc::clone(&flight));
            self.all.push((at, flight));
        }
        self.drain(at);
    }

    pub(super) fn depart(&mut self, at: usize, pick: u64) {
        let replica = &self.replicas[at];
        let all: Vec<_> = replica
            .flights
            .iter()
            .flat_map(|flight| {
                let callers = flight.borrow().callers.len();
                (0..callers).map(move |caller| (Rc::clone(flight), caller))
            })
            .collect();
        if all.is_empty() {
            return;
        }
        let (flight, caller) = &all[pick as usize % all.len()];
        flight.borrow_mut().callers.remove(*caller);
        self.departed += 1;
        self.cancel_if_deserted(at, flight);
        self.drain(at);
    }

    pub(super) fn cancel_if_deserted(&mut self, at: usize, flight: &FlightRef) {
        let mut state = flight.borrow_mut();
        if state.over || !state.callers.is_empty() || state.seats > 0 {
            return;
        }
        state.over = true;
        state.close();
        let (entry, call) = (state.entry.take(), state.call);
        drop(state);
        if let Some(call) = call {
            self.calls[call].gone = true;
            self.calls[call].ended_at = self.now;
        }
        if let Some(entry) = entry {
            self.replicas[at].by_entry.remove(&entry);
            self.replicas[at].protocol.leave(entry, self.now);
        }
        self.bury(at);
    }

    pub(super) fn bury(&mut self, at: usize) {
        self.replicas[at]
            .flights
            .retain(|flight| !flight.borrow().over);
    }

    pub(super) fn settled(&mut self, at: usize, entry: EntryId) {
        let Some(outcome) = self.replicas[at].protocol.outcome(entry, &mut None) else {
            return;
        };
        let Some(flight) = self.replicas[at].by_entry.get(&entry).map(Rc::clone) else {
            self.fail("an outcome for nobody")
        };
        if self.verbose {
            eprintln!("{:>9?}   replica {at} {entry:?}: {outcome:?}", self.now);
        }
        self.watch_outcome(at, entry, &outcome);
        match outcome {
            ContestOutcome::Lead | ContestOutcome::Alone(_) => {
                let leads = outcome == ContestOutcome::Lead;
                self.check_outcome(at, &flight.borrow(), &outcome);
                let call = self.calls.len();
                let key = flight.borrow().key;
                flight.borrow_mut().call = Some(call);
                self.calls.push(Call {
                    key,
                    replica: at,
                    leads,
                    began: self.now,
                    ..Call::default()
                });
                let longest = ms(self.rng.pick([5, 60, 400]));
                let ends = self.now + self.rng.between(ms(0), longest);
                self.at(ends, Event::CallEnds { replica: at, call });
            }
            ContestOutcome::Answer { body, covered } => {
                let call =
                    u32::from_be_bytes(*body.first_chunk().expect("as it was made")) as usize;
                let inbox = self.replicas[at].protocol.inbox();
                let mut state = flight.borrow_mut();
                if self.calls[call].key != state.key {
                    self.fail("R5: an answer of another key");
                }
                let Some(ended) = self.calls[call].ended else {
                    self.fail("an answer of a call that has not ended")
                };
                let told = self.calls[call].told.get(&inbox).copied().unwrap_or(0);
                let (answered, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut state.callers)
                    .into_iter()
                    .partition(|caller| caller.number < covered);
                for caller in &answered {
                    if caller.asked > ended {
                        self.fail("R4: an answer of a call that had ended before the question");
                    }
                    if caller.number >= told {
                        self.fail("R4: the leader had not been told of this caller");
                    }
                    // Exact where the one who said so asks, and messages keep their order.
                    let forgot = self.forgot_by.get(&(at, state.key)).copied();
                    if self.weather.calm
                        && forgot.is_some_and(|at| caller.at > at && self.calls[call].began < at)
                    {
                        self.fail(
                            "an answer of a call that had been forgotten before the question",
                        );
                    }
                }
                self.served += answered.len();
                state.callers = rest;
                if self.weather.calm && !self.weather.forget {
                    let ended = self.calls[call].ended_at;
                    self.check_covered(&state.callers, ended);
                }
                let last = state.callers.last().map(|caller| caller.number);
                if let Some(last) = last {
                    drop(state);
                    self.replicas[at].protocol.again(entry, last + 1, self.now);
                } else {
                    // Whoever has joined from elsewhere found no call here.
                    state.over = true;
                    state.close();
                    state.entry = None;
                    drop(state);
                    self.replicas[at].by_entry.remove(&entry);
                    self.replicas[at].protocol.leave(entry, self.now);
                    self.bury(at);
                }
            }
        }
    }

    pub(super) fn call_ends(&mut self, at: usize, call: usize) {
        if self.calls[call].gone {
            return;
        }
        let found = self.replicas[at]
            .flights
            .iter()
            .find(|flight| flight.borrow().call == Some(call));
        let flight = Rc::clone(found.expect("its flight is there until it ends"));
        let entry = flight.borrow_mut().entry.take().expect("it contended");
        let name = self.replicas[at].protocol.entries[&entry].flight;
        self.calls[call].ended = Some(self.step);
        self.calls[call].ended_at = self.now;
        self.calls[call].told = self.told.remove(&name).unwrap_or_default();
        let followed = self.replicas[at].protocol.end(entry, self.now);
        {
            let mut flight = flight.borrow_mut();
            flight.open = false;
            flight.over = true;
            self.served += flight.callers.len();
            for caller in flight.callers.drain(..) {
                if caller.asked > self.step {
                    self.fail("R4: a local answer older than its question");
                }
            }
        }
        self.replicas[at].by_entry.remove(&entry);
        self.bury(at);
        if followed {
            // Writing it down may take a while.
            match self.rng.chance(70) {
                true => {
                    let answer = self.outcome(call);
                    self.replicas[at].protocol.answer(entry, answer, self.now);
                }
                false => {
                    let later = self.now + self.rng.between(Time::ZERO, ms(3));
                    self.at(
                        later,
                        Event::Answers {
                            replica: at,
                            call,
                            entry,
                        },
                    );
                }
            }
        }
        self.drain(at);
    }

    pub(super) fn outcome(&mut self, call: usize) -> Result<Bytes, NotShared> {
        if !self.rng.chance(self.weather.shareable) {
            return Err(NotShared::Unshareable);
        }
        let len = self.rng.pick([4, 4, 4, 40, 40, 80]);
        let mut body = vec![0; len];
        body[..4].copy_from_slice(&(call as u32).to_be_bytes());
        Ok(body.into())
    }
}
