//! How a request gets into a flight: it leads one, joins one, or finds it full.

use std::sync::Arc;

use http::{HeaderName, request, response};
use tokio::time::Instant;

use super::{
    caller::Caller,
    leader::Lead,
    solo::SoloLeader,
    state::{HttpFlight, Number, Stage},
};
use crate::{
    audit::Original,
    buffer::ReaderId,
    group::{Admission, Entry, Match, Matcher, drop_quietly},
    key::KeyExtractor,
    observe::FlightTrace,
    rules::Variant,
    shared::{Flights, Settings, Shared},
    sync::Mutex,
};

/// A request that looks for its flight.
pub(crate) struct Candidate<'a, K> {
    flights: &'a Flights<K>,
    settings: &'a Settings,
    hash: u64,
    /// `None` once it leads.
    key: Option<K>,
    now: Instant,
    number: Number,
    /// Its head, which is kept where it waits.
    head: &'a mut Option<request::Parts>,
    /// It was moved from another flight. Its caller finds it waiting in the flight that it joins or leads.
    is_moved: bool,
    /// Its variant, in the fields by which its key is known to vary.
    variant: Option<Variant>,
    /// These fields, if they become known on the way.
    names: Option<Arc<[HeaderName]>>,
    /// It is audited against the flight that it would have joined.
    original: Option<Arc<Original>>,
    /// That of the flight that it leads.
    trace: Option<FlightTrace>,
}

/// What became of a candidate.
pub(crate) enum Admitted<K> {
    /// It must start the flight's work.
    Leads(Lead<K>, FlightTrace),
    Waits(Caller<K>),
    /// Its response begins with this head.
    Begins(Caller<K>, Arc<response::Parts>),
    /// Its flight is full.
    Full,
    /// It is audited, and makes its own call beside the flight.
    Audits(Arc<Original>),
}

/// How a candidate joins a flight.
pub(crate) enum JoinedAs {
    Leader,
    Waiting(usize),
    Reader(ReaderId, Arc<response::Parts>),
}

const UNPLACED: &str = "it is in no flight yet";

// ===== impl Candidate =====

impl<'a, K: Eq> Candidate<'a, K> {
    pub(crate) fn new<X>(
        shared: &'a Shared<X>,
        hash: u64,
        key: K,
        head: &'a mut Option<request::Parts>,
        number: Number,
        now: Instant,
    ) -> Self
    where
        X: KeyExtractor<Key = K>,
    {
        Self {
            flights: &shared.flights,
            settings: &shared.settings,
            hash,
            key: Some(key),
            now,
            number,
            head,
            is_moved: false,
            variant: None,
            names: None,
            original: None,
            trace: None,
        }
    }

    /// Joins the flight for this request, or leads a new one.
    ///
    /// Finding a flight and being counted there are one step, so the flight's decisions apply to everybody who is
    /// counted.
    pub(crate) fn enter(mut self) -> Admitted<K> {
        self.names = self.flights.varying.names(self.hash);
        match self.enter_table() {
            Admission::Leads(inner) => {
                let trace = self.trace.expect("it leads");
                let leader = SoloLeader::new(inner, &self.flights.counters, &trace);
                Admitted::Leads(Lead::Solo(leader), trace)
            }
            Admission::Follows(inner, JoinedAs::Leader) => {
                let mut caller = Caller::leader(inner);
                caller.take_lead();
                let trace = caller.flight().data.trace.clone();
                Admitted::Leads(Lead::Whole(caller), trace)
            }
            Admission::Follows(inner, JoinedAs::Waiting(slot)) => {
                Admitted::Waits(Caller::waiter(inner, slot))
            }
            Admission::Follows(inner, JoinedAs::Reader(place, head)) => {
                Admitted::Begins(Caller::reader(inner, place), head)
            }
            Admission::Refused => self.original.map_or(Admitted::Full, Admitted::Audits),
        }
    }

    /// As `enter`, for a follower that may not have its flight's response. It waits in another flight: that of its
    /// variant, if the response varies. If that flight is new, the first of its callers to be polled leads it. `None`
    /// if it is full.
    pub(crate) fn enter_moved(mut self, variant: Option<Variant>) -> Option<Caller<K>> {
        self.is_moved = true;
        if variant.is_none() {
            self.names = self.flights.varying.names(self.hash);
        }
        self.variant = variant;
        match self.enter_table() {
            Admission::Leads(mut leader) => {
                let mut inner = leader.make_whole();
                inner.give_up_lead();
                Some(Caller::waiter(inner, 0))
            }
            Admission::Follows(inner, JoinedAs::Waiting(slot)) => Some(Caller::waiter(inner, slot)),
            Admission::Follows(..) => unreachable!("whoever is moved waits"),
            Admission::Refused => None,
        }
    }

