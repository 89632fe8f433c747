//! The replicas and the store.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::{
    event::Event,
    flight::{Call, FlightRef, LocalFlight},
    observed::Observed,
    rng::Rng,
    settings,
    weather::Weather,
};
use crate::replicas::{
    contents::StoreContents,
    id::{FlightId, Inbox},
    message::Message,
    protocol::{EntryId, Protocol, Time},
};

pub(super) struct Replica {
    pub(super) protocol: Protocol<LocalFlight>,
    pub(super) flights: Vec<FlightRef>,
    pub(super) by_entry: HashMap<EntryId, FlightRef>,
    pub(super) next_number: u64,
    /// The link to the store: what came over an older one is lost.
    pub(super) link: u64,
    pub(super) linked: bool,
    pub(super) paused: bool,
    pub(super) dead: bool,
    pub(super) died_at: Time,
    pub(super) held: Vec<Event>,
    pub(super) ticks: Time,
    /// When it last became live and linked.
    pub(super) well_since: Time,
}

#[derive(Default)]
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) verbose: bool,
    pub(super) rng: Rng,
    pub(super) weather: Weather,
    pub(super) now: Time,
    pub(super) step: u64,
    /// Steps since the clock last moved.
    pub(super) busy: u32,
    /// By when they happen, and in which order.
    pub(super) events: BTreeMap<(Time, u64), Event>,
    pub(super) order: u64,
    /// Events that don't follow from others.
    pub(super) scripted: usize,
    pub(super) replicas: Vec<Replica>,
    pub(super) keys: usize,
    pub(super) contents: StoreContents,
    pub(super) stopped: bool,
    pub(super) held: Vec<Event>,
    /// Since when the store does what it is asked; `None` while it does not.
    pub(super) store_well: Option<Time>,
    pub(super) store_ill: Option<Time>,
    /// All flights that there were, and at which replicas.
    pub(super) all: Vec<(usize, FlightRef)>,
    pub(super) calls: Vec<Call>,
    /// When somebody last said that a key is to be forgotten.
    pub(super) forgot: Vec<Option<Time>>,
    /// The same, by who said so.
    pub(super) forgot_by: HashMap<(usize, usize), Time>,
    pub(super) told: HashMap<FlightId, HashMap<Inbox, u64>>,
    /// When what was sent last on a link arrives.
    pub(super) to_store: Vec<Time>,
    pub(super) from_store: Vec<Time>,
    pub(super) inboxes: Vec<Inbox>,
    pub(super) old: Vec<Message>,
    pub(super) served: usize,
    pub(super) asked: usize,
    pub(super) departed: usize,
    pub(super) healing: bool,
    pub(super) rules: Observed,
    /// When the last caller had what it wanted, or had gone.
    pub(super) deserted: Option<Time>,
}

// ===== impl World =====

impl World {
    pub(super) fn birth(&mut self, at: u64) -> Replica {
        let mut ids = Rng(self.seed ^ (at + 1).wrapping_mul(0xD6E8_FEB8_6659_FD93) ^ self.step);
        let protocol = Protocol::new(
            settings(),
            Box::new(move || u128::from(ids.next()) << 64 | u128::from(ids.next())),
        );
        Replica {
            protocol,
            flights: Vec::new(),
            by_entry: HashMap::new(),
            next_number: 0,
            link: 0,
            linked: false,
            paused: false,
            dead: false,
            died_at: Time::MAX,
            held: Vec::new(),
            ticks: Time::MAX,
            well_since: Time::MAX,
        }
    }

    pub(super) fn at(&mut self, at: Time, event: Event) {
        self.order += 1;
        self.events.insert((at, self.order), event);
    }

    pub(super) fn delay(&mut self) -> Duration {
        let longest = self.weather.longest;
        let least = Duration::from_micros(20);
        match self.rng.chance(80) {
            true => self.rng.between(least, longest / 4),
            false => self.rng.between(least, longest),
        }
    }

    pub(super) fn fail(&self, what: &str) -> ! {
        panic!(
            "{what}\nat {:?}, step {}; REPLICAS_SEED={} runs this schedule alone",
            self.now, self.step, self.seed
        )
    }

    pub(super) fn ill(&mut self) {
        self.store_well = None;
        self.store_ill.get_or_insert(self.now);
    }

    pub(super) fn well(&mut self) {
        self.store_well.get_or_insert(self.now);
        self.store_ill = None;
    }
}
