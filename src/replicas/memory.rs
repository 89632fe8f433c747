//! A store in memory, for tests with several replicas in one process and on a paused clock.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{Instant, sleep},
};

use super::{
    contents::StoreContents,
    id::{self, FlightId, Inbox},
    message::{Message, seal_value},
    protocol::{Command, Reply, Time},
    secret::Sealer,
    store::{Broken, Link, Listener, Store},
};
use crate::sync::Mutex;

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
    contents: StoreContents,
    channels: HashMap<Inbox, UnboundedSender<Bytes>>,
    commands: Vec<Command>,
    /// A round trip.
    takes: Duration,
    is_down: bool,
    is_silent: bool,
}

#[derive(Clone)]
pub(crate) struct MemoryLink {
    store: MemoryStore,
    inbox: Inbox,
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
        state.contents = StoreContents::default();
    }

    /// Answers nothing any more, without a word.
    pub(crate) fn fall_silent(&self, is_silent: bool) {
        self.0.state.lock().is_silent = is_silent;
    }

    pub(crate) fn come_up(&self) {
        self.0.state.lock().is_down = false;
    }

    pub(crate) fn keys(&self) -> usize {
        self.0.state.lock().contents.len(self.now())
    }

    /// How many replicas listen.
    pub(crate) fn listeners(&self) -> usize {
        let mut state = self.0.state.lock();
        state.channels.retain(|_, channel| !channel.is_closed());
        state.channels.len()
    }

    /// What it was asked, since it was last asked this; beats left out.
    pub(crate) fn take_commands(&self) -> Vec<Command> {
        let mut commands = std::mem::take(&mut self.0.state.lock().commands);
        commands.retain(|command| !matches!(command, Command::Tell(_, Message::Echo { .. })));
        commands
    }
}

impl MemoryLink {
    fn execute(&self, command: &Command, sealer: &Sealer) -> Result<Reply, Broken> {
        let (inbox, inner) = (self.inbox, &self.store.0);
        let now = self.store.now();
        let until = now + inner.lease;
        let mut state = inner.state.lock();
        if state.is_down {
            return Err(Broken);
        }
        state.commands.push(command.clone());
        let State {
            contents, channels, ..
        } = &mut *state;
        let tell = |to: &Inbox, message: Vec<u8>| {
            let listens = channels.get(to);
            usize::from(listens.is_some_and(|channel| channel.send(message.into()).is_ok()))
        };
        Ok(match command {
            Command::Contend {
                join: to,
                asked,
                pass_over,
            } => {
                let publish = |leader, flight: FlightId| {
                    let (to, asked) = (*to, *asked);
                    let mut join = Message::Join { to, inbox, asked }.seal(sealer);
                    join.extend(id::hex(flight.0).bytes());
                    Some(tell(&leader, join))
                };
                contents.contend(to, inbox, *pass_over, (now, until), publish)
            }
            Command::Renew { digest, flight } => {
                Reply::Renewed(contents.renew(*digest, *flight, (now, until)))
            }
            Command::Release { digest, flight } => {
                contents.release(*digest, *flight);
                Reply::Done
            }
            Command::Put {
                digest,
                flight,
                body,
            } => {
                let sealed = seal_value(*flight, *digest, body, sealer);
                contents.put(*flight, sealed.into(), now + inner.value_life);
                Reply::Done
            }
            Command::Fetch(to) => {
                let sealed = contents.fetch(to.flight, now);
                sealed.map_or(Reply::Done, Reply::Fetched)
            }
            Command::Delete(flight) => {
                contents.delete(*flight);
                Reply::Done
            }
            Command::Tell(to, message) => Reply::Heard(tell(to, message.seal(sealer))),
            Command::TellAll(message) => {
                for to in channels.keys() {
                    tell(to, message.seal(sealer));
                }
                Reply::Done
            }
        })
    }
}

impl Store for MemoryStore {
    type Link = MemoryLink;
    type Listener = MemoryListener;

    async fn connect(&self, inbox: Inbox) -> Result<(MemoryLink, MemoryListener), Broken> {
        let (sender, receiver) = unbounded_channel();
        let mut state = self.0.state.lock();
        if state.is_down {
            return Err(Broken);
        }
        state.channels.insert(inbox, sender);
        let store = self.clone();
        Ok((MemoryLink { store, inbox }, MemoryListener(receiver)))
    }
}

impl Link for MemoryLink {
    fn send(
        &self,
        command: &Command,
        sealer: &Sealer,
    ) -> impl Future<Output = Result<Reply, Broken>> + Send + 'static {
        let (link, command, sealer) = (self.clone(), command.clone(), sealer.clone());
        async move {
            let (takes, is_silent) = {
                let state = link.store.0.state.lock();
                (state.takes, state.is_silent)
            };
            if is_silent {
                return std::future::pending().await;
            }
            if !takes.is_zero() {
                sleep(takes / 2).await;
            }
            let reply = link.execute(&command, &sealer);
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
