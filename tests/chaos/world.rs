//! What was asked, what was made, and whether what was got is what may be got.
//!
//! Every call of the origin is a [`Record`] with a number. The number is in the response's head (`x-call`), in the message
//! of its error or panic, and in each byte of its body, so that a caller's response tells which call made it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, response};
use http_body::{Frame, SizeHint};
use tokio::time::{Duration, Instant};
use tower_singleflight::Role;

use crate::support::{Rng, mix};

/// What one call of the origin does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// Steps until the head.
    pub(crate) steps: u64,
    pub(crate) head: Head,
    pub(crate) status: u16,
    pub(crate) kind: Kind,
    pub(crate) length: Length,
    pub(crate) chunks: Vec<usize>,
    pub(crate) trailers: bool,
    pub(crate) end: End,
    /// Whether the last frame says that it is the last.
    pub(crate) says_last: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Head {
    #[default]
    Given,
    Error,
    Panic,
    PanicInCall,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
    Plain,
    VariesByVariant,
    SetsCookie,
    Private,
    EventStream,
    VariesByAll,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Length {
    /// By the body's size hint.
    #[default]
    Hint,
    /// By `Content-Length`.
    Field,
    Unknown,
    /// `Content-Length` is one more, or one less, than the truth.
    TooHigh,
    TooLow,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum End {
    #[default]
    Complete,
    Error,
    Panic,
}

/// What the origin may do.
#[derive(Clone, Debug)]
pub(crate) struct Manners {
    /// Percent of calls whose head never comes: errors (where the service may have any) and panics.
    pub(crate) failing: u64,
    pub(crate) errors: bool,
    pub(crate) unshareable: u64,
    pub(crate) breaking: u64,
    pub(crate) lying: u64,
    /// Whether a body may be longer than it said.
    pub(crate) too_low: bool,
    pub(crate) steps: u64,
    pub(crate) chunks: u64,
    /// How long a frame is, at least and at most.
    pub(crate) chunk: (u64, u64),
}

/// One call of the origin.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) call: u64,
    /// Whose bytes the body has: this call's, or those of every call for its path.
    pub(crate) content: u64,
    pub(crate) asked: Question,
    /// The request that it was made for.
    pub(crate) request: u64,
    pub(crate) plan: Plan,
    pub(crate) started: u64,
    pub(crate) started_at: Instant,
    /// What was written last when it began.
    pub(crate) version: u64,
    /// When the source had given all; 0: not yet.
    pub(crate) ended: AtomicU64,
    /// When all bytes were given, though the source has not said that it has ended.
    pub(crate) given: AtomicU64,
    /// When a client had seen it all.
    pub(crate) seen: AtomicU64,
}

/// What makes two requests the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) user: u8,
    /// Matters where the response says that it varies.
    pub(crate) variant: u8,
}

/// A request, and what the world was like when it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) request: u64,
    pub(crate) question: Question,
    pub(crate) sent: u64,
    pub(crate) sent_at: Instant,
    /// The version that it must see at least.
    pub(crate) floor: u64,
    /// No call that began before this may answer it, unless it is its own.
    pub(crate) forgotten: u64,
    /// There was a call that it had to share.
    pub(crate) must_follow: Option<u64>,
}

/// What the checker knows of the layer.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) max_body: usize,
    /// `max_buffered` is so small that a copy may not get its share.
    pub(crate) tight: bool,
    pub(crate) max_age: Option<Duration>,
    /// A call has ended when its source has ended, not only when a client has seen that: nothing runs in parallel.
    pub(crate) strict: bool,
    /// Writes are watched: the key is the default one.
    pub(crate) writes: bool,
}

#[derive(Debug)]
pub(crate) struct World {
    clock: AtomicU64,
    requests: AtomicU64,
    state: Mutex<State>,
    /// Calls whose future or body is still there.
    pub(crate) live: AtomicUsize,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    manners: Manners,
    /// Others for paths that begin so.
    below: Option<(String, Manners)>,
    records: Vec<Arc<Record>>,
    /// The last write that was made, and the last that was acknowledged.
    writes: HashMap<String, (u64, u64)>,
    /// When the last `forget` of everything, and of a path, began, for those that have returned.
    forgotten: u64,
    forgotten_paths: HashMap<String, u64>,
}

