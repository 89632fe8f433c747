//! A key whose response may not be shared is remembered: nobody waits for its head in vain.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Response, StatusCode};
use tower::Layer;
use tower_singleflight::{Role, SingleflightLayer, method_and_uri};

use crate::support::{Origin, all, ask, assert_idle, get, request, roles};

/// Answers with a session of its caller's, while the switch says so.
fn sessions() -> (Origin, Arc<AtomicBool>) {
    let private = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&private);
    let origin = Origin::new(move |_| {
        let mut response = Response::new(Bytes::from_static(b"page"));
        if switch.load(Ordering::SeqCst) {
            let cookie = "id=1".parse().expect("a value");
            response.headers_mut().insert("set-cookie", cookie);
        }
        response
    });
    (origin, private)
}

const LED: [Role; 3] = [Role::Leader, Role::Follower, Role::Follower];
const REFUSED: [Role; 3] = [Role::Leader, Role::Forwarded, Role::Forwarded];

#[tokio::test(start_paused = true)]
async fn a_second_burst_does_not_wait_for_a_head() {
    let (origin, _) = sessions();
    let layer = SingleflightLayer::new();
    let service = layer.layer(origin.clone());
    let first = [(); 3].map(|()| ask(&service, get("/")));
    origin.until_inside(1).await;
    origin.admit(1);
    // Those of the first burst that had joined are all inside at once, and so is the whole second burst.
    origin.until_inside(2).await;
    let second = [(); 5].map(|()| ask(&service, get("/")));
    assert_eq!(origin.inside(), 7, "each call was made in `call` itself");
    let stats = layer.handle().stats();
    assert_eq!((stats.led, stats.joined, stats.forwarded), (1, 2, 7));
    assert_eq!((stats.in_flight, stats.waiters), (0, 0));
    origin.open();
    assert_eq!(roles(&all(first).await), REFUSED);
    assert_eq!(roles(&all(second).await), [Role::Forwarded; 5]);
    assert_idle(&layer.handle());
}

#[tokio::test(start_paused = true)]
async fn a_key_is_remembered_for_sixty_seconds_of_tokios_clock() {
    let (origin, _) = sessions();
    origin.open();
    let layer = SingleflightLayer::new();
    let service = layer.layer(origin.clone());
    assert_eq!(ask(&service, get("/")).await.unwrap().role, Role::Leader);
    tokio::time::advance(Duration::from_millis(59_900)).await;
    assert_eq!(ask(&service, get("/")).await.unwrap().role, Role::Forwarded);
    tokio::time::advance(Duration::from_millis(200)).await;
    assert_eq!(ask(&service, get("/")).await.unwrap().role, Role::Leader);
    assert_idle(&layer.handle());
}

#[tokio::test(start_paused = true)]
async fn the_next_shareable_response_clears_the_memory() {
    let (origin, private) = sessions();
    origin.open();
    let layer = SingleflightLayer::new();
    let service = layer.layer(origin.clone());
    assert_eq!(ask(&service, get("/")).await.unwrap().role, Role::Leader);
    private.store(false, Ordering::SeqCst);
    assert_eq!(ask(&service, get("/")).await.unwrap().role, Role::Forwarded);
    let burst = [(); 3].map(|()| ask(&service, get("/")));
    assert_eq!(roles(&all(burst).await), LED);
    assert_idle(&layer.handle());
}

/// The policy shares a denial, but no policy shares one that was made for a client's credentials.
#[tokio::test(start_paused = true)]
async fn a_denial_of_credentials_does_not_clear_the_memory() {
    let denies = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&denies);
    let origin = Origin::new(move |_| {
        let mut response = Response::new(Bytes::from_static(b"page"));
        match switch.load(Ordering::SeqCst) {
            true => *response.status_mut() = StatusCode::FORBIDDEN,
            false => {
                let cookie = "id=1".parse().expect("a value");
                response.headers_mut().insert("set-cookie", cookie);
            }
        }
        response
    });
    origin.open();
    let layer = SingleflightLayer::new();
    let service = layer.layer(origin.clone());
    let known = || request("GET", "/", &[("cookie", b"id=1")]);
    assert_eq!(ask(&service, known()).await.unwrap().role, Role::Leader);
    denies.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        assert_eq!(ask(&service, known()).await.unwrap().role, Role::Forwarded);
    }
    assert_idle(&layer.handle());
}

#[tokio::test(start_paused = true)]
async fn another_key_is_not_remembered() {
    let (origin, _) = sessions();
    origin.open();
    let layer = SingleflightLayer::new();
    let service = layer.layer(origin.clone());
    assert_eq!(ask(&service, get("/a")).await.unwrap().role, Role::Leader);
    for other in [
        get("/b"),
        request("GET", "/a", &[("x-user-id", b"1")]),
        request("HEAD", "/a", &[]),
    ] {
        assert_eq!(ask(&service, other).await.unwrap().role, Role::Leader);
    }
    assert_eq!(
        ask(&service, get("/a")).await.unwrap().role,
        Role::Forwarded
    );
    assert_idle(&layer.handle());
}

