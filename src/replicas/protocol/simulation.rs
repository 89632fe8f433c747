//! The protocol under a scheduler that is out to break it.
//!
//! Each schedule is made of a seed: a few replicas, keys and callers, and a network that delays, reorders, drops and doubles,
//! with replicas and a store that stop, die and come back. After every step the promises R1 to R6 are checked (the
//! `check_...` functions say how), and at the end, when everything works again, that everybody has been served and nothing
//! is left.
//!
//! `REPLICAS_SCHEDULES` sets the number of schedules, `REPLICAS_SEED` runs one alone and prints its steps.

use std::{
    cell::RefCell,
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, HashSet},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;

use super::{
    Command, Contended, EntryId, Local, Output, Protocol, Reason, Refusal, Refused, Settings, Time,
    Unjoined, Verdict, Why, entry::Part,
};
use crate::replicas::{
    id::{Digest, FlightId, Inbox, Seat, ValueId},
    message::{Address, Message},
    shelf::Shelf,
};

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn settings() -> Settings {
    Settings {
        patience: ms(50),
        lease: ms(300),
        probe: ms(50),
        beat: ms(40),
        down_after: ms(100),
        cover: ms(2),
        inline: 24,
        max_body: 64,
        value_life: ms(400),
    }
}

/// What late timers may add to a bound.
const SLACK: Duration = ms(1);

// ===== Rng =====

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn between(&mut self, from: Duration, to: Duration) -> Duration {
        from + Duration::from_micros(self.below((to - from).as_micros() as u64 + 1))
    }
}

// ===== the local flights =====

/// What a real flight does, as far as the protocol can tell.
#[derive(Debug)]
struct Flight {
    key: usize,
    /// Whether a caller may join here.
    open: bool,
    /// Whether one could join from elsewhere: a moment longer, after the call's end.
    linked: bool,
    max_waiters: usize,
    entry: Option<EntryId>,
    callers: Vec<Caller>,
    seats: usize,
    call: Option<usize>,
    over: bool,
}

#[derive(Clone, Debug)]
struct Caller {
    number: u64,
    asked: u64,
    at: Time,
}

type FlightRef = Rc<RefCell<Flight>>;

#[derive(Clone)]
struct LocalFlight(FlightRef);

#[derive(Clone)]
struct SeatGuard(FlightRef);

impl Local for LocalFlight {
    type Seat = SeatGuard;

    fn join(&self) -> Result<SeatGuard, Unjoined<SeatGuard>> {
        let mut flight = self.0.borrow_mut();
        if !flight.linked {
            return Err(Refusal::Gone.into());
        }
        if flight.callers.len() + flight.seats >= flight.max_waiters {
            return Err(Refusal::Alone(Reason::Full).into());
        }
        flight.seats += 1;
        Ok(SeatGuard(Rc::clone(&self.0)))
    }
}

// ===== the world =====

struct Replica {
    protocol: Protocol<LocalFlight>,
    flights: Vec<FlightRef>,
    by_entry: HashMap<EntryId, FlightRef>,
    next_number: u64,
    /// The link to the store: what came over an older one is lost.
    link: u64,
    linked: bool,
    paused: bool,
    dead: bool,
    held: Vec<Event>,
    ticks: Time,
    /// When it last became live and linked.
    well_since: Time,
}

struct Call {
    key: usize,
    replica: usize,
    leads: bool,
    ended: Option<u64>,
    gone: bool,
    began: Time,
    /// Or when it was given up.
    ended_at: Time,
    /// How many callers of each follower's inbox the leader had been told of when it ended.
    told: HashMap<Inbox, u64>,
}

#[derive(Clone, Debug)]
enum Event {
    Arrive {
        replica: usize,
        key: usize,
    },
    Depart {
        replica: usize,
        pick: u64,
    },
    CallEnds {
        replica: usize,
        call: usize,
    },
    Answers {
        replica: usize,
        call: usize,
        entry: EntryId,
    },
    ToStore {
        replica: usize,
        link: u64,
        command: Command,
    },
    Contended {
        replica: usize,
        link: u64,
        flight: FlightId,
        reply: Result<Contended, Refused>,
    },
    Renewed {
        replica: usize,
        link: u64,
        flight: FlightId,
        is_ours: bool,
    },
    Heard {
        replica: usize,
        link: u64,
        seat: Seat,
        receivers: usize,
    },
    Fetched {
        replica: usize,
        link: u64,
        seat: Seat,
        body: Option<Bytes>,
    },
    Stored {
        replica: usize,
        link: u64,
        value: ValueId,
        reply: Result<(), Refused>,
    },
    Message {
        replica: usize,
        link: u64,
        message: Message,
    },
    Tick {
        replica: usize,
    },
    Forget {
        replica: usize,
        key: usize,
    },
    ForgetAll {
        replica: usize,
    },
    Stop,
    Resume,
    Restart,
    LoseLease {
        key: usize,
    },
    Unlink {
        replica: usize,
    },
    Link {
        replica: usize,
    },
    Pause {
        replica: usize,
    },
    Unpause {
        replica: usize,
    },
    Kill {
        replica: usize,
    },
}