/// Holds a record open.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) world: Arc<World>,
    pub(crate) record: Arc<Record>,
}

/// A body on its way to a client.
#[derive(Debug)]
pub(crate) struct BodyCheck {
    pub(crate) record: Arc<Record>,
    role: Option<Role>,
    rules: Arc<Rules>,
    at: usize,
    frames: usize,
    trailers: bool,
    /// Frames come through a protocol that cuts them otherwise.
    wire: bool,
}

// ===== impl Plan =====

impl Plan {
    fn new(rng: &mut Rng, manners: &Manners, question: &Question) -> Self {
        if question.method == Method::POST {
            let status = if rng.chance(70) { 200 } else { 500 };
            let steps = rng.below(manners.steps);
            return Self {
                steps,
                status,
                says_last: true,
                ..Self::default()
            };
        }
        let head = match rng.chance(manners.failing) {
            false => Head::Given,
            true => match rng.below(3) {
                0 if manners.errors => Head::Error,
                1 => Head::PanicInCall,
                _ => Head::Panic,
            },
        };
        // The same for all calls of a path, so that who differs in variant knows whom it may follow.
        let kind = if varies(&question.path) {
            Kind::VariesByVariant
        } else if rng.chance(manners.unshareable) {
            let kinds = [
                Kind::SetsCookie,
                Kind::Private,
                Kind::VariesByAll,
                Kind::EventStream,
            ];
            // A response with another content type is another one.
            let same = if fixed(question).is_some() { 3 } else { 4 };
            rng.pick(&kinds[..same])
        } else {
            Kind::Plain
        };
        let mut same = fixed(question).map(Rng::new);
        let steps = rng.below(manners.steps);
        let rng = same.as_mut().unwrap_or(rng);
        let mut chunks: Vec<usize> = (0..rng.below(manners.chunks + 1))
            .map(|_| {
                let (least, most) = manners.chunk;
                usize::try_from(least + rng.below(most - least + 1)).unwrap()
            })
            .collect();
        let mut length = rng.pick(&[Length::Hint, Length::Field, Length::Unknown]);
        let mut trailers = rng.chance(20);
        let mut end = End::Complete;
        if question.method == Method::HEAD {
            (chunks, trailers, length) = (Vec::new(), false, Length::Hint);
        } else if rng.chance(manners.breaking) {
            end = rng.pick(&[End::Error, End::Panic]);
        } else if rng.chance(manners.lying) && chunks.iter().sum::<usize>() > 0 {
            length = match manners.too_low && rng.chance(50) {
                true => Length::TooLow,
                false => Length::TooHigh,
            };
        }
        Self {
            status: rng.pick(&[200, 200, 200, 203, 404, 500, 503]),
            steps,
            head,
            kind,
            length,
            chunks,
            trailers,
            end,
            says_last: end == End::Complete && rng.chance(50),
        }
    }

    pub(crate) fn total(&self) -> usize {
        self.chunks.iter().sum()
    }

    pub(crate) fn lies(&self) -> bool {
        matches!(self.length, Length::TooHigh | Length::TooLow)
    }

    fn shareable(&self) -> bool {
        matches!(self.kind, Kind::Plain | Kind::VariesByVariant)
    }
}

pub(crate) fn varies(path: &str) -> bool {
    path.ends_with(['1', '4', '7'])
}

/// What every call for a path gives, where all give the same: a reader that moves on goes on with another's.
fn fixed(question: &Question) -> Option<u64> {
    let path = &question.path;
    let hash = |hash, byte: u8| mix(hash ^ u64::from(byte));
    path.ends_with(['2', '4', '5', '8'])
        .then(|| path.bytes().fold(u64::from(question.user), hash) | 1 << 63)
}

/// So many bytes of the body that `call` makes, from `at` on.
fn content(call: u64, at: usize, len: usize) -> impl Iterator<Item = u8> {
    let pattern = mix(call).to_le_bytes();
    (at..at + len).map(move |at| pattern[at % 8] ^ (at as u8) ^ ((at >> 8) as u8))
}

