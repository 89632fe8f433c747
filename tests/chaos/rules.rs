//! The rules: pairs of requests and a response, drawn near the borders, and who shares. What the layer does is compared with
//! an account of its own (`account`), which says for each pair that they must share, must not, or may.

mod account;
mod draw;

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http::{HeaderName, HeaderValue, Request, Response, response};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use tokio::sync::Semaphore;
use tower::{Layer, Service, service_fn, util::BoxCloneService};
use tower_singleflight::{Handle, RequestKey, RequestKeyExtractor, Role, SingleflightLayer, rules};

use self::account::{Answer, Ask, Settings, Verdict, invalidates, is_shareable, may_share};
use crate::{alone, seed, support::Rng, time};

const PAGE: &[u8] = b"page";

type Body = UnsyncBoxBody<Bytes, Infallible>;
type Inner = BoxCloneService<Request<Full<Bytes>>, Response<Body>, Infallible>;

#[derive(Debug, Default)]
struct Counts {
    pairs: u64,
    shared: u64,
    apart: u64,
    either: u64,
    writes: u64,
    detached: u64,
    /// Flights that a write of something else detached.
    spurious: u64,
}

/// A service whose answers wait for permits, and so do their ends.
struct World {
    service: Inner,
    calls: Arc<AtomicUsize>,
    heads: Arc<Semaphore>,
    ends: Arc<Semaphore>,
}

/// A body of one frame, which comes when it may. Its length is known from the start or not.
struct Page {
    end: Option<BoxFuture<'static, ()>>,
    is_sized: bool,
}

// ===== impl Page =====

impl http_body::Body for Page {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(end) = &mut self.end else {
            return Poll::Ready(None);
        };
        ready!(end.as_mut().poll(cx));
        self.end = None;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(PAGE)))))
    }

    fn size_hint(&self) -> SizeHint {
        if self.end.is_none() {
            SizeHint::with_exact(0)
        } else if self.is_sized {
            SizeHint::with_exact(PAGE.len() as u64)
        } else {
            SizeHint::new()
        }
    }
}

// ===== impl World =====

impl World {
    /// `writes`: the answer to what is not GET or HEAD, which comes at once.
    fn new(answer: &Answer, writes: &Answer) -> Self {
        let calls = Arc::<AtomicUsize>::default();
        let (heads, ends) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let service = {
            let (calls, heads, ends) = (calls.clone(), heads.clone(), ends.clone());
            let (answer, writes) = (answer.clone(), writes.clone());
            service_fn(move |request: Request<Full<Bytes>>| {
                let reads = ["GET", "HEAD"].contains(&request.method().as_str());
                let answer = if reads { &answer } else { &writes }.clone();
                let (calls, heads, ends) = (calls.clone(), heads.clone(), ends.clone());
                async move {
                    if reads {
                        calls.fetch_add(1, SeqCst);
                        heads.acquire().await.unwrap().forget();
                    }
                    Ok::<_, Infallible>(response(&answer, reads.then_some(ends)))
                }
            })
        };
        Self {
            service: BoxCloneService::new(service),
            calls,
            heads,
            ends,
        }
    }
}

/// A response whose body is open until there is a permit.
fn response(answer: &Answer, end: Option<Arc<Semaphore>>) -> Response<Body> {
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.fields {
        response = response.header(name, &value[..]);
    }
    let is_sized = answer.status % 2 == 0;
    let page = async move {
        if let Some(end) = end {
            end.acquire().await.unwrap().forget();
        }
    };
    let page = Page {
        end: Some(page.boxed()),
        is_sized,
    };
    response.body(page.boxed_unsync()).unwrap()
}

fn request(ask: &Ask) -> Option<Request<Full<Bytes>>> {
    let mut request = Request::builder().method(ask.method).uri(&ask.uri);
    for (name, value) in &ask.fields {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        request = request.header(name, HeaderValue::from_bytes(value).ok()?);
    }
    let body = if ask.has_body { "asked" } else { "" };
    request.body(Full::from(body)).ok()
}

fn layer(settings: &Settings) -> SingleflightLayer {
    let ignored = settings.ignored.iter();
    let ignored = ignored.map(|name| HeaderName::from_static(name));
    let layer =
        SingleflightLayer::with_extractor(RequestKeyExtractor::new().ignore_headers(ignored));
    if settings.allows_all {
        layer.share_when(|_: &response::Parts| true)
    } else {
        layer
    }
}

fn role(response: &Response<impl Sized>) -> Role {
    *response.extensions().get::<Role>().expect("a role")
}

fn assert_idle(handle: &Handle<RequestKey>) -> Result<(), String> {
    let stats = handle.stats();
    let left = (stats.in_flight, stats.waiters, stats.buffered_bytes);
    if left == (0, 0, 0) {
        Ok(())
    } else {
        Err(format!("something is left: {stats:?}"))
    }
}