impl Event {
    fn is_scripted(&self) -> bool {
        matches!(
            self,
            Self::Arrive { .. }
                | Self::Depart { .. }
                | Self::Forget { .. }
                | Self::ForgetAll { .. }
                | Self::Stop
                | Self::Resume
                | Self::Restart
                | Self::LoseLease { .. }
                | Self::Pause { .. }
                | Self::Unpause { .. }
                | Self::Kill { .. }
        )
    }
}

/// What the network and the machines do in a schedule.
#[derive(Clone, Copy, Debug)]
struct Weather {
    /// Nothing fails, and what is sent arrives in order.
    calm: bool,
    /// Receivers of a message can be counted, and one link keeps its order.
    single: bool,
    longest: Duration,
    lose: u64,
    double: u64,
    misdirect: u64,
    faults: u64,
    forget: bool,
    shareable: u64,
    /// How many values the store has no room for.
    refuse: u64,
    /// Nothing fails, is lost or goes astray, though it may take its time.
    gentle: bool,
}

struct World {
    seed: u64,
    verbose: bool,
    rng: Rng,
    weather: Weather,
    now: Time,
    step: u64,
    events: BinaryHeap<Reverse<(Time, u64, usize)>>,
    slots: Vec<Option<Event>>,
    free: Vec<usize>,
    order: u64,
    /// Events that don't follow from others.
    scripted: usize,
    replicas: Vec<Replica>,
    keys: usize,
    shelf: Shelf,
    stopped: bool,
    held: Vec<Event>,
    /// Since when the store does what it is asked; `None` while it does not.
    store_well: Option<Time>,
    store_ill: Option<Time>,
    calls: Vec<Call>,
    /// When the store was told to release which lease.
    released: Vec<(Digest, Time)>,
    /// When somebody last said that a key is to be forgotten.
    forgot: Vec<Option<Time>>,
    /// The same, by who said so.
    forgot_by: HashMap<(usize, usize), Time>,
    told: HashMap<FlightId, HashMap<Inbox, u64>>,
    seat_inbox: HashMap<Seat, Inbox>,
    /// When what was sent last on a link arrives.
    to_store: Vec<Time>,
    from_store: Vec<Time>,
    inboxes: Vec<Inbox>,
    old: Vec<Message>,
    served: usize,
    asked: usize,
    departed: usize,
    healing: bool,
    /// When the last caller had what it wanted, or had gone.
    deserted: Option<Time>,
}

/// What a schedule showed, so that it is known that the schedules show enough.
#[derive(Debug, Default)]
struct Seen {
    counts: BTreeMap<&'static str, u64>,
}

