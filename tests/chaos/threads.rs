//! The same requests on several threads. The key is slow to clone and to compare, at times, so that threads meet where
//! they seldom would.

use std::{
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread::Thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::Request;
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use tokio::runtime::Builder;
use tower::{Layer, Service};
use tower_singleflight::{
    Handle, KeyExtractor, RequestKeyExtractor, Role, Singleflight, SingleflightLayer,
};

use crate::{
    MEMORY, alone,
    origin::{Capacity, Origin, Pace},
    seed,
    support::{Rng, mix},
    text_of, time,
    world::{Asked, Manners, Question, Rules, World},
};

const CLIENTS: u64 = 48;
const THREADS: usize = 4;
/// Nothing here takes longer than a few milliseconds, on a machine that is not busy. Who has no answer by then, of all who
/// asked in a round, never gets one.
const BOUND: Duration = Duration::from_secs(20);

/// A key whose clones and comparisons take a turn at times.
#[derive(Debug, Hash)]
#[expect(
    clippy::derived_hash_with_manual_eq,
    reason = "it compares as a derived one would, but slower"
)]
struct SlowKey<K>(K);

static TURN: AtomicU64 = AtomicU64::new(0);

fn dawdle() {
    match mix(TURN.fetch_add(1, SeqCst)) % 16 {
        0..=2 => std::thread::yield_now(),
        3 => std::thread::sleep(Duration::from_micros(20)),
        _ => {}
    }
}

impl<K: Clone> Clone for SlowKey<K> {
    fn clone(&self) -> Self {
        dawdle();
        let clone = Self(self.0.clone());
        dawdle();
        clone
    }
}

impl<K: PartialEq> PartialEq for SlowKey<K> {
    fn eq(&self, other: &Self) -> bool {
        dawdle();
        self.0 == other.0
    }
}

impl<K: Eq> Eq for SlowKey<K> {}

/// The default key, made slow. The layer does not know it for the default one, so it watches no writes.
struct Slow(RequestKeyExtractor);

impl KeyExtractor for Slow {
    type Key = SlowKey<<RequestKeyExtractor as KeyExtractor>::Key>;

    fn extract(&self, request: &http::request::Parts) -> Option<Self::Key> {
        self.0.extract(request).map(SlowKey)
    }
}

struct Round<X: KeyExtractor> {
    world: Arc<World>,
    handle: Handle<X::Key>,
    rules: Arc<Rules>,
    path: fn(&X::Key) -> String,
    /// Whose clients are at work.
    busy: AtomicUsize,
    heads: AtomicU64,
    shared: AtomicU64,
    failures: Mutex<Vec<String>>,
}

/// Sends one request, and does to it what chance says.
async fn ask<X>(
    round: &Round<X>,
    service: &Singleflight<Origin, X>,
    rng: &mut Rng,
    paths: usize,
) -> Result<(), String>
where
    X: KeyExtractor,
{
    let Round { world, rules, .. } = round;
    let question = Question {
        method: rng
            .pick(&["GET", "GET", "GET", "GET", "GET", "GET", "HEAD", "POST"])
            .parse()
            .unwrap(),
        path: format!("/{}", rng.zipf(paths)),
        user: rng.below(2) as u8,
        variant: rng.below(3) as u8,
    };
    let (asked, request) = world.ask(question);
    let request: Request<Empty<Bytes>> = request.map(|()| Empty::new());
    let called = std::panic::catch_unwind(AssertUnwindSafe(|| service.clone().call(request)));
    let future = match called {
        Ok(future) => future,
        Err(payload) => return world.check_failure(&asked, &text_of(&*payload), true, rules),
    };
    let mut future = Box::pin(AssertUnwindSafe(future).catch_unwind());
    if rng.chance(10) {
        // Held and not polled.
        for _ in 0..rng.below(20) {
            tokio::task::yield_now().await;
        }
    }
    let response = if rng.chance(20) {
        // So many polls, by whichever waker.
        let mut left = rng.below(4);
        let polled = std::future::poll_fn(|cx| match future.as_mut().poll_unpin(cx) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => {
                left -= 1;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        });
        match polled.await {
            Some(response) => response,
            None if rng.chance(50) => return Ok(()),
            None => future.await,
        }
    } else {
        future.await
    };
    let response = match response {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return world.check_failure(&asked, &error.to_string(), false, rules),
        Err(payload) => return world.check_failure(&asked, &text_of(&*payload), true, rules),
    };
    read(round, &asked, response, rng).await
}

