//! One replica: it does what it is told on its input, and says on its output what comes of it.

use std::{
    collections::HashMap,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use replicas_tests::Settings;
use tokio::{
    io::{AsyncBufReadExt, BufReader, stdin},
    sync::watch,
    task::AbortHandle,
    time::sleep,
};
use tower_singleflight::Group;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let replicas = Settings::from_args(&args).replicas();
    // An empty value is not written. It is written when its flight has ended, which is later than its work.
    let encode = |value: &Vec<u8>| {
        let text = String::from_utf8_lossy(value);
        let mut parts = text.splitn(3, ' ');
        let (call, _ended, rest) = (parts.next()?, parts.next()?, parts.next()?);
        Some(format!("{call} {} {rest}", now()).into_bytes())
    };
    let group: Group<String, Vec<u8>> =
        Group::new().replicas(replicas, (encode, |bytes: &[u8]| Some(bytes.to_vec())));
    let calls = Arc::new(AtomicU64::new(0));
    // Opened once for all who wait at that moment.
    let gate = watch::Sender::new(0_u64);
    let mut callers: HashMap<u64, Vec<AbortHandle>> = HashMap::new();

    let mut lines = BufReader::new(stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let words: Vec<_> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().expect("a number");
        match words[0] {
            "ask" => {
                let (id, key) = (number(1), words[2].to_owned());
                let (call, len) = (Duration::from_millis(number(4)), number(5) as usize);
                for _ in 0..number(3) {
                    let (group, key, calls) = (group.clone(), key.clone(), Arc::clone(&calls));
                    let gate = gate.subscribe();
                    let caller = tokio::spawn(async move {
                        let asked = now();
                        let work = || work(calls, key.clone(), (call, gate), len);
                        let outcome = group.run(key.clone(), work).await;
                        let text = String::from_utf8_lossy(&outcome.value);
                        let mut parts = text.split(' ');
                        let (made, ended) =
                            (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
                        let made = if made.is_empty() { "-" } else { made };
                        let ended = if ended.is_empty() { "0" } else { ended };
                        say(&format!(
                            "got {id} {made} {} {} {} {asked} {} {ended}",
                            outcome.led,
                            outcome.shared,
                            outcome.value.len(),
                            now(),
                        ));
                    });
                    callers.entry(id).or_default().push(caller.abort_handle());
                }
            }
            "leave" => {
                for caller in callers.remove(&number(1)).unwrap_or_default() {
                    caller.abort();
                }
            }
            "open" => {
                gate.send_modify(|opened| *opened += 1);
            }
            "waiters" => {
                let waiters = group.waiters(words[2]);
                say(&format!("waiters {} {waiters}", words[1]));
            }
            "forget" => {
                group.forget(words[1]);
            }
            "stats" => {
                let stats = group.replica_stats().expect("it has replicas");
                say(&format!(
                    "stats {} {} {} {} {} {} {} {} {} {}",
                    words[1],
                    u8::from(stats.is_up),
                    stats.led,
                    stats.followed,
                    stats.takeovers,
                    stats.alone_slow,
                    stats.alone_down,
                    stats.alone_short,
                    stats.alone_told,
                    group.in_flight(),
                ));
            }
            other => panic!("{other}"),
        }
    }
}

/// `PID.CALL ENDED` and blanks up to `len`; nothing if that is 0.
async fn work(
    calls: Arc<AtomicU64>,
    key: String,
    (takes, mut gate): (Duration, watch::Receiver<u64>),
    len: usize,
) -> Vec<u8> {
    let call = calls.fetch_add(1, Ordering::SeqCst);
    let mut cancelled = Cancelled(Some(format!("cancelled {key}")));
    say(&format!("call {key}"));
    if takes.is_zero() {
        gate.changed().await.expect("the gate outlives all callers");
    } else {
        sleep(takes).await;
    }
    cancelled.0 = None;
    if len == 0 {
        return Vec::new();
    }
    let mut value = format!("{}.{call} {} ", std::process::id(), now()).into_bytes();
    value.resize(value.len().max(len), b' ');
    value
}

/// Says so when its work is dropped before its end.
struct Cancelled(Option<String>);

impl Drop for Cancelled {
    fn drop(&mut self) {
        if let Some(line) = &self.0 {
            say(line);
        }
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// The same clock for all processes of a machine.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_micros() as u64
}