/// What was drawn, and whether the second request followed the first.
fn pair(rng: &mut Rng, counts: &mut Counts) -> BoxFuture<'static, Result<(), String>> {
    let settings = draw::settings(rng);
    let leader = draw::ask(rng);
    let second = draw::other(rng, &leader);
    let answer = draw::answer(rng);
    let (Some(first), Some(then)) = (request(&leader), request(&second)) else {
        return async { Ok(()) }.boxed();
    };
    let verdict = may_share(&settings, &leader, &second, &answer);
    counts.pairs += 1;
    match verdict {
        Verdict::Shared => counts.shared += 1,
        Verdict::Apart => counts.apart += 1,
        Verdict::Either => counts.either += 1,
    }
    let is_late = rng.chance(50);
    async move {
        let told = || {
            format!(
                "{settings:?}\nleader: {leader}\nsecond: {second}\nanswer: {answer}\nlate: {is_late}"
            )
        };
        let parts = response(&answer, None).into_parts().0;
        let said = is_shareable(&answer);
        if said != Verdict::Either && rules::shareable(&parts) != (said == Verdict::Shared) {
            return Err(format!("`shareable` must say {said:?} of {answer}"));
        }
        let layer = layer(&settings);
        let handle = layer.handle();
        let world = World::new(&answer, &answer);
        let mut service = layer.layer(world.service);
        let first = service.call(first);
        let early = (!is_late).then(|| service.call(then.clone()));
        world.heads.add_permits(2);
        let Ok(first) = first.await;
        let Ok(other) = early.unwrap_or_else(|| service.call(then)).await;
        let follows = role(&other) == Role::Follower;
        if follows == (verdict == Verdict::Apart) && verdict != Verdict::Either {
            let roles = (role(&first), role(&other));
            return Err(format!("must be {verdict:?}, is {roles:?}\n{}", told()));
        }
        let reads = |ask: &Ask| ["GET", "HEAD"].contains(&ask.method);
        let asked = usize::from(reads(&leader)) + usize::from(reads(&second));
        let calls = world.calls.load(SeqCst);
        if calls != asked - usize::from(follows) {
            return Err(format!("{calls} calls\n{}", told()));
        }
        world.ends.add_permits(2);
        let bodies = tokio::join!(first.into_body().collect(), other.into_body().collect());
        for body in [bodies.0, bodies.1] {
            let body = body.map_err(|error| format!("{error}\n{}", told()))?;
            if body.to_bytes() != PAGE {
                return Err(format!("another body\n{}", told()));
            }
        }
        assert_idle(&handle)
    }
    .boxed()
}

/// A read, then a write while that is open, and the same read again. Gives whether it was detached, and whether it had to be.
async fn write(rng: &mut Rng) -> Result<Option<(bool, Verdict)>, String> {
    let (read, write, answer) = draw::write(rng);
    let (Some(first), Some(then), Some(writing)) =
        (request(&read), request(&read), request(&write))
    else {
        return Ok(None);
    };
    let verdict = invalidates(&write, &answer, &read);
    let layer = SingleflightLayer::new();
    let handle = layer.handle();
    let page = Answer {
        status: 200,
        fields: Vec::new(),
    };
    let world = World::new(&page, &answer);
    let mut service = layer.layer(world.service);
    let first = service.call(first);
    let Ok(written) = service.call(writing).await;
    let then = service.call(then);
    world.heads.add_permits(2);
    world.ends.add_permits(2);
    let (Ok(first), Ok(then)) = tokio::join!(first, then);
    let follows = role(&then) == Role::Follower;
    if follows && verdict == Verdict::Apart {
        return Err(format!(
            "a read that began before a write is joined behind it\nread: {read}\nwrite: {write}\nits answer: {answer}"
        ));
    }
    let bodies = tokio::join!(first.into_body().collect(), then.into_body().collect());
    drop((bodies, written));
    assert_idle(&handle)?;
    Ok(Some((!follows, verdict)))
}

async fn play(seed: u64, length: Duration) -> Counts {
    let mut counts = Counts::default();
    let deadline = Instant::now() + length;
    for number in 0.. {
        // Looked at now and then: a case takes less time than the clock.
        if number % 16 == 0 && Instant::now() > deadline {
            break;
        }
        let seed = seed.wrapping_add(number);
        let mut rng = Rng::new(seed);
        let failed = |failure: String| -> ! { panic!("CHAOS_SEED={seed} (rules): {failure}") };
        if rng.chance(75) {
            if let Err(failure) = pair(&mut rng, &mut counts).await {
                failed(failure);
            }
            continue;
        }
        match write(&mut rng).await {
            Err(failure) => failed(failure),
            Ok(None) => {}
            Ok(Some((detached, verdict))) => {
                counts.writes += 1;
                counts.detached += u64::from(detached);
                counts.spurious += u64::from(detached && verdict == Verdict::Shared);
            }
        }
    }
    counts
}

#[test]
fn who_shares_is_as_an_account_from_the_rfcs_says() {
    let _alone = alone();
    let seed = seed();
    println!("CHAOS_SEED={seed} (rules)");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let counts = runtime.block_on(play(seed, time(10)));
    println!("{counts:?}");
    // Stamps of writes may collide, but seldom.
    assert!(
        counts.writes < 1_000 || counts.spurious * 200 <= counts.writes,
        "CHAOS_SEED={seed}: {counts:?}"
    );
    assert!(counts.shared > 0 && counts.apart > 0 && counts.detached > 0);
}
