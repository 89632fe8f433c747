//! The protocol under a scheduler that is out to break it.
//!
//! Each schedule is made of a seed: a few replicas, keys and callers, and a network that delays, reorders, drops and doubles,
//! with replicas and a store that stop, die and come back. After every step the promises R1 to R6 are checked (the
//! `check_...` functions say how), and at the end, when everything works again, that everybody has been served and nothing
//! is left.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `rng` | random numbers of a seed |
//! | `weather` | what the network and the machines do |
//! | `schedule` | what a seed makes: the weather, who comes, what fails |
//! | `event` | what can happen |
//! | `world` | the replicas and the store |
//! | `run` | one event after the other |
//! | `flight` | a local flight, its callers and its call |
//! | `flights` | callers who come and go, and what becomes of their flights |
//! | `network` | what is sent, and how it arrives |
//! | `promises` | what is checked of the promises R1 to R6 |
//! | `rules` | what is checked of the protocol's rules |
//! | `observed` | what these need to know of what has happened |
//!
//! `REPLICAS_SCHEDULES` sets the number of schedules, `REPLICAS_SEED` runs one alone and prints its steps.
mod event;
mod flight;
mod flights;
mod network;
mod observed;
mod promises;
mod rng;
mod rules;
mod run;
mod schedule;
mod weather;
mod world;

use std::{collections::BTreeMap, panic::resume_unwind, time::Duration};

use self::world::World;
use super::ProtocolSettings;
use crate::replicas::id::Digest;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn settings() -> ProtocolSettings {
    ProtocolSettings {
        patience: ms(50),
        lease: ms(300),
        probe: ms(50),
        beat: ms(40),
        down_after: ms(100),
        cover: ms(2),
        inline: 24,
        max_body: 64,
        value_life: ms(400),
    }
}

/// What late timers may add to a bound.
const SLACK: Duration = ms(1);

/// What a schedule showed, so that it is known that the schedules show enough.
#[derive(Debug, Default)]
struct Seen {
    counts: BTreeMap<&'static str, u64>,
}

fn digest(key: usize) -> Digest {
    Digest(0x1000 + key as u128)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.replace('_', "").parse().ok()
}

#[test]
fn every_schedule_keeps_the_promises() {
    let mut seen = Seen::default();
    if let Some(seed) = number("REPLICAS_SEED") {
        World::new(seed, true).run(&mut seen);
        return;
    }
    let schedules = number("REPLICAS_SCHEDULES").unwrap_or(3_000);
    let first = number("REPLICAS_FIRST").unwrap_or(0);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    std::thread::scope(|scope| {
        let spread = (0..threads).map(|thread| {
            scope.spawn(move || {
                let mut seen = Seen::default();
                for seed in (first + thread..first + schedules).step_by(threads as usize) {
                    World::new(seed, false).run(&mut seen);
                }
                seen
            })
        });
        for thread in spread.collect::<Vec<_>>() {
            let part = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
            for (what, n) in part.counts {
                *seen.counts.entry(what).or_default() += n;
            }
        }
    });
    eprintln!("{:?}", seen.counts);
    // Schedules in which little happens would show little.
    for what in ["followed", "takeovers", "slow", "down", "told"] {
        assert!(
            seen.counts[what] > schedules / 100,
            "{what} was seldom seen"
        );
    }
}
