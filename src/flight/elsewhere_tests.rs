//! Layers at several replicas that share a store in memory, on a paused clock.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, future::join_all};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::time::{Instant, sleep};
use tower::{ServiceExt, util::BoxCloneSyncService};

use crate::{
    Handle, RequestKey, RequestKeyExtractor, ResponseBody, Role, SingleflightLayer,
    error::BoxError,
    replicas::{
        ContestOutcome, LocalFlight, MemoryStore, RemoteSeat, ReplicaClient, Unjoined,
        http::{request_name, write_response},
    },
};

const CALL: Duration = Duration::from_millis(300);

type Frames = Vec<Frame<Bytes>>;
type Body = StreamBody<
    futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, std::convert::Infallible>>>,
>;
type Service = BoxCloneSyncService<Request<String>, Response<ResponseBody<Body>>, BoxError>;

/// What the origin says to a request, the so-manieth call.
type Says = fn(&Request<String>, usize) -> Result<(Response<()>, Frames), BoxError>;

struct Fleet {
    store: MemoryStore,
    replicas: Vec<Replica>,
    origin: Arc<Origin>,
}

struct Replica {
    service: Service,
    handle: Handle<RequestKey>,
}

struct Origin {
    says: Says,
    calls: AtomicUsize,
    /// Calls that are being made.
    running: AtomicUsize,
}

struct Running(Arc<Origin>);

/// A response that has been read.
#[derive(Debug)]
struct Got {
    role: Role,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Origin {
    /// How many calls have ended, if each ends before the next begins.
    fn ended(&self) -> usize {
        self.calls.load(Ordering::SeqCst) - self.running.load(Ordering::SeqCst)
    }

    async fn call(self: Arc<Self>, request: Request<String>) -> Result<Response<Body>, BoxError> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        self.running.fetch_add(1, Ordering::SeqCst);
        let running = Running(Arc::clone(&self));
        sleep(CALL).await;
        let (response, frames) = (self.says)(&request, call)?;
        drop(running);
        let frames: Vec<_> = frames.into_iter().map(Ok).collect();
        Ok(response.map(|()| StreamBody::new(futures_util::stream::iter(frames))))
    }
}

impl Fleet {
    async fn new(says: Says) -> Self {
        Self::of(says, |layer| layer).await
    }

    async fn of(says: Says, set: fn(SingleflightLayer) -> SingleflightLayer) -> Self {
        let store = MemoryStore::new(Duration::from_secs(2), Duration::from_secs(10));
        let origin = Arc::new(Origin {
            says,
            calls: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
        });
        let replica = |_| {
            let layer =
                set(SingleflightLayer::new()).across(ReplicaClient::in_memory(&store), |_, _| ());
            let inner = Arc::clone(&origin);
            let inner = tower::service_fn(move |request| Arc::clone(&inner).call(request));
            Replica {
                handle: layer.handle(),
                service: BoxCloneSyncService::new(tower_layer::Layer::layer(&layer, inner)),
            }
        };
        let replicas: Vec<_> = (0..4).map(replica).collect();
        let fleet = Self {
            store,
            replicas,
            origin,
        };
        for replica in &fleet.replicas {
            while !replica.stats().is_up {
                sleep(Duration::from_millis(1)).await;
            }
        }
        fleet
    }

    fn calls(&self) -> usize {
        self.origin.calls.load(Ordering::SeqCst)
    }

    /// So many requests, spread over the replicas.
    async fn burst(&self, requests: usize, request: fn(usize) -> Request<String>) -> Vec<Got> {
        let one = |caller: usize| self.replicas[caller % 4].ask(request(caller));
        join_all((0..requests).map(one)).await
    }

    async fn nothing_is_left(&self) {
        sleep(Duration::from_millis(20)).await;
        assert_eq!(self.store.keys(), 0);
        assert_eq!(self.origin.running.load(Ordering::SeqCst), 0);
        for replica in &self.replicas {
            let stats = replica.handle.stats();
            assert_eq!((stats.in_flight, stats.waiters), (0, 0));
            assert_eq!(stats.buffered_bytes, 0);
        }
    }
}

impl Replica {
    fn ask(&self, request: Request<String>) -> impl Future<Output = Got> + Send + use<> {
        let response = self.service.clone().oneshot(request);
        async { read(response.await.expect("a response")).await }
    }

    fn stats(&self) -> crate::ReplicaStats {
        self.handle.stats().replicas.expect("set above")
    }
}

async fn read(response: Response<ResponseBody<Body>>) -> Got {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a body");
    Got {
        role: *parts.extensions.get().expect("a role"),
        status: parts.status,
        headers: parts.headers,
        trailers: body.trailers().cloned(),
        body: body.to_bytes(),
    }
}

fn get(_: usize) -> Request<String> {
    request("/page")
}

fn request(uri: &str) -> Request<String> {
    Request::get(uri).body(String::new()).expect("a request")
}

fn text(text: String) -> Frames {
    vec![Frame::data(text.into())]
}

#[expect(clippy::unnecessary_wraps, reason = "as all of its type")]
fn page(_: &Request<String>, call: usize) -> Result<(Response<()>, Frames), BoxError> {
    Ok((Response::new(()), text(format!("page of call {call}"))))
}