pub(crate) fn bytes(call: u64, at: usize, len: usize) -> Bytes {
    content(call, at, len).collect()
}

pub(crate) fn message(call: u64) -> String {
    format!("chaos call {call};")
}

/// The call that an error or a panic is of.
pub(crate) fn call_in(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("chaos call ")?;
    rest.split_once(';')?.0.parse().ok()
}

pub(crate) fn trailers(call: u64) -> HeaderMap {
    let mut map = HeaderMap::new();
    map.insert("x-sum", call.into());
    map
}

// ===== impl Record =====

impl Record {
    pub(crate) fn is_open(&self) -> bool {
        self.ended.load(SeqCst) == 0 && self.given.load(SeqCst) == 0
    }

    /// Whether the response is one for `question`.
    fn answers(&self, question: &Question) -> bool {
        let mine = &self.asked;
        mine.method == question.method
            && mine.path == question.path
            && mine.user == question.user
            && (mine.variant == question.variant || !varies(&mine.path))
    }
}

// ===== impl World =====

impl World {
    pub(crate) fn new(seed: u64, manners: Manners) -> Arc<Self> {
        Arc::new(Self {
            clock: AtomicU64::new(1),
            requests: AtomicU64::new(1),
            live: AtomicUsize::new(0),
            state: Mutex::new(State {
                rng: Rng::new(seed),
                manners,
                below: None,
                records: Vec::new(),
                writes: HashMap::new(),
                forgotten: 0,
                forgotten_paths: HashMap::new(),
            }),
        })
    }

    pub(crate) fn set_manners_below(&self, path: &str, manners: Manners) {
        self.state.lock().unwrap().below = Some((path.to_owned(), manners));
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock.fetch_add(1, SeqCst)
    }

    pub(crate) fn records(&self) -> Vec<Arc<Record>> {
        self.state.lock().unwrap().records.clone()
    }

    pub(crate) fn calls(&self) -> usize {
        self.state.lock().unwrap().records.len()
    }

    /// A request is about to be sent.
    pub(crate) fn ask(&self, question: Question) -> (Asked, Request<()>) {
        let request = self.requests.fetch_add(1, SeqCst);
        let state = self.state.lock().unwrap();
        let (_, floor) = state
            .writes
            .get(&question.path)
            .copied()
            .unwrap_or_default();
        let path = state.forgotten_paths.get(&question.path).copied();
        let asked = Asked {
            request,
            sent: self.now(),
            sent_at: Instant::now(),
            floor,
            forgotten: state.forgotten.max(path.unwrap_or_default()),
            must_follow: None,
            question: question.clone(),
        };
        drop(state);
        let mut message = Request::builder()
            .method(question.method)
            .uri(question.path)
            .header("x-request-id", request)
            .header("x-variant", u64::from(question.variant));
        if question.user > 0 {
            message = message.header("authorization", format!("Basic {}", question.user));
        }
        (asked, message.body(()).unwrap())
    }

    /// The origin is called.
    pub(crate) fn begin(self: &Arc<Self>, request: &http::request::Parts) -> Live {
        let number = |name: &str| {
            let value = request.headers.get(name)?.to_str().ok()?;
            value.rsplit(' ').next()?.parse::<u64>().ok()
        };
        let asked = Question {
            method: request.method.clone(),
            path: request.uri.path().to_owned(),
            user: number("authorization").unwrap_or_default() as u8,
            variant: number("x-variant").unwrap_or_default() as u8,
        };
        let mut state = self.state.lock().unwrap();
        let State {
            rng,
            manners,
            below,
            ..
        } = &mut *state;
        let below = below
            .as_ref()
            .filter(|(path, _)| asked.path.starts_with(path));
        let manners = below.map_or(&*manners, |(_, manners)| manners);
        let plan = Plan::new(rng, manners, &asked);
        let record = Arc::new(Record {
            call: state.records.len() as u64,
            content: fixed(&asked).unwrap_or(state.records.len() as u64),
            request: number("x-request-id").expect("a request has a number"),
            plan,
            started: self.now(),
            started_at: Instant::now(),
            version: state
                .writes
                .get(&asked.path)
                .map_or(0, |(version, _)| *version),
            ended: AtomicU64::new(0),
            given: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            asked,
        });
        state.records.push(Arc::clone(&record));
        self.live.fetch_add(1, SeqCst);
        Live {
            world: Arc::clone(self),
            record,
        }
    }

