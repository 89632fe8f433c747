//! What a `Handle` says and does, and what layers have in common.

use std::sync::Arc;

use http::request;
use tower::Layer;
use tower_singleflight::{
    Handle, KeyExtractor, RequestKey, RequestKeyExtractor, Role, SingleflightLayer, Stats,
    method_and_uri,
};

use crate::support::{Got, Origin, all, ask, assert_idle, get, request as asked, roles, settle};

fn key(uri: &str) -> RequestKey {
    let request = get(uri).into_parts().0;
    RequestKeyExtractor::new().extract(&request).expect("a key")
}

#[tokio::test]
async fn counts_are_exact_and_raised_by_the_call_itself() {
    let origin = Origin::page();
    let layer = SingleflightLayer::new();
    let handle = layer.handle();
    let service = layer.layer(origin.clone());
    assert_eq!(handle.stats(), Stats::default());
    let mut callers = Vec::new();
    for n in 1..=5 {
        callers.push(ask(&service, get("/a")));
        assert_eq!(handle.waiters(&key("/a")), n);
        assert_eq!((handle.in_flight(), handle.stats().waiters), (1, n));
        assert_eq!(handle.stats().joined, n as u64 - 1);
    }
    callers.push(ask(&service, get("/b")));
    callers.push(ask(&service, asked("POST", "/a", &[])));
    assert_eq!(
        (handle.waiters(&key("/a")), handle.waiters(&key("/b"))),
        (5, 1)
    );
    assert_eq!(handle.waiters(&key("/c")), 0);
    let stats = handle.stats();
    assert_eq!(
        (stats.led, stats.joined, stats.forwarded, stats.bypassed),
        (2, 4, 0, 1)
    );
    assert_eq!(
        (stats.in_flight, stats.waiters, stats.buffered_bytes),
        (2, 6, 0)
    );
    for left in (0..5).rev() {
        let caller = callers.remove(0);
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        assert_eq!(handle.waiters(&key("/a")), left);
    }
    assert_eq!((handle.in_flight(), origin.inside()), (1, 2));
    origin.open();
    assert_eq!(roles(&all(callers).await), [Role::Leader, Role::Bypassed]);
    assert_idle(&handle);
    let stats = handle.stats();
    assert_eq!(
        (stats.led, stats.joined, stats.forwarded, stats.bypassed),
        (2, 4, 0, 1)
    );
}

#[tokio::test]
async fn forget_lets_later_requests_start_anew_and_earlier_ones_keep_their_flight() {
    let origin = Origin::counting();
    let layer = SingleflightLayer::new();
    let handle = layer.handle();
    let service = layer.layer(origin.clone());
    let first = [ask(&service, get("/")), ask(&service, get("/"))];
    assert!(!handle.forget(&key("/other")));
    assert!(handle.forget(&key("/")));
    assert_eq!((handle.in_flight(), handle.waiters(&key("/"))), (0, 0));
    assert_eq!(handle.stats().waiters, 2);
    assert!(!handle.forget(&key("/")));
    let second = [ask(&service, get("/")), ask(&service, get("/"))];
    assert_eq!((handle.in_flight(), handle.waiters(&key("/"))), (1, 2));
    assert_eq!(origin.calls(), 2);
    settle().await;
    // The old flight's end does not remove its successor.
    origin.admit(1);
    for got in all(first).await {
        assert_eq!(got.body, "1");
    }
    assert_eq!((handle.in_flight(), handle.waiters(&key("/"))), (1, 2));
    origin.open();
    for got in all(second).await {
        assert_eq!(got.body, "2");
    }
    assert_idle(&handle);
}

#[tokio::test]
async fn a_forgotten_flight_whose_callers_leave_does_not_remove_its_successor() {
    let origin = Origin::page();
    let layer = SingleflightLayer::new();
    let handle = layer.handle();
    let service = layer.layer(origin.clone());
    let first = ask(&service, get("/"));
    handle.forget_all();
    let second = ask(&service, get("/"));
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!((handle.in_flight(), origin.inside()), (1, 1));
    let third = ask(&service, get("/"));
    origin.open();
    assert_eq!(
        roles(&all([second, third]).await),
        [Role::Leader, Role::Follower]
    );
    assert_idle(&handle);
}

#[tokio::test]
async fn forget_if_asks_for_each_key_under_no_lock() {
    let origin = Origin::page();
    let layer = SingleflightLayer::new();
    let handle = layer.handle();
    let service = layer.layer(origin.clone());
    let uris = ["/a/1", "/a/2", "/b/1"];
    let callers = uris.map(|uri| ask(&service, get(uri)));
    let mut seen = 0;
    let forgotten = handle.forget_if(|key| {
        seen += 1;
        // It may use the handle itself, and lead a new flight of the same key.
        assert!(handle.waiters(key) >= 1 && handle.in_flight() >= 1);
        key.uri().path().starts_with("/a/")
    });
    assert_eq!((seen, forgotten, handle.in_flight()), (3, 2, 1));
    assert_eq!(handle.waiters(&key("/b/1")), 1);
    assert_eq!(handle.forget_if(|_| false), 0);
    origin.open();
    assert_eq!(roles(&all(callers).await), [Role::Leader; 3]);
    assert_idle(&handle);
}

#[tokio::test]
async fn a_panic_in_forget_if_leaves_the_layer_usable() {
    let origin = Origin::page();
    let layer = SingleflightLayer::new();
    let handle = layer.handle();
    let service = layer.layer(origin.clone());
    let first = ask(&service, get("/"));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        handle.forget_if(|_| panic!("bang"))
    }));
    assert!(panicked.is_err());
    let second = ask(&service, get("/"));
    origin.open();
    assert_eq!(
        roles(&all([first, second]).await),
        [Role::Leader, Role::Follower]
    );
    assert_idle(&handle);
}

