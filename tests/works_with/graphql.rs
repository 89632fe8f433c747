//! `async-graphql` on axum: queries share, by GET and by POST; mutations and subscriptions don't.

use std::collections::HashMap;

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
use http::{Method, Request, Response, request::Parts};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};
use tower::ServiceExt;
use tower_singleflight::{
    BodyBytes, BufferBodyLayer, Handle, RequestKey, RequestKeyExtractor, Role, SingleflightLayer,
};

use crate::{
    gate::Gate,
    support::{assert_idle, role, settle, sockets::until},
};

// ===== the service =====

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

type Served = Schema<Query, Mutation, Subscriptions>;

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
        // A method that is opted in detaches nothing by itself.
        let flights = &self.0.flights;
        flights.forget_if(|(key, ())| key.uri().path() == "/graphql");
        format!("published {id}")
    }
}

#[Subscription]
impl Subscriptions {
    async fn ticks(&self) -> impl Stream<Item = u32> {
        stream::iter(0..3)
    }
}

/// A subscription by Server-Sent Events.
async fn events(
    State(schema): State<Served>,
    request: GraphQLRequest,
) -> Sse<impl Stream<Item = Result<Event, axum::Error>>> {
    let answers = schema.execute_stream(request.into_inner());
    Sse::new(answers.map(|answer| Event::default().event("next").json_data(answer)))
}

// ===== the key =====

/// The document of a request, as far as it can be known.
fn document(request: &Parts) -> Option<String> {
    let fields: Value = if request.method == Method::POST {
        let BodyBytes(body) = request.extensions.get()?;
        serde_json::from_slice(body).ok()?
    } else {
        let fields = Fields::<HashMap<String, String>>::try_from_uri(&request.uri);
        json!(fields.ok()?.0)
    };
    if let Some(text) = fields["query"].as_str() {
        return Some(text.to_owned());
    }
    let extensions = match &fields["extensions"] {
        Value::String(text) => serde_json::from_str(text).ok()?,
        extensions => extensions.clone(),
    };
    let hash = extensions["persistedQuery"]["sha256Hash"].as_str()?;
    // Those that clients may name.
    let known = [ARTICLE, PUBLISH].into_iter();
    let mut known = known.filter(|document| sha256(document) == hash);
    known.next().map(str::to_owned)
}

/// Whether a request only reads. Without these words a document has neither a mutation nor a subscription.
fn reads(request: &Parts) -> Option<()> {
    let document = document(request)?;
    (!document.contains("mutation") && !document.contains("subscription")).then_some(())
}

struct World {
    site: Site,
    app: Router,
}