#[tokio::test(start_paused = true)]
async fn another_key_of_ones_own_is_not_remembered() {
    let (origin, _) = sessions();
    origin.open();
    let layer = SingleflightLayer::with_extractor(method_and_uri);
    let service = layer.layer(origin.clone());
    let mut found = Vec::new();
    for uri in ["/a", "/b", "/a", "/c"] {
        found.push(ask(&service, get(uri)).await.unwrap().role);
    }
    let expected = [Role::Leader, Role::Leader, Role::Forwarded, Role::Leader];
    assert_eq!(found, expected);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn what_a_policy_forbids_is_remembered_as_well() {
    let origin = Origin::page();
    origin.open();
    let layer = SingleflightLayer::new().share_when(|_| false);
    let service = layer.layer(origin.clone());
    assert_eq!(ask(&service, get("/")).await.unwrap().role, Role::Leader);
    for _ in 0..2 {
        assert_eq!(ask(&service, get("/")).await.unwrap().role, Role::Forwarded);
    }
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_body_over_a_limit_makes_no_key_remembered() {
    for layer in [
        SingleflightLayer::new().max_body(3),
        SingleflightLayer::new().max_buffered(3),
    ] {
        let origin = Origin::page();
        origin.open();
        let service = layer.layer(origin.clone());
        for _ in 0..2 {
            let burst = [(); 3].map(|()| ask(&service, get("/")));
            let got = all(burst).await;
            assert!(got.iter().all(|got| got.body == "page"));
            assert_eq!(got[0].role, Role::Leader);
        }
        assert_idle(&layer.handle());
    }
}

#[tokio::test]
async fn a_variant_that_differs_makes_no_key_remembered() {
    let origin = Origin::new(|_| {
        let response = Response::builder().header("vary", "accept-encoding");
        response.body(Bytes::new()).expect("a response")
    });
    origin.open();
    let layer = SingleflightLayer::with_key(method_and_uri);
    let service = layer.layer(origin.clone());
    for _ in 0..2 {
        let burst = [&b"a"[..], b"b", b"b"].map(|coding| {
            ask(
                &service,
                request("GET", "/", &[("accept-encoding", coding)]),
            )
        });
        let expected = [Role::Leader, Role::Forwarded, Role::Follower];
        assert_eq!(roles(&all(burst).await), expected);
    }
    assert_idle(&layer.handle());
}

#[tokio::test(start_paused = true)]
async fn the_memory_is_bounded() {
    let (origin, _) = sessions();
    origin.open();
    let layer = SingleflightLayer::with_key(method_and_uri);
    let service = layer.layer(origin.clone());
    let keys = 20_000;
    for key in 0..keys {
        assert_eq!(
            ask(&service, get(&format!("/{key}"))).await.unwrap().role,
            Role::Leader
        );
    }
    let forwarded = |from: usize| {
        let service = &service;
        async move { ask(service, get(&format!("/{from}"))).await.unwrap().role }
    };
    assert_eq!(
        forwarded(keys - 1).await,
        Role::Forwarded,
        "the newest is known"
    );
    assert_eq!(
        forwarded(keys - 1000).await,
        Role::Forwarded,
        "so are some thousands"
    );
    assert_eq!(forwarded(0).await, Role::Leader, "the oldest has made room");
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_shareable_answer_to_one_that_was_sent_on_clears_the_memory() {
    let (origin, private) = sessions();
    let layer = SingleflightLayer::new();
    let service = layer.layer(origin.clone());
    let first = [(); 3].map(|()| ask(&service, get("/")));
    origin.until_inside(1).await;
    origin.admit(1);
    origin.until_inside(2).await;
    // The first answer set a cookie; those to the followers don't.
    private.store(false, Ordering::SeqCst);
    origin.open();
    assert_eq!(roles(&all(first).await), REFUSED);
    let second = [(); 3].map(|()| ask(&service, get("/")));
    assert_eq!(roles(&all(second).await), LED);
    assert_idle(&layer.handle());
}

#[tokio::test(start_paused = true)]
async fn the_shareable_response_of_an_earlier_flight_clears_the_memory() {
    let (origin, private) = sessions();
    let layer = SingleflightLayer::new();
    let service = layer.layer(origin.clone());
    let earlier = ask(&service, get("/"));
    origin.until_inside(1).await;
    assert_eq!(layer.handle().forget_all(), 1);
    let later = ask(&service, get("/"));
    origin.until_inside(2).await;
    // The origin answers in the order in which it was asked. First what is for one alone is remembered.
    private.store(true, Ordering::SeqCst);
    origin.admit(1);
    assert_eq!(earlier.await.unwrap().role, Role::Leader);
    let apart = ask(&service, get("/"));
    origin.until_inside(2).await;
    assert_eq!(layer.handle().stats().forwarded, 1);
    private.store(false, Ordering::SeqCst);
    origin.admit(1);
    assert_eq!(later.await.unwrap().role, Role::Leader);
    let burst = [(); 2].map(|()| ask(&service, get("/")));
    origin.open();
    assert_eq!(roles(&all(burst).await), [Role::Leader, Role::Follower]);
    assert_eq!(apart.await.unwrap().role, Role::Forwarded);
    assert_idle(&layer.handle());
}