    fn enter_table(&mut self) -> Admission<(), (), HttpFlight<K>, JoinedAs> {
        let (table, hash) = (&self.flights.table, self.hash);
        loop {
            if let Some(names) = self.names.take() {
                let head = self.head.as_ref().expect(UNPLACED);
                self.variant = Some(Variant::new(names, &head.headers));
            }
            let own = self.variant.as_ref();
            let own = own.map(|variant| table.position(hash, variant));
            let entered = match own {
                Some(own) => table.enter_by(&[own, hash], self),
                None => table.enter_by(&[hash], self),
            };
            match entered {
                // Again, now that we know by which fields the key varies.
                Admission::Refused if self.names.is_some() => {}
                entered => {
                    // Dropping a key is user code, whose panic is not to cost the caller its place.
                    drop_quietly(self.key.take());
                    return entered;
                }
            }
        }
    }
}

impl<K: Eq> Matcher<(), (), HttpFlight<K>> for Candidate<'_, K> {
    type Joined = JoinedAs;

    fn examine(&mut self, entry: &Entry<(), (), HttpFlight<K>>) -> Match<JoinedAs> {
        let theirs = entry.data();
        let head = self.head.as_ref().expect(UNPLACED);
        if theirs.hash != self.hash
            || Some(&theirs.key) != self.key.as_ref()
            || theirs.method != head.method
        {
            return Match::Pass;
        }
        if !self.flights.can_be_joined(theirs, self.now) {
            return Match::Detach;
        }
        let mut state = theirs.state();
        if state.is_closed {
            return Match::Detach;
        }
        match &state.variant {
            Some((variant, _)) if !variant.matches(&head.headers) => {
                if self.variant.is_some() {
                    return Match::Pass;
                }
                self.names = Some(Arc::clone(variant.names()));
                return Match::Refuse;
            }
            _ => {}
        }
        #[cfg(feature = "redis")]
        if state.contending.is_too_late(self.number) {
            return Match::Detach;
        }
        if entry.callers() >= self.settings.max_waiters {
            return Match::Refuse;
        }
        let leads = matches!(state.stage, Stage::Uncalled);
        if !self.is_moved && !leads && self.flights.audit.draw() {
            self.original = Some(state.original(&theirs.counters));
            return Match::Refuse;
        }
        state.is_joined = true;
        #[cfg(feature = "redis")]
        state.asked_by(self.number);
        state.buffer.join();
        match &state.stage {
            Stage::Uncalled if !self.is_moved => {
                state.lead();
                Match::Join(JoinedAs::Leader)
            }
            Stage::Shared(response) if !self.is_moved => {
                let response = Arc::clone(response);
                Match::Join(JoinedAs::Reader(state.buffer.begin(), response))
            }
            _ => {
                let head = self.head.take().expect(UNPLACED);
                Match::Join(JoinedAs::Waiting(state.wait(head, self.number)))
            }
        }
    }

    fn lead(&mut self) -> ((), HttpFlight<K>) {
        let flights = self.flights;
        let head = self.head.as_ref().expect(UNPLACED);
        let trace = FlightTrace::new(&flights.counters.name, self.now);
        self.trace = Some(trace.clone());
        let mut key = self.key.take().expect("a candidate leads once");
        if let Some(key) = (flights.default_part_mut)(&mut key) {
            key.keep_target(head);
        }
        let mut data = HttpFlight {
            hash: self.hash,
            key,
            method: head.method.clone(),
            trace,
            epoch: flights.writes.current(),
            max_silence: self.settings.max_silence,
            expires: self.now.checked_add(self.settings.max_age),
            state: Mutex::default(),
            counters: Arc::clone(&flights.counters),
        };
        #[cfg(feature = "redis")]
        if flights.replicated().is_some() {
            data.state_mut().asked_by(self.number);
        }
        if let Some(variant) = self.variant.take() {
            let varying = flights.varying.insert(data.hash, variant.names());
            data.state_mut().variant = Some((variant, varying));
        }
        if self.is_moved {
            let head = self.head.take().expect(UNPLACED);
            let state = data.state_mut();
            state.stage = Stage::Uncalled;
            state.buffer.leave(ReaderId::Leader);
            state.buffer.join();
            let slot = state.wait(head, self.number);
            debug_assert_eq!(slot, 0, "it is the first");
        }
        ((), data)
    }
}
