//! A subscriber or recorder that panics is nobody's trouble but its own.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::{Request, Response, header};
use http_body_util::{BodyExt, Empty, Full};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};
use tower::{Layer, Service};
use tower_singleflight::{Role, SingleflightLayer};
use tracing::{Event, Subscriber, span};

use crate::support::{
    gated::{Gated, get, page},
    work::hush,
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

/// Runs `requests` under a subscriber and a recorder that panic.
fn touchy<F: Future<Output = ()>>(requests: impl FnOnce(SingleflightLayer) -> F) {
    hush(TROUBLE);
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
    let stats = handle.stats();
    assert_eq!(
        (stats.in_flight, stats.waiters, stats.buffered_bytes),
        (0, 0, 0)
    );
}

fn role(response: &Response<impl Sized>) -> Option<Role> {
    response.extensions().get().copied()
}

#[test]
fn requests_are_answered_though_whoever_observes_them_panics() {
    // A leader and two followers share a page, and a POST bypasses.
    touchy(|layer| async move {
        let gated = Gated::new();
        let mut service = layer.layer(gated.service(page));
        let asked = [(); 3].map(|()| service.call(get("/")));
        gated.gate.add_permits(2);
        let [leader, second, third] = asked;
        let (leader, second, third) = tokio::join!(leader, second, third);
        assert_eq!(role(leader.as_ref().unwrap()), Some(Role::Leader));
        for response in [leader, second, third] {
            let body = response.unwrap().into_body().collect().await.unwrap();
            assert_eq!(body.to_bytes(), "page");
        }
        let post = Request::post("/").body(Empty::new()).unwrap();
        service.call(post).await.unwrap();
    });
    // A response that may not be shared sends its follower on.
    touchy(|layer| async move {
        let gated = Gated::new();
        let mut service = layer.layer(gated.service(|| {
            let mut response: Response<Full<_>> = page();
            let cookie = header::HeaderValue::from_static("a=b");
            response.headers_mut().insert(header::SET_COOKIE, cookie);
            response
        }));
        let (first, second) = (service.call(get("/")), service.call(get("/")));
        gated.gate.add_permits(2);
        let (first, second) = tokio::join!(first, second);
        assert_eq!(role(&first.unwrap()), Some(Role::Leader));
        assert_eq!(role(&second.unwrap()), Some(Role::Forwarded));
    });
    // The last of two to leave cancels the call.
    touchy(|layer| async move {
        let mut service = layer.layer(Gated::new().service(page));
        let (first, second) = (service.call(get("/")), service.call(get("/")));
        drop(first);
        assert_eq!(layer.handle().in_flight(), 1);
        drop(second);
    });
    // A call that panics is a panic for both, with the call's own message.
    touchy(|layer| async move {
        let gated = Gated::new();
        let mut service = layer.layer(gated.service(|| panic!("boom")));
        let (first, second) = (service.call(get("/")), service.call(get("/")));
        gated.gate.add_permits(1);
        for call in [tokio::spawn(first), tokio::spawn(second)] {
            let panic = call.await.unwrap_err().into_panic();
            assert_eq!(panic.downcast_ref(), Some(&"boom"));
        }
    });
}
