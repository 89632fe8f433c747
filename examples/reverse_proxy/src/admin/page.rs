//! The live page.

use std::sync::Arc;

use axum::{Router, http::header, routing::get};

use super::Admin;

/// The page can neither load anything from elsewhere nor be framed.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
    img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const FILES: [(&str, &str, &str); 7] = [
    (
        "/",
        "text/html; charset=utf-8",
        include_str!("page/index.html"),
    ),
    (
        "/style.css",
        "text/css; charset=utf-8",
        include_str!("page/style.css"),
    ),
    ("/main.js", SCRIPT, include_str!("page/main.js")),
    ("/chart.js", SCRIPT, include_str!("page/chart.js")),
    ("/format.js", SCRIPT, include_str!("page/format.js")),
    (
        "/last_minute.js",
        SCRIPT,
        include_str!("page/last_minute.js"),
    ),
    ("/state.js", SCRIPT, include_str!("page/state.js")),
];

pub(super) fn routes() -> Router<Arc<Admin>> {
    FILES
        .into_iter()
        .fold(Router::new(), |router, (path, kind, text)| {
            let fields = [
                (header::CONTENT_TYPE, kind),
                (header::CONTENT_SECURITY_POLICY, POLICY),
                (header::CACHE_CONTROL, "no-cache"),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            ];
            router.route(path, get(move || async move { (fields, text) }))
        })
}