async fn read<X, B>(
    round: &Round<X>,
    asked: &Asked,
    response: http::Response<B>,
    rng: &mut Rng,
) -> Result<(), String>
where
    X: KeyExtractor,
    B: Body<Data = Bytes, Error: std::fmt::Display>,
{
    let (head, body) = response.into_parts();
    let role = *head.extensions.get::<Role>().unwrap();
    let mut check = round.world.check_head(asked, &head, role, &round.rules)?;
    round.heads.fetch_add(1, SeqCst);
    if role == Role::Follower {
        round.shared.fetch_add(1, SeqCst);
    }
    let mut body = pin!(body);
    let patience = if rng.chance(20) {
        rng.below(4)
    } else {
        u64::MAX
    };
    let mut frames = 0;
    while frames < patience {
        if rng.chance(20) {
            tokio::task::yield_now().await;
        }
        check.look(&body.size_hint(), body.is_end_stream())?;
        match AssertUnwindSafe(body.frame()).catch_unwind().await {
            Ok(Some(Ok(frame))) => check.frame(frame)?,
            Ok(Some(Err(error))) => return check.error(&error.to_string()),
            Ok(None) => return check.end(&round.world),
            Err(payload) => return check.panic(&text_of(&*payload)),
        }
        frames += 1;
    }
    Ok(())
}

