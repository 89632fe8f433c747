//! Episodes on one thread. A future is polled only when its waker was woken (or with a new waker, which futures must
//! bear), so a wake-up that is lost shows as a caller who never gets an answer.

use std::{
    fmt::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::Instant,
};

use bytes::Bytes;
use http::{Method, Request};
use http_body::Body;
use http_body_util::Empty;
use tokio::{
    runtime::{Builder, Runtime},
    time::Duration,
};
use tower::{Layer, Service};
use tower_singleflight::{
    Handle, RequestKey, RequestKeyExtractor, ResponseBody, Role, Singleflight, SingleflightLayer,
    future::ResponseFuture,
};

use crate::{
    HUSHED, MEMORY, alone,
    origin::{Capacity, Gates, Origin, Pace, Source},
    seed,
    support::Rng,
    text_of, time,
    world::{Asked, BodyCheck, Manners, Question, Rules, World},
};

type Future = ResponseFuture<Origin, RequestKeyExtractor, Empty<Bytes>, Source>;

struct Client {
    asked: Asked,
    stage: Stage,
    flag: Arc<Flag>,
    /// Not polled until the end, though it is woken.
    parked: bool,
}

enum Stage {
    Head(Pin<Box<Future>>),
    Body(Pin<Box<ResponseBody<Source>>>, Box<BodyCheck>),
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

/// What an episode is like.
#[derive(Clone, Debug)]
struct Setting {
    ops: u64,
    runtime: bool,
    /// The runtime may be shut down meanwhile.
    mortal: bool,
    /// Whoever can share must share.
    calm: bool,
    max_body: usize,
    max_buffered: usize,
    max_waiters: usize,
    max_age: Option<Duration>,
    wait_timeout: Option<Duration>,
    finish_abandoned: bool,
    capacity: Option<usize>,
    paths: usize,
    users: u64,
    /// Percent of callers that are parked before their first poll.
    parked: u64,
}

struct Episode {
    rng: Rng,
    setting: Setting,
    world: Arc<World>,
    gates: Arc<Gates>,
    service: Singleflight<Origin, RequestKeyExtractor>,
    handle: Handle<RequestKey>,
    rules: Arc<Rules>,
    clients: Vec<Client>,
    polls: u64,
    log: Option<String>,
}

impl Setting {
    fn new(rng: &mut Rng) -> Self {
        let runtime = rng.chance(85);
        let mortal = runtime && rng.chance(10);
        let calm = rng.chance(20);
        let clock = runtime && !mortal && !calm;
        let unlimited = usize::MAX >> 1;
        let mut setting = Self {
            ops: 20 + rng.below(150),
            runtime,
            mortal,
            calm,
            max_body: rng.pick(&[64, 200, 2 << 20]),
            max_buffered: rng.pick(&[0, 100, 500, unlimited, unlimited]),
            max_waiters: rng.pick(&[1, 2, 3, unlimited, unlimited]),
            max_age: (clock && rng.chance(20)).then(|| Duration::from_millis(10)),
            wait_timeout: (clock && rng.chance(30)).then(|| Duration::from_millis(10)),
            finish_abandoned: rng.chance(25),
            capacity: rng.pick(&[None, None, None, Some(1), Some(2)]),
            paths: 1 + rng.index(5),
            users: 1 + rng.below(2),
            parked: rng.pick(&[0, 0, 0, 30]),
        };
        if calm {
            (setting.max_body, setting.max_buffered, setting.max_waiters) =
                (unlimited, unlimited, unlimited);
        }
        setting
    }

