//! The layer in a `kube::Client`: identical requests of one identity are one, although the server answers `private`.

use axum::{Router, extract::RawQuery, routing};
use http::{
    HeaderMap, HeaderValue, Request,
    header::{CACHE_CONTROL, CONTENT_TYPE},
    request, response,
};
use kube::{Client, Config, client::ClientBuilder};
use tokio::task::JoinHandle;
use tower::buffer::BufferLayer;
use tower_singleflight::{Handle, RequestKey, RequestKeyExtractor, SingleflightLayer, rules};

use crate::{
    gate::Gate,
    support::{assert_idle, sockets, sockets::until},
};

/// The default policy, for callers who are one and the same.
fn for_one_identity(response: &response::Parts) -> bool {
    let mut rest = Vec::new();
    for line in response.headers.get_all(CACHE_CONTROL) {
        let Ok(line) = line.to_str() else {
            return false;
        };
        rest.extend(line.split(',').map(str::trim).filter(|directive| {
            let name = directive.split('=').next().unwrap_or_default().trim();
            !["private", "no-cache"]
                .iter()
                .any(|passed| name.eq_ignore_ascii_case(passed))
        }));
    }
    let mut response = response.clone();
    response.headers.remove(CACHE_CONTROL);
    if let (false, Ok(rest)) = (rest.is_empty(), rest.join(", ").parse()) {
        response.headers.insert(CACHE_CONTROL, rest);
    }
    rules::shareable(&response)
}

/// A watch and a log that is followed are streams for one reader.
fn ends(request: &request::Parts) -> Option<()> {
    let mut fields = request.uri.query().unwrap_or_default().split('&');
    let mut ends = |name| fields.any(|field| field.starts_with(name));
    (!ends("watch=") && !ends("follow=")).then_some(())
}

struct World {
    gate: Gate,
    flights: Handle<(RequestKey, ())>,
    client: Client,
}

async fn world() -> World {
    let gate = Gate::closed();
    let gated = gate.clone();
    let pods = async move |RawQuery(query): RawQuery| {
        gated.run().await;
        let mut head = HeaderMap::new();
        head.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // As the API server answers who is known to it.
        head.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        (head, query.unwrap_or_default())
    };
    let app = Router::new().route("/api/v1/pods", routing::get(pods));
    let address = sockets::serve(app).await;
    let layer = SingleflightLayer::with_extractor(RequestKeyExtractor::new().and(ends))
        .share_when(for_one_identity);
    let flights = layer.handle();
    let config = Config::new(format!("http://{address}").parse().unwrap());
    let client = ClientBuilder::try_from(config)
        .unwrap()
        // What is below is not `Clone`.
        .with_layer(&BufferLayer::new(64))
        .with_layer(&layer)
        .build();
    World {
        gate,
        flights,
        client,
    }
}

impl World {
    fn ask(&self, query: &str) -> JoinHandle<String> {
        let uri = format!("/api/v1/pods?{query}");
        let request = Request::get(uri).body(Vec::new()).unwrap();
        let client = self.client.clone();
        tokio::spawn(async move { client.request_text(request).await.unwrap() })
    }
}

#[tokio::test]
async fn equal_lists_are_one_call_and_each_watch_is_its_own() {
    let world = world().await;
    let lists = [world.ask("limit=5"), world.ask("limit=5")];
    let watches = [world.ask("watch=true"), world.ask("limit=5&watch=1")];
    until(|| world.flights.stats().waiters == 2 && world.gate.runs() == 3).await;
    world.gate.open();
    for list in lists {
        assert_eq!(list.await.unwrap(), "limit=5");
    }
    for watch in watches {
        assert!(watch.await.unwrap().contains("watch="));
    }
    assert_eq!(world.gate.runs(), 3);
    let stats = world.flights.stats();
    assert_eq!(
        (stats.led, stats.joined, stats.forwarded, stats.bypassed),
        (1, 1, 0, 2)
    );
    until(|| world.flights.in_flight() == 0).await;
    assert_idle(&world.flights);
}

#[test]
fn directives_are_looked_at_one_by_one() {
    let may = |control: &str| {
        let response = http::Response::builder().header(CACHE_CONTROL, control);
        for_one_identity(&response.body(()).unwrap().into_parts().0)
    };
    for control in [
        "private",
        "no-cache, private",
        "private, max-age=60, s-maxage=60",
        "Private=\"a\"",
    ] {
        assert!(may(control), "{control}");
    }
    for control in [
        "no-store",
        "private, no-store",
        "private=\"a, b\"",
        "\u{e4}",
    ] {
        assert!(!may(control), "{control}");
    }
}
