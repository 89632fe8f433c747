//! Contestants that take turns, round by round, and then criterion's own measurements of each.

use std::{
    env,
    time::{Duration, Instant},
};

use criterion::{Criterion, SamplingMode};

/// Interleaved rounds behind each line of a table.
const ROUNDS: usize = 25;

/// What a contestant's turn takes at least, except for those whose single run is longer.
pub(crate) const TURN: Duration = Duration::from_millis(2);

/// Calls so many times, and gives how long that took.
pub(crate) type Timed = Box<dyn FnMut(u64) -> Duration>;

pub(crate) struct Scenario {
    pub(crate) name: String,
    turn: Duration,
    pub(crate) contestants: Vec<(&'static str, Timed)>,
}

// ===== impl Scenario =====

impl Scenario {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            turn: TURN,
            contestants: Vec::new(),
        }
    }

    pub(crate) fn with(
        mut self,
        name: &'static str,
        timed: impl FnMut(u64) -> Duration + 'static,
    ) -> Self {
        self.contestants.push((name, Box::new(timed)));
        self
    }

    pub(crate) fn turn(mut self, turn: Duration) -> Self {
        self.turn = turn;
        self
    }

    /// Nanoseconds per call, of each contestant in each round.
    pub(crate) fn take_turns(&mut self) -> Vec<Vec<f64>> {
        let calls: Vec<_> = self
            .contestants
            .iter_mut()
            .map(|(_, timed)| calls_per_turn(timed, self.turn))
            .collect();
        let mut times = vec![Vec::new(); calls.len()];
        for _ in 0..ROUNDS {
            for (index, (_, timed)) in self.contestants.iter_mut().enumerate() {
                let time = timed(calls[index]).as_secs_f64() * 1e9 / calls[index] as f64;
                times[index].push(time);
            }
        }
        times
    }
}

pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// The median of what `number` makes of two contestants' times in each round.
pub(crate) fn median_of(one: &[f64], other: &[f64], number: impl Fn(f64, f64) -> f64) -> f64 {
    let pairs = one.iter().zip(other);
    median(pairs.map(|(one, other)| number(*one, *other)).collect())
}

/// How many calls fill a turn.
fn calls_per_turn(timed: &mut Timed, turn: Duration) -> u64 {
    let mut calls = 1;
    // What is set up but once is no part of it.
    timed(calls);
    loop {
        let began = Instant::now();
        timed(calls);
        let took = began.elapsed();
        if took >= turn {
            return calls;
        }
        let more = turn.as_secs_f64() / took.as_secs_f64().max(1e-9);
        calls = (calls as f64 * more.clamp(1.2, 100.0)).ceil() as u64;
    }
}

/// The whole bench: `tables` of what the filter lets through, then criterion. The environment's `variable` may ask for the
/// tables `only`, or for `none`.
pub(crate) fn run(
    variable: &str,
    tables: impl FnOnce(&str),
    scenarios: impl FnOnce() -> Vec<Scenario>,
) {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let filter = filter.cloned().unwrap_or_default();
    let mode = env::var(variable).unwrap_or_default();
    let plain = !arguments
        .iter()
        .any(|argument| argument == "--test" || argument == "--list");

    if plain && mode != "none" {
        tables(&filter);
    }
    if mode == "only" {
        return;
    }
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(200))
        .sample_size(10)
        .nresamples(1_000)
        .configure_from_args();
    for scenario in scenarios() {
        let mut group = criterion.benchmark_group(scenario.name);
        group.sampling_mode(SamplingMode::Flat);
        for (name, mut timed) in scenario.contestants {
            group.bench_function(name, |bencher| bencher.iter_custom(&mut timed));
        }
        group.finish();
    }
    criterion.final_summary();
}
