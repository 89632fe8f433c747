//! The layer beside the crates that people use it with. A package of its own, because those are many.
#![cfg(all(test, feature = "http"))]

#[path = "../support/mod.rs"]
mod support;

mod axum;
mod gate;
#[cfg(feature = "heavy")]
mod graphql;
mod grpc;
#[cfg(feature = "heavy")]
mod json_rpc;
#[cfg(feature = "heavy")]
mod kube;
#[cfg(feature = "heavy")]
mod prometheus;
mod tonic;
mod tower;
mod tower_http;
#[cfg(feature = "heavy")]
mod webdav;
