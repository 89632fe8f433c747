//! `jsonrpsee` on axum: equal calls share although their ids differ, and each caller gets its own id.

use std::collections::BTreeMap;

use axum::{
    Router,
    body::{self, Body},
    error_handling::HandleError,
    extract::Request,
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode, header::CONTENT_LENGTH, request::Parts};
use http_body_util::BodyExt;
use jsonrpsee_server::{RpcModule, Server, stop_channel};
use serde_json::{Value, json, value::RawValue};
use tokio::task::JoinHandle;
use tower::{BoxError, ServiceExt};
use tower_singleflight::{
    BodyBytes, BufferBodyLayer, KeyExtractor, RequestKeyExtractor, Role, SingleflightLayer,
};

use crate::{
    gate::Gate,
    support::{assert_idle, role, settle},
};

/// A call or an answer, its members as they were written.
type Members = BTreeMap<String, Box<RawValue>>;

/// A call that only reads, apart from its id. A batch is none, nor is a notification.
fn read_of(request: &Parts) -> Option<(Members, Box<RawValue>)> {
    let BodyBytes(body) = request.extensions.get()?;
    let mut call: Members = serde_json::from_slice(body).ok()?;
    let reads = call.get("method")?.get().starts_with("\"get_");
    let id = call.remove("id")?;
    reads.then_some((call, id))
}

/// The default key of a call without its id.
fn key() -> impl KeyExtractor {
    let default = RequestKeyExtractor::new().coalesce(Method::POST);
    move |request: &Parts| {
        let (call, _) = read_of(request)?;
        let call = serde_json::to_vec(&call).ok()?;
        let mut request = request.clone();
        request.extensions.insert(BodyBytes(call.into()));
        default.extract(&request)
    }
}

/// A copy has the id of the call that was made.
async fn own_id(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let id = read_of(&parts).map(|(_, id)| id);
    let response = next.run(Request::from_parts(parts, body)).await;
    let (Some(id), Some(Role::Follower)) = (id, response.extensions().get()) else {
        return response;
    };
    let (mut head, body) = response.into_parts();
    let Ok(body) = body::to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let Ok(mut answer) = serde_json::from_slice::<Members>(&body) else {
        return Response::from_parts(head, Body::from(body));
    };
    answer.insert("id".to_owned(), id);
    head.headers.remove(CONTENT_LENGTH);
    Response::from_parts(head, Body::from(json!(answer).to_string()))
}

struct World<X: KeyExtractor> {
    gate: Gate,
    layer: SingleflightLayer<X>,
    app: Router,
}

fn world() -> World<impl KeyExtractor> {
    let gate = Gate::closed();
    let mut module = RpcModule::new(gate.clone());
    module
        .register_async_method("get_block", async |params, gate, _| {
            gate.run().await;
            // With a number that a float can't hold.
            let number = params.one::<u64>()?;
            let block = RawValue::from_string(format!(r#"{{"number":{number},"size":1.50}}"#));
            Ok::<_, jsonrpsee_server::types::ErrorObjectOwned>(block.expect("valid JSON"))
        })
        .unwrap();
    module
        .register_async_method("send_block", async |_, gate, _| {
            gate.run().await;
            "sent"
        })
        .unwrap();
    let (stop, server) = stop_channel();
    let service = Server::builder().to_service_builder().build(module, stop);
    let service = HandleError::new(service, async |error: BoxError| {
        (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    });
    let layer = SingleflightLayer::with_extractor(key());
    let app = Router::new()
        .fallback_service(service)
        .layer(layer.clone())
        .layer(middleware::from_fn(own_id))
        .layer(BufferBodyLayer::new(64 << 10));
    // The server goes on until this is dropped.
    let app = app.layer(axum::Extension(server));
    World { gate, layer, app }
}

fn post(call: &Value) -> Request {
    let request = Request::post("/").header("content-type", "application/json");
    request.body(Body::from(call.to_string())).unwrap()
}

impl<X: KeyExtractor> World<X> {
    async fn ask(&self, call: &Value) -> JoinHandle<(Role, Value)> {
        let call = self.app.clone().oneshot(post(call));
        let asked = tokio::spawn(async move {
            let response = call.await.unwrap();
            let role = role(&response);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (role, serde_json::from_slice(&body).unwrap())
        });
        settle().await;
        asked
    }

    async fn together(&self, calls: &[Value]) -> Vec<(Role, Value)> {
        let mut asked = Vec::new();
        for call in calls {
            asked.push(self.ask(call).await);
        }
        self.gate.open();
        let mut got = Vec::new();
        for one in asked {
            got.push(one.await.unwrap());
        }
        assert_idle(&self.layer.handle());
        got
    }
}

fn call(id: impl Into<Value>, method: &str, params: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id.into(), "method": method, "params": params })
}

use Role::{Bypassed, Follower, Leader};

#[tokio::test]
async fn equal_calls_are_one_and_each_caller_gets_its_own_id() {
    let world = world();
    const LARGE: u64 = u64::MAX - 1;
    let calls = [
        call(1, "get_block", &json!([LARGE])),
        call("b", "get_block", &json!([LARGE])),
        call(3, "get_block", &json!([7])),
        call(4, "get_block", &json!([LARGE])),
    ];
    let got = world.together(&calls).await;
    let roles: Vec<_> = got.iter().map(|(role, _)| *role).collect();
    assert_eq!(roles, [Leader, Follower, Leader, Follower]);
    for (call, (_, answer)) in calls.iter().zip(&got) {
        assert_eq!(answer["id"], call["id"]);
        assert_eq!(answer["result"]["number"], call["params"][0]);
    }
    assert_eq!(world.gate.runs(), 2);
}

#[tokio::test]
async fn the_error_of_a_call_reaches_its_callers_with_their_own_ids() {
    let world = world();
    let calls = [1, 2].map(|id| call(id, "get_block", &json!(["no number"])));
    let got = world.together(&calls).await;
    assert_eq!((got[0].0, got[1].0), (Leader, Follower));
    for (call, (_, answer)) in calls.iter().zip(&got) {
        assert_eq!(answer["id"], call["id"]);
        assert_eq!(answer["error"]["code"], -32602);
    }
}

#[tokio::test]
async fn what_writes_and_a_batch_make_their_own_call() {
    let world = world();
    let send = |id| call(id, "send_block", &json!([7]));
    let batch = json!([call(1, "get_block", &json!([7])), send(2)]);
    let got = world
        .together(&[send(1), send(1), batch.clone(), batch])
        .await;
    assert!(got.iter().all(|(role, _)| *role == Bypassed));
    assert_eq!(got[1].1["result"], "sent");
    assert_eq!(got[3].1[1]["result"], "sent");
}
