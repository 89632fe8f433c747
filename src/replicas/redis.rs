//! The store on Redis or Valkey: one multiplexed connection for requests, and one that listens.
//!
//! | name | what it holds |
//! | --- | --- |
//! | `NS:f:<digest>` | a lease: the inbox and the flight that lead, in hexadecimal |
//! | `NS:v:<flight>` | a flight's answer that is too large for a message, encrypted |
//! | `NS:i:<random>` | the channel of one replica |
//! | `NS:a` | the channel of all |

use std::{future::Future, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use redis::{Cmd, ErrorKind, RedisResult, Script, ServerErrorKind, Value, aio::PubSubStream};

use super::{
    endpoint::{CONNECT, Connection, Endpoint},
    id::{self, Digest, FlightId, Inbox},
    message::{Message, seal_value},
    protocol::{Command, ProtocolSettings, Reply},
    secret::Sealer,
    store::{Broken, Link, Listener, Store},
};

/// `KEYS[1]`: the lease. `ARGV`: own inbox, own flight, lease in ms, channel prefix, join, flight to pass over or '',
/// and '1' if the number of receivers means something. Returns 1 or 2 (taken over), or another flight's lease.
const CONTEND: &str = r"
local over = 1
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, 32) ~= ARGV[1] then
  local flight = string.sub(held, 33, 64)
  if flight ~= ARGV[6] then
    local heard = redis.call('PUBLISH', ARGV[4] .. string.sub(held, 1, 32), ARGV[5] .. flight)
    if heard > 0 or ARGV[7] ~= '1' then return held end
  end
  over = 2
end
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2], 'PX', ARGV[3])
return over
";

/// `KEYS[1]` the lease; `ARGV`: what it must hold, lease in ms.
const RENEW: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
";

/// `KEYS[1]` the lease; `ARGV`: what it must hold.
const RELEASE: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
";

pub(crate) struct RedisStore {
    endpoint: Endpoint,
    config: Config,
}

#[derive(Clone)]
struct Config {
    namespace: String,
    lease_ms: u64,
    value_ms: u64,
    counts: bool,
}

pub(crate) struct RedisLink {
    connection: Connection,
    config: Config,
    inbox: Inbox,
}

pub(crate) struct RedisListener(PubSubStream);

// ===== impl RedisStore =====

impl RedisStore {
    pub(crate) fn new(endpoint: Endpoint, namespace: &str, settings: &ProtocolSettings) -> Self {
        let config = Config {
            namespace: namespace.to_owned(),
            lease_ms: millis(settings.lease),
            value_ms: millis(settings.value_life),
            counts: endpoint.counts(),
        };
        Self { endpoint, config }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX)
        .max(1)
}

impl Store for RedisStore {
    type Link = RedisLink;
    type Listener = RedisListener;

    async fn connect(&self, inbox: Inbox) -> Result<(RedisLink, RedisListener), Broken> {
        let connecting = async {
            let (connection, client) = self.endpoint.connect().await?;
            let mut pubsub = client.get_async_pubsub().await?;
            let channels = [self.config.inbox(inbox), self.config.name("a")];
            pubsub.subscribe(&channels[..]).await?;
            RedisResult::Ok((connection, pubsub.into_on_message()))
        };
        match tokio::time::timeout(2 * CONNECT, connecting).await {
            Ok(Ok((connection, stream))) => {
                let config = self.config.clone();
                let link = RedisLink {
                    connection,
                    config,
                    inbox,
                };
                Ok((link, RedisListener(stream)))
            }
            Ok(Err(_)) | Err(_) => Err(Broken),
        }
    }
}

// ===== impl Config =====

impl Config {
    fn name(&self, rest: &str) -> String {
        format!("{}:{rest}", self.namespace)
    }

    fn lease(&self, digest: Digest) -> String {
        self.name("f:") + &id::hex(digest.0)
    }

    fn value(&self, flight: FlightId) -> String {
        self.name("v:") + &id::hex(flight.0)
    }

    fn inbox(&self, inbox: Inbox) -> String {
        self.name("i:") + &id::hex(inbox.0)
    }

    /// The command of the replica at `inbox`, and the script whose digest it holds.
    fn command(
        &self,
        command: &Command,
        inbox: Inbox,
        sealer: &Sealer,
    ) -> (Cmd, Option<&'static str>) {
        let mut cmd;
        let mut script = None;
        match command {
            Command::Contend {
                join: to,
                asked,
                pass_over,
            } => {
                cmd = evalsha(CONTEND, &self.lease(to.digest));
                script = Some(CONTEND);
                cmd.arg(id::hex(inbox.0))
                    .arg(id::hex(to.flight.0))
                    .arg(self.lease_ms)
                    .arg(self.name("i:"))
                    .arg(
                        Message::Join {
                            to: *to,
                            inbox,
                            asked: *asked,
                        }
                        .seal(sealer),
                    )
                    .arg(pass_over.map_or_else(String::new, |flight| id::hex(flight.0)))
                    .arg(u8::from(self.counts));
            }
            Command::Renew { digest, flight } => {
                cmd = evalsha(RENEW, &self.lease(*digest));
                script = Some(RENEW);
                cmd.arg(id::hex(inbox.0) + &id::hex(flight.0))
                    .arg(self.lease_ms);
            }
            Command::Release { digest, flight } => {
                cmd = evalsha(RELEASE, &self.lease(*digest));
                script = Some(RELEASE);
                cmd.arg(id::hex(inbox.0) + &id::hex(flight.0));
            }
            Command::Put {
                digest,
                flight,
                body,
            } => {
                let sealed = seal_value(*flight, *digest, body, sealer);
                cmd = Cmd::set(self.value(*flight), sealed);
                cmd.arg("PX").arg(self.value_ms);
            }
            Command::Fetch(at) => cmd = Cmd::get(self.value(at.flight)),
            Command::Delete(flight) => cmd = Cmd::del(self.value(*flight)),
            Command::Tell(to, message) => {
                cmd = Cmd::publish(self.inbox(*to), message.seal(sealer));
            }
            Command::TellAll(message) => cmd = Cmd::publish(self.name("a"), message.seal(sealer)),
        }
        (cmd, script)
    }
}