    /// The origin writes.
    pub(crate) fn write(&self, path: &str) -> u64 {
        let mut state = self.state.lock().unwrap();
        let (version, _) = state.writes.entry(path.to_owned()).or_default();
        *version += 1;
        *version
    }

    /// A client has been told of the write of a version.
    fn acknowledge(&self, path: &str, version: u64) {
        let mut state = self.state.lock().unwrap();
        let (_, known) = state.writes.entry(path.to_owned()).or_default();
        *known = (*known).max(version);
    }

    /// A `forget` that began at `began` has returned.
    pub(crate) fn forgot(&self, path: Option<&str>, began: u64) {
        let mut state = self.state.lock().unwrap();
        let known = match path {
            None => &mut state.forgotten,
            Some(path) => state.forgotten_paths.entry(path.to_owned()).or_default(),
        };
        *known = (*known).max(began);
    }

    /// A call of the same question that is in the air.
    pub(crate) fn open_call(&self, question: &Question) -> Option<u64> {
        let state = self.state.lock().unwrap();
        let found = state
            .records
            .iter()
            .rev()
            .find(|record| record.is_open() && record.answers(question));
        found.map(|record| record.call)
    }

    /// A call that goes on though nobody who asked for its response, or for another variant of it, is there.
    pub(crate) fn deserted(&self, asked: &[&Question]) -> Option<Arc<Record>> {
        let state = self.state.lock().unwrap();
        let wanted = |record: &Record| {
            let own = &record.asked;
            asked.iter().any(|question| {
                (&own.method, &own.path, own.user)
                    == (&question.method, &question.path, question.user)
            })
        };
        let mut live = state
            .records
            .iter()
            .filter(|record| record.ended.load(SeqCst) == 0);
        live.find(|record| !wanted(record)).cloned()
    }

    fn record(&self, call: u64) -> Result<Arc<Record>, String> {
        let state = self.state.lock().unwrap();
        let found = usize::try_from(call)
            .ok()
            .and_then(|at| state.records.get(at));
        found.cloned().ok_or(format!("there is no call {call}"))
    }

    /// Whether the answer to `asked` may come from `call`.
    fn check_call(
        &self,
        asked: &Asked,
        call: u64,
        role: Option<Role>,
        rules: &Rules,
    ) -> Result<Arc<Record>, String> {
        let record = self.record(call)?;
        let own = record.request == asked.request;
        let wrong = |what: &str| {
            Err(format!(
                "{what}\nasked: {asked:?}\nrecord: {record:?}\nrole: {role:?}"
            ))
        };
        if !record.answers(&asked.question) {
            // An error or a panic comes before anybody knows by what the response would have varied.
            let same = Question {
                variant: record.asked.variant,
                ..asked.question.clone()
            };
            // So does, to who joins in that moment, that of a body which is at hand.
            let at_hand = !rules.strict && role.is_none() && record.plan.chunks.is_empty();
            let no_head = record.plan.head != Head::Given || at_hand;
            if !(no_head && record.answers(&same)) {
                return wrong("an answer to another question");
            }
        }
        match role {
            Some(Role::Follower) if own => return wrong("a follower has its own response"),
            Some(Role::Leader | Role::Forwarded | Role::Bypassed) if !own => {
                return wrong("somebody's response is given to who made its own call");
            }
            _ => {}
        }
        if let Some(call) = asked.must_follow
            && call != record.call
        {
            return wrong("it made its own call though it could have shared another");
        }
        if rules.writes && record.version < asked.floor {
            return wrong("it asked after a write and does not see it");
        }
        if own {
            return Ok(record);
        }
        let ended = match rules.strict {
            true => record.ended.load(SeqCst),
            false => record.seen.load(SeqCst),
        };
        if ended != 0 && ended < asked.sent {
            return wrong("the flight had ended before it asked");
        }
        if record.started < asked.forgotten {
            return wrong("it joined a flight that was forgotten");
        }
        if let Some(age) = rules.max_age
            && record.started_at + age < asked.sent_at
        {
            return wrong("it joined a flight that was too old");
        }
        Ok(record)
    }