fn count(all: &[Got], role: Role) -> usize {
    all.iter().filter(|got| got.role == role).count()
}

#[tokio::test(start_paused = true)]
async fn a_burst_at_all_replicas_costs_one_call() {
    let fleet = Fleet::new(page).await;
    let all = fleet.burst(40, get).await;
    assert!(all.iter().all(|got| got.body == "page of call 0"));
    assert_eq!(fleet.calls(), 1);
    let roles = [Role::Leader, Role::Follower, Role::Replica].map(|role| count(&all, role));
    assert_eq!(roles, [1, 9, 30]);
    let stats: Vec<_> = fleet.replicas.iter().map(Replica::stats).collect();
    assert_eq!(stats.iter().map(|stats| stats.led).sum::<u64>(), 1);
    assert_eq!(stats.iter().map(|stats| stats.followed).sum::<u64>(), 3);
    fleet.nothing_is_left().await;
}

/// What differs between two requests by the default key, as its response.
fn echo(request: &Request<String>, _: usize) -> Result<(Response<()>, Frames), BoxError> {
    let field = |name| request.headers().get(name).map(HeaderValue::to_str);
    let [host, user] = ["host", "authorization"].map(|name| field(name).transpose());
    let echo = format!("{} {:?} {:?}", request.uri(), host?, user?);
    Ok((Response::new(()), text(echo)))
}

