//! A request that may be coalesced: its key, and what else we need of its head.

use http::{Method, request};
use http_body::Body;

use crate::{
    buffer_body::Trailers,
    key::KeyExtractor,
    rules::{Bypass, Lines, RequestField, RequestFields},
    shared::Shared,
};

pub(crate) struct Identity<K> {
    pub(crate) key: K,
    pub(crate) has_credentials: bool,
    /// The field lines in which an identical request may differ: for `Vary`.
    pub(crate) differing: Lines,
}

// ===== impl Identity =====

impl<K> Identity<K> {
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
        let mut differing = Lines::default();
        let mut fields = RequestFields::default();
        // One pass over the fields makes the default key and collects what the rules need.
        let default = match shared.default_key() {
            Some(default) if !default.coalesces(request) => {
                return Err(if default.opts_in(&request.method) {
                    Bypass::Body
                } else {
                    Bypass::Method
                });
            }
            Some(default) => Some(default.read(request, |field, value, differs| {
                fields.note(field, value);
                differing.add(differs);
            })),
            None => {
                for (name, value) in &request.headers {
                    fields.note(RequestField::of(name.as_str()), value);
                    differing.add(true);
                }
                None
            }
        };
        let has_body = fields.has_body(body.is_end_stream(), body.size_hint().exact());
        let is_default = default.is_some();
        if let Some(bypass) = fields.bypass(&request.method, has_body) {
            return Err(bypass);
        }
        let key = match default {
            Some(key) => shared.extractor.complete(key, request),
            // A key function that can't see them has left them out.
            None if Trailers::of(request).is_some() => return Err(Bypass::Body),
            None => shared.extractor.extract(request),
        };
        match key {
            Some(key) => Ok(Self {
                key,
                has_credentials: fields.credentials,
                differing,
            }),
            None if is_default || matches!(request.method, Method::GET | Method::HEAD) => {
                Err(Bypass::NoKey)
            }
            None => Err(Bypass::Method),
        }
    }
}
