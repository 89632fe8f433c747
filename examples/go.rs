//! The three calls of Go's `singleflight`, on a [`Group`].
//!
//! ```not_rust
//! cargo run --example go
//! ```
//!
//! | Go | here |
//! | --- | --- |
//! | `v, err, shared := g.Do(key, fn)` | `let Outcome { value, shared, led } = group.run(key, work).await` |
//! | `ch := g.DoChan(key, fn)` | `let call = group.spawn(key, work)`, a future to await now, later or never |
//! | `g.Forget(key)` | `group.forget(&key)` |
//!
//! Go's `err` is part of the value: a group of `Result`s gives the same error to every caller. `led`, which Go has not, tells
//! the caller whose work ran from those who were spared theirs.
//! The program prints for each of the calls how often the work ran and what the callers got.

use std::cell::Cell;
use std::error::Error;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::{Notify, oneshot};
use tower_singleflight::Group;

/// Errors are cloned to every caller, as values are.
type Answer = Result<u32, String>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The same group wherever it is cloned to; one for all that follows.
    let group = Group::<&str, Answer>::new();
    run(&group).await;
    spawn(&group).await?;
    forget(&group).await?;
    println!("left     {} flights", group.in_flight());
    Ok(())
}

/// `Do`: ten callers, one run of the work. A call joins where `run` is called, not where it is awaited; the gate
/// only makes sure that the work is still running when the tenth joins.
async fn run(group: &Group<&'static str, Answer>) {
    let runs = Cell::new(0);
    let gate = Arc::new(Notify::new());
    let calls: Vec<_> = (0..10)
        .map(|_| {
            group.run("answer", || {
                runs.set(runs.get() + 1);
                let gate = Arc::clone(&gate);
                async move {
                    gate.notified().await;
                    Ok(42)
                }
            })
        })
        .collect();
    gate.notify_one();
    let outcomes = join_all(calls).await;
    let alike = outcomes
        .iter()
        .filter(|outcome| outcome.value == Ok(42) && outcome.shared)
        .count();
    println!(
        "Do       {} run, {alike} callers got Ok(42) and were told that it is shared",
        runs.get()
    );

    // An error is a value like any other, and is not kept: the next caller's work runs again.
    let failed = group.run("answer", || async { Err("no answer".to_owned()) });
    let follower = group.run("answer", || async {
        unreachable!("the caller before leads")
    });
    println!(
        "         leader {:?}, follower {:?}",
        failed.await.value,
        follower.await.value
    );
}

/// `DoChan`: the work goes on although its caller has left.
async fn spawn(group: &Group<&'static str, Answer>) -> Result<(), Box<dyn Error>> {
    let (open, gate) = oneshot::channel();
    let impatient = group.spawn("answer", || async {
        gate.await.map_err(|error| error.to_string())
    });
    drop(impatient);
    println!(
        "DoChan   the caller left, {} flight goes on",
        group.in_flight()
    );

    let patient = group.run("answer", || async {
        unreachable!("joins the flight above")
    });
    open.send(7).map_err(|_| "nobody works any more")?;
    println!(
        "         a later caller got {:?} from that flight",
        patient.await.value
    );
    Ok(())
}

/// `Forget`: later callers start anew, earlier ones keep what they wait for.
async fn forget(group: &Group<&'static str, Answer>) -> Result<(), Box<dyn Error>> {
    let (open, gate) = oneshot::channel();
    let before = group.run("answer", || async {
        gate.await.map_err(|error| error.to_string())
    });
    let forgotten = group.forget("answer");
    let after = group.run("answer", || async { Ok(2) }).await;
    open.send(1).map_err(|_| "nobody waits any more")?;
    println!(
        "Forget   {forgotten}: the caller before got {:?}, the caller after {:?}",
        before.await.value,
        after.value
    );
    Ok(())
}
