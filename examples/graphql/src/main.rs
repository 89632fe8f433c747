//! Equal GraphQL queries run a resolver once, although they come by POST; mutations run each time.
//!
//! ```not_rust
//! cargo run --release -p graphql
//! ```
//!
//! The program serves a schema on loopback, without the layer and with it. Its resolver takes 200 ms. A hundred clients send
//! the same query at the same time, and in the midst of them one sends a mutation. The program prints how often the
//! resolver has run, and checks that whoever asks after the mutation sees what it wrote.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_graphql::{Context, EmptySubscription, Object, Schema, SimpleObject};
use async_graphql_axum::GraphQL;
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    http::{Method, Request, request::Parts},
    routing::post_service,
};
use futures_util::future::try_join_all;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::net::TcpListener;
use tower_singleflight::{
    BodyBytes, BufferBodyLayer, Handle, RequestKey, RequestKeyExtractor, SingleflightLayer,
};

/// Clients before the mutation, and as many after it.
const CLIENTS: usize = 50;

const QUERY: &str = r#"{"query":"{ article(id: 7) { title } }"}"#;
const MUTATION: &str = r#"{"query":"mutation { retitle(id: 7, title: \"new\") { title } }"}"#;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

// ===== the server =====

#[derive(Default)]
struct Database {
    title: Mutex<String>,
    reads: AtomicU64,
    writes: AtomicU64,
}

#[derive(SimpleObject)]
struct Article {
    title: String,
}

struct Query;
struct Mutation;

type Flights = Handle<(RequestKey, ())>;

#[Object]
impl Query {
    async fn article(&self, context: &Context<'_>, id: u32) -> Article {
        let database = context.data_unchecked::<Arc<Database>>();
        database.reads.fetch_add(1, Ordering::Relaxed);
        let title = database
            .title
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        tokio::time::sleep(Duration::from_millis(200)).await;
        Article {
            title: format!("{title} {id}"),
        }
    }
}

#[Object]
impl Mutation {
    async fn retitle(&self, context: &Context<'_>, id: u32, title: String) -> Article {
        let database = context.data_unchecked::<Arc<Database>>();
        database.writes.fetch_add(1, Ordering::Relaxed);
        database
            .title
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(&title);
        // First write, then forget: a query in flight may have read the old title.
        if let Some(flights) = context.data_opt::<Flights>() {
            flights.forget_if(|(key, ())| key.uri().path() == "/graphql");
        }
        Article {
            title: format!("{title} {id}"),
        }
    }
}

/// Whether a request only reads. A document without these words has neither a mutation nor a subscription.
fn reads(request: &Parts) -> Option<()> {
    let BodyBytes(body) = request.extensions.get()?;
    let request: async_graphql::Request = serde_json::from_slice(body).ok()?;
    let document = request.query;
    (!document.is_empty() && !document.contains("mutation") && !document.contains("subscription"))
        .then_some(())
}

fn app(database: &Arc<Database>, with_layer: bool) -> Router {
    database
        .title
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push_str("old");
    let schema = Schema::build(Query, Mutation, EmptySubscription).data(Arc::clone(database));
    if !with_layer {
        return Router::new().route("/graphql", post_service(GraphQL::new(schema.finish())));
    }
    let key = RequestKeyExtractor::new().coalesce(Method::POST).and(reads);
    let layer = SingleflightLayer::with_extractor(key);
    let schema = schema.data::<Flights>(layer.handle());
    Router::new()
        .route("/graphql", post_service(GraphQL::new(schema.finish())))
        .layer(layer)
        .layer(BufferBodyLayer::new(64 * 1024))
}

// ===== the clients =====

async fn ask(address: SocketAddr, body: &'static str) -> Result<Bytes, BoxError> {
    let request = Request::post(format!("http://{address}/graphql"))
        .header("content-type", "application/json")
        .body(Body::from(body))?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request).await?;
    Ok(to_bytes(Body::new(response.into_body()), 10_000).await?)
}

/// What the clients got who asked before the mutation, and those who asked after it.
async fn burst(address: SocketAddr) -> Result<[Vec<Bytes>; 2], BoxError> {
    let clients = || try_join_all((0..CLIENTS).map(|_| ask(address, QUERY)));
    let before = tokio::spawn(clients());
    tokio::time::sleep(Duration::from_millis(100)).await;
    ask(address, MUTATION).await?;
    let after = clients().await?;
    Ok([before.await??, after])
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    println!("layer    queries  resolver runs  mutations  mutation runs");
    for (name, with_layer) in [("without", false), ("with", true)] {
        let database = Arc::new(Database::default());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let app = app(&database, with_layer);
        let server = tokio::spawn(async move { axum::serve(listener, app).await });

        let [before, after] = burst(address).await?;
        server.abort();
        let (reads, writes) = (&database.reads, &database.writes);
        println!(
            "{name:<7}{:>9}{:>15}{:>11}{:>15}",
            before.len() + after.len(),
            reads.load(Ordering::Relaxed),
            1,
            writes.load(Ordering::Relaxed),
        );
        let expected = |title: &str| format!(r#"{{"data":{{"article":{{"title":"{title} 7"}}}}}}"#);
        if after.iter().any(|got| *got != expected("new")) {
            return Err("who asked after the mutation did not see what it wrote".into());
        }
    }
    Ok(())
}
