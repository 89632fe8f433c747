//! Wakers of readers, of which something comes while they are cloned: as from another thread, between a reader's look at
//! the buffer and the moment in which its waker lies in the flight.
#![allow(unsafe_code, reason = "a waker whose clone acts")]

use std::{
    pin::Pin,
    sync::Mutex,
    task::{Context, RawWaker, RawWakerVTable, Waker},
};

use http_body::Body;

use crate::support::{
    assert_idle,
    body::{Polled, data, frame, layer, leader_and_follower, now, stack},
    settle,
};

/// Acts when it is first cloned.
struct Acts(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Acts {
    fn waker(act: impl FnOnce() + Send + 'static) -> Waker {
        static TABLE: RawWakerVTable = RawWakerVTable::new(
            |data| {
                acts(data).act();
                RawWaker::new(data, &TABLE)
            },
            |_| {},
            |_| {},
            |_| {},
        );
        fn acts(data: *const ()) -> &'static Acts {
            // SAFETY: made below, of a reference that lives for ever.
            unsafe { &*data.cast() }
        }
        let acts = Box::leak(Box::new(Self(Mutex::new(Some(Box::new(act))))));
        let data = std::ptr::from_ref::<Self>(acts).cast();
        // SAFETY: what the table does with `data` is safe, on any thread and any number of times.
        unsafe { Waker::from_raw(RawWaker::new(data, &TABLE)) }
    }

    fn act(&self) {
        let act = self.0.lock().unwrap().take();
        if let Some(act) = act {
            act();
        }
    }
}

#[tokio::test]
async fn a_reader_is_heard_though_who_sets_the_pace_leaves_before_the_readers_waker_is_stored() {
    let (mut service, mut origin, handle) = stack(&layer().max_body(4));
    let [mut leader, mut follower] = leader_and_follower(&mut service);
    let feed = origin.call().begin();
    settle().await;
    let [leader, mut follower] = [&mut leader, &mut follower].map(|call| now(call).into_body());
    feed.send("outgrown");
    settle().await;
    assert_eq!(frame(&mut follower), data("outgrown"));
    feed.send("at once");
    // It asks, and has to wait for the leader.
    assert_eq!(frame(&mut follower), Polled::Pending);
    settle().await;
    assert_eq!(feed.pulled(), 1);
    // It finds once more that it has to wait.
    let waker = Acts::waker(move || drop(leader));
    let polled = Pin::new(&mut follower).poll_frame(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    settle().await;
    assert_eq!(frame(&mut follower), data("at once"));
    feed.end();
    assert_eq!(frame(&mut follower), Polled::Pending);
    settle().await;
    assert_eq!(frame(&mut follower), Polled::End);
    assert_eq!(origin.count(), 1);
    assert_idle(&handle);
}
