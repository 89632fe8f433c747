// Its links and examples are of what the feature brings.
#![cfg_attr(feature = "http", doc = include_str!("guide/overview.md"))]
#![cfg_attr(not(feature = "http"), doc = include_str!("guide/group.md"))]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "http")]
mod audit;
#[cfg(feature = "http")]
mod body;
#[cfg(feature = "http")]
mod buffer;
#[cfg(feature = "http")]
pub mod buffer_body;
#[cfg(feature = "http")]
mod cache_status;
#[cfg(feature = "http")]
mod coalesce;
mod error;
#[cfg(feature = "http")]
mod flight;
#[cfg(feature = "http")]
pub mod future;
#[cfg_attr(
    not(feature = "http"),
    expect(dead_code, reason = "hooks for the floors above")
)]
mod group;
#[cfg(all(any(doc, doctest), feature = "http"))]
pub mod guide;
#[cfg(feature = "http")]
mod handle;
#[cfg(feature = "http")]
mod key;
#[cfg(feature = "http")]
mod layer;
#[cfg(feature = "http")]
#[cfg_attr(
    not(all(feature = "tracing", feature = "metrics")),
    allow(unused_variables, reason = "reported to nobody")
)]
mod observe;
#[cfg(feature = "redis")]
mod replicas;
#[cfg(feature = "http")]
mod role;
#[cfg(feature = "http")]
pub mod rules;
#[cfg(feature = "http")]
mod service;
#[cfg(feature = "http")]
mod shared;
mod sync;

pub use self::error::SharedError;
#[cfg(feature = "redis")]
pub use self::group::Codec;
pub use self::group::{Group, Outcome, Run, ShareValue, TryRun};
#[cfg(feature = "redis")]
pub use self::replicas::{KeyBytes, ReplicaStats, Replicas, ReplicasError};
#[cfg(feature = "http")]
pub use self::{
    body::ResponseBody,
    buffer_body::{BodyBytes, BufferBody, BufferBodyLayer, BufferedBody},
    error::ShareError,
    handle::Handle,
    key::{KeyExtractor, RequestKey, RequestKeyAnd, RequestKeyExtractor, method_and_uri},
    layer::SingleflightLayer,
    role::Role,
    service::Singleflight,
    shared::Stats,
};

#[cfg(all(doctest, feature = "http"))]
#[doc = include_str!("../README.md")]
struct Readme;