#[tokio::test]
async fn forget_all_gives_the_number_of_flights() {
    let origin = Origin::page();
    let layer = SingleflightLayer::new();
    let handle = layer.handle();
    let service = layer.layer(origin.clone());
    let callers: Vec<_> = (0..200)
        .map(|n| ask(&service, get(&format!("/{}", n / 2))))
        .collect();
    assert_eq!(handle.in_flight(), 100);
    assert_eq!((handle.forget_all(), handle.in_flight()), (100, 0));
    assert_eq!(handle.forget_all(), 0);
    origin.open();
    assert_eq!(all(callers).await.len(), 200);
    assert_eq!(origin.calls(), 100);
    assert_idle(&handle);
}

#[test]
fn every_handle_tells_whether_the_layer_is_on() {
    let layer = SingleflightLayer::new();
    let other = layer.handle();
    assert!(other.is_enabled(), "a new layer is on");
    layer.handle().set_enabled(false);
    assert!(!other.is_enabled());
    other.set_enabled(true);
    assert!(layer.handle().is_enabled());
}

#[tokio::test]
async fn switched_off_every_request_bypasses_and_on_again_they_coalesce() {
    let origin = Origin::page();
    let layer = SingleflightLayer::new();
    let handle = layer.handle();
    let service = layer.layer(origin.clone());
    let before = ask(&service, get("/"));
    handle.set_enabled(false);
    let off = [ask(&service, get("/")), ask(&service, get("/"))];
    assert_eq!((origin.calls(), handle.in_flight()), (3, 1));
    handle.set_enabled(true);
    let on = ask(&service, get("/"));
    assert_eq!((origin.calls(), handle.stats().bypassed), (3, 2));
    origin.open();
    assert_eq!(roles(&all(off).await), [Role::Bypassed; 2]);
    assert_eq!(
        roles(&all([before, on]).await),
        [Role::Leader, Role::Follower]
    );
    assert_idle(&handle);
}

#[tokio::test]
async fn switched_off_the_key_function_is_not_called() {
    let layer = SingleflightLayer::with_key(|_: &request::Parts| -> Option<()> { panic!("bang") });
    layer.handle().set_enabled(false);
    let origin = Origin::page();
    origin.open();
    let got = ask(&layer.layer(origin), get("/")).await.unwrap();
    assert_eq!(got.role, Role::Bypassed);
    assert_idle(&layer.handle());
}

async fn over(one: SingleflightLayer, two: SingleflightLayer) -> (usize, Vec<Got>) {
    let origin = Origin::page();
    let asked = [one.layer(origin.clone()), two.layer(origin.clone())]
        .map(|service| ask(&service, get("/")));
    origin.open();
    let got = all(asked).await;
    assert_idle(&one.handle());
    assert_idle(&two.handle());
    (origin.calls(), got)
}

#[tokio::test]
async fn clones_of_a_layer_share_their_flights() {
    let layer = SingleflightLayer::new();
    let (calls, got) = over(layer.clone(), layer).await;
    assert_eq!(
        (calls, roles(&got)),
        (1, vec![Role::Leader, Role::Follower])
    );
}

#[tokio::test]
async fn two_new_layers_share_nothing() {
    let (calls, got) = over(SingleflightLayer::new(), SingleflightLayer::default()).await;
    assert_eq!((calls, roles(&got)), (2, vec![Role::Leader; 2]));
}

#[tokio::test]
async fn clones_of_a_service_share_their_flights() {
    let origin = Origin::page();
    let layer = SingleflightLayer::new();
    let service = layer.layer(origin.clone());
    let callers = [
        ask(&service.clone(), get("/")),
        ask(&service.clone(), get("/")),
    ];
    origin.open();
    assert_eq!(roles(&all(callers).await), [Role::Leader, Role::Follower]);
    assert_idle(&layer.handle());
}

#[tokio::test]
async fn a_handle_made_before_the_settings_sees_the_same_flights() {
    let layer = SingleflightLayer::new();
    let handle = layer.handle();
    let layer = layer.max_waiters(7).cache_status("edge");
    let origin = Origin::page();
    let caller = ask(&layer.layer(origin.clone()), get("/"));
    assert_eq!(handle.in_flight(), 1);
    origin.open();
    caller.await.unwrap();
    assert_idle(&handle);
}

#[tokio::test]
async fn a_handle_knows_a_users_keys_and_is_independent_of_the_service() {
    struct State {
        flights: Handle<String>,
    }
    let layer =
        SingleflightLayer::with_key(|request: &request::Parts| Some(request.uri.path().to_owned()));
    let state = Arc::new(State {
        flights: layer.handle(),
    });
    let origin = Origin::page();
    let caller = ask(&layer.layer(origin.clone()), get("/page?x=1"));
    assert_eq!(state.flights.waiters(&"/page".to_owned()), 1);
    assert!(state.flights.clone().forget(&"/page".to_owned()));
    origin.open();
    caller.await.unwrap();
    assert_idle(&state.flights);
}

#[tokio::test]
async fn a_handle_that_outlives_its_layer_sees_nothing() {
    let handle = SingleflightLayer::with_key(method_and_uri).handle();
    assert_eq!((handle.forget_all(), handle.in_flight()), (0, 0));
    assert_idle(&handle);
}