async fn client<X>(
    round: Arc<Round<X>>,
    service: Singleflight<Origin, X>,
    seed: u64,
    deadline: Instant,
) where
    X: KeyExtractor,
{
    let mut rng = Rng::new(seed);
    let paths = 1 + rng.index(6);
    while Instant::now() < deadline && round.failures.lock().unwrap().is_empty() {
        if let Err(failure) = ask(&round, &service, &mut rng, paths).await {
            round.failures.lock().unwrap().push(failure);
        }
        // Another caller forgets, now and then.
        if rng.chance(3) {
            let began = round.world.now();
            let path = format!("/{}", rng.zipf(paths));
            if rng.chance(50) {
                round.handle.forget_if(|key| (round.path)(key) == path);
                round.world.forgot(Some(&path), began);
            } else {
                round.handle.forget_all();
                round.world.forgot(None, began);
            }
        } else if rng.chance(1) {
            round.handle.set_enabled(rng.chance(70));
        }
    }
    round.busy.fetch_sub(1, SeqCst);
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Without a runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn play<X>(seed: u64, extractor: X, path: fn(&X::Key) -> String, writes: bool) -> (u64, u64)
where
    X: KeyExtractor,
{
    let mut rng = Rng::new(seed);
    let manners = Manners {
        failing: rng.pick(&[0, 10]),
        errors: true,
        unshareable: rng.pick(&[0, 0, 20]),
        breaking: rng.pick(&[0, 10]),
        too_low: true,
        lying: rng.pick(&[0, 10]),
        steps: 4,
        chunks: rng.pick(&[6, 6, 40]),
        chunk: (0, 120),
    };
    let unlimited = usize::MAX >> 1;
    let rules = Rules {
        max_body: rng.pick(&[64, 300, unlimited]),
        tight: rng.chance(20),
        max_age: None,
        strict: false,
        writes,
    };
    let world = World::new(rng.next(), manners);
    let mut layer = SingleflightLayer::with_extractor(extractor)
        .max_body(rules.max_body)
        .max_buffered(if rules.tight { 500 } else { unlimited })
        .max_waiters(rng.pick(&[3, unlimited, unlimited]))
        .finish_abandoned(rng.chance(25));
    // Else each client has a thread, and they drive the work themselves.
    let tokio = rng.chance(60);
    if tokio && rng.chance(30) {
        layer = layer.wait_timeout(Duration::from_micros(300));
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_time()
        .build()
        .unwrap();
    let (later, waiting) = mpsc::channel::<Waker>();
    // Wakes from outside the runtime.
    let alarm = std::thread::spawn(move || {
        while let Ok(waker) = waiting.recv() {
            waker.wake();
        }
    });
    let pace = Pace::Random(Arc::new(Mutex::new(Rng::new(rng.next()))), later);
    let capacity = rng.pick(&[None, None, Some(2)]).map(Capacity::new);
    let service = layer.layer(Origin::new(Arc::clone(&world), pace, capacity));
    let round = Arc::new(Round {
        world,
        handle: layer.handle(),
        rules: Arc::new(rules),
        path,
        busy: AtomicUsize::new(CLIENTS as usize),
        heads: AtomicU64::new(0),
        shared: AtomicU64::new(0),
        failures: Mutex::default(),
    });
    let deadline = Instant::now() + Duration::from_millis(100);
    let mut threads = Vec::new();
    for _ in 0..CLIENTS {
        let client = client(Arc::clone(&round), service.clone(), rng.next(), deadline);
        if tokio {
            runtime.spawn(client);
        } else {
            threads.push(std::thread::spawn(|| block_on(client)));
        }
    }
    drop((service, layer));
    let failed = |what: String| -> ! { panic!("CHAOS_SEED={seed} (threads): {what}") };
    let since = Instant::now();
    let failure = || round.failures.lock().unwrap().pop();
    while round.busy.load(SeqCst) > 0 || runtime.metrics().num_alive_tasks() > 0 {
        if let Some(failure) = failure() {
            failed(failure);
        }
        if since.elapsed() > BOUND {
            failed(format!(
                "tokio: {tokio}, {} clients and {} tasks do not end, {} calls are alive, {:?}",
                round.busy.load(SeqCst),
                runtime.metrics().num_alive_tasks(),
                round.world.live.load(SeqCst),
                round.handle.stats(),
            ));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    if let Some(failure) = failure() {
        failed(failure);
    }
    let stats = round.handle.stats();
    if (stats.in_flight, stats.waiters, stats.buffered_bytes) != (0, 0, 0)
        || round.world.live.load(SeqCst) != 0
    {
        failed(format!(
            "something is left: {stats:?}, {} calls",
            round.world.live.load(SeqCst)
        ));
    }
    let counted = (round.heads.load(SeqCst), round.shared.load(SeqCst));
    drop(runtime);
    drop(round);
    // One that is not busy any more may still hold the round, with all that the world knows.
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    alarm.join().unwrap();
    counted
}

#[test]
fn on_several_threads_everybody_gets_what_is_theirs_and_nothing_is_left() {
    let _alone = alone();
    let first = seed();
    println!("CHAOS_SEED={first} (threads)");
    let deadline = Instant::now() + time(20);
    let (mut heads, mut shared, mut rounds) = (0, 0, 0);
    let mut before = 0;
    while Instant::now() < deadline || rounds < 4 {
        let seed = first.wrapping_add(rounds);
        let extractor = RequestKeyExtractor::new().ignore_header("x-variant".parse().unwrap());
        let (more, of_them) = match seed % 2 {
            0 => play(seed, extractor, |key| key.uri().path().to_owned(), true),
            _ => play(
                seed,
                Slow(extractor),
                |key| key.0.uri().path().to_owned(),
                false,
            ),
        };
        (heads, shared, rounds) = (heads + more, shared + of_them, rounds + 1);
        if rounds == 2 {
            before = MEMORY.allocated();
        }
    }
    let kept = MEMORY.allocated().saturating_sub(before);
    assert!(
        kept < 64 * 1024,
        "{kept} bytes are kept after {rounds} rounds"
    );
    println!("{rounds} rounds, {heads} responses, {shared} of them shared");
}
