//! The layer beside the crates that people use it with. A package of its own, because those are many.
#![cfg(feature = "http")]

#[path = "../support/mod.rs"]
mod support;

mod axum;
mod tonic;
mod tower;
mod tower_http;
