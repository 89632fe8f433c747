//! `async-graphql` on axum: queries share, by GET and by POST; mutations and subscriptions don't.

use std::{convert::Infallible, sync::Arc, time::Duration};

use async_graphql::{
    Object, Schema, Subscription,
    extensions::apollo_persisted_queries::{ApolloPersistedQueries, LruCacheStorage},
};
use async_graphql_axum::{GraphQL, GraphQLRequest, GraphQLSubscription};
use axum::{
    Router,
    body::Body,
    extract::{Query as Fields, State},
    response::sse::{Event, Sse},
    routing,
};
use futures_util::{SinkExt, Stream, StreamExt, stream};
use http::{Method, Request, Uri, header, request::Parts};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_tungstenite::tungstenite::{self, client::IntoClientRequest};
use tower::ServiceExt;
use tower_singleflight::{
    BodyBytes, BufferBodyLayer, Handle, KeyExtractor, RequestKey, RequestKeyExtractor, Role,
    SingleflightLayer,
};

use crate::support::{Gate, assert_idle, read, until};

// ===== a server =====

/// Its resolvers count their runs.
#[derive(Clone)]
struct Site {
    queries: Gate,
    mutations: Gate,
    flights: Handle<(RequestKey, ())>,
}

struct Query(Site);
struct Mutation(Site);
struct Subscriptions;

#[Object]
impl Query {
    async fn article(&self, id: u32) -> String {
        self.0.queries.run().await;
        format!("article {id}")
    }
}

#[Object]
impl Mutation {
    async fn publish(&self, id: u32) -> String {
        self.0.mutations.run().await;
        // What this changes is read through one URI.
        self.0
            .flights
            .forget_if(|(key, ())| key.uri().path() == "/graphql");
        format!("published {id}")
    }
}

#[Subscription]
impl Subscriptions {
    async fn ticks(&self) -> impl Stream<Item = u32> {
        stream::iter(0..3).then(async |tick| {
            tokio::task::yield_now().await;
            tick
        })
    }
}

type Served = Schema<Query, Mutation, Subscriptions>;

/// A subscription by Server-Sent Events.
async fn events(
    State(schema): State<Served>,
    request: GraphQLRequest,
) -> Sse<impl Stream<Item = Result<Event, axum::Error>>> {
    let answers = schema.execute_stream(request.into_inner());
    Sse::new(answers.map(|answer| Event::default().event("next").json_data(answer)))
}

// ===== the key =====

/// The documents that clients may name by their hash.
fn persisted(hash: &str) -> Option<&'static str> {
    [ARTICLE, PUBLISH]
        .into_iter()
        .find(|document| sha256(document) == hash)
}

/// The document of a request, as far as it can be known.
fn document(request: &Parts) -> Option<String> {
    let fields: Value = if request.method == Method::POST {
        let BodyBytes(body) = request.extensions.get()?;
        serde_json::from_slice(body).ok()?
    } else {
        let Fields(fields) =
            Fields::<serde_json::Map<String, Value>>::try_from_uri(&request.uri).ok()?;
        fields.into()
    };
    if let Some(text) = fields["query"].as_str().filter(|text| !text.is_empty()) {
        return Some(text.to_owned());
    }
    let extensions = match &fields["extensions"] {
        Value::String(text) => serde_json::from_str(text).ok()?,
        extensions => extensions.clone(),
    };
    persisted(extensions["persistedQuery"]["sha256Hash"].as_str()?).map(str::to_owned)
}

/// Whether a request only reads. What writes says so: no document without the word has a mutation.
fn reads(request: &Parts) -> Option<()> {
    let document = document(request)?;
    (!document.contains("mutation") && !document.contains("subscription")).then_some(())
}

struct World {
    site: Site,
    app: Router,
}

fn world() -> World {
    let layer = SingleflightLayer::with_extractor(
        RequestKeyExtractor::new().coalesce(Method::POST).and(reads),
    );
    let site = Site {
        queries: Gate::closed(),
        mutations: Gate::closed(),
        flights: layer.handle(),
    };
    let schema = Schema::build(Query(site.clone()), Mutation(site.clone()), Subscriptions)
        .extension(ApolloPersistedQueries::new(LruCacheStorage::new(10)))
        .finish();
    let app = Router::new()
        .route(
            "/graphql",
            routing::any_service(GraphQL::new(schema.clone())),
        )
        .route("/graphql/events", routing::post(events))
        .route_service("/graphql/ws", GraphQLSubscription::new(schema.clone()))
        .layer(layer)
        .layer(BufferBodyLayer::new(64 << 10))
        .with_state(schema);
    World { site, app }
}

// ===== callers =====

const ARTICLE: &str = "query Article($id: Int!) { article(id: $id) }";
const PUBLISH: &str = "mutation Publish($id: Int!) { publish(id: $id) }";
const ARTICLE_7: &str = r#"{"data":{"article":"article 7"}}"#;
const PUBLISHED_7: &str = r#"{"data":{"publish":"published 7"}}"#;

/// The hashes of the two documents.
fn sha256(document: &str) -> &'static str {
    match document {
        ARTICLE => "c9e3a2bfc2d4b8a0",
        _ => "",
    }
}

fn post(body: &Value) -> Request<Body> {
    let request = Request::post("/graphql").header("content-type", "application/json");
    request.body(Body::from(body.to_string())).unwrap()
}

fn get(fields: &[(&str, &str)]) -> Request<Body> {
    let uri = Uri::try_from(format!(
        "/graphql?{}",
        serde_urlencoded::to_string(fields).unwrap()
    ));
    Request::get(uri.unwrap()).body(Body::empty()).unwrap()
}
