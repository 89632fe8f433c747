//! Gates instead of sleeps, and what is counted.

use std::{
    any::Any,
    future::Future,
    panic::{self, AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

/// Work waits here until the test lets it go on. Needs no runtime.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    pub fn open(&self) {
        self.0.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    /// Lets one waiter through.
    pub fn admit(&self) {
        self.0.add_permits(1);
    }

    pub async fn pass(self) {
        self.0.acquire().await.unwrap().forget();
    }

    /// Work that gives `value` once the gate is open.
    pub async fn then<T>(self, value: T) -> T {
        self.pass().await;
        value
    }
}

/// How often something happened.
#[derive(Clone, Debug, Default)]
pub struct Count(Arc<AtomicUsize>);

impl Count {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn up(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub fn down(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    pub fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// How often since the last call.
    pub fn take(&self) -> usize {
        self.0.swap(0, Ordering::SeqCst)
    }

    /// A waker that counts its wake-ups.
    pub fn waker(&self) -> Waker {
        struct Counter(Count);
        impl Wake for Counter {
            fn wake(self: Arc<Self>) {
                self.0.up();
            }
        }
        Waker::from(Arc::new(Counter(self.clone())))
    }
}

/// Alive while it is held: `count` says how many are.
#[derive(Debug)]
pub struct Alive(Count);

impl Alive {
    pub fn new(count: &Count) -> Self {
        count.up();
        Self(count.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.down();
    }
}

/// A value that counts its clones.
#[derive(Debug)]
pub struct Cloned(pub Count);

impl Clone for Cloned {
    fn clone(&self) -> Self {
        self.0.up();
        Self(self.0.clone())
    }
}

/// Drives a future on this thread, without any runtime.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}

pub fn poll_with<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(waker))
}

pub fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_with(future, Waker::noop())
}

/// The payload of the panic that `call` must end with.
pub fn panic_of<T>(call: impl FnOnce() -> T) -> Box<dyn Any + Send> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(_) => panic!("it should have panicked"),
        Err(payload) => payload,
    }
}

/// The text of a payload.
pub fn text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .expect("a payload with a text")
}

/// No report of panics with this text, which are meant.
pub fn hush(meant: &'static str) {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&meant) {
            usual(info);
        }
    }));
}

/// The tasks of this runtime.
pub fn tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

/// Lets every task that is woken run, on a runtime of one thread.
pub async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Fails all tests of this binary if they take so long together: one of them hangs.
#[expect(
    clippy::disallowed_methods,
    reason = "the time that a test hangs is the real one"
)]
pub fn alarm(limit: Duration) {
    thread::spawn(move || {
        let begun = Instant::now();
        while let Some(left) = limit.checked_sub(begun.elapsed()) {
            thread::park_timeout(left);
        }
        eprintln!("a test has been hanging for up to {limit:?}");
        std::process::exit(1);
    });
}
