//! The task that talks to the store: it sends the protocol's commands, passes replies back, and reconnects.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    hub::{Driven, Hub, Start},
    message::{self, Message},
    protocol::{Command, Reply},
    secret::Sealer,
    store::{Broken, Link, Listener, Store},
};

/// The pause between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(100);

/// Gives up a link over which nothing has come for so long, even if no error says that it is broken.
const DEAF: Duration = Duration::from_secs(1);

/// The most requests in flight: more wait in the queue, and the breaker soon opens.
const UNDER_WAY: usize = 4096;

type Pending = Pin<Box<dyn Future<Output = (Command, Result<Reply, Broken>)> + Send>>;

pub(super) fn starter<S: Store>(store: S, sealer: Sealer) -> Start {
    let (store, sealer) = (Arc::new(store), Arc::new(sealer));
    Box::new(move |driven| Box::pin(drive(driven, Arc::clone(&store), Arc::clone(&sealer))))
}

async fn drive<S: Store>(driven: Driven, store: Arc<S>, sealer: Arc<Sealer>) {
    let hub = &driven.0;
    let inbox = hub.act(|protocol, _| protocol.inbox());
    while !hub.is_over() {
        if let Ok((link, listener)) = store.connect(inbox).await {
            // Commands from before mean nothing on this link.
            drop(hub.take_commands());
            hub.act(|protocol, now| protocol.linked(now));
            Session {
                hub,
                link,
                sealer: &sealer,
                pending: FuturesUnordered::new(),
            }
            .run(listener)
            .await;
            hub.act(|protocol, now| protocol.unlinked(now));
        }
        if !hub.is_over() {
            sleep(PAUSE).await;
        }
    }
}

/// One connection to the store.
struct Session<'a, L> {
    hub: &'a Hub,
    link: L,
    sealer: &'a Sealer,
    pending: FuturesUnordered<Pending>,
}

// ===== impl Session =====

impl<L: Link> Session<'_, L> {
    /// Runs until the link breaks or nobody needs it.
    async fn run(mut self, mut listener: impl Listener) {
        let timer = sleep_until(Instant::now());
        tokio::pin!(timer);
        loop {
            self.send();
            if self.hub.is_over() {
                // Wait until what was sent has arrived.
                let last = async { while self.pending.next().await.is_some() {} };
                let _ = tokio::time::timeout(DEAF, last).await;
                return;
            }
            timer.as_mut().reset(self.hub.next_tick());
            tokio::select! {
                // Handle what the store has said before what the clock says.
                biased;
                message = listener.next() => {
                    let Some(sealed) = message else { return };
                    if let Some(message) = Message::open(&sealed, self.sealer) {
                        self.hub.act(|protocol, now| protocol.message(message, now));
                    }
                }
                Some((command, reply)) = self.pending.next(), if !self.pending.is_empty() => {
                    match reply {
                        Ok(reply) => self.reply(command, reply),
                        Err(Broken) => return,
                    }
                }
                () = self.hub.news() => {}
                () = &mut timer => {
                    let silence = self.hub.act(|protocol, now| {
                        protocol.tick(now);
                        if protocol.is_up() { Duration::ZERO } else { protocol.silence(now) }
                    });
                    if silence > DEAF {
                        return;
                    }
                }
            }
        }
    }

    fn send(&mut self) {
        if self.pending.len() >= UNDER_WAY {
            return;
        }
        for command in self.hub.take_commands() {
            let reply = self.link.send(&command, self.sealer);
            self.pending
                .push(Box::pin(async move { (command, reply.await) }));
        }
    }

    fn reply(&self, command: Command, reply: Reply) {
        let sealer = self.sealer;
        self.hub.act(|protocol, now| match (command, reply) {
            (Command::Contend { join, .. }, reply) => {
                protocol.contended(join.flight, &reply, now);
            }
            (Command::Renew { flight, .. }, Reply::Renewed(is_ours)) => {
                protocol.renewed(flight, is_ours);
            }
            (Command::Put { flight, .. }, reply) => {
                protocol.stored(flight, reply == Reply::Done, now);
            }
            (Command::Fetch(at), reply) => {
                let body = match reply {
                    Reply::Fetched(sealed) => {
                        message::open_value(at.flight, at.digest, &sealed, sealer)
                    }
                    _ => None,
                };
                protocol.fetched(at.seat, body, now);
            }
            (Command::Tell(_, Message::Probe { to, .. }), Reply::Heard(receivers)) => {
                protocol.heard(to.seat, receivers, now);
            }
            (_, Reply::Refused) => protocol.failed(now),
            _ => {}
        });
    }
}
