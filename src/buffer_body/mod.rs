//! Read request bodies before the service below is called, so that they can be part of a key.
//!
//! Identical questions come by POST too: GraphQL, JSON-RPC, unary gRPC calls, `QUERY` ([RFC 10008]), WebDAV's `REPORT`
//! and `SEARCH`. Put [`BufferBodyLayer`] above a [`SingleflightLayer`](crate::SingleflightLayer) whose key
//! [coalesces](crate::RequestKeyExtractor::coalesce) their method. The body's bytes are then part of the key.
//!
//! ```
//! use axum::{Router, body::Bytes, routing::post};
//! use http::Method;
//! use tower_singleflight::{BufferBodyLayer, RequestKeyExtractor, SingleflightLayer};
//!
//! // A search changes nothing, although it comes by POST.
//! let key = RequestKeyExtractor::new().coalesce(Method::POST);
//! let app: Router = Router::new()
//!     .route("/search", post(|query: Bytes| async move { query }))
//!     .layer(SingleflightLayer::with_extractor(key))
//!     .layer(BufferBodyLayer::new(64 * 1024));
//! ```
//!
//! The [cookbook](crate::guide::cookbook) has a recipe for GraphQL, JSON-RPC, `QUERY` and gRPC.
//!
//! # What is read
//!
//! | request | the service below gets |
//! | --- | --- |
//! | a GET or HEAD without a body | the request as it came |
//! | any other, its body read to the end | the bytes in one frame, then the trailers; and [`BodyBytes`] in the extensions |
//! | with `Expect`, or a CONNECT | the request as it came |
//! | announced as longer than `max` | the request as it came |
//! | a body that turns out to be longer than `max`, or for which [`max_buffered`](BufferBodyLayer::max_buffered) has no room | what was read, then the rest as it comes |
//! | a body that takes longer than a second | what was read, then the rest as it comes |
//! | a body that fails | what was read, then the error |
//! | a body whose `Content-Length` says another length, or with a `Transfer-Encoding` beside it, or one other than `chunked` | the body, whole; no `BodyBytes` |
//!
//! So every body reaches the service whole and in order, and only one that was read to its end can be part of a key.
//! A request joins or leads a flight when its body is there: a slow sender holds no flight.
//!
//! <div class="warning">
//!
//! A client that waits for the head of the response before it goes on with its body (a bidirectional gRPC call) waits
//! for that second. Put the layer over the routes that need it.
//!
//! </div>
//!
//! # Ordering
//!
//! `BufferBodyLayer` stands right above the [`SingleflightLayer`](crate::SingleflightLayer). What changes a body, such as a
//! layer that decompresses requests, belongs above both: the key holds the bytes that this layer has read, and the service
//! below has to answer by these. What limits a body, or checks who asks, belongs above as well.
//!
//! # Framing
//!
//! `Content-Length`, `Transfer-Encoding` and `Expect` are no part of the key of a request whose body was read: equal
//! requests share however they were framed. `Content-Type` and `Content-Encoding` are, as every other field. Two
//! requests with the same bytes and different trailers have different keys. A key function of your own does not see the
//! trailers, so under it a request that has any is not coalesced.
//!
//! # Backpressure
//!
//! [`BufferBody`] is always ready. It claims the capacity of the service below when the body is there, on an instance
//! that was itself polled ready: a slow sender holds no permit either.
//!
//! # Cancel safety
//!
//! A response future that is dropped while it reads drops what it has read. The service below has not been called.
//!
//! # Panics
//!
//! In a Tokio runtime without a timer (`enable_time`) a request panics when its body does not come with its head.
//! Without a runtime there is no limit to how long a body may take.
//!
//! [RFC 10008]: https://www.rfc-editor.org/rfc/rfc10008

// | file | what it holds |
// | --- | --- |
// | `layer`, `service`, `future` | the layer, its service and that one's future |
// | `buffer` | a body of which something was read ahead, up to `max` |
// | `budget` | `max_buffered`: the bytes that all requests have read ahead |
// | `framing` | whether a request's head agrees with its body |
// | `body` | `BufferedBody`, `BodyBytes` and the trailers in a request's extensions |
mod body;
mod budget;
mod buffer;
mod framing;
pub mod future;
mod layer;
mod service;

pub(crate) use self::body::Trailers;
pub use self::{
    body::{BodyBytes, BufferedBody},
    layer::BufferBodyLayer,
    service::BufferBody,
};
