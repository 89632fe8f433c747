//! A subscriber or recorder that panics is nobody's trouble but its own.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http_body_util::BodyExt;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};
use tower::{Layer, Service};
use tower_singleflight::{Group, Role, SingleflightLayer};
use tracing::{Event, Subscriber, span};

use crate::{
    support::{Origin, assert_idle, get, hush, request, role},
    tracing::heed_other_threads,
};

const TROUBLE: &str = "the observer's own trouble";

/// Panics whatever it is told of this crate, and counts how often.
#[derive(Clone, Default)]
struct Touchy(Arc<AtomicUsize>);

impl Touchy {
    fn panic(&self) -> ! {
        self.0.fetch_add(1, Ordering::Relaxed);
        std::panic::panic_any(TROUBLE);
    }
}

impl Subscriber for Touchy {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("tower_singleflight")
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        // One that panicked here would get no span to be panicked about later.
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {
        self.panic()
    }
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {
        self.panic()
    }
    fn event(&self, _: &Event<'_>) {
        self.panic()
    }
    fn enter(&self, _: &span::Id) {
        self.panic()
    }
    fn exit(&self, _: &span::Id) {
        self.panic()
    }
    fn try_close(&self, _: span::Id) -> bool {
        self.panic()
    }
}

impl metrics::Recorder for Touchy {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        self.panic()
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        self.panic()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        self.panic()
    }
}

/// Panics when a span is left, and counts how often.
#[derive(Clone, Default)]
struct TouchyAtExits(Touchy);

impl Subscriber for TouchyAtExits {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {
        self.0.panic()
    }
}

/// Runs `requests` under a subscriber and a recorder that panic.
fn touchy<F: Future<Output = ()>>(requests: impl FnOnce(SingleflightLayer) -> F) {
    hush(TROUBLE);
    heed_other_threads();
    let touchy = Touchy::default();
    let layer = SingleflightLayer::new();
    let handle = layer.handle();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    metrics::with_local_recorder(&touchy, || {
        tracing::subscriber::with_default(touchy.clone(), || {
            runtime.block_on(requests(layer));
        });
    });
    assert!(touchy.0.load(Ordering::Relaxed) > 0, "it was never told");
    assert_idle(&handle);
}

#[test]
fn requests_are_answered_though_whoever_observes_them_panics() {
    // A leader and two followers share a page, and a POST bypasses.
    touchy(|layer| async move {
        let origin = Origin::page();
        let mut service = layer.layer(origin.clone());
        let asked = [(); 3].map(|()| service.call(get("/")));
        origin.admit(2);
        let [leader, second, third] = asked;
        let (leader, second, third) = tokio::join!(leader, second, third);
        assert_eq!(role(leader.as_ref().unwrap()), Role::Leader);
        for response in [leader, second, third] {
            let body = response.unwrap().into_body().collect().await.unwrap();
            assert_eq!(body.to_bytes(), "page");
        }
        let post = request("POST", "/", &[]);
        service.call(post).await.unwrap();
    });
    // A response that may not be shared sends its follower on.
    touchy(|layer| async move {
        let origin = Origin::page_with("set-cookie", "a=b");
        let mut service = layer.layer(origin.clone());
        let (first, second) = (service.call(get("/")), service.call(get("/")));
        origin.admit(2);
        let (first, second) = tokio::join!(first, second);
        assert_eq!(role(&first.unwrap()), Role::Leader);
        assert_eq!(role(&second.unwrap()), Role::Forwarded);
    });
    // An audited request gets another answer than the flight, and both get their own.
    touchy(|layer| async move {
        let origin = Origin::counting();
        let mut service = layer.audit(1.0).layer(origin.clone());
        let (first, second) = (service.call(get("/")), service.call(get("/")));
        origin.admit(2);
        let (first, second) = tokio::join!(first, second);
        for (response, expected) in [(second, "2"), (first, "1")] {
            let body = response.unwrap().into_body().collect().await.unwrap();
            assert_eq!(body.to_bytes(), expected);
        }
    });
    // The last of two to leave cancels the call.
    touchy(|layer| async move {
        let mut service = layer.layer(Origin::page());
        let (first, second) = (service.call(get("/")), service.call(get("/")));
        drop(first);
        assert_eq!(layer.handle().in_flight(), 1);
        drop(second);
    });
    // A call that panics is a panic for both, with the call's own message.
    touchy(|layer| async move {
        let origin = Origin::new(|_| panic!("boom"));
        let mut service = layer.layer(origin.clone());
        let (first, second) = (service.call(get("/")), service.call(get("/")));
        origin.admit(1);
        for call in [tokio::spawn(first), tokio::spawn(second)] {
            let panic = call.await.unwrap_err().into_panic();
            assert_eq!(panic.downcast_ref(), Some(&"boom"));
        }
    });
}

#[test]
fn callers_of_a_named_group_get_their_values_though_whoever_observes_them_panics() {
    hush(TROUBLE);
    heed_other_threads();
    let touchy = Touchy::default();
    let group: Group<&str, u32> = Group::new().name("articles");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    metrics::with_local_recorder(&touchy, || {
        tracing::subscriber::with_default(touchy.clone(), || {
            runtime.block_on(async {
                let work = || async { 1 };
                let (first, second) = tokio::join!(group.run("7", work), group.run("7", work));
                assert_eq!((first.value, second.value), (1, 1));
                assert_eq!(group.spawn("8", work).await.value, 1);
                drop(group.run("9", std::future::pending));
                let call = tokio::spawn(group.run("10", || async { panic!("boom") }));
                let panic = call.await.unwrap_err().into_panic();
                assert_eq!(panic.downcast_ref(), Some(&"boom"));
            });
        });
    });
    assert!(touchy.0.load(Ordering::Relaxed) > 0, "it was never told");
    assert_eq!(group.in_flight(), 0);
}

#[tokio::test]
async fn a_page_is_answered_though_the_span_of_its_flight_can_not_be_left() {
    hush(TROUBLE);
    heed_other_threads();
    let touchy = TouchyAtExits::default();
    let _guard = tracing::subscriber::set_default(touchy.clone());
    let (origin, layer) = (Origin::page(), SingleflightLayer::new());
    let mut service = layer.layer(origin.clone());
    let asked = [(); 2].map(|()| service.call(get("/")));
    origin.admit(1);
    for response in futures_util::future::join_all(asked).await {
        let body = response.unwrap().into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "page");
    }
    assert!(touchy.0.0.load(Ordering::Relaxed) > 0, "it was never told");
    assert_idle(&layer.handle());
}
