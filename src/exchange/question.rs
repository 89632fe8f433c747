//! A request that may be coalesced: its key, and what else its head says.

use http::{Method, request};
use http_body::Body;

use crate::{
    buffer_body::Trailers,
    flights::Shared,
    key::{KeyExtractor, Marks},
    rules::{Bypass, Said},
};

pub(crate) struct Question<K> {
    pub(crate) key: K,
    pub(crate) has_credentials: bool,
    /// What is known of the fields in which an identical request may differ.
    pub(crate) marks: Marks,
}

// ===== impl Question =====

impl<K> Question<K> {
    /// `Err`: why the request must make its own call.
    pub(crate) fn of<X, B>(
        shared: &Shared<X>,
        request: &request::Parts,
        body: &B,
    ) -> Result<Self, Bypass>
    where
        X: KeyExtractor<Key = K>,
        B: Body,
    {
        if !shared.flights.is_enabled() {
            return Err(Bypass::Disabled);
        }
        let has_body = |said: &Said| said.has_body(body.is_end_stream(), body.size_hint().exact());
        let mut marks = Marks::default();
        let mut said = Said::default();
        // The default key is made in the pass in which the rules look at the fields.
        let default = match shared.default_key() {
            Some(default) if !default.coalesces(request) => {
                return Err(if default.opts_in(&request.method) {
                    Bypass::Body
                } else {
                    Bypass::Method
                });
            }
            Some(default) => Some(default.read(request, |name, value, may_differ| {
                said.note(name, value);
                marks.push(may_differ);
            })),
            None => {
                said = Said::by(&request.headers);
                None
            }
        };
        let is_default = default.is_some();
        if let Some(bypass) = said.bypass(&request.method, has_body(&said)) {
            return Err(bypass);
        }
        let key = match default {
            Some(key) => shared.extractor.complete(key, request),
            // A key that knows nothing of them may have left them out.
            None if Trailers::of(request).is_some() => return Err(Bypass::Body),
            None => shared.extractor.extract(request),
        };
        match key {
            Some(key) => Ok(Self {
                key,
                has_credentials: said.credentials,
                marks,
            }),
            None if is_default || matches!(request.method, Method::GET | Method::HEAD) => {
                Err(Bypass::NoKey)
            }
            None => Err(Bypass::Method),
        }
    }
}
