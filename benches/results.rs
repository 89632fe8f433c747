//! What a bench measured, as JSON for `benches/plot.py`: `BENCH_JSON=FILE cargo bench -p benches ...` writes it, where FILE
//! counts from the top of the repository.

use std::{env, fs, path::Path, process::Command, thread, time::Duration};

use serde_json::{Map, Value, json};

/// The top of the repository; Cargo runs a bench in its package's folder.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Collects, and writes at the end if `BENCH_JSON` names a file.
pub(crate) struct Results {
    about: Value,
    timings: Vec<Value>,
    counts: Vec<Value>,
}

impl Results {
    /// `crates` are those beside this one whose versions are told.
    pub(crate) fn new(bench: &str, crates: &[&str]) -> Self {
        let asked = env::var_os("BENCH_JSON").is_some();
        let about = json!({
            "bench": bench,
            // Other work beside the bench makes its times worth little.
            "busy": if asked { busy() } else { 0.0 },
            "command": command(bench),
            "date": output("date", &["-u", "+%F"]),
            "machine": machine(),
            "rustc": output("rustc", &["--version"]),
            "commit": output("git", &["rev-parse", "--short", "HEAD"]),
            "changed": !output("git", &["status", "--porcelain", "--", "src", "Cargo.lock", "Cargo.toml", "benches/*.rs"]).is_empty(),
            "versions": versions(crates),
        });
        Self {
            about,
            timings: Vec::new(),
            counts: Vec::new(),
        }
    }

    /// Nanoseconds per call of a contestant in each round, and of the scenario's limit, its first contestant.
    pub(crate) fn timed(&mut self, scenario: &str, contestant: &str, ns: &[f64], limit: &[f64]) {
        let ratios: Vec<_> = ns.iter().zip(limit).map(|(ns, limit)| ns / limit).collect();
        self.timings.push(json!({
            "scenario": scenario,
            "contestant": contestant,
            "rounds": ns.len(),
            "ns": quartiles(ns),
            "ratio": quartiles(&ratios),
        }));
    }

    /// What was counted of a contestant: exact, not timed.
    pub(crate) fn counted(&mut self, contestant: &str, counts: &[(&str, f64)]) {
        for &(what, count) in counts {
            self.counts
                .push(json!({ "contestant": contestant, "what": what, "count": rounded(count) }));
        }
    }

    pub(crate) fn write(mut self) {
        let Ok(file) = env::var("BENCH_JSON") else {
            return;
        };
        let before = self.about["busy"].as_f64().unwrap_or_default();
        self.about["busy"] = json!(before.max(busy()));
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
        fs::write(Path::new(ROOT).join(&file), all)
            .unwrap_or_else(|error| panic!("{file}: {error}"));
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
    })
}

/// How many cores others use in half a second in which this process does nothing.
fn busy() -> f64 {
    let ticks = || -> Vec<f64> {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let all = stat.lines().next().unwrap_or_default().split_whitespace();
        all.skip(1).filter_map(|ticks| ticks.parse().ok()).collect()
    };
    let before = ticks();
    thread::sleep(Duration::from_millis(500));
    let passed: Vec<_> = ticks()
        .iter()
        .zip(before)
        .map(|(now, then)| now - then)
        .collect();
    // user, nice, system, idle, iowait, ...
    let idle: f64 = passed.iter().skip(3).take(2).sum();
    let cores = thread::available_parallelism().map_or(1, Into::into);
    rounded((1.0 - idle / passed.iter().sum::<f64>()) * cores as f64)
}

/// The command that does it again.
fn command(bench: &str) -> String {
    let table = env::vars().filter(|(name, _)| name.ends_with("_TABLE"));
    let mut words: Vec<_> = table
        .chain(env::vars().filter(|(name, _)| name == "BENCH_JSON"))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    words.push(format!("cargo bench -p benches --bench {bench}"));
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
    let lock = fs::read_to_string(Path::new(ROOT).join("Cargo.lock")).unwrap_or_default();
    let of = |name: &str| {
        let (_, after) = lock.split_once(&format!("\nname = \"{name}\"\nversion = \""))?;
        Some(after.split_once('"')?.0.to_owned())
    };
    let versions: Map<_, _> = crates
        .iter()
        .chain(&["tower-singleflight"])
        .map(|&name| (name.to_owned(), json!(of(name))))
        .collect();
    Value::Object(versions)
}

/// What a command prints, or nothing.
fn output(command: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(command);
    let output = command.args(arguments).current_dir(ROOT).output();
    let output = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}
