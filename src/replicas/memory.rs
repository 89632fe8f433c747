//! A store in memory, for tests with several replicas in one process and on a paused clock.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{Instant, sleep},
};

use super::{
    id::{self, Inbox},
    protocol::Time,
    shelf::Shelf,
    store::{Broken, Link, Listener, Reply, Request, Store},
};
use crate::{replicas::message::Address, sync::Mutex};

/// Clones are the same store.
#[derive(Clone)]
pub(crate) struct MemoryStore(Arc<Inner>);

struct Inner {
    epoch: Instant,
    lease: Duration,
    value_life: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    shelf: Shelf,
    channels: HashMap<Inbox, UnboundedSender<Bytes>>,
    requests: Vec<Request>,
    /// A round trip.
    takes: Duration,
    is_down: bool,
    is_silent: bool,
}

pub(crate) struct MemoryListener(UnboundedReceiver<Bytes>);

// ===== impl MemoryStore =====

impl MemoryStore {
    pub(crate) fn new(lease: Duration, value_life: Duration) -> Self {
        Self(Arc::new(Inner {
            epoch: Instant::now(),
            lease,
            value_life,
            state: Mutex::new(State::default()),
        }))
    }

    fn now(&self) -> Time {
        self.0.epoch.elapsed()
    }

    pub(crate) fn takes(&self, round_trip: Duration) {
        self.0.state.lock().takes = round_trip;
    }

    /// Breaks all links, and makes no new ones.
    pub(crate) fn go_down(&self) {
        let mut state = self.0.state.lock();
        state.is_down = true;
        state.channels.clear();
        state.shelf = Shelf::default();
    }

    /// Answers nothing any more, without a word.
    pub(crate) fn fall_silent(&self, is_silent: bool) {
        self.0.state.lock().is_silent = is_silent;
    }

    pub(crate) fn come_up(&self) {
        self.0.state.lock().is_down = false;
    }

    pub(crate) fn keys(&self) -> usize {
        self.0.state.lock().shelf.len(self.now())
    }

    /// How many replicas listen.
    pub(crate) fn listeners(&self) -> usize {
        let mut state = self.0.state.lock();
        state.channels.retain(|_, channel| !channel.is_closed());
        state.channels.len()
    }

    /// What it was asked, since it was last asked this; beats left out.
    pub(crate) fn take_requests(&self) -> Vec<Request> {
        let mut requests = std::mem::take(&mut self.0.state.lock().requests);
        requests.retain(|request| !matches!(request, Request::Tell(_, sealed) if is_echo(sealed)));
        requests
    }

    fn execute(&self, request: &Request) -> Result<Reply, Broken> {
        let now = self.now();
        let until = now + self.0.lease;
        let mut state = self.0.state.lock();
        if state.is_down {
            return Err(Broken);
        }
        state.requests.push(request.clone());
        let State {
            shelf, channels, ..
        } = &mut *state;
        let tell = |inbox: &Inbox, message: Vec<u8>| {
            let listens = channels.get(inbox);
            usize::from(listens.is_some_and(|channel| channel.send(message.into()).is_ok()))
        };
        Ok(match request {
            Request::Contend {
                digest,
                inbox,
                flight,
                pass_over,
                join,
            } => {
                let address = Address {
                    digest: *digest,
                    flight: *flight,
                    seat: crate::replicas::id::Seat(0),
                };
                let publish = |leader, flight: crate::replicas::id::FlightId| {
                    let mut join = join.clone();
                    join.extend(id::hex(flight.0).bytes());
                    Some(tell(&leader, join))
                };
                Reply::Contended(shelf.contend(&address, *inbox, *pass_over, (now, until), publish))
            }
            Request::Renew { digest, flight, .. } => {
                Reply::Renewed(shelf.renew(*digest, *flight, (now, until)))
            }
            Request::Release { digest, flight, .. } => {
                shelf.release(*digest, *flight);
                Reply::Done
            }
            Request::Put(value, sealed) => {
                shelf.put(
                    *value,
                    Bytes::copy_from_slice(sealed),
                    now + self.0.value_life,
                );
                Reply::Done
            }
            Request::Fetch(value) => Reply::Fetched(shelf.fetch(*value, now)),
            Request::Delete(value) => {
                shelf.delete(*value);
                Reply::Done
            }
            Request::Tell(inbox, sealed) => Reply::Heard(Some(tell(inbox, sealed.clone()))),
            Request::TellAll(sealed) => {
                for channel in channels.values() {
                    let _ = channel.send(Bytes::copy_from_slice(sealed));
                }
                Reply::Done
            }
        })
    }
}

/// Of all that is told, an echo is the shortest.
fn is_echo(sealed: &[u8]) -> bool {
    sealed.len() == 1 + 24 + 1 + 8 + 16
}

impl Store for MemoryStore {
    type Link = Self;
    type Listener = MemoryListener;

    async fn connect(&self, inbox: Inbox) -> Result<(Self, MemoryListener), Broken> {
        let (sender, receiver) = unbounded_channel();
        let mut state = self.0.state.lock();
        if state.is_down {
            return Err(Broken);
        }
        state.channels.insert(inbox, sender);
        Ok((self.clone(), MemoryListener(receiver)))
    }
}

impl Link for MemoryStore {
    fn send(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<Reply, Broken>> + Send + 'static {
        let store = self.clone();
        async move {
            let (takes, is_silent) = {
                let state = store.0.state.lock();
                (state.takes, state.is_silent)
            };
            if is_silent {
                return std::future::pending().await;
            }
            if !takes.is_zero() {
                sleep(takes / 2).await;
            }
            let reply = store.execute(&request);
            if !takes.is_zero() {
                sleep(takes / 2).await;
            }
            reply
        }
    }
}

impl Listener for MemoryListener {
    async fn next(&mut self) -> Option<Bytes> {
        self.0.recv().await
    }
}
