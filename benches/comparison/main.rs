//! The same cache-aside with six crates: what they ask of the code, and what happens when something goes wrong.
//!
//! ```text
//! cargo run -p benches --example comparison
//! ```
//!
//! The page `guide::comparison` shows each `impl` of this folder and the table that this program prints; the program
//! fails where the page says something else.

mod moka;
mod quick_cache;
mod singleflight_async;
mod this_crate;
mod tower_resilience;
mod uniflight;

use std::{
    collections::HashMap,
    fmt::Display,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::{
    runtime::Builder,
    sync::Semaphore,
    task::JoinHandle,
    time::{Instant, timeout_at},
};

const PAGE: &str = include_str!("../../src/guide/comparison.md");
const CALLERS: usize = 10;

/// How a load ends, once its gate is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    Succeeds,
    Fails,
    Panics,
}

/// A cache in front of something slow, whose loads are counted.
pub(crate) struct Store {
    cache: Mutex<HashMap<String, String>>,
    loads: AtomicUsize,
    gate: Semaphore,
    load: Load,
}

type Answer = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

/// A way to ask for a page, over a store of its own.
struct Way {
    name: &'static str,
    source: &'static str,
    over: fn(Arc<Store>) -> Box<dyn Fn() -> Answer>,
}

// ===== impl Store =====

impl Store {
    fn new(load: Load) -> Arc<Self> {
        Arc::new(Self {
            cache: Mutex::default(),
            loads: AtomicUsize::new(0),
            gate: Semaphore::new(0),
            load,
        })
    }

    pub(crate) fn cached(&self, name: &str) -> Option<String> {
        self.cache.lock().unwrap().get(name).cloned()
    }

    pub(crate) async fn load(&self, name: &str) -> io::Result<String> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        match self.load {
            Load::Fails => return Err(io::Error::other("no such page")),
            Load::Panics => std::panic::resume_unwind(Box::new("the load")),
            Load::Succeeds => {}
        }
        let page = format!("the page {name}");
        let mut cache = self.cache.lock().unwrap();
        Ok(cache.entry(name.to_owned()).or_insert(page).clone())
    }

    fn open(&self) {
        self.gate.add_permits(1_000);
    }

    fn loads(&self) -> String {
        counted(self.loads.load(Ordering::SeqCst), "load")
    }
}

// ===== the ways =====

fn shown<T, E: Display>(result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

/// Calls `get` of the `Pages` of a module, made by `$new`.
macro_rules! way {
    ($name:literal, $module:ident, |$store:ident| $new:expr, |$result:ident| $shown:expr) => {
        Way {
            name: $name,
            source: include_str!(concat!(stringify!($module), ".rs")),
            over: |$store| {
                let pages = Arc::new($new);
                Box::new(move || {
                    let pages = Arc::clone(&pages);
                    Box::pin(async move {
                        let $result = pages.get("home").await;
                        $shown
                    })
                })
            },
        }
    };
}

fn ways() -> [Way; 6] {
    [
        way!(
            "this crate",
            this_crate,
            |store| this_crate::Pages {
                store,
                flights: Default::default()
            },
            |result| shown(result)
        ),
        way!(
            "uniflight",
            uniflight,
            |store| uniflight::Pages {
                store,
                flights: ::uniflight::Merger::new()
            },
            |result| shown(result).and_then(shown)
        ),
        way!(
            "singleflight-async",
            singleflight_async,
            |store| singleflight_async::Pages {
                store,
                flights: ::singleflight_async::SingleFlight::new()
            },
            |result| shown(result)
        ),
        way!(
            "moka",
            moka,
            |store| moka::Pages {
                store,
                pages: ::moka::future::Cache::new(100)
            },
            |result| shown(result)
        ),
        way!(
            "quick_cache",
            quick_cache,
            |store| quick_cache::Pages {
                store,
                pages: ::quick_cache::sync::Cache::new(100)
            },
            |result| shown(result)
        ),
        way!(
            "tower-resilience-coalesce",
            tower_resilience,
            |store| tower_resilience::Pages::new(store),
            |result| shown(result)
        ),
    ]
}

// ===== what happens =====

/// Ten ask, the first of them before the others; `meanwhile` with it, then the gate opens.
async fn ask(
    way: &Way,
    load: Load,
    meanwhile: impl FnOnce(Answer) -> Option<Answer>,
) -> (
    Arc<Store>,
    Option<JoinHandle<Result<String, String>>>,
    Vec<JoinHandle<Result<String, String>>>,
) {
    let store = Store::new(load);
    let get = (way.over)(Arc::clone(&store));
    let mut first = get();
    let pending = poll_fn(|cx| Poll::Ready(first.as_mut().poll(cx).is_pending())).await;
    assert!(pending, "the gate is shut");
    let others: Vec<_> = (1..CALLERS).map(|_| tokio::spawn(get())).collect();
    settle().await;
    let first = meanwhile(first).map(tokio::spawn);
    settle().await;
    store.open();
    (store, first, others)
}

/// Lets all tasks do what they can.
async fn settle() {
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
}

/// How many of them got a page, an error, a panic, or nothing in a time that is more than enough.
async fn count(callers: Vec<JoinHandle<Result<String, String>>>) -> [usize; 4] {
    let mut counts = [0; 4];
    // Not a paused clock: there are crates whose waiters spin, and then it stands still.
    let enough = Instant::now() + Duration::from_millis(500);
    for caller in callers {
        let what = match timeout_at(enough, caller).await {
            Ok(Ok(Ok(_))) => 0,
            Ok(Ok(Err(_))) => 1,
            Ok(Err(_)) => 2,
            Err(_) => 3,
        };
        counts[what] += 1;
    }
    counts
}

fn told(counts: [usize; 4]) -> String {
    let what = ["page", "error", "panic", "hang"];
    let parts = counts.iter().zip(what).filter(|(count, _)| **count > 0);
    let parts: Vec<_> = parts.map(|(count, what)| counted(*count, what)).collect();
    parts.join(", ")
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// The cells of a way's row.
async fn row(way: &Way) -> Vec<String> {
    let mut cells = vec![way.name.to_owned()];
    for load in [Load::Succeeds, Load::Fails, Load::Panics] {
        let (store, first, mut callers) = ask(way, load, Some).await;
        callers.extend(first);
        let told = told(count(callers).await);
        cells.push(format!("{}: {told}", store.loads()));
    }
    let (store, _, others) = ask(way, Load::Succeeds, |first| {
        drop(first);
        None
    })
    .await;
    let left = told(count(others).await);
    cells.push(format!("{}: {left}", store.loads()));
    let mut parked = None;
    let (store, _, others) = ask(way, Load::Succeeds, |first| {
        parked = Some(first);
        None
    })
    .await;
    let stays = told(count(others).await);
    cells.push(format!("{}: {stays}", store.loads()));
    drop(parked);
    cells
}

/// What a reader has to know of a module: its `impl`.
fn shown_part(source: &str) -> &str {
    &source[source.find("impl Pages").expect("each has one")..]
}

fn main() {
    let mut table = String::from(
        "| | ten ask at once | the load fails | the load panics | the first leaves | the first is not polled again |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    for way in ways() {
        let runtime = Builder::new_current_thread().enable_time().build();
        let cells = runtime.unwrap().block_on(row(&way));
        table.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    print!("{table}");
    assert!(PAGE.contains(&table), "the page has another table");
    for way in ways() {
        let part = shown_part(way.source).replace("pub(crate) ", "");
        assert!(PAGE.contains(&part), "the page shows another {}", way.name);
    }
}
