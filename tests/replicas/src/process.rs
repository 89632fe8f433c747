//! A replica as a process of its own, and what it says.

use std::{process::Stdio, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::{Mutex, Notify},
    time::{Instant, timeout},
};

use crate::{server::signal, settings::Settings};

/// A process with one group, whose work takes as long as the caller says.
#[derive(Debug)]
pub struct Replica {
    process: Child,
    input: Mutex<ChildStdin>,
    said: Arc<Said>,
    next: std::sync::atomic::AtomicU64,
}

#[derive(Debug, Default)]
struct Said {
    lines: std::sync::Mutex<Vec<String>>,
    news: Notify,
}

/// What one caller got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    /// Which process's which call made it.
    pub call: String,
    /// Whether this caller's work was the one that ran.
    pub led: bool,
    /// Whether another caller had joined.
    pub shared: bool,
    /// Of the value, in bytes.
    pub len: usize,
    /// In microseconds since the same moment, for all processes of a machine.
    pub asked: u64,
    /// When it got its answer.
    pub got: u64,
    /// When the call had ended: no earlier than that, for an answer from another replica.
    pub ended: u64,
}

// ===== impl Replica =====

impl Replica {
    /// Starts the program at `path`, and does not wait for its store.
    ///
    /// # Panics
    ///
    /// If it does not start.
    #[must_use]
    pub fn start(path: &str, settings: &Settings) -> Self {
        let mut process = Command::new(path)
            .args(settings.to_args())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the replica starts");
        let input = process.stdin.take().expect("piped");
        let output = process.stdout.take().expect("piped");
        let said = Arc::new(Said::default());
        tokio::spawn({
            let said = Arc::clone(&said);
            async move {
                let mut lines = BufReader::new(output).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    said.lines.lock().expect("no panic").push(line);
                    said.news.notify_waiters();
                }
            }
        });
        Self {
            process,
            input: Mutex::new(input),
            said,
            next: std::sync::atomic::AtomicU64::new(0),
        }
    }

    async fn say(&self, line: &str) {
        let mut input = self.input.lock().await;
        // One that was killed does not listen.
        let _ = input.write_all(format!("{line}\n").as_bytes()).await;
    }

    fn id(&self) -> u64 {
        self.next.fetch_add(1, std::sync::atomic::Ordering::SeqCst)
    }

    /// The lines that begin so.
    ///
    /// # Panics
    ///
    /// Never.
    pub fn lines(&self, beginning: &str) -> Vec<String> {
        let lines = self.said.lines.lock().expect("no panic");
        lines
            .iter()
            .filter(|line| line.starts_with(beginning))
            .cloned()
            .collect()
    }

    async fn wait_for(&self, beginning: &str, count: usize, time: Duration) -> Option<Vec<String>> {
        let wait = async {
            loop {
                let news = self.said.news.notified();
                let lines = self.lines(beginning);
                if lines.len() >= count {
                    return lines;
                }
                news.await;
            }
        };
        timeout(time, wait).await.ok()
    }

    /// So many callers of `key`, at once, whose work takes `call`, or until [`open`](Self::open) where that is zero, and gives `len`
    /// bytes. Says by what [`got`](Self::got) knows them.
    pub async fn ask(&self, key: &str, count: usize, call: Duration, len: usize) -> (u64, usize) {
        let id = self.id();
        self.say(&format!(
            "ask {id} {key} {count} {} {len}",
            call.as_millis()
        ))
        .await;
        (id, count)
    }

    /// What the callers got.
    ///
    /// # Panics
    ///
    /// If one has nothing after so long.
    pub async fn got(&self, (id, count): (u64, usize), time: Duration) -> Vec<Got> {
        let beginning = format!("got {id} ");
        let lines = self.wait_for(&beginning, count, time).await;
        let lines = lines.unwrap_or_else(|| {
            panic!(
                "{} of {count} callers got something within {time:?}",
                self.lines(&beginning).len()
            )
        });
        lines.iter().map(|line| Got::read(line)).collect()
    }

    /// How often work was run.
    pub fn calls(&self) -> usize {
        self.lines("call ").len()
    }

    /// Cancels the callers.
    pub async fn leave(&self, (id, _): (u64, usize)) {
        self.say(&format!("leave {id}")).await;
    }

    /// Ends the work that waits for it.
    pub async fn open(&self) {
        self.say("open").await;
    }

    /// How many callers the flight of `key` has, those at other replicas included.
    ///
    /// # Panics
    ///
    /// If it does not say.
    pub async fn waiters(&self, key: &str) -> usize {
        let id = self.id();
        self.say(&format!("waiters {id} {key}")).await;
        let beginning = format!("waiters {id} ");
        let lines = self
            .wait_for(&beginning, 1, Duration::from_secs(10))
            .await
            .expect("its waiters");
        let number = lines[0].rsplit(' ').next().expect("a word");
        number.parse().expect("a number")
    }

    /// Callers of `key` start anew.
    pub async fn forget(&self, key: &str) {
        self.say(&format!("forget {key}")).await;
    }

    /// `up led followed takeovers slow down short told in_flight`.
    ///
    /// # Panics
    ///
    /// If it does not say.
    pub async fn stats(&self) -> [u64; 9] {
        let id = self.id();
        self.say(&format!("stats {id}")).await;
        let beginning = format!("stats {id} ");
        let lines = self
            .wait_for(&beginning, 1, Duration::from_secs(10))
            .await
            .expect("its stats");
        let numbers = lines[0]
            .split(' ')
            .skip(2)
            .map(|number| number.parse().expect("a number"));
        numbers
            .collect::<Vec<_>>()
            .try_into()
            .expect("nine numbers")
    }

    /// Whether the store is in use.
    pub async fn is_up(&self) -> bool {
        self.stats().await[0] == 1
    }

    /// # Panics
    ///
    /// If the store is not in use after so long.
    pub async fn is_up_within(&self, time: Duration) {
        let deadline = Instant::now() + time;
        while !self.is_up().await {
            assert!(
                Instant::now() < deadline,
                "the store is not in use after {time:?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Its process.
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub fn process(&self) -> u32 {
        self.process.id().expect("it runs")
    }

    /// # Panics
    ///
    /// If it has ended.
    pub fn signal(&self, name: &str) {
        signal(self.process(), name);
    }
}

// ===== impl Got =====

impl Got {
    fn read(line: &str) -> Self {
        let words: Vec<_> = line.split(' ').collect();
        let number = |at: usize| words[at].parse().expect("a number");
        Self {
            call: words[2].to_owned(),
            led: words[3] == "true",
            shared: words[4] == "true",
            len: number(5) as usize,
            asked: number(6),
            got: number(7),
            ended: number(8),
        }
    }

    /// How long it took.
    #[must_use]
    pub fn took(&self) -> Duration {
        Duration::from_micros(self.got - self.asked)
    }
}
