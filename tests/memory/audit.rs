//! An audit keeps no body: neither the flight's nor those of who is audited.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use http::Response;
use http_body::Body;
use tower::{Layer, Service, service_fn};

use crate::{
    alone,
    body::{FRAME, MAX_BODY, SMALL, Zeros},
    reset_peak,
    support::{
        assert_idle,
        body::{Req, layer},
        get, poll_once,
    },
};

const LEN: usize = 16 << 20;

/// How much was alive at most while a leader and three who were audited read a body, in this order.
fn peak(order: impl IntoIterator<Item = usize>) -> usize {
    let layer = layer().max_body(MAX_BODY).audit(1.0);
    let handle = layer.handle();
    let mut service = layer.layer(service_fn(|_: Req| {
        let body = Zeros::new(LEN, FRAME, false);
        std::future::ready(Ok::<_, Infallible>(Response::new(body)))
    }));
    let mut bodies = Vec::new();
    for _ in 0..4 {
        match poll_once(&mut service.call(get("/page"))) {
            Poll::Ready(Ok(response)) => bodies.push(response.into_body()),
            _ => panic!("no response"),
        }
    }
    let base = reset_peak();
    let mut cx = Context::from_waker(Waker::noop());
    let mut read = [0; 4];
    for reader in order {
        if let Poll::Ready(Some(frame)) = Pin::new(&mut bodies[reader]).poll_frame(&mut cx) {
            read[reader] += frame.unwrap().into_data().unwrap().len();
        }
    }
    assert_eq!(read, [LEN; 4]);
    drop(bodies);
    assert_idle(&handle);
    assert_eq!(handle.stats().audit_same, 3);
    crate::peak() - base
}

#[test]
fn whoever_is_audited_beside_a_large_body_keeps_nothing_of_it() {
    let _alone = alone();
    // Enough for the end too.
    let frames = LEN / FRAME + 2;
    let in_turn = (0..frames).flat_map(|_| 0..4);
    let auditors_first = (0..4).rev().flat_map(|reader| vec![reader; frames]);
    let leader_first = (0..4).flat_map(|reader| vec![reader; frames]);
    for peak in [peak(in_turn), peak(auditors_first), peak(leader_first)] {
        assert!(peak <= MAX_BODY + SMALL, "{peak}");
    }
}
