//! `async-graphql` on axum.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_graphql::{EmptyMutation, EmptySubscription, Object, Schema};
use axum::{Json, Router, body::Body, extract::RawQuery, routing::get};
use http::Request;
use http_body_util::BodyExt;
use tower::ServiceExt;
use tower_singleflight::{Role, SingleflightLayer};

use crate::support::assert_idle;

/// Counts the runs of its resolver.
#[derive(Clone, Default)]
struct Query(Arc<AtomicUsize>);

#[Object]
impl Query {
    async fn article(&self, id: u32) -> String {
        self.0.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        format!("article {id}")
    }
}

#[tokio::test]
async fn equal_queries_by_get_run_one_resolver() {
    let (query, layer) = (Query::default(), SingleflightLayer::new());
    let schema = Schema::new(query.clone(), EmptyMutation, EmptySubscription);
    // As `async-graphql-axum` does, without the web sockets that it brings.
    let run = |RawQuery(query): RawQuery| async move {
        let request = async_graphql::http::parse_query_string(&query.unwrap_or_default()).unwrap();
        Json(schema.execute(request).await)
    };
    let app: Router = Router::new()
        .route("/graphql", get(run))
        .layer(layer.clone());
    let ask = || {
        let request = Request::get("/graphql?query=%7B%20article(id%3A%207)%20%7D");
        app.clone().oneshot(request.body(Body::empty()).unwrap())
    };
    let (first, second) = tokio::join!(ask(), ask());
    let page = r#"{"data":{"article":"article 7"}}"#;
    for (response, role) in [(first, Role::Leader), (second, Role::Follower)] {
        let (head, body) = response.unwrap().into_parts();
        assert_eq!(head.extensions.get(), Some(&role));
        assert_eq!(body.collect().await.unwrap().to_bytes(), page);
    }
    assert_eq!(query.0.load(Ordering::SeqCst), 1);
    assert_idle(&layer.handle());
}
