//! What the operator can do.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json,
    extract::{Query, State},
    http::{StatusCode, Uri},
};
use serde_json::{Value, json};

use super::Admin;

type Arguments = Query<HashMap<String, String>>;
type Refusal = (StatusCode, &'static str);

/// Whoever asks for `uri`, or with `all=true` for anything, from now on gets an answer that was made from now on.
pub(super) async fn forget(
    State(admin): State<Arc<Admin>>,
    Query(arguments): Arguments,
) -> Result<Json<Value>, Refusal> {
    let refusal = (
        StatusCode::BAD_REQUEST,
        "expected ?uri=/path or ?all=true\n",
    );
    let forgotten = match (arguments.get("all"), arguments.get("uri")) {
        (Some(all), None) if all == "true" => admin.flights.forget_all(),
        (None, Some(uri)) => {
            let uri: Uri = uri.parse().map_err(|_| refusal)?;
            // Keys have the path alone.
            let path = uri.path_and_query().ok_or(refusal)?;
            let flights = &admin.flights;
            flights.forget_if(|key| key.uri().path_and_query() == Some(path))
        }
        _ => return Err(refusal),
    };
    tracing::info!(forgotten, "the operator had calls in flight forgotten");
    Ok(Json(json!({ "forgotten": forgotten })))
}

/// Switches coalescing on or off.
pub(super) async fn enabled(
    State(admin): State<Arc<Admin>>,
    Query(arguments): Arguments,
) -> Result<Json<Value>, Refusal> {
    let on = match arguments.get("on").map(String::as_str) {
        Some("true" | "on" | "1") => true,
        Some("false" | "off" | "0") => false,
        _ => return Err((StatusCode::BAD_REQUEST, "expected ?on=true or ?on=false\n")),
    };
    if !admin.layer {
        return Err((StatusCode::CONFLICT, "started with --no-coalesce\n"));
    }
    admin.flights.set_enabled(on);
    tracing::info!(on, "the operator has switched coalescing");
    Ok(Json(json!({ "enabled": on })))
}