impl World {
    fn new(seed: u64, verbose: bool) -> Self {
        let mut rng = Rng(seed.wrapping_mul(0x2545_F491_4F6C_DD1D) ^ 0xA5A5);
        let calm = rng.chance(40);
        let single = calm || rng.chance(60);
        let mut weather = Weather {
            gentle: false,
            calm,
            single,
            longest: match rng.below(3) {
                0 => ms(1),
                1 => ms(6),
                _ if calm => ms(8),
                _ => ms(40),
            },
            lose: if calm {
                0
            } else {
                [0, 2, 10][rng.below(3) as usize]
            },
            double: if calm {
                0
            } else {
                [0, 5][rng.below(2) as usize]
            },
            misdirect: [0, 5][rng.below(2) as usize],
            faults: if calm { 0 } else { rng.below(4) },
            forget: rng.chance(25),
            shareable: [100, 70][rng.below(2) as usize],
            refuse: [0, 0, 20][rng.below(3) as usize],
        };
        weather.gentle = weather.lose + weather.misdirect + weather.faults == 0;
        let replicas = 2 + rng.below(3) as usize;
        let keys = 1 + rng.below(2) as usize;
        let mut world = Self {
            seed,
            verbose,
            rng,
            weather,
            now: Time::ZERO,
            step: 0,
            events: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            order: 0,
            scripted: 0,
            replicas: Vec::new(),
            keys,
            shelf: Shelf::default(),
            stopped: false,
            held: Vec::new(),
            store_well: Some(Time::ZERO),
            store_ill: None,
            calls: Vec::new(),
            released: Vec::new(),
            forgot: vec![None; keys],
            forgot_by: HashMap::new(),
            told: HashMap::new(),
            seat_inbox: HashMap::new(),
            to_store: vec![Time::ZERO; replicas],
            from_store: vec![Time::ZERO; replicas],
            inboxes: Vec::new(),
            old: Vec::new(),
            served: 0,
            asked: 0,
            departed: 0,
            healing: false,
            deserted: None,
        };
        if verbose {
            eprintln!("{:?} replicas {replicas} keys {keys}", world.weather);
        }
        for at in 0..replicas {
            let replica = world.birth(at as u64);
            world.inboxes.push(replica.protocol.inbox());
            world.replicas.push(replica);
            world.at(Time::ZERO, Event::Link { replica: at });
        }
        // Callers come in bursts, as they do.
        let start = ms(25);
        let span = ms(10 + world.rng.below(250));
        for _ in 0..1 + world.rng.below(4) {
            let burst = world.rng.between(start, start + span);
            let key = world.rng.below(keys as u64) as usize;
            for _ in 0..1 + world.rng.below(6) {
                let replica = world.rng.below(replicas as u64) as usize;
                let spread = ms([0, 3, 30][world.rng.below(3) as usize]);
                let at = burst + world.rng.between(Time::ZERO, spread);
                world.at(at, Event::Arrive { replica, key });
                if world.rng.chance(10) {
                    let pick = world.rng.next();
                    let at = at + world.rng.between(Time::ZERO, ms(60));
                    world.at(at, Event::Depart { replica, pick });
                }
            }
        }
        if world.weather.forget {
            for _ in 0..1 + world.rng.below(2) {
                let at = world.rng.between(start, start + span + ms(40));
                let replica = world.rng.below(replicas as u64) as usize;
                let key = world.rng.below(keys as u64) as usize;
                let event = match world.rng.chance(70) {
                    true => Event::Forget { replica, key },
                    false => Event::ForgetAll { replica },
                };
                world.at(at, event);
            }
        }
        for _ in 0..world.weather.faults {
            let at = world.rng.between(ms(5), start + span + ms(60));
            let until = at + world.rng.between(ms(5), ms(500));
            let replica = world.rng.below(replicas as u64) as usize;
            match world.rng.below(7) {
                0 => {
                    world.at(at, Event::Stop);
                    world.at(until, Event::Resume);
                }
                1 => world.at(at, Event::Restart),
                2 => {
                    let key = world.rng.below(keys as u64) as usize;
                    world.at(at, Event::LoseLease { key });
                }
                3 => world.at(at, Event::Unlink { replica }),
                4 | 5 => {
                    world.at(at, Event::Pause { replica });
                    world.at(until, Event::Unpause { replica });
                }
                _ => world.at(at, Event::Kill { replica }),
            }
        }
        world.scripted = world
            .slots
            .iter()
            .flatten()
            .filter(|event| event.is_scripted())
            .count();
        world
    }

