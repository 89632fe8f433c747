//! The example in several processes, which find each other over Redis and compute a value once among them.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::RedisError;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::time::sleep;
use tower_singleflight::{Group, Replicas};

use super::{Articles, BoxError, all_callers, connect, expire, show_and_remove};

/// Starts this program so many times, lets all callers ask at once, and prints what they print.
pub(super) async fn many(url: &str, count: usize) -> Result<(), BoxError> {
    let mut redis = connect(url).await?;
    expire(&mut redis).await?;
    // Known to these processes and nobody else. Yours comes from where you keep secrets.
    let random = RandomState::new();
    let secret: String = (0..4)
        .map(|part| format!("{:016x}", random.hash_one(part)))
        .collect();
    let mut processes = Vec::new();
    for number in 0..count {
        let mut process = tokio::process::Command::new(std::env::current_exe()?)
            .args(["--one-of-many", &number.to_string()])
            .env("REDIS_URL", url)
            .env("SINGLEFLIGHT_SECRET", &secret)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = process.stdout.take().ok_or("no output")?;
        let mut lines = BufReader::new(output).lines();
        // Until it uses the store.
        lines.next_line().await?.ok_or("a process has ended")?;
        processes.push((process, lines));
    }
    for (process, _) in &mut processes {
        let mut input = process.stdin.take().ok_or("no input")?;
        input.write_all(b"go\n").await?;
    }
    let mut computed = 0;
    for (process, lines) in &mut processes {
        while let Some(line) = lines.next_line().await? {
            match line.strip_prefix("computed ") {
                Some(number) => computed += number.parse::<u32>()?,
                None => println!("{line}"),
            }
        }
        if !process.wait().await?.success() {
            return Err("a process has failed".into());
        }
    }
    println!("computed   {computed}");
    show_and_remove(&mut redis).await
}

pub(super) async fn one_of_many(number: &str) -> Result<(), BoxError> {
    let url = std::env::var("REDIS_URL")?;
    let secret = std::env::var("SINGLEFLIGHT_SECRET")?;
    let flights = Group::new().replicas(replicas(&url, &secret)?, (encode, decode));
    let articles = Articles::new(
        connect(&url).await?,
        flights,
        &format!(" of process {number}"),
    );
    while !articles
        .flights
        .replica_stats()
        .is_some_and(|stats| stats.is_up)
    {
        sleep(Duration::from_millis(5)).await;
    }
    println!("ready");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    lines.next_line().await?.ok_or("nobody says go")?;
    all_callers(&articles, &format!("process {number}  ")).await?;
    println!("computed {}", articles.computed.load(Ordering::Relaxed));
    Ok(())
}

/// Where the processes find each other. The namespace names the application and its version: those that differ never meet.
fn replicas(url: &str, secret: &str) -> Result<Replicas, BoxError> {
    Ok(Replicas::redis(url)?
        .namespace("tower-singleflight/example")
        .secret(secret))
}

/// How an article is written for other processes; a failure is each one's own.
fn encode(article: &Result<String, RedisError>) -> Option<Vec<u8>> {
    article.as_ref().ok().map(|text| text.clone().into_bytes())
}

fn decode(bytes: &[u8]) -> Option<Result<String, RedisError>> {
    String::from_utf8(bytes.to_vec()).ok().map(Ok)
}
