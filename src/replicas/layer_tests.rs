//! The seam as an HTTP layer uses it, driven by a small layer of its own kind: heads that may not be shared, answers that vary.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    EntryId, LocalFlight, MemoryStore, Reason, Refusal, RemoteSeat, Site, Unjoined, Verdict, Why,
};
use crate::sync::Mutex;

const CALL: Duration = Duration::from_millis(300);

/// A response, as its origin makes it for a language.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Response {
    call: usize,
    language: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Shareable,
    /// `Vary: accept-language`.
    Varies,
    /// `Set-Cookie`.
    Private,
}

/// One replica.
struct Layer {
    site: Site,
    flights: Mutex<HashMap<String, Arc<Flight>>>,
    origin: Arc<Origin>,
}

struct Origin {
    kind: Kind,
    calls: AtomicUsize,
}

struct Flight {
    layer: Weak<Layer>,
    key: String,
    asked: AtomicU64,
    /// Once it contends.
    entry: Mutex<Option<EntryId>>,
    seats: AtomicUsize,
    end: watch::Sender<Option<End>>,
}

#[derive(Clone)]
enum End {
    /// For callers below the number.
    Response(Response, u64),
    /// Every caller makes its own call.
    Forwarded,
}

struct Seat(Arc<Flight>);

impl Layer {
    fn new(store: &MemoryStore, origin: &Arc<Origin>) -> Arc<Self> {
        Arc::new(Self {
            site: Site::in_memory(store),
            flights: Mutex::new(HashMap::new()),
            origin: Arc::clone(origin),
        })
    }

    async fn call_origin(&self, language: &'static str) -> Response {
        let call = self.origin.calls.fetch_add(1, Ordering::SeqCst);
        sleep(CALL).await;
        Response {
            call,
            language,
            kind: self.origin.kind,
        }
    }

    async fn get(self: &Arc<Self>, path: &str, language: &'static str) -> Response {
        self.get_as(path, path.to_owned(), language).await
    }

    /// `name` is the path, or the path and what its answer varies by.
    async fn get_as(
        self: &Arc<Self>,
        path: &str,
        name: String,
        language: &'static str,
    ) -> Response {
        let number = self.site.number();
        let (flight, led) = {
            let mut flights = self.flights.lock();
            match flights.get(&name) {
                Some(flight) => {
                    flight.asked.fetch_max(number + 1, Ordering::SeqCst);
                    (Arc::clone(flight), false)
                }
                None => {
                    let flight = Arc::new(Flight {
                        layer: Arc::downgrade(self),
                        key: name.clone(),
                        asked: AtomicU64::new(number + 1),
                        entry: Mutex::new(None),
                        seats: AtomicUsize::new(0),
                        end: watch::channel(None).0,
                    });
                    flights.insert(name.clone(), Arc::clone(&flight));
                    (flight, true)
                }
            }
        };
        if led {
            return self.lead(&flight, path, language).await;
        }
        let entry = *flight.entry.lock();
        if let Some(entry) = entry {
            self.site.one_more(entry, number);
        }
        let mut end = flight.end.subscribe();
        let end = end
            .wait_for(Option::is_some)
            .await
            .expect("it ends")
            .clone();
        match end.expect("waited for") {
            End::Response(response, covered) if number < covered => response,
            _ => self.call_origin(language).await,
        }
    }

    async fn lead(
        self: &Arc<Self>,
        flight: &Arc<Flight>,
        path: &str,
        language: &'static str,
    ) -> Response {
        let digest = self.site.key(|bytes| bytes.part(flight.key.as_bytes()));
        let asked = flight.asked.load(Ordering::SeqCst);
        let local: Arc<dyn LocalFlight> = Arc::clone(flight) as Arc<dyn LocalFlight>;
        let mut contest = self.site.contend(digest, None, local, asked);
        *flight.entry.lock() = Some(contest.id());
        match contest.verdict().await {
            Verdict::Answer { body, covered } => {
                let [call, varies, of] = body[..] else {
                    unreachable!("as it is written below")
                };
                let made_for = if of == 0 { "de" } else { "en" };
                let response = Response {
                    call: call.into(),
                    language: made_for,
                    kind: self.origin.kind,
                };
                drop(contest);
                if varies == 1 && made_for != language {
                    flight.over(End::Forwarded);
                    // Contends with those who differ in the same way.
                    let name = format!("{path} accept-language: {language}");
                    return Box::pin(self.get_as(path, name, language)).await;
                }
                flight.over(End::Response(response.clone(), covered));
                response
            }
            Verdict::Alone(Why::Told(Reason::Unshareable)) => {
                flight.over(End::Forwarded);
                self.call_origin(language).await
            }
            Verdict::Lead | Verdict::Alone(_) => {
                let response = self.call_origin(language).await;
                let end = match response.kind {
                    Kind::Private => End::Forwarded,
                    _ => End::Response(response.clone(), u64::MAX),
                };
                let answer = match response.kind {
                    Kind::Private => Err(Reason::Unshareable),
                    kind => {
                        let varies = u8::from(kind == Kind::Varies);
                        let of = u8::from(response.language == "en");
                        Ok(vec![response.call as u8, varies, of].into())
                    }
                };
                let answering = contest.end();
                flight.over(end);
                if let Some(answering) = answering {
                    answering.answer(answer);
                }
                response
            }
        }
    }
}

