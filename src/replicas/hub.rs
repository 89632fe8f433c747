//! One replica's protocol, shared by its local flights and the task that talks to the store.

use std::{future::Future, pin::Pin, sync::Arc, task::Waker, time::Duration};

use tokio::{runtime::Handle, sync::Notify, time::Instant};

use super::{
    id,
    protocol::{
        Command, ContestOutcome, EntryId, Local, Output, Protocol, ProtocolSettings, Refusal, Time,
        Unjoined,
    },
};
use crate::{
    group::{caught, drop_quietly},
    sync::Mutex,
};

/// The task that talks to the store.
type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Makes that task. Nothing else knows which store it is.
pub(super) type Start = Box<dyn Fn(Driven) -> Task + Send + Sync>;

/// A local flight, as the protocol across replicas sees it.
pub(crate) trait LocalFlight: Send + Sync {
    /// Joins the flight as a local follower does, if it may be joined. Called under the protocol's lock: it may lock
    /// the flight, but must neither run user code nor call the [`Hub`]. It returns whatever must not be dropped there.
    fn join(&self) -> Result<Arc<dyn RemoteSeat>, Unjoined<Arc<dyn RemoteSeat>>>;

    /// Lets nobody join any more; callers that have joined go on. Called under no lock.
    fn detach(&self);
}

/// A place in a local flight, held for a follower at another replica. Dropping it leaves the flight, as a caller does.
pub(crate) trait RemoteSeat: Send + Sync {
    /// From now on the flight must not depend on its leader. Called once, under no lock.
    fn start(&self);
}

/// Something that must not be dropped under a lock.
struct Spare<T>(T);

pub(crate) struct Hub {
    state: Mutex<State>,
    /// Notified when there are commands, or an earlier tick.
    news: Notify,
    epoch: Instant,
    /// How long a waiting flight relies on the driver to keep the time.
    pub(super) beat: Duration,
    start: Start,
}

struct State {
    protocol: Protocol<Arc<dyn LocalFlight>>,
    /// The time until which the driver sleeps.
    next_tick: Time,
    is_driven: bool,
    is_over: bool,
}

// ===== impl Hub =====

impl Hub {
    pub(super) fn new(settings: ProtocolSettings, start: Start) -> Arc<Self> {
        let beat = settings.beat;
        let hub = Arc::new(Self {
            state: Mutex::new(State {
                protocol: Protocol::new(settings, Box::new(id::random)),
                next_tick: Time::ZERO,
                is_driven: false,
                is_over: false,
            }),
            news: Notify::new(),
            epoch: Instant::now(),
            beat,
            start,
        });
        hub.ensure_driven();
        hub
    }

    fn now(&self) -> Time {
        self.epoch.elapsed()
    }

    /// Runs `event`, and then does here everything that needs no store.
    pub(super) fn act<T>(
        &self,
        event: impl FnOnce(&mut Protocol<Arc<dyn LocalFlight>>, Time) -> T,
    ) -> T {
        let now = self.now();
        let (result, outputs, news) = {
            let mut state = self.state.lock();
            let result = event(&mut state.protocol, now);
            if !state.is_driven {
                state.protocol.take_commands();
            }
            let is_earlier = state.protocol.next_tick() < state.next_tick;
            let news = is_earlier || state.protocol.has_commands();
            (result, state.protocol.take_output(), news)
        };
        for output in outputs {
            // A panic in one of them must not stop the others.
            drop_quietly(caught(|| match output {
                Output::Wake(waker) => waker.wake(),
                Output::Start(seat) => seat.start(),
                Output::Leave(seat) => drop(seat),
                Output::Detach(flight) => flight.detach(),
            }));
        }
        if news {
            self.news.notify_one();
        }
        result
    }

    /// The outcome for the local leader of `id`, or `None` and it is woken when there is one.
    pub(super) fn outcome(&self, id: EntryId, waker: &Waker) -> Option<ContestOutcome> {
        // Cloned, and what is left of it dropped, outside the lock.
        let mut waker = Some(waker.clone());
        self.state.lock().protocol.outcome(id, &mut waker)
    }

    // ===== the driver's side =====

    /// Makes sure that a task talks to the store. Outside a runtime there is none, and the store is not used.
    pub(super) fn ensure_driven(self: &Arc<Self>) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        {
            let mut state = self.state.lock();
            if state.is_driven || state.is_over {
                return;
            }
            state.is_driven = true;
        }
        // Made here, so that a task that is dropped before its first poll reports it too.
        let driven = Driven(Arc::clone(self));
        runtime.spawn((self.start)(driven));
    }

    /// The commands to send, in order.
    pub(super) fn take_commands(&self) -> Vec<Command> {
        self.state.lock().protocol.take_commands()
    }

    /// When the protocol next needs a tick.
    pub(super) fn next_tick(&self) -> Instant {
        let mut state = self.state.lock();
        state.next_tick = state.protocol.next_tick();
        // At most an hour away, so that the clock can't overflow.
        self.epoch + state.next_tick.min(self.now() + Duration::from_secs(3600))
    }

    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    pub(super) fn is_over(&self) -> bool {
        self.state.lock().is_over
    }

    /// Nobody uses it any more: the driver sends what is left and ends.
    pub(super) fn end(&self) {
        self.state.lock().is_over = true;
        self.news.notify_one();
    }
}

/// Held by the task that talks to the store.
pub(super) struct Driven(pub(super) Arc<Hub>);

impl Drop for Driven {
    fn drop(&mut self) {
        self.0.state.lock().is_driven = false;
        self.0.act(|protocol, now| protocol.unlinked(now));
    }
}

// ===== impl LocalFlight =====

impl Unjoined<Arc<dyn RemoteSeat>> {
    /// `spare` is dropped under no lock.
    pub(crate) fn with<T>(why: Refusal, spare: T) -> Self
    where
        T: Send + Sync + 'static,
    {
        Self {
            why,
            spare: Some(Arc::new(Spare(spare))),
        }
    }
}

impl<T: Send + Sync> RemoteSeat for Spare<T> {
    fn start(&self) {}
}

/// A seat, and what must not be dropped before it.
impl<S: RemoteSeat, T: Send + Sync> RemoteSeat for (S, T) {
    fn start(&self) {
        self.0.start();
    }
}

impl Local for Arc<dyn LocalFlight> {
    type Seat = Arc<dyn RemoteSeat>;

    fn join(&self) -> Result<Self::Seat, Unjoined<Self::Seat>> {
        (**self).join()
    }
}
