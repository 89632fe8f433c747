//! What is kept of a flight that has ended: nothing.

use std::{
    future::poll_fn,
    mem,
    sync::{Arc, Mutex},
    task::{Poll, Waker},
};

use tower_singleflight::Group;

use crate::support::{Alive, Count, block_on, poll_once};

/// Work that leaves its waker with somebody who keeps it, and gives `value` in its second poll.
fn keeps_its_waker<V>(
    kept: &Arc<Mutex<Option<Waker>>>,
    value: V,
) -> impl Future<Output = V> + Send + 'static + use<V>
where
    V: Send + 'static,
{
    let (kept, mut value, mut first) = (Arc::clone(kept), Some(value), true);
    poll_fn(move |cx| {
        *kept.lock().unwrap() = Some(cx.waker().clone());
        if mem::take(&mut first) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(value.take().unwrap())
    })
}

#[test]
fn outside_tokio_a_waker_that_somebody_keeps_keeps_no_value() {
    let group = Group::new();
    let (count, kept) = (Count::new(), Arc::default());
    let value = Arc::new(Alive::new(&count));
    let leader = group.run("key", || keeps_its_waker(&kept, value));
    let follower = group.run("key", std::future::pending);
    drop((block_on(follower), block_on(leader)));
    assert_eq!((group.in_flight(), count.get()), (0, 0));
    // It may still be woken.
    kept.lock().unwrap().take().unwrap().wake();
}

#[tokio::test]
async fn a_tasks_waker_that_somebody_keeps_keeps_no_value() {
    let group = Group::new();
    let (count, kept) = (Count::new(), Arc::default());
    let value = Arc::new(Alive::new(&count));
    let leader = group.run("key", || keeps_its_waker(&kept, value));
    let follower = group.run("key", std::future::pending);
    drop((follower.await, leader.await));
    tokio::task::yield_now().await;
    assert_eq!((group.in_flight(), count.get()), (0, 0));
    kept.lock().unwrap().take().unwrap().wake();
}

#[test]
fn outside_tokio_a_waker_that_somebody_keeps_keeps_no_cancelled_work() {
    let group = Group::new();
    let (count, kept) = (Count::new(), Arc::default());
    let work = keeps_its_waker(&kept, Arc::new(Alive::new(&count)));
    let leader = group.run("key", || work);
    let mut follower = group.run("key", std::future::pending);
    assert!(poll_once(&mut follower).is_pending());
    drop((leader, follower));
    assert_eq!((group.in_flight(), count.get()), (0, 0));
    kept.lock().unwrap().take().unwrap().wake();
}