impl Flight {
    fn over(&self, end: End) {
        if let Some(layer) = self.layer.upgrade() {
            layer.flights.lock().remove(&self.key);
        }
        self.end.send_replace(Some(end));
    }
}

impl LocalFlight for Flight {
    fn join(&self) -> Result<Arc<dyn RemoteSeat>, Unjoined<Arc<dyn RemoteSeat>>> {
        let layer = self.layer.upgrade().ok_or(Refusal::Gone)?;
        let flights = layer.flights.lock();
        let linked = flights
            .get(&self.key)
            .filter(|linked| std::ptr::eq(&***linked, self));
        let linked = linked.ok_or(Refusal::Gone)?;
        linked.seats.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::new(Seat(Arc::clone(linked))))
    }

    fn detach(&self) {
        if let Some(layer) = self.layer.upgrade() {
            layer.flights.lock().remove(&self.key);
        }
    }
}

impl RemoteSeat for Seat {
    fn start(&self) {}
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.seats.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Fleet {
    store: MemoryStore,
    layers: Vec<Arc<Layer>>,
    origin: Arc<Origin>,
}

impl Fleet {
    async fn new(kind: Kind) -> Self {
        let store = MemoryStore::new(Duration::from_secs(2), Duration::from_secs(10));
        let origin = Arc::new(Origin {
            kind,
            calls: AtomicUsize::new(0),
        });
        let layers: Vec<_> = (0..4).map(|_| Layer::new(&store, &origin)).collect();
        while !layers.iter().all(|layer| layer.site.stats().is_up) {
            sleep(Duration::from_millis(1)).await;
        }
        Self {
            store,
            layers,
            origin,
        }
    }

    async fn burst(&self, languages: &[&'static str]) -> Vec<Response> {
        let one = |caller: usize| {
            let layer = &self.layers[caller % 4];
            layer.get("/page", languages[caller / 4 % languages.len()])
        };
        join_all((0..40).map(one)).await
    }

    fn calls(&self) -> usize {
        self.origin.calls.load(Ordering::SeqCst)
    }

    async fn nothing_is_left(&self) {
        sleep(Duration::from_millis(20)).await;
        assert_eq!(self.store.keys(), 0);
        for layer in &self.layers {
            assert!(layer.flights.lock().is_empty());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_at_all_layers_costs_one_call() {
    let fleet = Fleet::new(Kind::Shareable).await;
    let responses = fleet.burst(&["de"]).await;
    assert!(responses.iter().all(|response| response.call == 0));
    assert_eq!(fleet.calls(), 1);
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn of_an_unshareable_response_everybody_has_its_own_within_two_calls() {
    let fleet = Fleet::new(Kind::Private).await;
    let began = Instant::now();
    let mut calls: Vec<_> = fleet
        .burst(&["de"])
        .await
        .iter()
        .map(|response| response.call)
        .collect();
    calls.sort_unstable();
    assert_eq!(calls, (0..40).collect::<Vec<_>>());
    assert!(
        began.elapsed() <= 2 * CALL + Duration::from_millis(20),
        "{:?}",
        began.elapsed()
    );
    fleet.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn of_a_response_that_varies_each_variant_costs_one_call_among_leaders() {
    let fleet = Fleet::new(Kind::Varies).await;
    let ask = |at: usize, language| fleet.layers[at].get("/page", language);
    let responses = join_all([ask(0, "de"), ask(1, "en"), ask(2, "de"), ask(3, "en")]).await;
    let languages: Vec<_> = responses.iter().map(|response| response.language).collect();
    assert_eq!(languages, ["de", "en", "de", "en"]);
    assert_eq!(fleet.calls(), 2);
    fleet.nothing_is_left().await;
}
