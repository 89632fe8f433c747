//! A layer across four replicas. They lie in one process; each has a connection and a part in the protocol of its own.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use replicas_tests::{Kind, Server};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};
use tower::{ServiceExt, util::BoxCloneSyncService};
use tower_layer::Layer;
use tower_singleflight::{Handle, Replicas, RequestKey, ResponseBody, Role, SingleflightLayer};

use crate::{CALL, LONG, SLACK, ms, one_at_a_time};

type Body = ResponseBody<Full<Bytes>>;
type Service = BoxCloneSyncService<Request<String>, Response<Body>, Infallible>;

struct Fleet {
    replicas: Vec<(Service, Handle<RequestKey>)>,
    calls: Arc<AtomicUsize>,
    /// Calls end when it is open.
    gate: watch::Sender<bool>,
}

/// A call of the origin, the so-manieth.
type Says = fn(usize, &Request<String>) -> Response<Full<Bytes>>;

impl Fleet {
    async fn start(server: &Server, patience: Duration, says: Says) -> Self {
        let calls = Arc::new(AtomicUsize::new(0));
        let gate = watch::Sender::new(false);
        let replica = |_| {
            let replicas = Replicas::redis(&server.url())
                .expect("an address")
                .namespace("replicas-tests/layer")
                .secret("0123456789abcdef0123456789abcdef")
                .patience(patience)
                .down_after(patience.max(ms(300)));
            let layer = SingleflightLayer::new().replicas(replicas);
            let (calls, gate) = (Arc::clone(&calls), gate.subscribe());
            let origin = tower::service_fn(move |request| {
                let (call, mut gate) = (calls.fetch_add(1, Ordering::SeqCst), gate.clone());
                async move {
                    let _ = gate.wait_for(|is_open| *is_open).await;
                    Ok::<_, Infallible>(says(call, &request))
                }
            });
            (
                BoxCloneSyncService::new(layer.layer(origin)),
                layer.handle(),
            )
        };
        let fleet = Self {
            replicas: (0..4).map(replica).collect(),
            calls,
            gate,
        };
        let deadline = Instant::now() + LONG;
        for (_, handle) in &fleet.replicas {
            while !handle.stats().replicas.expect("it has some").is_up {
                assert!(Instant::now() < deadline, "the store is not in use");
                sleep(ms(5)).await;
            }
        }
        fleet
    }

    fn ask(&self, each: usize, request: fn(usize) -> Request<String>) -> JoinSet<(Role, Bytes)> {
        let mut asked = JoinSet::new();
        for caller in 0..each * self.replicas.len() {
            let service = self.replicas[caller % self.replicas.len()].0.clone();
            let response = service.oneshot(request(caller));
            asked.spawn(async move {
                let (head, body) = response.await.expect("infallible").into_parts();
                let role = *head.extensions.get().expect("a role");
                (role, body.collect().await.expect("a body").to_bytes())
            });
        }
        asked
    }

    /// Waits until the flights have so many callers, a replica that follows counted where it does.
    async fn waiters_reach(&self, key: &RequestKey, all: usize) {
        let deadline = Instant::now() + LONG;
        loop {
            let waiters = self.replicas.iter().map(|(_, handle)| handle.waiters(key));
            let waiters: usize = waiters.sum();
            if waiters == all {
                return;
            }
            assert!(Instant::now() < deadline, "{waiters} of {all} wait");
            sleep(ms(5)).await;
        }
    }

    fn nothing_is_left(&self) {
        for (_, handle) in &self.replicas {
            let stats = handle.stats();
            assert_eq!(
                (stats.in_flight, stats.waiters, stats.buffered_bytes),
                (0, 0, 0)
            );
        }
    }
}

fn get(_: usize) -> Request<String> {
    Request::get("http://host/page")
        .body(String::new())
        .expect("a request")
}

fn key() -> RequestKey {
    let (parts, _) = get(0).into_parts();
    let extractor = tower_singleflight::RequestKeyExtractor::new();
    tower_singleflight::KeyExtractor::extract(&extractor, &parts).expect("a key")
}

fn page(call: usize, _: &Request<String>) -> Response<Full<Bytes>> {
    Response::new(Bytes::from(vec![call as u8; 100_000]).into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_a_thousand_requests_costs_one_call_of_the_inner_service() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(&server, LONG, page).await;
    for round in 0..3 {
        let asked = fleet.ask(250, get);
        fleet.waiters_reach(&key(), 1003).await;
        // The last callers of each replica are announced within some milliseconds.
        sleep(ms(200)).await;
        fleet.gate.send_replace(true);
        let all = asked.join_all().await;
        fleet.gate.send_replace(false);
        assert!(
            all.iter()
                .all(|(_, body)| body[..] == [round as u8; 100_000])
        );
        let count = |of: Role| all.iter().filter(|(role, _)| *role == of).count();
        let roles = [Role::Leader, Role::Follower, Role::Replica].map(count);
        assert_eq!(roles, [1, 249, 750], "round {round}");
        assert_eq!(fleet.calls.load(Ordering::SeqCst), round + 1);
    }
    server.is_empty_within(ms(1000)).await;
    fleet.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unshareable_response_is_nobodys_but_its_requests() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(&server, LONG, |call, _| {
        let mut response = Response::new(Bytes::from(call.to_string()).into());
        let cookie = HeaderValue::from_str(&format!("id={call}")).expect("a value");
        response.headers_mut().insert("set-cookie", cookie);
        response
    })
    .await;
    let asked = fleet.ask(25, get);
    fleet.waiters_reach(&key(), 103).await;
    fleet.gate.send_replace(true);
    let mut all: Vec<_> = asked
        .join_all()
        .await
        .into_iter()
        .map(|(_, body)| body)
        .collect();
    all.sort();
    all.dedup();
    assert_eq!((all.len(), fleet.calls.load(Ordering::SeqCst)), (100, 100));
    server.is_empty_within(ms(1000)).await;
    fleet.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_whose_store_has_stopped_makes_a_call_at_each_replica() {
    let _turn = one_at_a_time().await;
    let server = Server::start(Kind::Redis).await;
    let fleet = Fleet::start(&server, ms(250), page).await;
    server.stop(true);
    let began = Instant::now();
    let asked = fleet.ask(250, get);
    fleet.waiters_reach(&key(), 1000).await;
    sleep(CALL.saturating_sub(began.elapsed())).await;
    fleet.gate.send_replace(true);
    let all = asked.join_all().await;
    assert!(all.iter().all(|(role, _)| *role != Role::Replica));
    assert!(fleet.calls.load(Ordering::SeqCst) <= 4);
    let took = began.elapsed();
    assert!(took <= CALL + ms(250) + 4 * SLACK, "{took:?}");
    server.stop(false);
    fleet.nothing_is_left();
}