    fn birth(&mut self, at: u64) -> Replica {
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
            held: Vec::new(),
            ticks: Time::MAX,
            well_since: Time::MAX,
        }
    }

    fn at(&mut self, at: Time, event: Event) {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = Some(event);
                slot
            }
            None => {
                self.slots.push(Some(event));
                self.slots.len() - 1
            }
        };
        self.order += 1;
        self.events.push(Reverse((at, self.order, slot)));
    }

    fn delay(&mut self) -> Duration {
        let longest = self.weather.longest;
        let least = Duration::from_micros(20);
        match self.rng.chance(80) {
            true => self.rng.between(least, longest / 4),
            false => self.rng.between(least, longest),
        }
    }

    // ===== running =====

    fn run(mut self, seen: &mut Seen) {
        while let Some(&Reverse((at, _, slot))) = self.events.peek() {
            if !self.healing && at > ms(700) {
                self.heal();
                continue;
            }
            let over = self.scripted == 0 && self.is_quiet();
            if over || at > ms(6000) {
                break;
            }
            self.events.pop();
            self.now = at;
            self.step += 1;
            let event = self.slots[slot].take().expect("each slot is used once");
            self.scripted -= usize::from(event.is_scripted());
            self.free.push(slot);
            if self.verbose {
                eprintln!("{:>9?} {event:?}", self.now);
            }
            self.happen(event);
            self.check_waiting();
            self.check_leavings();
        }
        if self.replicas.iter().all(|replica| replica.dead) {
            // Nothing happens any more; what they had in the store expires.
            self.now += settings().lease.max(settings().value_life);
        }
        self.check_end();
        self.note(seen);
    }

    /// From now on everything works, and nobody comes any more.
    fn heal(&mut self) {
        self.healing = true;
        self.now = ms(700);
        self.weather.lose = 0;
        self.weather.double = 0;
        self.weather.misdirect = 0;
        self.at(self.now, Event::Resume);
        for replica in 0..self.replicas.len() {
            self.at(self.now, Event::Unpause { replica });
        }
        self.scripted += 1 + self.replicas.len();
    }

    /// Nothing is left to happen but beats.
    fn is_quiet(&self) -> bool {
        self.served + self.departed == self.asked
            && self.shelf.len(self.now) == 0
            && self
                .calls
                .iter()
                .all(|call| call.ended.is_some() || call.gone)
            && self.replicas.iter().all(|replica| {
                let p = &replica.protocol;
                p.entries.is_empty()
                    && p.orphans.is_empty()
                    && p.values.is_empty()
                    && replica.held.is_empty()
            })
    }

    fn fail(&self, what: &str) -> ! {
        panic!(
            "{what}\nat {:?}, step {}; REPLICAS_SEED={} runs this schedule alone",
            self.now, self.step, self.seed
        )
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        let whose = match &event {
            Event::CallEnds { replica, .. }
            | Event::Answers { replica, .. }
            | Event::Contended { replica, .. }
            | Event::Renewed { replica, .. }
            | Event::Heard { replica, .. }
            | Event::Fetched { replica, .. }
            | Event::Stored { replica, .. }
            | Event::Message { replica, .. }
            | Event::Tick { replica }
            | Event::Arrive { replica, .. }
            | Event::Depart { replica, .. }
            | Event::Forget { replica, .. }
            | Event::ForgetAll { replica }
            | Event::Link { replica }
            | Event::Unlink { replica } => Some(*replica),
            _ => None,
        };
        if let Some(at) = whose {
            if self.replicas[at].dead {
                return;
            }
            if self.replicas[at].paused {
                self.replicas[at].held.push(event);
                return;
            }
        }
        let old = match &event {
            Event::Contended { replica, link, .. }
            | Event::Renewed { replica, link, .. }
            | Event::Heard { replica, link, .. }
            | Event::Fetched { replica, link, .. }
            | Event::Stored { replica, link, .. }
            | Event::Message { replica, link, .. } => self.replicas[*replica].link != *link,
            _ => false,
        };
        if old {
            return;
        }
        match event {
            Event::Arrive { replica, key } => self.arrive(replica, key),
            Event::Depart { replica, pick } => self.depart(replica, pick),
            Event::CallEnds { replica, call } => self.call_ends(replica, call),
            Event::Answers {
                replica,
                call,
                entry,
            } => {
                let answer = self.outcome(call);
                self.replicas[replica].protocol.answer(entry, answer, now);
                self.drain(replica);
            }
            Event::ToStore { .. } if self.stopped => self.held.push(event),
            Event::ToStore {
                replica,
                link,
                command,
            } => self.execute(replica, link, command),
            Event::Contended {
                replica,
                flight,
                reply,
                ..
            } => {
                self.replicas[replica]
                    .protocol
                    .contended(flight, reply, now);
                self.drain(replica);
            }
            Event::Renewed {
                replica,
                flight,
                is_ours,
                ..
            } => {
                self.replicas[replica].protocol.renewed(flight, is_ours);
                self.drain(replica);
            }
            Event::Heard {
                replica,
                seat,
                receivers,
                ..
            } => {
                self.replicas[replica].protocol.heard(seat, receivers, now);
                self.drain(replica);
            }
            Event::Fetched {
                replica,
                seat,
                body,
                ..
            } => {
                self.replicas[replica].protocol.fetched(seat, body, now);
                self.drain(replica);
            }
            Event::Stored {
                replica,
                value,
                reply,
                ..
            } => {
                self.replicas[replica].protocol.stored(value, reply);
                self.drain(replica);
            }
            Event::Message {
                replica, message, ..
            } => self.receive(replica, message),
            Event::Tick { replica } => {
                if self.replicas[replica].ticks <= now {
                    self.replicas[replica].ticks = Time::MAX;
                    self.replicas[replica].protocol.tick(now);
                }
                self.drain(replica);
            }
            Event::Forget { replica, key } => {
                self.forgot[key] = Some(now);
                self.forgot_by.insert((replica, key), now);
                // As a layer does it: nobody joins from elsewhere, then nobody here.
                self.replicas[replica].protocol.forget(digest(key));
                for flight in &self.replicas[replica].flights {
                    let mut flight = flight.borrow_mut();
                    if flight.key == key {
                        flight.open = false;
                        flight.linked = false;
                    }
                }
                self.drain(replica);
            }
            Event::ForgetAll { replica } => {
                self.forgot.fill(Some(now));
                for key in 0..self.keys {
                    self.forgot_by.insert((replica, key), now);
                }
                self.replicas[replica].protocol.forget_all();
                for flight in &self.replicas[replica].flights {
                    flight.borrow_mut().open = false;
                    flight.borrow_mut().linked = false;
                }
                self.drain(replica);
            }
            Event::Stop => {
                self.stopped = true;
                self.ill();
            }
            Event::Resume => {
                self.stopped = false;
                self.well();
                for event in std::mem::take(&mut self.held) {
                    let at = now + self.rng.between(Time::ZERO, ms(1));
                    self.at(at, event);
                }
            }
            Event::Restart => {
                self.shelf = Shelf::default();
                self.held.clear();
                for replica in 0..self.replicas.len() {
                    let at = now + self.delay();
                    self.at(at, Event::Unlink { replica });
                }
                self.ill();
                if !self.stopped {
                    self.well();
                }
            }
            Event::LoseLease { key } => self.shelf.forget(digest(key)),
            Event::Unlink { replica } => {
                if self.replicas[replica].linked {
                    self.replicas[replica].linked = false;
                    self.replicas[replica].well_since = Time::MAX;
                    self.replicas[replica].link += 1;
                    self.replicas[replica].protocol.unlinked(now);
                    let at = now + self.rng.between(ms(1), ms(80));
                    self.at(at, Event::Link { replica });
                    self.drain(replica);
                }
            }
            Event::Link { replica } => {
                if !self.replicas[replica].linked {
                    self.replicas[replica].linked = true;
                    self.replicas[replica].well_since = now;
                    self.replicas[replica].protocol.linked(now);
                    self.drain(replica);
                }
            }
            Event::Pause { replica } => {
                self.replicas[replica].paused = true;
                self.replicas[replica].well_since = Time::MAX;
            }
            Event::Unpause { replica } => {
                if std::mem::take(&mut self.replicas[replica].paused) {
                    self.replicas[replica].well_since = now;
                    for event in std::mem::take(&mut self.replicas[replica].held) {
                        self.scripted += usize::from(event.is_scripted());
                        self.at(now, event);
                    }
                }
            }
            Event::Kill { replica } => self.kill(replica),
        }
    }

    fn ill(&mut self) {
        self.store_well = None;
        self.store_ill.get_or_insert(self.now);
    }

    fn well(&mut self) {
        self.store_well.get_or_insert(self.now);
        self.store_ill = None;
    }

    /// The process dies: its callers with it.
    fn kill(&mut self, at: usize) {
        let replica = &mut self.replicas[at];
        if replica.dead {
            return;
        }
        replica.dead = true;
        replica.linked = false;
        replica.held.clear();
        let flights = std::mem::take(&mut replica.flights);
        for flight in flights {
            let flight = flight.borrow();
            self.departed += flight.callers.len();
            if let Some(call) = flight.call {
                self.calls[call].gone = true;
            }
        }
        self.replicas[at].by_entry.clear();
        self.replicas[at].protocol = self.birth(at as u64 + 100).protocol;
    }

    // ===== local flights =====

    fn arrive(&mut self, at: usize, key: usize) {
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
                entry: None,
                callers: vec![caller],
                seats: 0,
                call: None,
                over: false,
            }));
            let replica = &mut self.replicas[at];
            replica.flights.push(Rc::clone(&flight));
            let local = LocalFlight(Rc::clone(&flight));
            let entry = replica
                .protocol
                .contend(digest(key), None, local, number + 1, now);
            flight.borrow_mut().entry = Some(entry);
            replica.by_entry.insert(entry, flight);
        }
        self.drain(at);
    }

    fn depart(&mut self, at: usize, pick: u64) {
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

    fn cancel_if_deserted(&mut self, at: usize, flight: &FlightRef) {
        let mut state = flight.borrow_mut();
        if state.over || !state.callers.is_empty() || state.seats > 0 {
            return;
        }
        state.over = true;
        state.open = false;
        state.linked = false;
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

    fn bury(&mut self, at: usize) {
        self.replicas[at]
            .flights
            .retain(|flight| !flight.borrow().over);
    }

    fn verdict(&mut self, at: usize, entry: EntryId) {
        let Some(verdict) = self.replicas[at].protocol.verdict(entry) else {
            return;
        };
        let Some(flight) = self.replicas[at].by_entry.get(&entry).map(Rc::clone) else {
            self.fail("a verdict for nobody")
        };
        if self.verbose {
            eprintln!("{:>9?}   replica {at} {entry:?}: {verdict:?}", self.now);
        }
        match verdict {
            Verdict::Lead | Verdict::Alone(_) => {
                let leads = verdict == Verdict::Lead;
                self.check_verdict(at, &flight.borrow(), &verdict);
                let call = self.calls.len();
                let key = flight.borrow().key;
                flight.borrow_mut().call = Some(call);
                self.calls.push(Call {
                    key,
                    replica: at,
                    leads,
                    ended: None,
                    gone: false,
                    began: self.now,
                    ended_at: Time::ZERO,
                    told: HashMap::new(),
                });
                let longest = ms([5, 60, 400][self.rng.below(3) as usize]);
                let ends = self.now + self.rng.between(ms(0), longest);
                self.at(ends, Event::CallEnds { replica: at, call });
            }
            Verdict::Answer { body, covered } => {
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
                let last = state.callers.last().map(|caller| caller.number);
                if let Some(last) = last {
                    drop(state);
                    self.replicas[at].protocol.again(entry, last + 1, self.now);
                } else {
                    // Whoever has joined from elsewhere found no call here.
                    state.over = true;
                    state.open = false;
                    state.linked = false;
                    state.entry = None;
                    drop(state);
                    self.replicas[at].by_entry.remove(&entry);
                    self.replicas[at].protocol.leave(entry, self.now);
                    self.bury(at);
                }
            }
        }
    }

    fn call_ends(&mut self, at: usize, call: usize) {
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

    fn outcome(&mut self, call: usize) -> Result<Bytes, Reason> {
        if !self.rng.chance(self.weather.shareable) {
            return Err(Reason::Unshareable);
        }
        let len = [4, 40, 80][[0, 0, 0, 1, 1, 2][self.rng.below(6) as usize]];
        let mut body = vec![0; len];
        body[..4].copy_from_slice(&(call as u32).to_be_bytes());
        Ok(body.into())
    }

    // ===== the network =====

    /// Carries out what the protocol wants done.
    fn drain(&mut self, at: usize) {
        loop {
            let out = self.replicas[at].protocol.take_output();
            if out.is_empty() {
                break;
            }
            for output in out {
                match output {
                    Output::Command(command) => self.send(at, command),
                    Output::Settled(entry) => self.verdict(at, entry),
                    Output::Start(_) => {}
                    Output::Leave(SeatGuard(flight)) => {
                        flight.borrow_mut().seats -= 1;
                        self.cancel_if_deserted(at, &flight);
                    }
                    Output::Detach(LocalFlight(flight)) => {
                        flight.borrow_mut().open = false;
                        flight.borrow_mut().linked = false;
                    }
                }
            }
        }
        let next = self.replicas[at].protocol.next_tick().max(self.now);
        if next < self.replicas[at].ticks && !self.replicas[at].dead {
            self.replicas[at].ticks = next;
            self.at(next, Event::Tick { replica: at });
        }
    }

    fn send(&mut self, at: usize, command: Command) {
        if !self.replicas[at].linked {
            return;
        }
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
    fn execute(&mut self, at: usize, link: u64, command: Command) {
        let now = self.now;
        let until = now + settings().lease;
        let answers = self.now + self.delay();
        match command {
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
                    self.shelf
                        .contend(&join, own, pass_over, (now, until), |inbox, flight| {
                            join_of = Some((inbox, flight));
                            counted.then(|| usize::from(heard.contains(&inbox)))
                        });
                if let Some((inbox, flight)) = join_of {
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
                self.at(
                    answers,
                    Event::Contended {
                        replica: at,
                        link,
                        flight: join.flight,
                        reply: Ok(reply),
                    },
                );
            }
            Command::Renew { digest, flight } => {
                let is_ours = self.shelf.renew(digest, flight, (now, until));
                self.at(
                    answers,
                    Event::Renewed {
                        replica: at,
                        link,
                        flight,
                        is_ours,
                    },
                );
            }
            Command::Release { digest, flight } => {
                self.released.push((digest, now));
                self.shelf.release(digest, flight);
            }
            Command::Put { value, body, .. } => {
                let reply = match self.rng.chance(self.weather.refuse) {
                    true => Err(Refused),
                    false => {
                        self.shelf.put(value, body, now + settings().value_life);
                        Ok(())
                    }
                };
                self.at(
                    answers,
                    Event::Stored {
                        replica: at,
                        link,
                        value,
                        reply,
                    },
                );
            }
            Command::Fetch { value, seat, .. } => {
                let body = self.shelf.fetch(value, now);
                self.at(
                    answers,
                    Event::Fetched {
                        replica: at,
                        link,
                        seat,
                        body,
                    },
                );
            }
            Command::Delete(value) => self.shelf.delete(value),
            Command::Tell(inbox, message) => {
                let probe = match &message {
                    Message::Probe { to, .. } => Some(to.seat),
                    _ => None,
                };
                let receivers = self.publish(inbox, message);
                if let (Some(seat), true) = (probe, self.weather.single) {
                    self.at(
                        answers,
                        Event::Heard {
                            replica: at,
                            link,
                            seat,
                            receivers,
                        },
                    );
                }
            }
            Command::TellAll(message) => {
                for inbox in self.inboxes.clone() {
                    self.publish(inbox, message.clone());
                }
            }
        }
    }

    fn publish(&mut self, inbox: Inbox, message: Message) -> usize {
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

    fn deliver(&mut self, at: usize, message: Message) {
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
    fn misdirect(&mut self, message: &Message) {
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

    fn receive(&mut self, at: usize, message: Message) {
        let (joined, covers) = match &message {
            Message::Join { to, inbox, asked } => {
                self.seat_inbox.insert(to.seat, *inbox);
                (Some((*to, *inbox)), Some(*asked))
            }
            Message::Cover { to, asked } => {
                let inbox = self.seat_inbox.get(&to.seat);
                (inbox.map(|inbox| (*to, *inbox)), Some(*asked))
            }
            _ => (None, None),
        };
        if let (Some((to, inbox)), Some(asked)) = (joined, covers) {
            let leads = self.replicas[at].protocol.named.contains_key(&to.flight);
            if leads {
                let told = self.told.entry(to.flight).or_default();
                let told = told.entry(inbox).or_default();
                *told = asked.max(*told);
            }
        }
        self.replicas[at].protocol.message(message, self.now);
        self.drain(at);
    }

    // ===== the promises =====

    /// R1, where nothing fails: a leader begins no call while another's is in flight.
    fn check_verdict(&self, at: usize, flight: &Flight, verdict: &Verdict) {
        if !self.weather.calm {
            return;
        }
        match verdict {
            Verdict::Lead => {
                // What was asked while the word spread may have been asked before it came.
                let spread = 4 * self.weather.longest;
                let since = self.forgot[flight.key].map_or(Time::ZERO, |at| at + spread);
                let other = self.calls.iter().find(|call| {
                    call.key == flight.key
                        && call.leads
                        && call.began >= since
                        && call.ended.is_none()
                        && !call.gone
                });
                if let Some(other) = other {
                    self.fail(&format!(
                        "R1: replica {at} calls while replica {} does",
                        other.replica
                    ));
                }
            }
            Verdict::Alone(Why::Told(_) | Why::Short) => {}
            // Forgotten, it does not contend for the key again.
            Verdict::Alone(Why::Lost) if !flight.open => {}
            Verdict::Alone(Why::Lost) => {
                // Three in a row who had the lease were gone before the join came.
                let since = flight.callers.iter().map(|caller| caller.at).min();
                let gone = self.released.iter().filter(|&&(of, at)| {
                    of == digest(flight.key) && at > since.unwrap_or_default()
                });
                if gone.count() < 3 {
                    self.fail("R1: it gave up too soon");
                }
            }
            Verdict::Alone(why) => self.fail(&format!("R1: {why:?} though nothing fails")),
            Verdict::Answer { .. } => {}
        }
    }

    /// R2: nobody waits for what does not come.
    fn check_waiting(&self) {
        let s = settings();
        let longest = self.weather.longest;
        for replica in &self.replicas {
            if replica.dead || replica.paused {
                continue;
            }
            let well = |since: Time| self.now.saturating_sub(since);
            for flight in &replica.flights {
                let flight = flight.borrow();
                let Some(entry) = flight
                    .entry
                    .and_then(|id| replica.protocol.entries.get(&id))
                else {
                    continue;
                };
                if !entry.waits() {
                    continue;
                }
                // The store does nothing, this replica is well: down_after and a beat.
                if let Some(ill) = self.store_ill {
                    let since = if replica.well_since == Time::MAX {
                        self.now
                    } else {
                        ill.max(replica.well_since)
                    };
                    if well(since) > s.down_after + s.beat + longest + SLACK {
                        self.fail("R2: it waits though the store has long stopped");
                    }
                }
                if let Part::Asking { until } = entry.part
                    && replica.ticks > until
                    && self.now > until + SLACK
                {
                    self.fail("R2: it waits for the store longer than patience");
                }
                // Its leader is dead or stalled, and everything else works.
                if let Part::Following(following) = &entry.part
                    && let Some(store) = self.store_well
                    && replica.well_since != Time::MAX
                {
                    let quiet = self.now.saturating_sub(entry.heard);
                    let bound = s.lease + 3 * s.probe + s.patience + 6 * longest + SLACK;
                    let all = well(store.max(replica.well_since));
                    if all > bound && quiet > bound {
                        self.fail(&format!(
                            "R2: it waits for {:?}, of whom nothing is heard",
                            following.at
                        ));
                    }
                }
            }
        }
    }

    /// R6, and that nobody calls for nobody: where no process and no link fails, what callers leave behind is gone as soon as those
    /// concerned have heard of it.
    fn check_leavings(&mut self) {
        if self.scripted > 0 || self.served + self.departed < self.asked {
            return;
        }
        let since = *self.deserted.get_or_insert(self.now);
        let Weather {
            longest, gentle, ..
        } = self.weather;
        // A leave that is lost, and a seat that nobody has taken, cost the leader some probes.
        if !gentle {
            return;
        }
        // A script is answered, and a leave goes by the store.
        let calling = self
            .calls
            .iter()
            .any(|call| call.ended.is_none() && !call.gone);
        if calling && self.now > since + 3 * longest + SLACK {
            self.fail("a call goes on though its callers have long left");
        }
        // And then the leader's release, or what removes the answer that it has put there.
        if self.shelf.len(self.now) > 0 && self.now > since + 6 * longest + SLACK {
            self.fail(&format!("R6: something is left: {:?}", self.shelf));
        }
    }

    /// R2 and R6: everybody has been served, and nothing is left.
    fn check_end(&self) {
        let waiting: Vec<_> = self
            .replicas
            .iter()
            .filter(|replica| !replica.dead)
            .flat_map(|replica| {
                let of = |flight: &FlightRef| {
                    flight
                        .borrow()
                        .callers
                        .iter()
                        .map(|caller| caller.at)
                        .collect::<Vec<_>>()
                };
                replica.flights.iter().flat_map(of)
            })
            .collect();
        if !waiting.is_empty() || self.served + self.departed != self.asked {
            self.fail(&format!(
                "R2: callers that asked at {waiting:?} are still waiting"
            ));
        }
        if let Some(call) = self
            .calls
            .iter()
            .find(|call| call.ended.is_none() && !call.gone)
        {
            self.fail(&format!(
                "a call of replica {} goes on for nobody",
                call.replica
            ));
        }
        if self.shelf.len(self.now) > 0 {
            self.fail(&format!("R6: the store still has {:?}", self.shelf));
        }
        for replica in &self.replicas {
            let p = &replica.protocol;
            let left = [
                ("entries", p.entries.len()),
                ("named", p.named.len()),
                ("seats", p.seats.len()),
                ("by_digest", p.by_digest.len()),
                ("asked", p.asked.len()),
                ("orphans", p.orphans.len()),
                ("values", p.values.len()),
                ("takers", p.takers.len()),
                ("timers", p.timers.len()),
            ];
            if left.iter().any(|(_, len)| *len > 0) {
                self.fail(&format!("R6: something is left: {left:?}"));
            }
        }
        if self.weather.calm && self.now > ms(2500) {
            self.fail("R6: in a calm it took long until nothing was left");
        }
    }

    fn note(&self, seen: &mut Seen) {
        let mut note = |what, n| *seen.counts.entry(what).or_default() += n;
        note("schedules", 1);
        note("calm", u64::from(self.weather.calm));
        note("steps", self.step);
        note("callers", self.asked as u64);
        note("served", self.served as u64);
        note("calls", self.calls.len() as u64);
        for replica in &self.replicas {
            let counts = replica.protocol.counts();
            note("led", counts.led);
            note("followed", counts.followed);
            note("takeovers", counts.takeovers);
            note("slow", counts.slow);
            note("down", counts.down);
            note("short", counts.short);
            note("told", counts.told);
        }
    }
}

fn digest(key: usize) -> Digest {
    Digest(0x1000 + key as u128)
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

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.replace('_', "").parse().ok()
}

#[test]
fn every_schedule_keeps_the_promises() {
    let mut seen = Seen::default();
    if let Some(seed) = number("REPLICAS_SEED") {
        World::new(seed, true).run(&mut seen);
        return;
    }
    let schedules = number("REPLICAS_SCHEDULES").unwrap_or(3_000);
    let first = number("REPLICAS_FIRST").unwrap_or(0);
    for seed in first..first + schedules {
        World::new(seed, false).run(&mut seen);
    }
    eprintln!("{:?}", seen.counts);
    // Schedules in which little happens would show little.
    for what in ["followed", "takeovers", "slow", "down", "told"] {
        assert!(
            seen.counts[what] > schedules / 100,
            "{what} was seldom seen"
        );
    }
}