#[tokio::test(start_paused = true)]
async fn requests_that_differ_share_no_response_across_replicas() {
    let fleet = Fleet::new(echo).await;
    let uris = ["/page", "/page?1", "/other", "http://host/page"];
    let fields = [None, Some(("authorization", "me")), Some(("host", "here"))];
    let ask = |caller: usize| {
        let mut request = request(uris[caller / 4 % 4]);
        if let Some((name, value)) = fields[caller / 16] {
            let value = HeaderValue::from_static(value);
            request.headers_mut().insert(name, value);
        }
        let own = echo(&request, 0).expect("text").1.remove(0);
        let own = own.into_data().expect("data");
        let got = fleet.replicas[caller % 4].ask(request);
        async move { (got.await, own) }
    };
    let all = join_all((0..48).map(ask)).await;
    for (got, own) in &all {
        assert_eq!(got.body, own);
    }
    assert_eq!(fleet.calls(), 12);
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_shorter_than_promised_is_whole_at_no_replica() {
    let fleet = Fleet::new(|_, _| {
        let response = Response::builder().header("content-length", "9");
        Ok((response.body(())?, text("once".to_owned())))
    })
    .await;
    let ask = |replica: &Replica| {
        let response = replica.service.clone().oneshot(get(0));
        async { response.await.expect("a head").into_body().collect().await }
    };
    let all = join_all(fleet.replicas.iter().chain(&fleet.replicas).map(ask)).await;
    assert!(all.iter().all(Result::is_err));
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_alone_costs_two_commands_and_sends_no_body() {
    let fleet = Fleet::new(page).await;
    fleet.store.take_commands();
    let got = fleet.replicas[0].ask(get(0)).await;
    assert_eq!(got.role, Role::Leader);
    sleep(Duration::from_millis(20)).await;
    let commands = fleet.store.take_commands();
    assert_eq!(commands.len(), 2, "{commands:?}");
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_response_comes_with_its_status_fields_frames_and_trailers() {
    let fleet = Fleet::new(|_, _| {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let response = Response::builder()
            .status(203)
            .header("x-one", "1")
            .header("connection", "x-hop")
            .header("x-hop", "gone")
            .body(())?;
        let data = |data: &'static str| Frame::data(Bytes::from_static(data.as_bytes()));
        Ok((
            response,
            vec![data("one "), data("two"), Frame::trailers(trailers)],
        ))
    })
    .await;
    let all = fleet.burst(4, get).await;
    assert_eq!(fleet.calls(), 1);
    assert_eq!(count(&all, Role::Replica), 3);
    for got in &all {
        assert_eq!(got.status, 203);
        assert_eq!(got.headers["x-one"], "1");
        assert_eq!(got.body, "one two");
        let trailers = got.trailers.as_ref().expect("trailers");
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(got.headers.contains_key("x-hop"), got.role == Role::Leader);
    }
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_response_from_another_replica_is_known() {
    let fleet = Fleet::new(|_, _| {
        let mut frames = text("one ".to_owned());
        frames.extend(text("two".to_owned()));
        Ok((Response::new(()), frames))
    })
    .await;
    let asked = |at: usize| fleet.replicas[at].service.clone().oneshot(get(0));
    let (leader, follower) = futures_util::future::join(asked(0), asked(1)).await;
    let mut body = follower.expect("a response").into_body();
    for left in [7, 3, 0] {
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(left));
        let frame = body.frame().await;
        assert_eq!(frame.is_some_and(|frame| frame.is_ok()), left > 0);
    }
    drop((leader, body));
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn trailers_that_are_one_clients_keep_a_response_from_other_replicas() {
    let fleet = Fleet::new(|_, call| {
        let mut trailers = HeaderMap::new();
        trailers.insert("set-cookie", HeaderValue::from_static("id=1"));
        let mut frames = text(call.to_string());
        frames.push(Frame::trailers(trailers));
        Ok((Response::new(()), frames))
    })
    .await;
    let all = fleet.burst(4, get).await;
    assert_eq!(fleet.calls(), 4);
    assert_eq!(count(&all, Role::Leader), 4);
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_response_without_a_body_is_shared() {
    let fleet =
        Fleet::new(|_, _| Ok((Response::builder().status(404).body(())?, Vec::new()))).await;
    let all = fleet.burst(8, get).await;
    assert!(
        all.iter()
            .all(|got| got.status == 404 && got.body.is_empty())
    );
    assert_eq!(fleet.calls(), 1);
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_whole_with_its_head_is_shared_though_each_is_alone_at_its_replica() {
    for text in ["", "page"] {
        let store = MemoryStore::new(Duration::from_secs(2), Duration::from_secs(10));
        let calls = Arc::new(AtomicUsize::new(0));
        let services = [(); 3].map(|()| {
            let layer =
                SingleflightLayer::new().across(ReplicaClient::in_memory(&store), |_, _| ());
            let calls = Arc::clone(&calls);
            let inner = tower::service_fn(move |_: Request<String>| {
                calls.fetch_add(1, Ordering::SeqCst);
                async move {
                    sleep(CALL).await;
                    Ok::<_, BoxError>(Response::new(text.to_owned()))
                }
            });
            tower_layer::Layer::layer(&layer, inner)
        });
        sleep(Duration::from_millis(50)).await;
        let asked = services.map(|service| service.oneshot(get(0)));
        for response in join_all(asked).await {
            let body = response.expect("a response").into_body().collect().await;
            assert_eq!(body.expect("a body").to_bytes(), text);
        }
        assert_eq!(calls.load(Ordering::SeqCst), 1, "{text}");
        sleep(Duration::from_millis(20)).await;
        assert_eq!(store.keys(), 0);
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as all of its type")]
fn private(_: &Request<String>, call: usize) -> Result<(Response<()>, Frames), BoxError> {
    let mut response = Response::new(());
    let cookie = HeaderValue::from_static("id=1");
    response.headers_mut().insert("set-cookie", cookie);
    Ok((response, text(call.to_string())))
}

fn first_private(
    request: &Request<String>,
    call: usize,
) -> Result<(Response<()>, Frames), BoxError> {
    match call {
        0 => private(request, call),
        _ => page(request, call),
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_is_sent_on_from_elsewhere_is_sent_on_whatever_its_leaders_own_call_gives()
{
    for says in [private as Says, first_private] {
        let fleet = Fleet::new(says).await;
        let [first, second] = [&fleet.replicas[0], &fleet.replicas[1]];
        let elsewhere = tokio::spawn(first.ask(get(0)));
        sleep(Duration::from_millis(10)).await;
        let leader = tokio::spawn(second.ask(get(0)));
        sleep(Duration::from_millis(10)).await;
        // It is polled again when all have their responses.
        let mut follower = Box::pin(second.ask(get(0)));
        assert!(futures_util::poll!(&mut follower).is_pending());
        assert_eq!(elsewhere.await.expect("no panic").body, "0");
        assert_eq!(leader.await.expect("no panic").role, Role::Leader);
        assert_eq!(follower.await.role, Role::Forwarded);
        assert_eq!(fleet.calls(), 3);
        fleet.nothing_is_left().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_unshareable_where_its_flight_is_led_is_not_waited_for_elsewhere() {
    let fleet = Fleet::of(first_private, |layer| {
        layer.max_age(Duration::from_millis(160))
    })
    .await;
    let [first, second] = [&fleet.replicas[0], &fleet.replicas[1]];
    let old = tokio::spawn(first.ask(get(0)));
    sleep(Duration::from_millis(170)).await;
    let new = tokio::spawn(first.ask(get(0)));
    sleep(Duration::from_millis(140)).await;
    assert_eq!(old.await.expect("no panic").body, "0");
    // The new flight is still in the air.
    let got = second.ask(get(0)).await;
    assert_eq!((got.role, fleet.calls()), (Role::Leader, 3));
    assert_eq!(new.await.expect("no panic").role, Role::Leader);
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_is_off_is_joined_from_nowhere() {
    let fleet = Fleet::new(page).await;
    let [first, second] = [&fleet.replicas[0], &fleet.replicas[1]];
    let old = tokio::spawn(first.ask(get(0)));
    sleep(Duration::from_millis(10)).await;
    first.handle.set_enabled(false);
    let new = second.ask(get(0)).await;
    assert_eq!((new.role, fleet.calls()), (Role::Leader, 2));
    assert_eq!(old.await.expect("no panic").role, Role::Leader);
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_short_call_of_a_lone_leader_asks_the_store_no_more() {
    let store = MemoryStore::new(Duration::from_secs(2), Duration::from_secs(10));
    store.takes(Duration::from_millis(40));
    let layer = SingleflightLayer::new().across(ReplicaClient::in_memory(&store), |_, _| ());
    let inner = tower::service_fn(async |_: Request<String>| {
        sleep(Duration::from_millis(60)).await;
        Ok::<_, BoxError>(Response::new(String::from("body")))
    });
    let service = tower_layer::Layer::layer(&layer, inner);
    sleep(Duration::from_millis(200)).await;
    for call in 0..3 {
        let stats = layer.handle().stats().replicas.expect("set above");
        assert_eq!(stats.alone_short, u64::saturating_sub(call, 1));
        let response = service.clone().oneshot(get(0)).await;
        assert!(response.is_ok());
    }
    sleep(Duration::from_millis(100)).await;
    assert_eq!(store.keys(), 0);
}

/// A flight at a replica that follows other rules.
struct Foreign;

impl LocalFlight for Foreign {
    fn join(&self) -> Result<Arc<dyn RemoteSeat>, Unjoined<Arc<dyn RemoteSeat>>> {
        Ok(Arc::new(Self))
    }

    fn detach(&self) {}
}

impl RemoteSeat for Foreign {
    fn start(&self) {}
}

#[tokio::test(start_paused = true)]
async fn whoever_joins_while_its_leader_contends_is_covered_by_the_answer() {
    let store = MemoryStore::new(Duration::from_secs(2), Duration::from_secs(10));
    let [first, second] = [(); 2].map(|()| ReplicaClient::in_memory(&store));
    sleep(Duration::from_millis(50)).await;
    let names =
        |client: &ReplicaClient| (client.keys.digest(|_| ()), client.targets.digest(|_| ()));
    let (name, target) = names(&first);
    let mut leader = first.contend(name, target, Arc::new(Foreign), 1, |_| 1);
    assert_eq!(leader.outcome().await, ContestOutcome::Lead);
    let (name, target) = names(&second);
    let mut follower = second.contend(name, target, Arc::new(Foreign), 1, |_| 3);
    sleep(Duration::from_millis(20)).await;
    let body = Bytes::from_static(b"page");
    let answering = leader.end().expect("it is followed");
    answering.answer(Ok(body.clone()));
    let covered = 3;
    assert_eq!(
        follower.outcome().await,
        ContestOutcome::Answer { body, covered }
    );
    drop(follower);
    sleep(Duration::from_millis(20)).await;
    assert_eq!(store.keys(), 0);
}

#[tokio::test(start_paused = true)]
async fn another_replicas_response_is_judged_by_the_rules_here_too() {
    for (vary, expected) in [("user-agent", Role::Replica), ("*", Role::Leader)] {
        let store = MemoryStore::new(Duration::from_secs(2), Duration::from_secs(10));
        let layer = SingleflightLayer::new().across(ReplicaClient::in_memory(&store), |_, _| ());
        let inner = tower::service_fn(async |_: Request<String>| {
            Ok::<_, BoxError>(Response::new(String::from("ours")))
        });
        let service = tower_layer::Layer::layer(&layer, inner);
        let other = ReplicaClient::in_memory(&store);
        sleep(Duration::from_millis(50)).await;
        let parts = get(0).into_parts().0;
        let name = request_name(&other, &parts.method, |bytes| {
            RequestKeyExtractor::new().write_shared(&parts, bytes);
        });
        let target = other.targets.digest(|_| ());
        let mut contest = other.contend(name, target, Arc::new(Foreign), 1, |_| 1);
        assert_eq!(contest.outcome().await, ContestOutcome::Lead);
        let asked = tokio::spawn(service.oneshot(get(0)));
        sleep(Duration::from_millis(20)).await;
        let head = Response::builder().header("vary", vary).body(());
        let (head, ()) = head.expect("a head").into_parts();
        let answer = write_response(&head, None, &text("theirs".to_owned()), 100);
        contest.end().expect("it is followed").answer(answer);
        let got = asked.await.expect("no panic").expect("a response");
        assert_eq!(got.extensions().get(), Some(&expected), "{vary}");
        drop(got);
        sleep(Duration::from_millis(20)).await;
        assert_eq!((store.keys(), layer.handle().stats().in_flight), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn of_an_unshareable_response_every_request_has_its_own_within_two_calls() {
    let fleet = Fleet::new(|_, call| {
        let response = Response::builder().header("set-cookie", format!("id={call}"));
        Ok((response.body(())?, text(call.to_string())))
    })
    .await;
    let began = Instant::now();
    let all = fleet.burst(40, get).await;
    let mut calls: Vec<usize> = all
        .iter()
        .map(|got| std::str::from_utf8(&got.body).unwrap().parse().unwrap())
        .collect();
    calls.sort_unstable();
    assert_eq!(calls, (0..40).collect::<Vec<_>>());
    let took = began.elapsed();
    assert!(took <= 2 * CALL + Duration::from_millis(20), "{took:?}");
    fleet.nothing_is_left().await;
}

fn with_agent(agent: &'static str) -> Request<String> {
    let mut request = get(0);
    let agent = HeaderValue::from_static(agent);
    request.headers_mut().insert("user-agent", agent);
    request
}

fn varying(request: &Request<String>, call: usize) -> Result<(Response<()>, Frames), BoxError> {
    let agent = request.headers()["user-agent"].to_str()?;
    let response = Response::builder().header("vary", "user-agent");
    Ok((response.body(())?, text(format!("{agent} of call {call}"))))
}

#[tokio::test(start_paused = true)]
async fn of_a_response_that_varies_each_variant_costs_one_call() {
    let fleet = Fleet::new(varying).await;
    // Both are at each replica, and at half of them the other one leads.
    let agent = |caller: usize| ["one", "two"][(caller / 4 + caller) % 2];
    // In the second burst the fields are known beforehand.
    for burst in 0..2 {
        let began = Instant::now();
        let asks = (0..40).map(|caller| fleet.replicas[caller % 4].ask(with_agent(agent(caller))));
        for (caller, got) in join_all(asks).await.iter().enumerate() {
            let body = std::str::from_utf8(&got.body).expect("text");
            assert_eq!(body.split(' ').next(), Some(agent(caller)));
        }
        assert_eq!(fleet.calls(), 2 * burst + 2);
        let took = began.elapsed();
        assert!(took <= 2 * CALL + Duration::from_millis(20), "{took:?}");
        fleet.nothing_is_left().await;
    }
}

#[tokio::test(start_paused = true)]
async fn callers_of_another_variant_than_their_leaders_have_their_response_when_it_comes() {
    let fleet = Fleet::new(varying).await;
    fleet.store.takes(Duration::from_millis(40));
    let began = Instant::now();
    // In tasks, where nobody is polled who was not woken.
    let ask = |replica: usize, agent, at| {
        let service = fleet.replicas[replica].service.clone();
        tokio::spawn(async move {
            sleep(Duration::from_millis(at)).await;
            let response = service.oneshot(with_agent(agent)).await;
            let got = read(response.expect("a response")).await;
            (got.role, got.body, began.elapsed())
        })
    };
    // Whoever comes late is to have no advantage: it is polled first, and waits where one was who has left.
    let leaves = fleet.replicas[1].ask(with_agent("one"));
    tokio::spawn(async move {
        sleep(Duration::from_millis(90)).await;
        let waits = tokio::time::timeout(Duration::from_millis(250), leaves).await;
        assert!(waits.is_err());
    });
    let asks = [
        // By then the call has ended.
        ask(1, "one", 350),
        ask(0, "one", 0),
        ask(1, "two", 10),
        ask(1, "one", 100),
        ask(1, "three", 120),
        ask(1, "one", 140),
        // It leads, and meets those of its kind elsewhere.
        ask(2, "three", 150),
        ask(1, "one", 360),
    ];
    let all = join_all(asks).await.into_iter();
    let all: Vec<_> = all.map(|got| got.expect("no panic")).collect();
    let bodies: Vec<_> = all
        .iter()
        .map(|got| std::str::from_utf8(&got.1).expect("text"))
        .map(|body| body.split_once(" of call ").expect("as it was made"))
        .collect();
    let agents: Vec<_> = bodies.iter().map(|body| body.0).collect();
    assert_eq!(
        agents,
        ["one", "one", "two", "one", "three", "one", "three", "one"]
    );
    let calls: Vec<_> = bodies.iter().map(|body| body.1).collect();
    assert_eq!([calls[1], calls[3], calls[5]], ["0"; 3]);
    assert_ne!(calls[0], "0", "it asked too late");
    assert_eq!(calls[0], calls[7]);
    assert_eq!(fleet.calls(), 4);
    // A copy of what has come from elsewhere.
    assert_eq!([all[3].0, all[5].0], [Role::Replica; 2]);
    let soon = CALL + Duration::from_millis(100);
    assert!(all[3].2 <= soon && all[5].2 <= soon, "{all:?}");
    sleep(Duration::from_millis(100)).await;
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_waits_for_who_was_moved_is_for_nobody_who_asked_after_it() {
    let fleet = Fleet::new(varying).await;
    let leader = tokio::spawn(fleet.replicas[0].ask(with_agent("one")));
    sleep(Duration::from_millis(10)).await;
    let other = tokio::spawn(fleet.replicas[1].ask(with_agent("two")));
    sleep(Duration::from_millis(10)).await;
    let mut moved = Box::pin(fleet.replicas[1].ask(with_agent("one")));
    assert!(futures_util::poll!(&mut moved).is_pending());
    sleep(CALL).await;
    assert_eq!(leader.await.expect("no panic").body, "one of call 0");
    let late = fleet.replicas[1].ask(with_agent("one")).await;
    assert_eq!(late.body, "one of call 2");
    assert_eq!(other.await.expect("no panic").body, "two of call 1");
    assert_eq!(moved.await.body, "one of call 0");
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_comes_as_its_text() {
    let fleet = Fleet::new(|_, call| Err(format!("call {call} has failed").into())).await;
    let asks = fleet
        .replicas
        .iter()
        .map(|replica| replica.service.clone().oneshot(get(0)));
    for result in join_all(asks).await {
        let Err(error) = result else {
            panic!("no failure");
        };
        assert_eq!(error.to_string(), "call 0 has failed");
    }
    assert_eq!(fleet.calls(), 1);
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn of_a_body_over_the_limit_each_replica_has_its_own_within_two_calls() {
    let fleet = Fleet::new(|_, call| {
        let frame = || Frame::data(Bytes::from(vec![call as u8; 800_000]));
        Ok((Response::new(()), vec![frame(), frame()]))
    })
    .await;
    let began = Instant::now();
    let all = fleet.burst(40, get).await;
    assert!(all.iter().all(|got| got.body.len() == 1_600_000));
    assert_eq!(fleet.calls(), 4);
    let took = began.elapsed();
    assert!(took <= 2 * CALL + Duration::from_millis(20), "{took:?}");
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_gets_the_response_of_a_call_that_had_ended_before_it_asked() {
    let fleet = Fleet::new(page).await;
    fleet.store.takes(Duration::from_millis(40));
    let fleet = &fleet;
    let asks = (0..400_u64).map(|caller| {
        let replica = &fleet.replicas[caller as usize % 4];
        async move {
            sleep(Duration::from_millis(caller * 5 % 1999)).await;
            let asked = fleet.origin.ended();
            let got = replica.ask(get(0)).await;
            let body = std::str::from_utf8(&got.body).unwrap();
            let call: usize = body["page of call ".len()..].parse().unwrap();
            assert!(call >= asked, "call {call} had ended: {asked} had");
        }
    });
    join_all(asks).await;
    assert!(fleet.calls() > 2);
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_joins_from_elsewhere_when_the_last_byte_has_come() {
    let store = MemoryStore::new(Duration::from_secs(2), Duration::from_secs(10));
    let calls = Arc::new(AtomicUsize::new(0));
    let [first, second] = [(); 2].map(|()| {
        let layer = SingleflightLayer::new().across(ReplicaClient::in_memory(&store), |_, _| ());
        let calls = Arc::clone(&calls);
        // The connection says later that it was the last.
        let inner = tower::service_fn(move |_: Request<String>| {
            calls.fetch_add(1, Ordering::SeqCst);
            let frames = text("page".to_owned()).into_iter().map(Ok::<_, BoxError>);
            let frames = futures_util::stream::iter(frames);
            let body = StreamBody::new(frames.chain(futures_util::stream::pending()));
            let response = Response::builder().header("content-length", "4");
            async move {
                sleep(CALL).await;
                Ok::<_, BoxError>(response.body(body)?)
            }
        });
        tower_layer::Layer::layer(&layer, inner)
    });
    sleep(Duration::from_millis(50)).await;
    for is_followed in [false, true] {
        calls.store(0, Ordering::SeqCst);
        let leader = tokio::spawn(first.clone().oneshot(get(0)));
        sleep(Duration::from_millis(10)).await;
        let follower = is_followed.then(|| tokio::spawn(first.clone().oneshot(get(0))));
        let mut leader = leader.await.expect("no panic").expect("a response");
        let frame = leader.body_mut().frame().await.expect("a frame");
        assert_eq!(frame.expect("data").into_data().expect("data"), "page");
        let late = second.clone().oneshot(get(0)).await.expect("a response");
        assert_eq!(late.extensions().get(), Some(&Role::Leader));
        assert_eq!(calls.load(Ordering::SeqCst), 2);
        drop((leader, late));
        if let Some(follower) = follower {
            drop(follower.await);
        }
        sleep(Duration::from_millis(20)).await;
        assert_eq!(store.keys(), 0);
    }
}

/// In a response's extensions: it can't be copied.
struct Original;

impl Clone for Original {
    fn clone(&self) -> Self {
        panic!("there is one of it")
    }
}

/// Who has read the four bytes, and holds the body.
type Silent = (Role, Box<dyn std::any::Any>);

/// Two replicas, over an origin whose body gives four bytes and then falls silent.
async fn silent(
    set: fn(SingleflightLayer) -> SingleflightLayer,
    head: fn() -> http::response::Builder,
) -> ([impl AsyncFn() -> Silent; 2], [Handle<RequestKey>; 2]) {
    let store = MemoryStore::new(Duration::from_secs(2), Duration::from_secs(10));
    let layers = [(); 2].map(|()| {
        set(SingleflightLayer::new()).across(ReplicaClient::in_memory(&store), |_, _| ())
    });
    let handles = [0, 1].map(|at| layers[at].handle());
    let asks = layers.map(|layer| {
        let inner = tower::service_fn(move |_: Request<String>| {
            let frames = text("page".to_owned()).into_iter().map(Ok::<_, BoxError>);
            let frames = futures_util::stream::iter(frames);
            let body = StreamBody::new(frames.chain(futures_util::stream::pending()));
            async move {
                sleep(CALL).await;
                Ok::<_, BoxError>(head().body(body)?)
            }
        });
        let service = tower_layer::Layer::layer(&layer, inner);
        async move || {
            let asked = service.clone().oneshot(get(0));
            let asked = tokio::time::timeout(Duration::from_secs(60), asked).await;
            let response = asked.expect("it is not waited for").expect("a response");
            let role = *response.extensions().get().expect("a role");
            let mut body = response.into_body();
            let frame = body.frame().await.expect("a frame");
            let data = frame.expect("data").into_data().expect("data");
            assert_eq!(data, "page");
            (role, Box::new(body) as Box<dyn std::any::Any>)
        }
    });
    sleep(Duration::from_millis(50)).await;
    (asks, handles)
}

fn nobody_is_in_flight(handles: &[Handle<RequestKey>]) {
    for handle in handles {
        assert_eq!((handle.in_flight(), handle.stats().waiters), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_outgrows_its_limit_or_whose_head_can_not_be_copied_is_waited_for_nowhere() {
    type Set = fn(SingleflightLayer) -> SingleflightLayer;
    type Head = fn() -> http::response::Builder;
    let cases: [(Set, Head); 2] = [
        (|layer| layer.max_body(3), Response::builder),
        (|layer| layer, || Response::builder().extension(Original)),
    ];
    for (set, head) in cases {
        let ([first, second], handles) = silent(set, head).await;
        let began = Instant::now();
        let (first, second) = futures_util::future::join(first(), second()).await;
        assert_eq!([first.0, second.0], [Role::Leader; 2]);
        let took = began.elapsed();
        assert!(took <= 2 * CALL + Duration::from_millis(20), "{took:?}");
        drop((first, second));
        nobody_is_in_flight(&handles);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_joins_from_elsewhere_when_the_body_has_fallen_silent() {
    let head = || Response::builder().header("content-length", "8");
    let ([first, second], handles) = silent(|layer| layer, head).await;
    let first = first().await;
    sleep(Duration::from_secs(3)).await;
    let second = second().await;
    assert_eq!([first.0, second.0], [Role::Leader; 2]);
    drop((first, second));
    nobody_is_in_flight(&handles);
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_comes_too_late_for_another_replicas_response_makes_a_new_flight() {
    let fleet = Fleet::new(page).await;
    fleet.store.takes(Duration::from_millis(40));
    let asks = [(0, 0), (1, 10), (1, 100), (1, 350), (1, 351)];
    let asks = asks.map(|(replica, at)| {
        let replica = &fleet.replicas[replica];
        async move {
            sleep(Duration::from_millis(at)).await;
            replica.ask(get(0)).await
        }
    });
    let all = join_all(asks).await;
    let calls: Vec<_> = all.iter().map(|got| got.body[13] - b'0').collect();
    assert_eq!(calls, [0, 0, 0, 1, 1]);
    assert_eq!(fleet.calls(), 2);
    sleep(Duration::from_millis(100)).await;
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn the_leader_leaves_and_the_call_goes_on_for_other_replicas() {
    let fleet = Fleet::new(page).await;
    let leader = tokio::spawn(fleet.replicas[0].ask(get(0)));
    sleep(Duration::from_millis(10)).await;
    let follower = tokio::spawn(fleet.replicas[1].ask(get(0)));
    sleep(Duration::from_millis(10)).await;
    leader.abort();
    let got = follower.await.expect("no panic");
    assert_eq!((got.role, fleet.calls()), (Role::Replica, 1));
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn all_leave_everywhere_and_the_call_is_dropped() {
    let fleet = Fleet::new(page).await;
    let asks: Vec<_> = fleet
        .replicas
        .iter()
        .map(|replica| tokio::spawn(replica.ask(get(0))))
        .collect();
    sleep(Duration::from_millis(50)).await;
    assert_eq!(fleet.origin.running.load(Ordering::SeqCst), 1);
    for ask in asks {
        ask.abort();
    }
    sleep(Duration::from_millis(50)).await;
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_or_written_at_one_replica_is_joined_at_none() {
    let fleet = Fleet::new(page).await;
    let [first, second] = [&fleet.replicas[0], &fleet.replicas[1]];
    let old = tokio::spawn(first.ask(get(0)));
    sleep(Duration::from_millis(10)).await;
    second.handle.forget_all();
    sleep(Duration::from_millis(10)).await;
    let new = tokio::spawn(first.ask(get(0)));
    assert_eq!(old.await.expect("no panic").body, "page of call 0");
    assert_eq!(new.await.expect("no panic").body, "page of call 1");

    let old = tokio::spawn(first.ask(get(0)));
    sleep(Duration::from_millis(10)).await;
    let mut parts = get(0).into_parts().0;
    parts.extensions.clear();
    let key = crate::KeyExtractor::extract(&crate::RequestKeyExtractor::new(), &parts);
    second.handle.forget(&key.expect("a key"));
    sleep(Duration::from_millis(10)).await;
    let new = tokio::spawn(first.ask(get(0)));
    assert_eq!(old.await.expect("no panic").body, "page of call 2");
    assert_eq!(new.await.expect("no panic").body, "page of call 3");

    let write = Request::post("http://host/%70age").body(String::new());
    let write = tokio::spawn(second.ask(write.expect("a request")));
    sleep(Duration::from_millis(200)).await;
    let old = tokio::spawn(first.ask(get(0)));
    write.await.expect("no panic");
    sleep(Duration::from_millis(10)).await;
    let new = tokio::spawn(first.ask(get(0)));
    assert_eq!(old.await.expect("no panic").body, "page of call 5");
    assert_eq!(new.await.expect("no panic").body, "page of call 6");
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_at_one_replica_is_that_key_alone_at_the_others() {
    let fleet = Fleet::new(page).await;
    let [first, second] = [&fleet.replicas[0], &fleet.replicas[1]];
    let uris = ["/page", "/list?1", "/list?2", "/other?1"];
    let ask_all = || uris.map(|uri| tokio::spawn(first.ask(request(uri))));
    let old = ask_all();
    sleep(Duration::from_millis(10)).await;
    let parts = request("/list?1").into_parts().0;
    let key = crate::KeyExtractor::extract(&crate::RequestKeyExtractor::new(), &parts);
    second.handle.forget(&key.expect("a key"));
    sleep(Duration::from_millis(10)).await;
    let new = join_all(ask_all()).await;
    let roles = new.into_iter().map(|got| got.expect("no panic").role);
    let roles: Vec<_> = roles.collect();
    use Role::{Follower, Leader};
    assert_eq!(roles, [Follower, Leader, Follower, Follower]);
    assert_eq!(fleet.calls(), 5);
    drop(join_all(old).await);
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_by_its_key_is_joined_at_no_replica() {
    let fleet = Fleet::new(page).await;
    let [first, second] = [&fleet.replicas[0], &fleet.replicas[1]];
    let old = [first, second].map(|replica| tokio::spawn(replica.ask(get(0))));
    sleep(Duration::from_millis(10)).await;
    let forgotten = second.handle.forget_if(|key| key.uri().path() == "/page");
    assert_eq!(forgotten, 1);
    sleep(Duration::from_millis(10)).await;
    let new = first.ask(get(0)).await;
    assert_eq!((new.role, fleet.calls()), (Role::Leader, 2));
    drop(join_all(old).await);
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_flight_has_no_more_callers_than_it_may_whichever_replica_they_are_at() {
    let fleet = Fleet::of(page, |layer| layer.max_waiters(2)).await;
    let all = fleet.burst(4, get).await;
    assert_eq!(fleet.calls(), 3);
    assert_eq!(count(&all, Role::Replica), 1);
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_another_replicas_response_says_so_in_cache_status() {
    let fleet = Fleet::of(page, |layer| layer.cache_status("edge")).await;
    let all = fleet.burst(4, get).await;
    for got in all {
        let expected = match got.role {
            Role::Replica => "edge; fwd=miss; collapsed; detail=replica",
            _ => "edge; fwd=miss",
        };
        assert_eq!(got.headers["cache-status"], expected);
    }
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn without_the_store_every_replica_makes_its_own_call() {
    let fleet = Fleet::new(page).await;
    fleet.store.fall_silent(true);
    let began = Instant::now();
    let all = fleet.burst(40, get).await;
    assert_eq!(fleet.calls(), 4);
    assert_eq!(count(&all, Role::Replica), 0);
    let took = began.elapsed();
    assert!(took <= CALL + Duration::from_millis(60), "{took:?}");
    fleet.store.fall_silent(false);
}

#[tokio::test(start_paused = true)]
async fn a_key_of_ones_own_is_what_is_written_of_it() {
    let store = MemoryStore::new(Duration::from_secs(2), Duration::from_secs(10));
    let calls = Arc::new(AtomicUsize::new(0));
    let services: Vec<_> = (0..2)
        .map(|_| {
            let key = |request: &http::request::Parts| Some(request.uri.path().to_owned());
            let layer = SingleflightLayer::with_key(key)
                .across(ReplicaClient::in_memory(&store), |path, bytes| {
                    bytes.part(path.as_bytes())
                });
            let calls = Arc::clone(&calls);
            let inner = tower::service_fn(move |_: Request<String>| {
                let calls = Arc::clone(&calls);
                async move {
                    calls.fetch_add(1, Ordering::SeqCst);
                    sleep(CALL).await;
                    Ok::<_, BoxError>(Response::new(String::from("body")))
                }
            });
            (layer.handle(), tower_layer::Layer::layer(&layer, inner))
        })
        .collect();
    sleep(Duration::from_millis(50)).await;
    let ask = |at: usize, uri| services[at].1.clone().oneshot(request(uri));
    let all = join_all([ask(0, "/a?1"), ask(1, "/a?2"), ask(1, "/b")]).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(calls.swap(0, Ordering::SeqCst), 2);

    // A response to HEAD has no body, whatever the key says.
    let mut head = request("/a");
    *head.method_mut() = http::Method::HEAD;
    let head = services[1].1.clone().oneshot(head);
    let (page, head) = futures_util::future::join(ask(0, "/a"), head).await;
    assert!(page.is_ok() && head.is_ok());
    assert_eq!(calls.swap(0, Ordering::SeqCst), 2);
    drop((page, head));

    let old = ["/a", "/b"].map(|uri| tokio::spawn(ask(0, uri)));
    sleep(Duration::from_millis(10)).await;
    services[1].0.forget(&String::from("/a"));
    sleep(Duration::from_millis(10)).await;
    let new = ["/a", "/b"].map(|uri| tokio::spawn(ask(0, uri)));
    let asked = join_all(old.into_iter().chain(new)).await;
    assert!(asked.iter().all(|asked| matches!(asked, Ok(Ok(_)))));
    assert_eq!(calls.load(Ordering::SeqCst), 3);
    drop((all, asked));
    sleep(Duration::from_millis(20)).await;
    assert_eq!(store.keys(), 0);
    for (handle, _) in &services {
        assert_eq!(handle.stats().in_flight, 0);
    }
}
