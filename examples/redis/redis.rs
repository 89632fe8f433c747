//! Cache-aside over Redis: a key expires, ten callers miss at once, one of them computes the value. With several processes the
//! ten callers of each are one crowd, and still one of them computes it.
//!
//! ```not_rust
//! cargo run -p redis-example --example redis
//! cargo run -p redis-example --example redis --features replicas -- --processes 4
//! REDIS_URL=redis://127.0.0.1:6379 cargo run -p redis-example --example redis
//! ```
//!
//! Without `REDIS_URL` the program starts a private `redis-server` on a free loopback port, in a temporary
//! directory and without persistence, and stops it at the end; so the binary has to be installed.
//! It prints each caller's value, the number of computations, and the value read back from Redis.
//!
//! The processes find each other over the same Redis, by a namespace and a secret that they share: see `processes.rs`.

#[cfg(feature = "replicas")]
mod processes;

use std::error::Error;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, Client, RedisError};
use tokio::time::{Instant, sleep};
use tower_singleflight::{Group, Outcome};

type BoxError = Box<dyn Error + Send + Sync>;

const CALLERS: usize = 10;
const KEY: &str = "tower-singleflight:example:article:7";

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    #[cfg(feature = "replicas")]
    if let ["--one-of-many", number] = args[..] {
        return processes::one_of_many(number).await;
    }
    // Held to the end of `main`, however it ends: its drop stops the server.
    let (url, _server) = match std::env::var("REDIS_URL") {
        Ok(url) => (url, None),
        Err(_) => {
            let (url, server) = Server::start().await?;
            (url, Some(server))
        }
    };
    let example = async {
        match args[..] {
            [] => one_process(&url).await,
            #[cfg(feature = "replicas")]
            ["--processes", count] => processes::many(&url, count.parse()?).await,
            #[cfg(not(feature = "replicas"))]
            ["--processes", _] => Err("`--processes` needs `--features replicas`".into()),
            _ => Err("usage: redis [--processes N]".into()),
        }
    };
    tokio::select! {
        result = example => result,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    }
}

async fn one_process(url: &str) -> Result<(), BoxError> {
    let mut redis = connect(url).await?;
    expire(&mut redis).await?;
    let articles = Articles::new(redis.clone(), Group::new(), "");
    all_callers(&articles, "").await?;
    println!("computed   {}", articles.computed.load(Ordering::Relaxed));
    show_and_remove(&mut redis).await
}

async fn connect(url: &str) -> Result<MultiplexedConnection, BoxError> {
    let redis = Client::open(url)?.get_multiplexed_async_connection().await;
    redis.map_err(|error| format!("no Redis at {url}: {error}").into())
}

/// A value that is about to expire, as in production.
async fn expire(redis: &mut MultiplexedConnection) -> Result<(), RedisError> {
    let () = redis.pset_ex(KEY, "stale", 20).await?;
    while redis.exists(KEY).await? {
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn all_callers(articles: &Arc<Articles>, prefix: &str) -> Result<(), BoxError> {
    let callers = (0..CALLERS).map(|_| {
        let articles = Arc::clone(articles);
        tokio::spawn(async move { articles.get(KEY).await })
    });
    for (caller, found) in join_all(callers).await.into_iter().enumerate() {
        let (value, from) = found??;
        println!("{prefix}caller {caller:>2}  {value:?}  {from}");
    }
    Ok(())
}

async fn show_and_remove(redis: &mut MultiplexedConnection) -> Result<(), BoxError> {
    let stored: String = redis.get(KEY).await?;
    println!("in Redis   {stored:?}");
    redis.del::<_, ()>(KEY).await?;
    Ok(())
}

// ===== Articles =====

struct Articles {
    redis: MultiplexedConnection,
    flights: Group<String, Result<String, RedisError>>,
    computed: AtomicU32,
    /// Which process this is, where there are many.
    process: String,
}

impl Articles {
    fn new(
        redis: MultiplexedConnection,
        flights: Group<String, Result<String, RedisError>>,
        process: &str,
    ) -> Arc<Self> {
        Arc::new(Self {
            redis,
            flights,
            computed: AtomicU32::new(0),
            process: process.to_owned(),
        })
    }

    /// Reads through the cache.
    async fn get(self: &Arc<Self>, key: &str) -> Result<(String, &'static str), RedisError> {
        if let Some(hit) = self.redis.clone().get(key).await? {
            return Ok((hit, "hit"));
        }
        let (articles, owned) = (Arc::clone(self), key.to_owned());
        let flight = self
            .flights
            .run(key.to_owned(), || async move { articles.fill(owned).await });
        let Outcome { value, led, .. } = flight.await;
        let from = if led { "miss, led" } else { "miss, followed" };
        Ok((value?, from))
    }

    /// What one caller does for all. It looks again first: since this caller's miss another flight may have
    /// filled the key and ended.
    async fn fill(&self, key: String) -> Result<String, RedisError> {
        let mut redis = self.redis.clone();
        if let Some(hit) = redis.get(&key).await? {
            return Ok(hit);
        }
        sleep(Duration::from_millis(200)).await;
        let number = self.computed.fetch_add(1, Ordering::Relaxed) + 1;
        let value = format!("the article, computation {number}{}", self.process);
        let () = redis.set_ex(&key, &value, 60).await?;
        Ok(value)
    }
}

// ===== Server =====

/// A private `redis-server`, stopped when this is dropped.
struct Server {
    process: Child,
    directory: PathBuf,
}

impl Server {
    async fn start() -> Result<(String, Self), BoxError> {
        // Another process may take the port between the look and the start, hence the tries.
        for _ in 0..5 {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
                .local_addr()?
                .port();
            let mut server = Self::spawn(port)?;
            let url = format!("redis://127.0.0.1:{port}");
            if server.answers(&url).await? {
                return Ok((url, server));
            }
        }
        Err("redis-server ended as soon as it was started; set REDIS_URL to a running Redis".into())
    }

    fn spawn(port: u16) -> Result<Self, BoxError> {
        let name = format!("tower-singleflight-{}-{port}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory)?;
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(&directory)
            .stdout(Stdio::null())
            .spawn();
        match process {
            Ok(process) => Ok(Self { process, directory }),
            Err(error) => {
                std::fs::remove_dir(&directory)?;
                Err(format!(
                    "can't start redis-server: {error}; install it (Debian and Ubuntu: apt-get install \
                     redis-server, macOS: brew install redis), or set REDIS_URL to a running Redis"
                )
                .into())
            }
        }
    }

    /// True once it answers, false if it has ended.
    async fn answers(&mut self, url: &str) -> Result<bool, BoxError> {
        let client = Client::open(url)?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if self.process.try_wait()?.is_some() {
                return Ok(false);
            }
            if let Ok(mut redis) = client.get_multiplexed_async_connection().await {
                redis.ping::<()>().await?;
                return Ok(true);
            }
            sleep(Duration::from_millis(20)).await;
        }
        Err("redis-server did not answer within 10 s".into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing can be done about a failure here, and the process may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
