//! `async-graphql` on axum.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_graphql::{EmptyMutation, EmptySubscription, Object, Schema};
use async_graphql_axum::GraphQL;
use axum::{Router, body::Body, routing::get_service};
use http::Request;
use tower::ServiceExt;
use tower_singleflight::{Role, SingleflightLayer};

use crate::support::{assert_idle, read};

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
    let app: Router = Router::new()
        .route("/graphql", get_service(GraphQL::new(schema)))
        .layer(layer.clone());
    let ask = || {
        let request = Request::get("/graphql?query=%7B%20article(id%3A%207)%20%7D");
        app.clone().oneshot(request.body(Body::empty()).unwrap())
    };
    let (first, second) = tokio::join!(ask(), ask());
    let body = r#"{"data":{"article":"article 7"}}"#.to_owned();
    assert_eq!(read(first.unwrap()).await, (Role::Leader, body.clone()));
    assert_eq!(read(second.unwrap()).await, (Role::Follower, body));
    assert_eq!(query.0.load(Ordering::SeqCst), 1);
    assert_idle(&layer.handle());
}