    fn manners(&self, rng: &mut Rng) -> Manners {
        Manners {
            failing: rng.pick(&[0, 0, 10, 30]),
            errors: true,
            unshareable: if self.calm {
                0
            } else {
                rng.pick(&[0, 0, 10, 40])
            },
            breaking: rng.pick(&[0, 0, 10, 30]),
            too_low: true,
            lying: if self.calm { 0 } else { rng.pick(&[0, 0, 20]) },
            steps: 3,
            // Up to 64 times the smallest `max_body`.
            chunks: rng.pick(&[1, 3, 8, 8, 40]),
            chunk: (0, rng.pick(&[1, 40, 120])),
        }
    }
}

macro_rules! note {
    ($self:ident, $($what:tt)*) => {
        if let Some(log) = &mut $self.log {
            let _ = writeln!(log, $($what)*);
        }
    };
}

impl Episode {
    fn new(seed: u64, most: u64, log: bool) -> Self {
        let mut rng = Rng::new(seed);
        let mut setting = Setting::new(&mut rng);
        setting.ops = setting.ops.min(most);
        let world = World::new(rng.next(), setting.manners(&mut rng));
        let gates = Arc::<Gates>::default();
        let origin = Origin::new(
            Arc::clone(&world),
            Pace::Gated(Arc::clone(&gates)),
            setting.capacity.map(Capacity::new),
        );
        let extractor = RequestKeyExtractor::new().ignore_header("x-variant".parse().unwrap());
        let mut layer = SingleflightLayer::with_extractor(extractor)
            .max_body(setting.max_body)
            .max_buffered(setting.max_buffered)
            .max_waiters(setting.max_waiters)
            .finish_abandoned(setting.finish_abandoned);
        if let Some(age) = setting.max_age {
            layer = layer.max_age(age);
        }
        if let Some(wait) = setting.wait_timeout {
            layer = layer.wait_timeout(wait);
        }
        let rules = Rules {
            max_body: setting.max_body,
            tight: setting.max_buffered < 1000,
            max_age: setting.max_age,
            strict: true,
            writes: true,
        };
        Self {
            handle: layer.handle(),
            service: layer.layer(origin),
            rules: Arc::new(rules),
            clients: Vec::new(),
            polls: 0,
            log: log.then(|| format!("{setting:?}\n")),
            rng,
            setting,
            world,
            gates,
        }
    }

    fn question(&mut self) -> Question {
        let method = match self.rng.below(20) {
            0 if !self.setting.calm => Method::POST,
            1 | 2 => Method::HEAD,
            _ => Method::GET,
        };
        Question {
            method,
            path: format!("/{}", self.rng.zipf(self.setting.paths)),
            user: self.rng.below(self.setting.users) as u8,
            variant: self.rng.below(3) as u8,
        }
    }

    fn send(&mut self) {
        let question = self.question();
        let must_follow = match self.setting.calm {
            true => self.world.open_call(&question),
            false => None,
        };
        let (mut asked, request) = self.world.ask(question);
        asked.must_follow = must_follow;
        note!(self, "send {asked:?}");
        let request: Request<Empty<Bytes>> = request.map(|()| Empty::new());
        let called = catch_unwind(AssertUnwindSafe(|| self.service.clone().call(request)));
        match called {
            Ok(future) => self.clients.push(Client {
                asked,
                stage: Stage::Head(Box::pin(future)),
                flag: Arc::new(Flag(AtomicBool::new(true))),
                parked: self.rng.chance(self.setting.parked),
            }),
            Err(payload) => {
                let text = text_of(&*payload);
                self.world
                    .check_failure(&asked, &text, true, &self.rules)
                    .unwrap();
            }
        }
    }

