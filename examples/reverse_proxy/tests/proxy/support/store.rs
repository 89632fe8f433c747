use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use tokio::io::{AsyncBufReadExt, BufReader, Lines};

use super::*;

/// A private `redis-server` on a free loopback port, without persistence, and a secret beside it. Killed when dropped.
pub(crate) struct Store {
    /// What a proxy needs to use it.
    pub(crate) options: Vec<String>,
    directory: PathBuf,
    process: Child,
    address: SocketAddr,
}

/// All that the store is asked, as it is asked.
pub(crate) struct Monitor {
    lines: Lines<BufReader<TcpStream>>,
    /// Another connection, whose answers come after all that went out before.
    after: TcpStream,
}

// ===== impl Store =====

impl Store {
    pub(crate) async fn new() -> Self {
        // Another process may take the port between the look and the start.
        for _ in 0..5 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            drop(listener);
            let mut store = Self::spawn(address);
            if store.answers().await {
                return store;
            }
        }
        panic!("redis-server ends as soon as it is started")
    }

    fn spawn(address: SocketAddr) -> Self {
        let port = address.port().to_string();
        let name = format!("reverse-proxy-tests-{}-{port}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        let secret = directory.join("secret");
        std::fs::write(&secret, "0123456789abcdef0123456789abcdef\n").unwrap();
        let process = Command::new("redis-server")
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", ""])
            .arg("--dir")
            .arg(&directory)
            .stdout(Stdio::null())
            .spawn()
            .expect("can't start redis-server: is it installed?");
        let options = ["--namespace", "tests", "--secret-file"].map(str::to_owned);
        let options = options.into_iter().chain([
            secret.to_str().unwrap().to_owned(),
            "--replicas".to_owned(),
            format!("redis://{address}"),
            // On a busy machine, too, the store is waited for.
            "--patience".to_owned(),
            "5s".to_owned(),
        ]);
        Self {
            options: options.collect(),
            directory,
            process,
            address,
        }
    }

    /// True once it answers, false if it has ended.
    async fn answers(&mut self) -> bool {
        while self.process.try_wait().unwrap().is_none() {
            if let Ok(mut stream) = TcpStream::connect(self.address).await {
                return ping(&mut stream).await;
            }
            tokio::task::yield_now().await;
        }
        false
    }

    pub(crate) async fn monitor(&self) -> Monitor {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(b"MONITOR\r\n").await.unwrap();
        let mut lines = BufReader::new(stream).lines();
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "+OK");
        Monitor {
            lines,
            after: TcpStream::connect(self.address).await.unwrap(),
        }
    }

    /// Ends it.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

async fn ping(stream: &mut TcpStream) -> bool {
    let mut pong = [0; 7];
    stream.write_all(b"PING\r\n").await.is_ok()
        && stream.read_exact(&mut pong).await.is_ok()
        && &pong == b"+PONG\r\n"
}

impl Drop for Store {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

// ===== impl Monitor =====

impl Monitor {
    /// Until a proxy has found another's lease, and the message by which it joins has been sent on.
    pub(crate) async fn until_a_proxy_joins(mut self) {
        loop {
            let line = self.lines.next_line().await.unwrap().unwrap();
            if line.contains(" lua] \"PUBLISH\" ") {
                assert!(ping(&mut self.after).await);
                return;
            }
        }
    }
}