    pub(crate) fn check_head(
        &self,
        asked: &Asked,
        head: &response::Parts,
        role: Role,
        rules: &Arc<Rules>,
    ) -> Result<BodyCheck, String> {
        let number = |name: &str| {
            let value = head.headers.get(name)?.to_str().ok()?;
            value.parse::<u64>().ok()
        };
        let call = number("x-call").ok_or(format!("a response of nobody: {head:?}"))?;
        let record = self.check_call(asked, call, Some(role), rules)?;
        let plan = &record.plan;
        let wrong = |what: &str| {
            Err(format!(
                "{what}\nasked: {asked:?}\nrecord: {record:?}\nhead: {head:?}"
            ))
        };
        if plan.head != Head::Given {
            return wrong("there was no head");
        }
        if head.status != StatusCode::from_u16(plan.status).unwrap() {
            return wrong("another status");
        }
        if role == Role::Follower && !plan.shareable() {
            return wrong("it is not to be shared");
        }
        if let Some(version) = number("x-wrote") {
            self.acknowledge(&asked.question.path, version);
        }
        Ok(BodyCheck {
            record,
            role: Some(role),
            rules: Arc::clone(rules),
            at: 0,
            frames: 0,
            trailers: false,
            wire: false,
        })
    }

    /// Whether some call that may answer `asked` was to break off.
    pub(crate) fn may_break(&self, asked: &Asked, rules: &Rules) -> bool {
        let state = self.state.lock().unwrap();
        state.records.iter().rev().any(|record| {
            let plan = &record.plan;
            let over = record.seen.load(SeqCst);
            record.answers(&asked.question)
                && (over == 0 || over > asked.sent)
                && (plan.end != End::Complete
                    || plan.lies()
                    || plan.total() > rules.max_body
                    || rules.tight)
        })
    }

    /// An error or a panic instead of a head.
    pub(crate) fn check_failure(
        &self,
        asked: &Asked,
        text: &str,
        panicked: bool,
        rules: &Rules,
    ) -> Result<(), String> {
        let call = call_in(text).ok_or(format!("a failure of nobody: {text}"))?;
        let record = self.check_call(asked, call, None, rules)?;
        let plan = &record.plan;
        // A panic of the body ends the flight also for those who have not looked at their head yet.
        let planned = match (panicked, plan.head) {
            (false, Head::Error) | (true, Head::Panic | Head::PanicInCall) => true,
            (true, Head::Given) => plan.end == End::Panic,
            _ => false,
        };
        match planned {
            true => Ok(()),
            false => Err(format!(
                "a failure that was not planned: {text}\nasked: {asked:?}\nrecord: {record:?}"
            )),
        }
    }
}

// ===== impl Live =====

impl Live {
    pub(crate) fn stamp_end(&self) {
        let now = self.world.now();
        let _ = self.record.ended.compare_exchange(0, now, SeqCst, SeqCst);
    }

    pub(crate) fn stamp_given(&self) {
        let now = self.world.now();
        let _ = self.record.given.compare_exchange(0, now, SeqCst, SeqCst);
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stamp_end();
        self.world.live.fetch_sub(1, SeqCst);
    }
}

// ===== impl BodyCheck =====

impl BodyCheck {
    /// Of a body that comes over a socket.
    pub(crate) fn over_the_wire(mut self) -> Self {
        self.wire = true;
        self
    }

    fn wrong<T>(&self, what: &str) -> Result<T, String> {
        Err(format!("{what}\nbody: {self:?}"))
    }