fn evalsha(script: &'static str, key: &str) -> Cmd {
    let mut cmd = redis::cmd("EVALSHA");
    cmd.arg(digest_of(script)).arg(1).arg(key);
    cmd
}

/// The digest by which the server knows a script.
fn digest_of(script: &'static str) -> &'static str {
    use std::sync::OnceLock;
    static DIGESTS: [OnceLock<String>; 3] = [const { OnceLock::new() }; 3];
    let at = match script {
        CONTEND => 0,
        RENEW => 1,
        _ => 2,
    };
    DIGESTS[at].get_or_init(|| Script::new(script).get_hash().to_owned())
}

/// The same command with the script itself, which the server then remembers.
fn with_script(by_digest: &Cmd, script: &'static str) -> Cmd {
    let mut cmd = redis::cmd("EVAL");
    cmd.arg(script);
    for arg in by_digest.args_iter().skip(2) {
        if let redis::Arg::Simple(arg) = arg {
            cmd.arg(arg);
        }
    }
    cmd
}

// ===== impl RedisLink =====

impl Link for RedisLink {
    fn send(
        &self,
        command: &Command,
        sealer: &Sealer,
    ) -> impl Future<Output = Result<Reply, Broken>> + Send + 'static {
        let mut connection = self.connection.clone();
        let (cmd, script) = self.config.command(command, self.inbox, sealer);
        let command = command.clone();
        let counts = self.config.counts;
        async move {
            let mut reply = connection.query(&cmd).await;
            let no_script = ErrorKind::Server(ServerErrorKind::NoScript);
            let is_unknown = reply.as_ref().is_err_and(|error| error.kind() == no_script);
            if let Some(script) = script.filter(|_| is_unknown) {
                reply = connection.query(&with_script(&cmd, script)).await;
            }
            match reply {
                Ok(value) => Ok(read(&command, value, counts)),
                Err(error) if error.is_io_error() || error.is_connection_dropped() => Err(Broken),
                Err(_) => Ok(Reply::Refused),
            }
        }
    }
}

fn read(command: &Command, value: Value, counts: bool) -> Reply {
    match (command, value) {
        (Command::Contend { .. }, Value::Int(won @ 1..=2)) => Reply::Won { over: won == 2 },
        (Command::Contend { .. }, Value::BulkString(held)) if held.len() == 64 => {
            let names = (id::parse(&held[..32]), id::parse(&held[32..]));
            match names {
                (Some(inbox), Some(flight)) => Reply::Held { inbox, flight },
                // Not our key.
                _ => Reply::Refused,
            }
        }
        (Command::Contend { .. }, _) => Reply::Refused,
        (Command::Renew { .. }, value) => Reply::Renewed(value == Value::Int(1)),
        (Command::Fetch(_), Value::BulkString(sealed)) => Reply::Fetched(sealed.into()),
        (Command::Tell(..), Value::Int(heard)) if counts => {
            usize::try_from(heard).map_or(Reply::Done, Reply::Heard)
        }
        _ => Reply::Done,
    }
}

// ===== impl RedisListener =====

impl Listener for RedisListener {
    async fn next(&mut self) -> Option<Bytes> {
        let message = self.0.next().await?;
        Some(Bytes::copy_from_slice(message.get_payload_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicas::{id::Seat, message::Address};

    #[test]
    fn a_reply_is_what_the_store_says_and_a_value_that_is_not_ours_is_refused() {
        let to = Address {
            digest: Digest(1),
            flight: FlightId(2),
            seat: Seat(3),
        };
        let contend = Command::Contend {
            join: to,
            asked: 1,
            pass_over: None,
        };
        let contended = |value| read(&contend, value, true);
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        assert_eq!(contended(Value::Int(1)), Reply::Won { over: false });
        assert_eq!(contended(Value::Int(2)), Reply::Won { over: true });
        let (inbox, flight) = (Inbox(4), FlightId(5));
        let held = format!("{}{}", id::hex(inbox.0), id::hex(flight.0));
        assert_eq!(contended(text(&held)), Reply::Held { inbox, flight });
        for other in ["", "page", &held[1..], &"x".repeat(64)] {
            assert_eq!(contended(text(other)), Reply::Refused);
        }
        assert_eq!(contended(Value::Int(3)), Reply::Refused);

        let digest = Digest(1);
        let renew = Command::Renew { digest, flight };
        for is_ours in [true, false] {
            let value = Value::Int(is_ours.into());
            assert_eq!(read(&renew, value, true), Reply::Renewed(is_ours));
        }
        let tell = Command::Tell(inbox, Message::Here { to });
        assert_eq!(read(&tell, Value::Int(0), true), Reply::Heard(0));
        assert_eq!(read(&tell, Value::Int(0), false), Reply::Done);
    }
}
