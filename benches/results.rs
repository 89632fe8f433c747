//! What a bench measured, as JSON for `benches/plot.py`: `BENCH_JSON=FILE cargo bench ...` writes it.

use std::{env, fs, process::Command, thread};

use serde_json::{Map, Value, json};

/// Collects, and writes at the end if `BENCH_JSON` names a file.
pub(crate) struct Results {
    about: Value,
    timings: Vec<Value>,
    counts: Vec<Value>,
}

impl Results {
    /// `crates` are those beside this one whose versions are told.
    pub(crate) fn new(bench: &str, crates: &[&str]) -> Self {
        let about = json!({
            "bench": bench,
            "command": command(bench),
            "date": output("date", &["-u", "+%F"]),
            "machine": machine(),
            "rustc": output("rustc", &["--version"]),
            "commit": output("git", &["rev-parse", "--short", "HEAD"]),
            "changed": !output("git", &["status", "--porcelain", "--", "src", "Cargo.lock"]).is_empty(),
            "versions": versions(crates),
        });
        Self {
            about,
            timings: Vec::new(),
            counts: Vec::new(),
        }
    }

    /// The rounds of a contestant: nanoseconds per call, and in relation to the scenario's limit, its first contestant.
    pub(crate) fn timed(&mut self, scenario: &str, contestant: &str, ns: &[f64], ratios: &[f64]) {
        self.timings.push(json!({
            "scenario": scenario,
            "contestant": contestant,
            "rounds": ns.len(),
            "ns": quartiles(ns),
            "ratio": quartiles(ratios),
        }));
    }

    /// What was counted of a contestant: exact, not timed.
    pub(crate) fn counted(&mut self, contestant: &str, counts: &[(&str, f64)]) {
        for &(what, count) in counts {
            self.counts
                .push(json!({ "contestant": contestant, "what": what, "count": rounded(count) }));
        }
    }

    pub(crate) fn write(self) {
        let Ok(file) = env::var("BENCH_JSON") else {
            return;
        };
        // A line for each measurement, so that a diff shows what changed.
        let lines = |rows: &[Value]| {
            let rows: Vec<_> = rows.iter().map(|row| format!("    {row}")).collect();
            rows.join(",\n")
        };
        let all = format!(
            "{{\n  \"about\": {},\n  \"counts\": [\n{}\n  ],\n  \"timings\": [\n{}\n  ]\n}}\n",
            self.about,
            lines(&self.counts),
            lines(&self.timings),
        );
        fs::write(&file, all).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
}

/// The first quarter, the median and the third quarter.
fn quartiles(numbers: &[f64]) -> Value {
    let mut numbers = numbers.to_vec();
    numbers.sort_by(f64::total_cmp);
    let at = |part: usize| rounded(numbers[numbers.len() * part / 4]);
    json!([at(1), at(2), at(3)])
}

/// More is not shown, nor known.
fn rounded(number: f64) -> f64 {
    (number * 1e4).round() / 1e4
}

fn machine() -> Value {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let of_cpu = |name: &str| {
        let line = cpu.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_once(": "));
        value.map_or("unknown", |(_, value)| value).to_owned()
    };
    json!({
        "cpu": of_cpu("model name"),
        "family": of_cpu("cpu family"),
        "cores": thread::available_parallelism().map_or(0, Into::into),
        "kernel": output("uname", &["-sr"]),
        // Other work beside the bench makes its times worth little.
        "load": output("cut", &["-d ", "-f1", "/proc/loadavg"]).parse().unwrap_or(0.0),
    })
}

/// The command that does it again.
fn command(bench: &str) -> String {
    let table = env::vars().filter(|(name, _)| name.ends_with("_TABLE"));
    let mut words: Vec<_> = table
        .chain(env::vars().filter(|(name, _)| name == "BENCH_JSON"))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    words.push(format!("cargo bench --bench {bench}"));
    // cargo itself adds `--bench`.
    let filter: Vec<_> = env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    if !filter.is_empty() {
        words.push(format!("-- {}", filter.join(" ")));
    }
    words.join(" ")
}

/// As the lock file has them.
fn versions(crates: &[&str]) -> Value {
    let lock = fs::read_to_string("Cargo.lock").unwrap_or_default();
    let of = |name: &str| {
        let (_, after) = lock.split_once(&format!("\nname = \"{name}\"\nversion = \""))?;
        Some(after.split_once('"')?.0.to_owned())
    };
    let own = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    let versions: Map<_, _> = crates
        .iter()
        .map(|&name| (name.to_owned(), json!(of(name))))
        .chain([(own.0.to_owned(), json!(own.1))])
        .collect();
    Value::Object(versions)
}

/// What a command prints, or nothing.
fn output(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output();
    let output = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}
