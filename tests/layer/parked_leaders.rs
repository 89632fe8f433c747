//! No caller's fate hangs on another's future: a leader that is parked, late or gone harms nobody.

use bytes::Bytes;
use futures_util::FutureExt;
use tokio_test::{assert_pending, task};
use tower::{Layer, Service};
use tower_singleflight::{Handle, RequestKey, Role, Singleflight, SingleflightLayer};

use crate::support::{Origin, all, ask, assert_idle, get, read, roles, settle};

fn layered(origin: &Origin) -> (Singleflight<Origin>, Handle<RequestKey>) {
    let layer = SingleflightLayer::new();
    (layer.layer(origin.clone()), layer.handle())
}

#[tokio::test]
async fn a_leader_polled_once_and_parked_stops_nobody() {
    let origin = Origin::page();
    let (mut service, handle) = layered(&origin);
    let mut leader = task::spawn(service.call(get("/")));
    assert_pending!(leader.poll());
    let follower = ask(&service, get("/"));
    settle().await;
    origin.open();
    let got = follower.await.unwrap();
    assert_eq!((got.role, &got.body[..]), (Role::Follower, &b"page"[..]));
    let Ok(leader) = leader.await;
    assert_eq!(read(leader).await.role, Role::Leader);
    assert_eq!(origin.calls(), 1);
    assert_idle(&handle);
}

#[tokio::test]
async fn a_leader_that_was_never_polled_stops_nobody() {
    let origin = Origin::page();
    let (mut service, handle) = layered(&origin);
    let leader = service.call(get("/"));
    let follower = ask(&service, get("/"));
    origin.open();
    assert_eq!(follower.await.unwrap().role, Role::Follower);
    let Ok(leader) = leader.await;
    assert_eq!(read(leader).await.body, "page");
    assert_eq!(origin.calls(), 1);
    assert_idle(&handle);
}

#[tokio::test]
async fn the_branch_of_a_select_that_lost_stops_nobody() {
    // The "futurelock" of Oxide's RFD 609: the leader's future lives on, in scope and unpolled, while its own task waits
    // for the same key.
    let origin = Origin::page();
    let (mut service, handle) = layered(&origin);
    let mut leader = Box::pin(service.call(get("/")));
    tokio::select! {
        biased;
        _ = &mut leader => unreachable!("the gate is shut"),
        () = std::future::ready(()) => {}
    }
    let follower = service.call(get("/"));
    origin.open();
    let Ok(response) = follower.await;
    assert_eq!(read(response).await.role, Role::Follower);
    drop(leader);
    assert_idle(&handle);
}

#[tokio::test]
async fn a_leader_that_has_its_response_and_does_not_read_it_stops_nobody() {
    let origin = Origin::page();
    let (mut service, handle) = layered(&origin);
    let leader = service.call(get("/"));
    let follower = ask(&service, get("/"));
    origin.open();
    let Ok(unread) = leader.await;
    assert_eq!(follower.await.unwrap().body, "page");
    assert_eq!(handle.in_flight(), 0);
    drop(unread);
    assert_idle(&handle);
}

#[tokio::test]
async fn a_follower_that_is_not_polled_stops_nobody() {
    let origin = Origin::page();
    let (mut service, handle) = layered(&origin);
    let leader = ask(&service, get("/"));
    let parked = service.call(get("/"));
    let follower = ask(&service, get("/"));
    origin.open();
    assert_eq!(
        roles(&all([leader, follower]).await),
        [Role::Leader, Role::Follower]
    );
    assert_eq!((handle.in_flight(), handle.stats().waiters), (0, 1));
    let Ok(parked) = parked.await;
    assert_eq!(read(parked).await.body, "page");
    assert_idle(&handle);
}

#[tokio::test]
async fn a_leader_that_is_dropped_leaves_the_call_to_its_followers() {
    let origin = Origin::page();
    let (mut service, handle) = layered(&origin);
    for polled in [false, true] {
        let mut leader = Box::pin(service.call(get("/")));
        if polled {
            assert!((&mut leader).now_or_never().is_none());
        }
        let follower = ask(&service, get("/"));
        settle().await;
        drop(leader);
        assert_eq!((handle.in_flight(), origin.inside()), (1, 1));
        origin.admit(1);
        assert_eq!(follower.await.unwrap().role, Role::Follower);
        assert_idle(&handle);
    }
    assert_eq!(origin.calls(), 2);
}

#[tokio::test]
async fn the_last_caller_out_cancels_the_call_and_frees_the_key_in_that_instant() {
    let origin = Origin::page();
    let (mut service, handle) = layered(&origin);
    for callers in [1, 2, 5] {
        for polled in [false, true] {
            let mut calls: Vec<_> = (0..callers)
                .map(|_| Box::pin(service.call(get("/"))))
                .collect();
            if polled {
                for call in &mut calls {
                    assert!(call.now_or_never().is_none());
                }
                settle().await;
            }
            assert_eq!((handle.in_flight(), origin.inside()), (1, 1));
            drop(calls);
            // Nothing has run since.
            assert_eq!(origin.inside(), 0);
            assert_idle(&handle);
        }
    }
}

#[tokio::test]
async fn a_newcomer_never_joins_a_flight_that_its_last_caller_has_left() {
    let origin = Origin::counting();
    let (mut service, handle) = layered(&origin);
    drop(service.call(get("/")));
    let second = ask(&service, get("/"));
    origin.open();
    let got = second.await.unwrap();
    assert_eq!((got.role, &got.body[..]), (Role::Leader, &b"2"[..]));
    assert_idle(&handle);
}

#[tokio::test]
async fn nobody_joins_a_flight_that_has_ended() {
    let origin = Origin::counting();
    origin.open();
    let (mut service, handle) = layered(&origin);
    // The first has its whole response, unread.
    let Ok(first) = service.call(get("/")).await;
    let second = ask(&service, get("/")).await.unwrap();
    assert_eq!(
        (second.role, second.body),
        (Role::Leader, Bytes::from_static(b"2"))
    );
    assert_eq!(read(first).await.body, "1");
    assert_idle(&handle);
}

#[test]
fn without_tokio_the_callers_drive_the_flight_themselves() {
    let origin = Origin::page();
    let (mut service, handle) = layered(&origin);
    let mut leader = task::spawn(service.call(get("/")));
    assert_pending!(leader.poll());
    let mut follower = task::spawn(service.call(get("/")));
    assert_pending!(follower.poll());
    origin.open();
    // The leader is never polled again.
    let response = loop {
        match follower.poll() {
            std::task::Poll::Ready(Ok(response)) => break response,
            std::task::Poll::Pending => assert!(follower.is_woken()),
        }
    };
    let mut body = task::spawn(read(response));
    let got = loop {
        if let std::task::Poll::Ready(got) = body.poll() {
            break got;
        }
        assert!(body.is_woken());
    };
    assert_eq!((got.role, &got.body[..]), (Role::Follower, &b"page"[..]));
    drop((leader, body));
    assert_idle(&handle);
}
