//! What may be coalesced and what may be shared: the rules of HTTP that this crate keeps.
//!
//! [`shareable`] is the default policy of `share_when`; call it from a policy of your own to narrow or widen it. All
//! other rules hold whatever the policy says. Everything here is a pure function of a message's head.
//!
//! | subject | rule | whence |
//! | --- | --- | --- |
//! | request | `CONNECT` makes its own call | [RFC 9110 9.3.6] |
//! | request | `Upgrade`, or `Connection: upgrade`, makes its own call | [RFC 9110 7.8] |
//! | request | `Expect` makes its own call | [RFC 9110 10.1.1] |
//! | request | `Cache-Control: no-store` or `only-if-cached`, or one that cannot be parsed, makes its own call; `no-cache`, `max-age=0` and `Pragma` do not | [RFC 9111 5.2.1] |
//! | request | a GET or HEAD with a body makes its own call | [RFC 9110 9.3.1] |
//! | request | any method but GET and HEAD makes its own call, unless a key function of yours names a key for it | [RFC 9110 9.2.1] |
//! | request | GET and HEAD never share a flight | [RFC 9110 9.3.2] |
//! | request | an unsafe method answered by 2xx or 3xx ends the sharing of older flights of its URI | [RFC 9111 4.4] |
//! | response | 1xx, and any answer to `CONNECT`, is its caller's alone | [RFC 9110 15.2] |
//! | response | `Vary: *`, or a `Vary` that cannot be parsed, is its caller's alone | [RFC 9110 12.5.5] |
//! | response | 403 to a request with `Authorization`, `Cookie` or `Proxy-Authorization` is its caller's alone; to one without it counts as if `Vary` also named these | [RFC 9110 15.5.4] |
//! | response | it goes to no request that differs in a field that `Vary` names | [RFC 9111 4.1] |
//! | response | 206, 304, 412 and 416 count as if `Vary` also named `Range`, `If-Range`, `If-Match`, `If-None-Match`, `If-Modified-Since` and `If-Unmodified-Since` | [RFC 9110 13.2], [RFC 9110 14.2] |
//! | response, default policy | not 400, 401, 402, 406, 407, 408, 409, 411, 413, 415, 417, 421, 422, 423, 424, 425, 428, 429, 431: each speaks of one client or one request | [RFC 9110 15.5], [RFC 6585], [RFC 8470] |
//! | response, default policy | not with `Set-Cookie`, `Set-Cookie2`, `WWW-Authenticate`, `Proxy-Authenticate`, `Authentication-Info`, `Proxy-Authentication-Info`, `Optional-WWW-Authenticate` or `Clear-Site-Data` | [RFC 6265 4.1], [RFC 9110 11.6] |
//! | response | trailers with one of those fields are the leader's alone: followers get the frames so far and then an error; where `Trailer` announces one, so is the response | [RFC 9110 6.5] |
//! | response, default policy | not with `Cache-Control: no-store`, `private` or `no-cache`, or one that cannot be parsed | [RFC 9111 5.2.2] |
//! | response, default policy | not `text/event-stream`, `multipart/x-mixed-replace` or `application/grpc*`: a stream made for one reader | [the HTML standard], [gRPC] |
//! | copy | it lacks `Connection`, what that names, `Keep-Alive`, `Proxy-Connection`, `TE`, `Transfer-Encoding` and `Upgrade` | [RFC 9110 7.6.1] |
//! | copy | `Content-Length` is the promise that its body must keep, save after HEAD, 204 and 304 | [RFC 9110 8.6] |
//! | every response | `Content-Length` is dropped beside `Transfer-Encoding`, where its values differ or are no numbers, and where the body is known to have another length | [RFC 9112 6.3] |
//! | response | a `Transfer-Encoding` other than `chunked` is its caller's alone: a copy could not name it | [RFC 9112 6.1] |
//!
//! A field that cannot be parsed is read as the one that forbids: a call too many is cheaper than an answer in the
//! wrong hands.
//!
//! [RFC 6265 4.1]: https://www.rfc-editor.org/rfc/rfc6265#section-4.1
//! [RFC 6585]: https://www.rfc-editor.org/rfc/rfc6585
//! [RFC 8470]: https://www.rfc-editor.org/rfc/rfc8470#section-5.2
//! [RFC 9110 6.5]: https://www.rfc-editor.org/rfc/rfc9110#section-6.5
//! [RFC 9110 7.6.1]: https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1
//! [RFC 9110 7.8]: https://www.rfc-editor.org/rfc/rfc9110#section-7.8
//! [RFC 9110 8.6]: https://www.rfc-editor.org/rfc/rfc9110#section-8.6
//! [RFC 9110 9.2.1]: https://www.rfc-editor.org/rfc/rfc9110#section-9.2.1
//! [RFC 9110 9.3.1]: https://www.rfc-editor.org/rfc/rfc9110#section-9.3.1
//! [RFC 9110 9.3.2]: https://www.rfc-editor.org/rfc/rfc9110#section-9.3.2
//! [RFC 9110 9.3.6]: https://www.rfc-editor.org/rfc/rfc9110#section-9.3.6
//! [RFC 9110 10.1.1]: https://www.rfc-editor.org/rfc/rfc9110#section-10.1.1
//! [RFC 9110 11.6]: https://www.rfc-editor.org/rfc/rfc9110#section-11.6
//! [RFC 9110 12.5.5]: https://www.rfc-editor.org/rfc/rfc9110#section-12.5.5
//! [RFC 9110 13.2]: https://www.rfc-editor.org/rfc/rfc9110#section-13.2
//! [RFC 9110 14.2]: https://www.rfc-editor.org/rfc/rfc9110#section-14.2
//! [RFC 9110 15.2]: https://www.rfc-editor.org/rfc/rfc9110#section-15.2
//! [RFC 9110 15.5]: https://www.rfc-editor.org/rfc/rfc9110#section-15.5
//! [RFC 9110 15.5.4]: https://www.rfc-editor.org/rfc/rfc9110#section-15.5.4
//! [RFC 9111 4.1]: https://www.rfc-editor.org/rfc/rfc9111#section-4.1
//! [RFC 9111 4.4]: https://www.rfc-editor.org/rfc/rfc9111#section-4.4
//! [RFC 9111 5.2.1]: https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1
//! [RFC 9111 5.2.2]: https://www.rfc-editor.org/rfc/rfc9111#section-5.2.2
//! [RFC 9112 6.1]: https://www.rfc-editor.org/rfc/rfc9112#section-6.1
//! [RFC 9112 6.3]: https://www.rfc-editor.org/rfc/rfc9112#section-6.3
//! [the HTML standard]: https://html.spec.whatwg.org/multipage/server-sent-events.html
//! [gRPC]: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md

mod directives;
mod fields;
mod length;
mod packing;
mod request;
mod response;
mod vary;

pub(crate) use directives::{is_tchar, tokens};
pub(crate) use fields::Fields;
pub(crate) use length::{correct_length, expected};
pub(crate) use packing::{copy, lengths, pack};
pub(crate) use request::{Bypass, Said, invalidates, is_safe};
pub use response::shareable;
pub(crate) use response::{copy_head, may_share, trailers_may_be_shared};
pub(crate) use vary::{Variant, Vary};
