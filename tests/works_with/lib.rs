//! The layer beside the crates that people use it with. A package of its own, because those are many.
#![cfg(all(test, feature = "http"))]

#[path = "../support/mod.rs"]
mod support;

mod axum;
mod graphql;
mod tonic;
mod tower;
mod tower_http;
