//! Private Redis and Valkey servers.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use redis::{Client, aio::MultiplexedConnection};
use tokio::time::{Instant, sleep};

/// Whose server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `redis-server`, or what `REDIS_SERVER` names.
    Redis,
    /// `valkey-server`, or what `VALKEY_SERVER` names.
    Valkey,
}

/// A server of one's own, without persistence, on a free loopback port. Killed when this is dropped.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    args: Vec<String>,
    port: u16,
    process: Child,
    directory: PathBuf,
}

/// Three nodes that share the slots.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Server>,
}

// ===== impl Kind =====

impl Kind {
    fn program(self) -> String {
        let (variable, program) = match self {
            Self::Redis => ("REDIS_SERVER", "redis-server"),
            Self::Valkey => ("VALKEY_SERVER", "valkey-server"),
        };
        std::env::var(variable).unwrap_or_else(|_| program.to_owned())
    }

    /// Whether there is one on this machine.
    #[must_use]
    pub fn is_installed(self) -> bool {
        let version = Command::new(self.program())
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        version.is_ok_and(|status| status.success())
    }
}

// ===== impl Server =====

impl Server {
    /// # Panics
    ///
    /// If the server is not installed or does not start.
    pub async fn start(kind: Kind) -> Self {
        Self::start_with(kind, &[]).await
    }

    /// With arguments more.
    ///
    /// # Panics
    ///
    /// As `start`.
    pub async fn start_with(kind: Kind, args: &[&str]) -> Self {
        let args: Vec<_> = args.iter().map(|&arg| arg.to_owned()).collect();
        for _ in 0..5 {
            let port = free_port();
            let mut server = Self::spawn(kind, port, args.clone());
            if server.answers().await {
                return server;
            }
        }
        panic!("{} ends as soon as it is started", kind.program())
    }