fn world() -> World {
    let key = RequestKeyExtractor::new().coalesce(Method::POST).and(reads);
    let layer = SingleflightLayer::with_extractor(key);
    let site = Site {
        queries: Gate::closed(),
        mutations: Gate::closed(),
        flights: layer.handle(),
    };
    let persisted = ApolloPersistedQueries::new(LruCacheStorage::new(10));
    let schema = Schema::build(Query(site.clone()), Mutation(site.clone()), Subscriptions)
        .extension(persisted)
        .finish();
    let app = Router::new()
        .route_service("/graphql", GraphQL::new(schema.clone()))
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
const TICKS: &str = "subscription { ticks }";

fn sha256(document: &str) -> String {
    use sha2::Digest;
    format!("{:x}", sha2::Sha256::digest(document))
}

fn article(id: u32) -> String {
    format!(r#"{{"data":{{"article":"article {id}"}}}}"#)
}

fn published(id: u32) -> String {
    format!(r#"{{"data":{{"publish":"published {id}"}}}}"#)
}

fn post(fields: &Value) -> Request<Body> {
    let request = Request::post("/graphql").header("content-type", "application/json");
    request.body(Body::from(fields.to_string())).unwrap()
}

fn get(fields: &Value) -> Request<Body> {
    let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let pairs = fields.as_object().unwrap().iter().map(|(name, value)| {
        let value: String = match value.as_str() {
            Some(text) => encode(text),
            None => encode(&value.to_string()),
        };
        format!("{name}={value}")
    });
    let uri = format!("/graphql?{}", pairs.collect::<Vec<_>>().join("&"));
    Request::get(uri).body(Body::empty()).unwrap()
}

/// A request with the text of its document, with both the text and its hash, or with the hash alone.
fn text(document: &str, id: u32) -> Value {
    json!({ "query": document, "variables": { "id": id } })
}

fn hash(document: &str, id: u32) -> Value {
    let persisted = json!({ "version": 1, "sha256Hash": sha256(document) });
    json!({ "variables": { "id": id }, "extensions": { "persistedQuery": persisted } })
}

fn text_and_hash(document: &str, id: u32) -> Value {
    let mut fields = hash(document, id);
    fields["query"] = document.into();
    fields
}

async fn read(response: Response<Body>) -> (Role, String) {
    let role = role(&response);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (role, String::from_utf8(body.into()).unwrap())
}

impl World {
    /// Sends a request, and lets it go as far as it gets.
    async fn ask(&self, request: Request<Body>) -> JoinHandle<(Role, String)> {
        let call = self.app.clone().oneshot(request);
        let asked = tokio::spawn(async move { read(call.await.unwrap()).await });
        settle().await;
        asked
    }

    /// What becomes of requests that come one after the other, while no resolver has answered.
    async fn together(
        &self,
        requests: impl IntoIterator<Item = Request<Body>>,
    ) -> Vec<(Role, String)> {
        let mut asked = Vec::new();
        for request in requests {
            asked.push(self.ask(request).await);
        }
        self.site.queries.open();
        self.site.mutations.open();
        let mut got = Vec::new();
        for one in asked {
            got.push(one.await.unwrap());
        }
        assert_idle(&self.site.flights);
        got
    }
}

// ===== tests =====

use Role::{Bypassed, Follower, Leader};

#[tokio::test]
async fn equal_queries_run_one_resolver_by_get_and_by_post() {
    for send in [get, post] {
        let world = world();
        let asked = [7, 8, 7].map(|id| send(&text(ARTICLE, id)));
        assert_eq!(
            world.together(asked).await,
            [
                (Leader, article(7)),
                (Leader, article(8)),
                (Follower, article(7))
            ]
        );
        assert_eq!(world.site.queries.runs(), 2);
    }
}

#[tokio::test]
async fn mutations_never_coalesce_by_get_or_by_post() {
    for send in [get, post] {
        let world = world();
        let named = json!({
            "query": format!("{ARTICLE} {PUBLISH}"),
            "operationName": "Publish",
            // What `async-graphql` reads of a GET.
            "operation_name": "Publish",
            "variables": { "id": 7 },
        });
        let asked = [text(PUBLISH, 7), text(PUBLISH, 7), named.clone(), named];
        let got = world.together(asked.each_ref().map(send)).await;
        assert_eq!(got.len(), 4);
        for one in got {
            assert_eq!(one, (Bypassed, published(7)));
        }
        assert_eq!(world.site.mutations.runs(), 4);
    }
}

#[tokio::test]
async fn who_asks_after_a_mutation_joins_no_query_from_before_it() {
    let world = world();
    let before = world.ask(post(&text(ARTICLE, 7))).await;
    world.site.mutations.open();
    let mutation = world.ask(post(&text(PUBLISH, 7))).await;
    assert_eq!(mutation.await.unwrap(), (Bypassed, published(7)));
    let after = world.ask(post(&text(ARTICLE, 7))).await;
    world.site.queries.open();
    assert_eq!(before.await.unwrap(), (Leader, article(7)));
    assert_eq!(after.await.unwrap(), (Leader, article(7)));
    assert_eq!(world.site.queries.runs(), 2);
    assert_idle(&world.site.flights);
}

#[tokio::test]
async fn a_persisted_query_shares_and_a_persisted_mutation_does_not() {
    for send in [get, post] {
        let world = world();
        for (document, gate) in [
            (ARTICLE, &world.site.queries),
            (PUBLISH, &world.site.mutations),
        ] {
            gate.admit(1);
            let registered = world.ask(post(&text_and_hash(document, 1))).await;
            assert!(registered.await.unwrap().1.starts_with(r#"{"data":{"#));
        }
        let asked = [hash(ARTICLE, 7), hash(PUBLISH, 7)];
        let asked = [&asked[0], &asked[1], &asked[0], &asked[1]].map(send);
        assert_eq!(
            world.together(asked).await,
            [
                (Leader, article(7)),
                (Bypassed, published(7)),
                (Follower, article(7)),
                (Bypassed, published(7)),
            ]
        );
    }
}

#[tokio::test]
async fn a_batch_and_a_document_that_nobody_knows_make_their_own_call() {
    let world = world();
    let batch = json!([text(ARTICLE, 7), text(ARTICLE, 8)]);
    let unknown = hash("{ article(id: 7) }", 7);
    let got = world
        .together([&batch, &batch, &unknown, &unknown].map(post))
        .await;
    assert!(got.iter().all(|(role, _)| *role == Bypassed));
    assert_eq!(got[1].1, format!("[{},{}]", article(7), article(8)));
    assert!(got[3].1.contains("PersistedQueryNotFound"));
}

#[tokio::test]
async fn a_subscription_by_server_sent_events_is_untouched() {
    let world = world();
    let subscribe = || {
        let (mut head, body) = post(&text(TICKS, 0)).into_parts();
        head.uri = "/graphql/events".parse().unwrap();
        head.headers
            .insert("accept", "text/event-stream".parse().unwrap());
        Request::from_parts(head, body)
    };
    let event = |tick| format!("event: next\ndata: {{\"data\":{{\"ticks\":{tick}}}}}\n\n");
    let got = world.together([subscribe(), subscribe()]).await;
    let events: String = (0..3).map(event).collect();
    assert_eq!(got, [(Bypassed, events.clone()), (Bypassed, events)]);
}

#[tokio::test]
async fn a_subscription_by_web_socket_is_untouched() {
    let world = world();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = world.app.clone();
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let subscriber = async || {
        let mut request = format!("ws://{address}/graphql/ws")
            .into_client_request()
            .unwrap();
        let protocol = "graphql-transport-ws".parse().unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocol);
        let (mut socket, response) = tokio_tungstenite::connect_async(request).await.unwrap();
        assert_eq!(response.status(), 101);
        for message in [
            json!({ "type": "connection_init" }),
            json!({ "type": "subscribe", "id": "1", "payload": { "query": TICKS } }),
        ] {
            let message = Message::text(message.to_string());
            socket.send(message).await.unwrap();
        }
        let mut ticks = Vec::new();
        while let Some(message) = socket.next().await {
            let message: Value = serde_json::from_str(message.unwrap().to_text().unwrap()).unwrap();
            match message["type"].as_str() {
                Some("next") => ticks.push(message["payload"]["data"]["ticks"].clone()),
                Some("complete") => break,
                _ => {}
            }
        }
        ticks
    };
    let (one, two) = tokio::join!(subscriber(), subscriber());
    assert_eq!(
        (one, two),
        (
            vec![json!(0), json!(1), json!(2)],
            vec![json!(0), json!(1), json!(2)]
        )
    );
    assert_eq!(world.site.flights.stats().bypassed, 2);
    until(|| world.site.flights.in_flight() == 0).await;
    assert_idle(&world.site.flights);
    server.abort();
}
