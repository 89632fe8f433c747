//! Which requests may be coalesced and which responses may be shared: the rules of HTTP that this crate follows.
//!
//! [`shareable`] is the default policy of `share_when`; call it from a policy of your own to narrow or widen it. All
//! other rules apply whatever the policy returns. Everything here depends only on a message's head.
//!
//! | subject | rule | whence |
//! | --- | --- | --- |
//! | request | `CONNECT` makes its own call | [RFC 9110 9.3.6] |
//! | request | `Upgrade`, or `Connection: upgrade`, makes its own call, unless it offers nothing but `h2c` and `TLS/*`, which a server may ignore | [RFC 9110 7.8] |
//! | request | an `Accept` that names `text/event-stream` makes its own call, whatever its `q`: a subscription that waits for another's head loses events | [the HTML standard] |
//! | request | `Expect` makes its own call | [RFC 9110 10.1.1] |
//! | request | `Cache-Control: no-store` or `only-if-cached`, or one that cannot be parsed, makes its own call; `no-cache`, `max-age=0` and `Pragma` do not | [RFC 9111 5.2.1] |
//! | request | a GET or HEAD with a body makes its own call | [RFC 9110 9.3.1] |
//! | request | any method but GET and HEAD makes its own call, unless a key function of yours names a key for it, or [`coalesce`](crate::RequestKeyExtractor::coalesce) opts the method in and the whole body was read | [RFC 9110 9.2.1] |
//! | request | one whose trailers a key function of yours can't see makes its own call | [RFC 9110 6.5] |
//! | request | GET and HEAD never share a flight | [RFC 9110 9.3.2] |
//! | request | an unsafe method (any but GET, HEAD, OPTIONS, TRACE, QUERY, PROPFIND, REPORT and SEARCH) that `coalesce` does not opt in, answered by 2xx or 3xx ends the sharing of older flights of its URI, and of those that `Location` and `Content-Location` name on the same host | [RFC 9110 9.2.1], [RFC 9111 4.4] |
//! | request | for that, two spellings of one URI are one: percent-encodings, dot segments, the origin and the absolute form | [RFC 3986 6.2.2] |
//! | response | 1xx, and any answer to `CONNECT`, is its caller's alone | [RFC 9110 15.2] |
//! | response | `Vary: *`, or a `Vary` that cannot be parsed, is its caller's alone | [RFC 9110 12.5.5] |
//! | response | 403 to a request with `Authorization`, `Cookie` or `Proxy-Authorization` is its caller's alone; to one without it counts as if `Vary` also named these | [RFC 9110 15.5.4] |
//! | response | 403 and 451 count as if `Vary` also named the client's description and address: `User-Agent`, `Referer`, `Sec-Fetch-*`, `Sec-CH-*`, `Forwarded`, `X-Forwarded-For`, `X-Real-IP` and those of [`client_address_headers`](crate::RequestKeyExtractor::client_address_headers) | [RFC 9110 15.5.4], [RFC 7725] |
//! | response | a 3xx whose `Location` is the `Referer` of its request counts as if `Vary` also named `Referer` | [RFC 9110 10.2.2] |
//! | response | it goes to no request that differs in a field that `Vary` names | [RFC 9111 4.1] |
//! | response | 206, 304, 412 and 416 count as if `Vary` also named `Range`, `If-Range`, `If-Match`, `If-None-Match`, `If-Modified-Since` and `If-Unmodified-Since` | [RFC 9110 13.2], [RFC 9110 14.2] |
//! | response, default policy | not 400, 401, 402, 406, 407, 408, 409, 411, 413, 415, 417, 419, 421, 422, 423, 424, 425, 426, 428, 429, 431, 440, 494 to 499, 505, 511: each speaks of one client or one request | [RFC 9110 15.5], [RFC 6585], [RFC 8470] |
//! | response, default policy | not with `Set-Cookie`, `Set-Cookie2`, `Clear-Site-Data`, `WWW-Authenticate`, `Proxy-Authenticate`, `Authentication-Info`, `Proxy-Authentication-Info` or `Optional-WWW-Authenticate` | [RFC 6265 4.1], [RFC 9110 11.6], [RFC 8053 3] |
//! | response | trailers with one of those fields are the leader's alone: followers get the frames so far and then an error; where `Trailer` announces one, so is the response | [RFC 9110 6.5] |
//! | response, default policy | not with `no-store`, `private` or `no-cache` in `Cache-Control`, in any other `*-Cache-Control` (`CDN-Cache-Control`) or in `Surrogate-Control`, or one of these that cannot be parsed; not with `X-Accel-Expires: 0` | [RFC 9111 5.2.2], [RFC 9213], [nginx] |
//! | response, default policy | not `text/event-stream`, `multipart/x-mixed-replace` or `application/grpc*`: a stream made for one reader | [the HTML standard], [gRPC] |
//! | copy | it lacks `Connection`, what that names, `Keep-Alive`, `Proxy-Connection`, `TE`, `Transfer-Encoding` and `Upgrade` | [RFC 9110 7.6.1] |
//! | copy | `Content-Length` is the promise that its body must keep, save after HEAD, 204 and 304 | [RFC 9110 8.6] |
//! | every response | `Content-Length` is dropped beside `Transfer-Encoding`, where its values differ or are no numbers, and where the body is known to have another length | [RFC 9112 6.3] |
//! | response | a `Transfer-Encoding` other than `chunked` is its caller's alone: a copy could not name it | [RFC 9112 6.1] |
//!
//! A field that cannot be parsed counts as one that forbids sharing: an extra call costs less than a response in the
//! wrong hands.
//!
//! When a response may not be shared, the layer remembers its key for 60 seconds, or until a response for that key may
//! be shared; meanwhile requests with that key make their own calls at once. A status that concerns one client and not
//! the key does not count for that: 400, 408, 411, 413, 415, 417, 419, 421, 425, 426, 428, 429, 431, 440, 494 to 499,
//! 505 and 511, unless a field forbids sharing too. One client over its limit must not switch coalescing off for
//! everybody.
//!
//! [RFC 3986 6.2.2]: https://www.rfc-editor.org/rfc/rfc3986#section-6.2.2
//! [RFC 6265 4.1]: https://www.rfc-editor.org/rfc/rfc6265#section-4.1
//! [RFC 6585]: https://www.rfc-editor.org/rfc/rfc6585
//! [RFC 7725]: https://www.rfc-editor.org/rfc/rfc7725
//! [RFC 8053 3]: https://www.rfc-editor.org/rfc/rfc8053#section-3
//! [RFC 8470]: https://www.rfc-editor.org/rfc/rfc8470#section-5.2
//! [RFC 9110 6.5]: https://www.rfc-editor.org/rfc/rfc9110#section-6.5
//! [RFC 9110 7.6.1]: https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1
//! [RFC 9110 7.8]: https://www.rfc-editor.org/rfc/rfc9110#section-7.8
//! [RFC 9110 8.6]: https://www.rfc-editor.org/rfc/rfc9110#section-8.6
//! [RFC 9110 9.2.1]: https://www.rfc-editor.org/rfc/rfc9110#section-9.2.1
//! [RFC 9110 9.3.1]: https://www.rfc-editor.org/rfc/rfc9110#section-9.3.1
//! [RFC 9110 9.3.2]: https://www.rfc-editor.org/rfc/rfc9110#section-9.3.2
//! [RFC 9110 9.3.6]: https://www.rfc-editor.org/rfc/rfc9110#section-9.3.6
//! [RFC 9110 10.2.2]: https://www.rfc-editor.org/rfc/rfc9110#section-10.2.2
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
//! [RFC 9213]: https://www.rfc-editor.org/rfc/rfc9213
//! [nginx]: https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_cache_valid
//! [the HTML standard]: https://html.spec.whatwg.org/multipage/server-sent-events.html
//! [gRPC]: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md

// | file | what it holds |
// | --- | --- |
// | `request` | which requests make their own call |
// | `request_field` | the request fields that the key and the rules tell apart |
// | `response` | which responses may be shared |
// | `vary` | which requests a response is for: `Vary`, and what counts as if it named more |
// | `length` | `Content-Length`, and what a body promises |
// | `client_fields` | the fields that describe a client or hold its address |
// | `directives` | lists in fields: `Cache-Control`, and plain tokens |
// | `fields`, `packing` | a copy of fields, for comparison |
mod client_fields;
mod directives;
mod fields;
mod length;
mod packing;
mod request;
mod request_field;
mod response;
mod vary;

pub(crate) use client_fields::CLIENT_ADDRESS;
pub(crate) use directives::{is_tchar, members, tokens};
pub(crate) use fields::{Fields, Lines};
pub(crate) use length::{correct_length, decimal, expected};
pub(crate) use packing::{copy, lengths, pack};
pub(crate) use request::{Bypass, RequestFields, has_credentials, invalidates, is_safe};
pub(crate) use request_field::RequestField;
pub use response::shareable;
pub(crate) use response::{copy_head, marks_key_unshareable, may_share, trailers_may_be_shared};
pub(crate) use vary::{Variant, varies_by};
