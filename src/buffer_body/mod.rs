//! Reads request bodies before the service below is called, so that they can be part of a key.
//!
//! Identical queries arrive with a body too: GraphQL, JSON-RPC, unary gRPC calls, `QUERY` ([RFC 10008]), WebDAV's
//! `REPORT` and `SEARCH`. Put [`BufferBodyLayer`] above a [`SingleflightLayer`](crate::SingleflightLayer) whose key
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
//! | with an announced length over `max` | the request as it came |
//! | a body that turns out to be longer than `max`, or for which [`max_buffered`](BufferBodyLayer::max_buffered) has no room | what was read, then the rest as it comes |
//! | a body that takes longer than a second | what was read, then the rest as it comes |
//! | a body that fails | what was read, then the error |
//! | a body with a wrong `Content-Length`, with a `Transfer-Encoding` beside it, or with one other than `chunked` | the body, whole; no `BodyBytes` |
//!
//! So every body reaches the service complete and in order, and only a body that was read to its end can be part of a
//! key. A request joins or leads a flight once its body has arrived, so a slow sender holds up no flight.
//!
//! <div class="warning">
//!
//! A client that waits for the response's head before it continues its body, as in a bidirectional gRPC call, waits for
//! that second. Put the layer only over the routes that need it.
//!
//! </div>
//!
//! # Ordering
//!
//! Put `BufferBodyLayer` right above the [`SingleflightLayer`](crate::SingleflightLayer). A layer that changes bodies,
//! such as one that decompresses requests, belongs above both: the key holds the bytes that this layer has read, and
//! the service below must see the same bytes. Body limits and authentication belong above as well.
//!
//! # Framing
//!
//! When the body was read, `Content-Length`, `Transfer-Encoding` and `Expect` are not part of the key: equal requests
//! share, however they are framed. `Content-Type` and `Content-Encoding` are part of it, like every other field. Two
//! requests with the same bytes and different trailers have different keys. A key function of your own can't see
//! trailers, so with one a request that has trailers is not coalesced.
//!
//! # Backpressure
//!
//! [`BufferBody`] is always ready. It claims the capacity of the service below once the body has arrived, on an
//! instance that was itself polled ready, so a slow sender holds no permit either.
//!
//! # Cancel safety
//!
//! If you drop the response future while it reads, what it has read is dropped too, and the service below is not
//! called.
//!
//! # Panics
//!
//! In a Tokio runtime without a timer (`enable_time`), a request panics if its body does not arrive with its head.
//! Without a runtime, a body may take as long as it likes.
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
