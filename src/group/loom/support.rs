//! What the models have in common.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use loom::{future::AtomicWaker, sync::atomic::AtomicBool};

use crate::group::{
    Group, Outcome, Run,
    caller::Caller,
    flight::Entry,
    matching::{Admission, Match},
    table::Table,
};

pub(super) const KEY: u32 = 0;

/// What the work waits for.
#[derive(Clone)]
pub(super) struct Gate(Arc<(AtomicBool, AtomicWaker)>);

impl Gate {
    pub(super) fn new() -> Self {
        Self(Arc::new((AtomicBool::new(false), AtomicWaker::new())))
    }

    pub(super) fn open(&self) {
        self.0.0.store(true, Ordering::Release);
        self.0.1.wake();
    }

    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.1.register_by_ref(cx.waker());
        match self.0.0.load(Ordering::Acquire) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    pub(super) async fn pass(self) {
        poll_fn(|cx| self.poll(cx)).await;
    }
}

/// Opens the gate when it is dropped.
pub(super) struct OpenOnDrop(pub(super) Gate);

impl Drop for OpenOnDrop {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// Counts its wake-ups where loom doesn't see it.
pub(super) struct Woken(pub(super) AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The leader of a new flight that is whole.
pub(super) fn lead_whole<V>(table: &Table<u32, V, ()>) -> Caller<u32, V, ()> {
    match table.enter(&[table.hash(&KEY)], KEY, (), join) {
        Admission::Leads(mut leader) => leader.make_whole(),
        _ => unreachable!("nobody else leads"),
    }
}

pub(super) fn poll_with<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

/// What a leader gets.
pub(super) fn led(value: u32, shared: bool) -> Outcome<u32> {
    Outcome {
        value,
        shared,
        led: true,
    }
}

/// What a follower gets.
pub(super) fn followed(value: u32) -> Outcome<u32> {
    Outcome {
        value,
        shared: true,
        led: false,
    }
}

/// A leader whose work gives 1 once the gate is open.
pub(super) fn lead(group: &Group<u32, u32>, gate: &Gate) -> Run<u32, u32> {
    let gate = gate.clone();
    group.run(KEY, || async {
        gate.pass().await;
        1
    })
}

pub(super) fn follow(group: &Group<u32, u32>) -> Run<u32, u32> {
    group.run(KEY, || -> std::future::Ready<u32> {
        unreachable!("somebody else leads")
    })
}

/// Joins whatever flight there is.
pub(super) fn join<V>(_: &u32, (): &(), _: &Entry<u32, V, ()>) -> Match {
    Match::Join(())
}

/// Flights as a group's callers enter them, or as those of a floor above: here its leader makes its flight whole at once.
#[derive(Clone)]
pub(super) enum Flights {
    Group(Group<u32, u32>),
    Table(Arc<Table<u32, u32, ()>>),
}

/// A caller that has entered either way.
pub(super) type Call = Pin<Box<dyn Future<Output = Outcome<u32>> + Send>>;

impl Flights {
    pub(super) fn of_a_group() -> Self {
        Self::Group(Group::new())
    }

    pub(super) fn of_a_floor_above() -> Self {
        Self::Table(Arc::new(Table::new()))
    }

    pub(super) fn run<F, Fut>(&self, work: F) -> Call
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = u32> + Send + 'static,
    {
        let table = match self {
            Self::Group(group) => return Box::pin(group.run(KEY, work)),
            Self::Table(table) => table,
        };
        let mut caller = match table.enter(&[table.hash(&KEY)], KEY, (), join) {
            Admission::Leads(mut leader) => {
                let mut caller = leader.make_whole();
                caller.start(work);
                caller
            }
            Admission::Follows(caller, ()) => {
                caller.promote();
                caller
            }
            Admission::Refused => unreachable!("not asked for"),
        };
        let led = caller.leads();
        Box::pin(poll_fn(move |cx| {
            let ended = std::task::ready!(caller.poll(cx));
            Poll::Ready(ended.into_outcome(led))
        }))
    }

    pub(super) fn in_flight(&self) -> usize {
        match self {
            Self::Group(group) => group.in_flight(),
            Self::Table(table) => table.len(),
        }
    }
}