    /// Polls a client; the answer to its head is not the end of it.
    fn poll(&mut self, at: usize) {
        self.polls += 1;
        let client = &mut self.clients[at];
        client.flag.0.store(false, SeqCst);
        let waker = Waker::from(Arc::clone(&client.flag));
        let mut cx = Context::from_waker(&waker);
        let request = client.asked.request;
        let mut over = false;
        match &mut client.stage {
            Stage::Head(future) => {
                match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut cx))) {
                    Ok(Poll::Pending) => note!(self, "poll {request}: pending"),
                    Ok(Poll::Ready(Ok(response))) => {
                        let (head, body) = response.into_parts();
                        let role = *head.extensions.get::<Role>().unwrap();
                        let check = self
                            .world
                            .check_head(&client.asked, &head, role, &self.rules)
                            .unwrap();
                        note!(
                            self,
                            "poll {request}: {role:?} of call {}",
                            check.record.call
                        );
                        client.stage = Stage::Body(Box::pin(body), Box::new(check));
                        client.flag.0.store(true, SeqCst);
                    }
                    Ok(Poll::Ready(Err(error))) => {
                        note!(self, "poll {request}: {error}");
                        self.world
                            .check_failure(&client.asked, &error.to_string(), false, &self.rules)
                            .unwrap();
                        over = true;
                    }
                    Err(payload) => {
                        let text = text_of(&*payload);
                        note!(self, "poll {request}: panic {text}");
                        self.world
                            .check_failure(&client.asked, &text, true, &self.rules)
                            .unwrap();
                        over = true;
                    }
                }
            }
            Stage::Body(body, check) => {
                let is_end = body.is_end_stream();
                check.look(&body.size_hint(), is_end).unwrap();
                match catch_unwind(AssertUnwindSafe(|| body.as_mut().poll_frame(&mut cx))) {
                    Ok(Poll::Pending) => note!(self, "read {request}: pending"),
                    Ok(Poll::Ready(Some(Ok(frame)))) => {
                        note!(self, "read {request}: {frame:?}");
                        assert!(!is_end, "a frame after the end");
                        check.frame(frame).unwrap();
                        client.flag.0.store(true, SeqCst);
                    }
                    Ok(Poll::Ready(Some(Err(error)))) => {
                        note!(self, "read {request}: {error}");
                        check.error(&error.to_string()).unwrap();
                        over = true;
                    }
                    Ok(Poll::Ready(None)) => {
                        note!(self, "read {request}: end");
                        check.end(&self.world).unwrap();
                        over = true;
                    }
                    Err(payload) => {
                        let text = text_of(&*payload);
                        note!(self, "read {request}: panic {text}");
                        check.panic(&text).unwrap();
                        over = true;
                    }
                }
            }
        }
        if over {
            self.clients.swap_remove(at);
        }
    }

    fn any_client(&mut self) -> Option<usize> {
        (!self.clients.is_empty()).then(|| self.rng.index(self.clients.len()))
    }

    /// A client that was woken.
    fn woken(&mut self, parked: bool) -> Option<usize> {
        let start = self.any_client()?;
        let len = self.clients.len();
        (start..start + len).map(|at| at % len).find(|&at| {
            let client = &self.clients[at];
            (parked || !client.parked) && client.flag.0.load(SeqCst)
        })
    }

    fn step(&mut self, runtime: &mut Option<Runtime>) {
        match self.rng.below(100) {
            0..=19 => self.send(),
            20..=54 => {
                if let Some(at) = self.woken(false) {
                    self.poll(at);
                }
            }
            55..=69 => {
                let opened = self.gates.open_one(&mut self.rng);
                note!(self, "step: {opened}");
            }
            70..=81 => {
                if let Some(runtime) = runtime {
                    note!(self, "tick");
                    runtime.block_on(tokio::task::yield_now());
                }
            }
            82..=86 => {
                if let Some(at) = self.any_client() {
                    let client = self.clients.swap_remove(at);
                    note!(self, "drop {}", client.asked.request);
                    drop(client);
                }
            }
            87..=89 => {
                if let Some(at) = self.any_client() {
                    note!(self, "a new waker for {}", self.clients[at].asked.request);
                    self.clients[at].flag = Arc::default();
                    self.poll(at);
                }
            }
            90..=91 => {
                if let Some(at) = self.any_client() {
                    note!(self, "park {}", self.clients[at].asked.request);
                    self.clients[at].parked = true;
                }
            }
            92..=93 if !self.setting.calm => {
                let began = self.world.now();
                let path = format!("/{}", self.rng.zipf(self.setting.paths));
                if self.rng.chance(50) {
                    note!(self, "forget {path}");
                    self.handle.forget_if(|key| key.uri().path() == path);
                    self.world.forgot(Some(&path), began);
                } else {
                    note!(self, "forget all");
                    self.handle.forget_all();
                    self.world.forgot(None, began);
                }
            }
            94 if !self.setting.calm => {
                let yes = self.rng.chance(70);
                note!(self, "enabled: {yes}");
                self.handle.set_enabled(yes);
            }
            95..=98 => {
                let clock = self.setting.max_age.is_some() || self.setting.wait_timeout.is_some();
                if let Some(runtime) = runtime
                    && clock
                {
                    let millis = self.rng.below(8);
                    note!(self, "advance {millis}");
                    runtime.block_on(tokio::time::advance(Duration::from_millis(millis)));
                }
            }
            99 if self.setting.mortal => {
                note!(self, "shut the runtime down");
                *runtime = self.rng.chance(50).then(new_runtime);
            }
            _ => {}
        }
        self.check();
    }

    /// What holds after each step.
    fn check(&self) {
        let stats = self.handle.stats();
        assert!(
            stats.buffered_bytes <= self.setting.max_buffered,
            "{stats:?}"
        );
        assert!(stats.waiters <= self.clients.len(), "{stats:?}");
        if self.setting.finish_abandoned {
            return;
        }
        let asked: Vec<_> = self
            .clients
            .iter()
            .map(|client| &client.asked.question)
            .collect();
        let deserted = self.world.deserted(&asked);
        assert!(
            deserted.is_none(),
            "a call goes on for nobody: {deserted:?}"
        );
        if self.clients.is_empty() {
            // The last caller has gone.
            assert_eq!(
                (stats.in_flight, stats.waiters, stats.buffered_bytes),
                (0, 0, 0),
                "nobody is left"
            );
            assert_eq!(self.world.live.load(SeqCst), 0, "a call goes on for nobody");
        }
    }

    /// All gates open: everybody must come to an end.
    fn finish(&mut self, runtime: &mut Option<Runtime>) {
        note!(self, "finish");
        self.gates.open_all();
        // Those who are parked stop nobody, but where they hold what others need without the layer too.
        if self.setting.capacity.is_none() {
            self.settle(runtime, false);
            let waiting = self.clients.iter().find(|client| !client.parked);
            assert!(
                waiting.is_none(),
                "it waits for one who is parked: {:#?}\n{:#?}",
                waiting.map(|client| &client.asked),
                self.world.records()
            );
        }
        while self.rng.chance(50) && !self.clients.is_empty() {
            let at = self.rng.index(self.clients.len());
            let client = self.clients.swap_remove(at);
            note!(self, "drop {}", client.asked.request);
            drop(client);
            self.check();
        }
        self.settle(runtime, true);
        let left: Vec<_> = self.clients.iter().map(|client| &client.asked).collect();
        assert!(
            left.is_empty(),
            "these are never woken again: {left:#?}\n{:#?}",
            self.world.records()
        );
        let stats = self.handle.stats();
        assert_eq!(
            (stats.in_flight, stats.waiters, stats.buffered_bytes),
            (0, 0, 0),
            "at the end"
        );
        assert_eq!(self.world.live.load(SeqCst), 0, "a call is left");
        let made = self.world.calls() as u64;
        assert!(
            made <= stats.led + stats.forwarded + stats.bypassed,
            "{made} calls, {stats:?}"
        );
        if let Some(runtime) = runtime {
            assert_eq!(runtime.metrics().num_alive_tasks(), 0, "a task is left");
        }
    }

    /// Polls whoever is woken until nobody is.
    fn settle(&mut self, runtime: &mut Option<Runtime>, parked: bool) {
        let mut idle = 0;
        while idle < 3 {
            if let Some(at) = self.woken(parked) {
                idle = 0;
                let _guard = runtime.as_ref().map(Runtime::enter);
                self.poll(at);
                drop(_guard);
                self.check();
            } else {
                idle += 1;
                if let Some(runtime) = runtime {
                    runtime.block_on(async {
                        for _ in 0..4 {
                            tokio::task::yield_now().await;
                        }
                    });
                }
            }
        }
    }
}