    /// Before a poll.
    pub(crate) fn look(&self, hint: &SizeHint, is_end: bool) -> Result<(), String> {
        let plan = &self.record.plan;
        if plan.end != End::Complete || plan.lies() {
            return Ok(());
        }
        let left = (plan.total() - self.at) as u64;
        if hint.lower() > left || hint.upper().is_some_and(|upper| upper < left) {
            return self.wrong(&format!("a size hint of {hint:?} for {left} bytes"));
        }
        let due = self.frames < plan.chunks.len() || plan.trailers && !self.trailers;
        if is_end && due {
            return self.wrong("the end is said before the end");
        }
        Ok(())
    }

    pub(crate) fn frame(&mut self, frame: Frame<Bytes>) -> Result<(), String> {
        match frame.into_data() {
            Ok(data) => {
                if self.at + data.len() > self.record.plan.total() {
                    return self.wrong("more than there is");
                }
                let chunks = &self.record.plan.chunks;
                let before = self.frames.checked_sub(1);
                let before = before.and_then(|before| chunks.get(before));
                if !self.wire && data.is_empty() && before == Some(&0) && self.may_have_moved() {
                    // A reader that moves on goes on behind the last byte that it has had, so it may get an empty frame twice.
                    self.frames -= usize::from(chunks.get(self.frames) != Some(&0));
                }
                if !self.wire && chunks.get(self.frames) != Some(&data.len()) {
                    return self.wrong(&format!("another frame, of {} bytes", data.len()));
                }
                if self.trailers {
                    return self.wrong("data after trailers");
                }
                if !content(self.record.content, self.at, data.len()).eq(data.iter().copied()) {
                    return self.wrong("other bytes");
                }
                self.at += data.len();
                self.frames += 1;
            }
            Err(frame) => {
                let map = frame.into_trailers().expect("data or trailers");
                if !self.record.plan.trailers
                    || self.at != self.record.plan.total()
                    || map != trailers(self.record.content)
                {
                    return self.wrong("other trailers");
                }
                self.trailers = true;
            }
        }
        Ok(())
    }

    /// The body says that it is at its end. `seen`: when.
    pub(crate) fn end(&self, world: &World) -> Result<(), String> {
        let plan = &self.record.plan;
        let follows = self.role == Some(Role::Follower);
        // On the wire a body is over with the last byte of a length that was told, whatever its source says after that.
        let told = self.wire && matches!(plan.length, Length::Hint | Length::Field);
        if (plan.end != End::Complete && !told)
            || self.at != plan.total()
            || (plan.trailers && !self.trailers && !self.wire)
        {
            return self.wrong("a clean end of a body that is not whole");
        }
        if plan.lies() && follows {
            return self.wrong("a clean end of a body that broke its word");
        }
        let now = world.now();
        let _ = self.record.seen.compare_exchange(0, now, SeqCst, SeqCst);
        Ok(())
    }

    pub(crate) fn error(&self, text: &str) -> Result<(), String> {
        let plan = &self.record.plan;
        let moved = self.may_have_moved();
        let changes = fixed(&self.record.asked).is_none();
        if moved && (self.wire || changes && text.contains("read too slowly")) {
            return Ok(());
        }
        if moved && call_in(text).is_some_and(|call| call != self.record.call) {
            return Ok(());
        }
        if plan.lies() {
            return Ok(());
        }
        if plan.end == End::Error {
            if self.wire {
                return Ok(());
            }
            if self.at != plan.total() {
                return self.wrong("an error before the frames that came before it");
            }
            if call_in(text) == Some(self.record.call) {
                return Ok(());
            }
        }
        if self.wire && plan.end == End::Panic {
            return Ok(());
        }
        self.wrong(&format!("an error that was not planned: {text}"))
    }

    /// Whether its reader may have called again: then it may meet the failure of that call.
    fn may_have_moved(&self) -> bool {
        let outgrew = self.record.plan.total() > self.rules.max_body || self.rules.tight;
        outgrew && self.role == Some(Role::Follower)
    }

    pub(crate) fn panic(&self, text: &str) -> Result<(), String> {
        if self.may_have_moved() && call_in(text).is_some_and(|call| call != self.record.call) {
            return Ok(());
        }
        match self.record.plan.end == End::Panic && call_in(text) == Some(self.record.call) {
            true => Ok(()),
            false => self.wrong(&format!("a panic that was not planned: {text}")),
        }
    }
}