    fn spawn(kind: Kind, port: u16, args: Vec<String>) -> Self {
        let name = format!("replicas-tests-{}-{port}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).expect("a temporary directory");
        let process = Command::new(kind.program())
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .args(&args)
            .arg("--dir")
            .arg(&directory)
            .stdout(Stdio::null())
            .spawn();
        let process = process
            .unwrap_or_else(|error| panic!("can't start {}: {error}; install it", kind.program()));
        Self {
            kind,
            args,
            port,
            process,
            directory,
        }
    }

    async fn answers(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return false;
            }
            if let Ok(mut connection) = self.try_connect().await
                && redis::cmd("PING").exec_async(&mut connection).await.is_ok()
            {
                return true;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("{} does not answer", self.kind.program())
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    async fn try_connect(&self) -> redis::RedisResult<MultiplexedConnection> {
        let client = Client::open(self.url())?;
        client.get_multiplexed_async_connection().await
    }

    /// A connection to look into it.
    ///
    /// # Panics
    ///
    /// If there is none to be had.
    pub async fn connect(&self) -> MultiplexedConnection {
        self.try_connect().await.expect("a connection")
    }

    /// How many keys it has.
    ///
    /// # Panics
    ///
    /// If it does not say.
    pub async fn keys(&self) -> usize {
        let mut connection = self.connect().await;
        redis::cmd("DBSIZE")
            .query_async(&mut connection)
            .await
            .expect("DBSIZE")
    }

    /// Until it has no keys.
    ///
    /// # Panics
    ///
    /// If it still has some after so long.
    pub async fn is_empty_within(&self, time: Duration) {
        let deadline = Instant::now() + time;
        while self.keys().await > 0 {
            if Instant::now() > deadline {
                panic!("the store still has {:?}", self.names("*").await);
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// The keys that match.
    ///
    /// # Panics
    ///
    /// If it does not say.
    pub async fn names(&self, pattern: &str) -> Vec<String> {
        let mut connection = self.connect().await;
        redis::cmd("KEYS")
            .arg(pattern)
            .query_async(&mut connection)
            .await
            .expect("KEYS")
    }

    /// Runs a command whose reply does not matter.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub async fn command(&self, words: &[&str]) {
        let mut connection = self.connect().await;
        let mut cmd = redis::cmd(words[0]);
        for word in &words[1..] {
            cmd.arg(*word);
        }
        cmd.exec_async(&mut connection)
            .await
            .expect("the command succeeds");
    }

    /// How often each command was run, scripts' own included.
    ///
    /// # Panics
    ///
    /// If it does not say.
    pub async fn command_counts(&self) -> std::collections::BTreeMap<String, u64> {
        let mut connection = self.connect().await;
        let info: String = redis::cmd("INFO")
            .arg("commandstats")
            .query_async(&mut connection)
            .await
            .expect("INFO");
        let counts = info.lines().filter_map(|line| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        });
        counts.collect()
    }

    async fn info(&self, section: &str, field: &str) -> u64 {
        let mut connection = self.connect().await;
        let info: String = redis::cmd("INFO")
            .arg(section)
            .query_async(&mut connection)
            .await
            .expect("INFO");
        let mut lines = info.lines();
        let value = lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.and_then(|value| value.parse().ok()).expect("a field")
    }

    /// How many bytes it was sent.
    ///
    /// # Panics
    ///
    /// If it does not say.
    pub async fn received(&self) -> u64 {
        self.info("stats", "total_net_input_bytes").await
    }

    /// How much memory it uses, in bytes.
    ///
    /// # Panics
    ///
    /// If it does not say.
    pub async fn used_memory(&self) -> u64 {
        self.info("memory", "used_memory").await
    }

    /// Stops the process, which keeps its connections and answers nothing; `false` lets it go on.
    pub fn stop(&self, yes: bool) {
        signal(self.process.id(), if yes { "STOP" } else { "CONT" });
    }

    /// Kills it and starts an empty one at its place.
    ///
    /// # Panics
    ///
    /// If that does not start.
    pub async fn restart(&mut self) {
        self.kill();
        let mut next = Self::spawn(self.kind, self.port, self.args.clone());
        assert!(next.answers().await, "it starts again at its port");
        std::mem::swap(self, &mut next);
        // The directory is the new one's too.
        next.directory = PathBuf::new();
    }

    /// Ends its process at once.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

// ===== impl Cluster =====

impl Cluster {
    /// # Panics
    ///
    /// If it does not come together.
    pub async fn start(kind: Kind) -> Self {
        let mut nodes = Vec::new();
        for _ in 0..3 {
            nodes.push(Server::start_with(kind, &["--cluster-enabled", "yes"]).await);
        }
        for (at, node) in nodes.iter().enumerate() {
            let (from, to) = (at * 16384 / 3, (at + 1) * 16384 / 3 - 1);
            node.command(&[
                "CLUSTER",
                "ADDSLOTSRANGE",
                &from.to_string(),
                &to.to_string(),
            ])
            .await;
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()])
                .await;
            if at > 0 {
                nodes[0]
                    .command(&["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string()])
                    .await;
            }
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        for node in &nodes {
            let mut connection = node.connect().await;
            loop {
                let info: String = redis::cmd("CLUSTER")
                    .arg("INFO")
                    .query_async(&mut connection)
                    .await
                    .expect("CLUSTER INFO");
                if info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3") {
                    break;
                }
                assert!(
                    Instant::now() < deadline,
                    "the cluster does not come together: {info}"
                );
                sleep(Duration::from_millis(50)).await;
            }
        }
        Self { nodes }
    }

    /// The nodes' addresses, with commas between them.
    #[must_use]
    pub fn urls(&self) -> String {
        let urls: Vec<_> = self.nodes.iter().map(Server::url).collect();
        urls.join(",")
    }

    /// As [`Server::is_empty_within`], of all nodes.
    ///
    /// # Panics
    ///
    /// If one is not.
    pub async fn is_empty_within(&self, time: Duration) {
        for node in &self.nodes {
            node.is_empty_within(time).await;
        }
    }
}

fn free_port() -> u16 {
    // A node of a cluster also takes the port 10,000 above.
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        if port < 55_000 {
            return port;
        }
    }
}

pub(crate) fn signal(process: u32, name: &str) {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &process.to_string()])
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "kill -{name} {process}"
    );
}