fn new_runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

/// Runs one episode, and gives its polls and its requests; the error has the log, if there is one.
fn run(seed: u64, most: u64, log: bool, runtime: &mut Option<Runtime>) -> Result<u64, String> {
    let mut episode = Episode::new(seed, most, log);
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let mut mine;
        let runtime = if !episode.setting.runtime {
            mine = None;
            &mut mine
        } else if episode.setting.mortal {
            mine = Some(new_runtime());
            &mut mine
        } else {
            runtime.get_or_insert_with(new_runtime);
            &mut *runtime
        };
        for _ in 0..episode.setting.ops {
            // Inside the runtime by `enter` and not by `block_on`, so that a step may run its tasks.
            let handle = runtime.as_ref().map(|runtime| runtime.handle().clone());
            let _guard = handle.as_ref().map(tokio::runtime::Handle::enter);
            episode.step(runtime);
        }
        episode.finish(runtime);
    }));
    match ran {
        Ok(()) => Ok(episode.polls),
        Err(payload) => {
            let text = text_of(&*payload);
            let log = episode.log.take().unwrap_or_default();
            // Tasks of a broken episode are nothing to the next.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(episode)));
            *runtime = None;
            Err(format!("{log}{text}"))
        }
    }
}

#[test]
fn whatever_a_scheduler_does_everybody_gets_what_is_theirs_and_nothing_is_left() {
    let _alone = alone();
    let first = seed();
    println!("CHAOS_SEED={first} (scheduler)");
    let deadline = Instant::now() + time(20);
    let mut runtime = None;
    let (mut episodes, mut polls) = (0_u64, 0);
    let mut before = 0;
    while Instant::now() < deadline || episodes < 200 {
        let seed = first.wrapping_add(episodes);
        match run(seed, u64::MAX, false, &mut runtime) {
            Ok(made) => polls += made,
            Err(error) => {
                HUSHED.store(true, SeqCst);
                // The shortest beginning that fails as well.
                let short = (1..300).find(|&most| run(seed, most, false, &mut runtime).is_err());
                let told = run(seed, short.unwrap_or(u64::MAX), true, &mut runtime).err();
                HUSHED.store(false, SeqCst);
                panic!(
                    "CHAOS_SEED={seed}, {short:?} steps\n{}",
                    told.unwrap_or(error)
                );
            }
        }
        episodes += 1;
        if episodes == 100 {
            runtime = None;
            before = MEMORY.allocated();
        }
    }
    drop(runtime);
    let kept = MEMORY.allocated().saturating_sub(before);
    assert!(
        kept < 16 * 1024,
        "{kept} bytes are kept after {episodes} episodes"
    );
    println!("{episodes} episodes, {polls} polls");
}
